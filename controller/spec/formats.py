"""The schemas' own `format`s: each agrees with the `pattern` beside it, checks more, and explains. Pure.

A check takes any JSON value, passes over what is not its type, and raises ValueError with the message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from controller.checkpoints import policy, schedule
from controller.model import addresses, quantity
from controller.model.image import parse_reference
from controller.model.names import check_host_path, check_name, quote, suggest
from controller.model.secret import SEALED
from controller.model.signals import NUMBERS, signal_number

LARGEST_ID = (1 << 32) - 2
"""(uid_t) -1 means "no change" (setreuid(2))."""
LEAST_CPU = 10
"""Thousandths; the kernel gives at least 1 ms in each period of 100 ms (sched-bwc.rst)."""
LARGEST_LIMIT = (1 << 63) - 1

_BASE64 = re.compile(r"[A-Za-z0-9+/=]*")
_SIGNAL = re.compile(r"[0-9]{1,2}|(?:SIG)?(?:[A-Z]+[0-9]*|RTMIN\+[0-9]{1,2})")


def _text_only(check: Callable[[str], object]) -> Callable[[Any], bool]:
    def checked(value: Any) -> bool:
        if isinstance(value, str):
            check(value)
        return True

    return checked


def _scalar(check: Callable[[str], object]) -> Callable[[Any], bool]:
    def checked(value: Any) -> bool:
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            check(str(value))
        return True

    return checked


def _or_max(check: Callable[[str], object]) -> Callable[[str], object]:
    def checked(text: str) -> object:
        return None if text == "max" else check(text)

    return checked


def _cpu(text: str) -> None:
    if quantity.parse_cpu(text) < LEAST_CPU:
        raise ValueError(f"{quote(text)} is too little: the kernel gives no less than {LEAST_CPU}m")


def _signed_duration(text: str) -> None:
    quantity.parse_duration(text.removeprefix("-"))


def _target(text: str) -> None:
    if quantity.parse_duration(text) == 0:
        raise ValueError(f"{quote(text)} is no target: write max for none")


def _user(text: str) -> None:
    user, colon, group = text.partition(":")
    for each in (user, group) if colon else (user,):
        if not (each.isascii() and each.isdigit() and len(each) <= 10):
            raise ValueError(f'{quote(text)} is not a user: use numbers, as "1000" or "1000:1000"')
        if int(each) > LARGEST_ID:
            raise ValueError(f"{quote(text)} is not a user: ids end at {LARGEST_ID}")


def _signal(text: str) -> None:
    try:
        fits = _SIGNAL.fullmatch(text) is not None and 1 <= signal_number(text) <= 64
    except ValueError:
        fits = False
    if not fits:
        close = suggest(text.upper().removeprefix("SIG"), NUMBERS)
        meant = (
            f', did you mean "{close}"?' if close else ": use TERM, INT, HUP, USR1 or RTMIN+3, for example"
        )
        raise ValueError(f"{quote(text)} is not a signal{meant}")


def _rlimit(value: Any) -> bool:
    if isinstance(value, Mapping):
        soft, hard = _ceiling(value.get("soft")), _ceiling(value.get("hard"))
        if soft is not None and hard is not None and soft > hard:
            raise ValueError(f"soft is above hard: {value['soft']} > {value['hard']}")
    elif isinstance(value, (str, int)) and not isinstance(value, bool) and _ceiling(value) is None:
        raise ValueError(
            f"{quote(str(value))} is not a limit: use a whole number, unlimited, or {{soft, hard}}"
        )
    return True


def _ceiling(value: Any) -> float | None:
    if isinstance(value, str) and value in {"unlimited", "max"}:
        return float("inf")
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value <= LARGEST_LIMIT else None


def _sealed(text: str) -> None:
    lines = text.removesuffix("\n").split("\n")
    last = SEALED.replace("BEGIN", "END")
    if lines[0].startswith("age:"):
        raise ValueError(
            "its first line is age: | again, which masu seal has printed, too: it stands there once"
        )
    if lines[0] != SEALED:
        raise ValueError(
            f"its first line is not {SEALED}: write what masu seal says after |, line below line"
        )
    if lines[-1] != last:
        raise ValueError(f"its last line is not {last}")
    for number, line in enumerate(lines[1:-1], 2):
        if not _BASE64.fullmatch(line):
            raise ValueError(f"its line {number} is not base64")
    if not any(lines[1:-1]):
        raise ValueError("there is nothing between its first line and its last")


FORMATS: Mapping[str, Callable[[Any], bool]] = {
    "masu-name": _text_only(check_name),
    "masu-path": _text_only(check_host_path),
    "masu-bytes": _scalar(quantity.parse_bytes),
    "masu-bytes-or-max": _scalar(_or_max(quantity.parse_bytes)),
    "masu-cpu": _scalar(quantity.parse_cpu),
    "masu-cpu-or-max": _scalar(_or_max(_cpu)),
    "masu-cpu-list": _scalar(quantity.parse_cpu_list),
    "masu-duration": _scalar(quantity.parse_duration),
    "masu-target": _text_only(_or_max(_target)),
    "masu-signed-duration": _scalar(_signed_duration),
    "masu-stall": _text_only(quantity.parse_stall),
    "masu-user": _scalar(_user),
    "masu-signal": _scalar(_signal),
    "masu-rlimit": _rlimit,
    "masu-byte-rate-or-max": _text_only(_or_max(quantity.parse_byte_rate)),
    "masu-rate": _text_only(quantity.parse_rate),
    "masu-subnet": _text_only(addresses.parse_subnet),
    "masu-address": _text_only(addresses.parse_address),
    "masu-interface": _text_only(addresses.parse_interface),
    "masu-destination": _text_only(addresses.parse_destination),
    "masu-mac": _text_only(addresses.parse_mac),
    "masu-published": _text_only(addresses.parse_published),
    "masu-cron": _text_only(schedule.parse_cron),
    "masu-quiet": _text_only(schedule.parse_window),
    "masu-checkpoint": _text_only(policy.check_id),
    "masu-image": _text_only(parse_reference),
    "masu-sealed": _text_only(_sealed),
    "masu-ports": _scalar(addresses.parse_ports),
}
