"""Amounts as people write them: bytes, rates, cpus, durations and lists, to whole numbers and back. Pure.

Nothing is guessed: text with two possible meanings ("256Mb") is a ValueError that names both.
Source for bytes and cpus: Kubernetes, apimachinery/pkg/api/resource/quantity.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from math import ceil

from controller.model.names import quote

BYTES = {
    "Ei": 1 << 60,
    "E": 10**18,
    "Pi": 1 << 50,
    "P": 10**15,
    "Ti": 1 << 40,
    "T": 10**12,
    "Gi": 1 << 30,
    "G": 10**9,
    "Mi": 1 << 20,
    "M": 10**6,
    "Ki": 1 << 10,
    "k": 1000,
}
"""Suffix → bytes, largest first."""
BINARY = {suffix: size for suffix, size in BYTES.items() if suffix.endswith("i")}
MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
"""Unit → milliseconds, largest first."""

BITS = {"Tbit": 10**12, "Gbit": 10**9, "Mbit": 10**6, "kbit": 1000, "bit": 1}
"""Unit → bits per second, largest first."""

LONGEST_TEXT = 40
MOST_BYTES = (1 << 63) - 1
MOST_CPUS = 100_000
LEAST_BITS, MOST_BITS = 8_000, 10**12
"""The traffic shapers of the kernel count in bytes; less than a packet a second is no rate."""
LEAST_BYTES_PER_S = 512
"""Less than a sector a second is no rate."""
MOST_MS = 36_500 * MILLISECONDS["d"]
LEAST_WINDOW_MS, MOST_WINDOW_MS = 500, 10_000
MOST_CPU_NUMBER = 8191
"""CONFIG_NR_CPUS is at most 8192."""
LONGEST_LIST = 4096

_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_BYTES = re.compile(rf"({_NUMBER})(?:({'|'.join(BYTES)})|[eE]([-+]?[0-9]{{1,2}}))?")
_BYTES_MEANT = re.compile(rf"({_NUMBER}) *(k|m|g|t|p|e)(i?)(?:b|bytes?)?", re.IGNORECASE)
_BYTE_RATE = re.compile(rf"({_NUMBER})({'|'.join(BYTES)})?/s")
_RATE = re.compile(rf"({_NUMBER})(?:({'|'.join(BITS)})|({'|'.join(BYTES)})?/s)")
_RATE_MEANT = re.compile(rf"({_NUMBER}) *([kmgt])(?:b|bit|bits|ib)?(?:ps|/s)?", re.IGNORECASE)
_CPU = re.compile(rf"({_NUMBER})(m?)")
_DURATION = re.compile("".join(rf"(?:({_NUMBER}){unit})?" for unit in MILLISECONDS))
_CPU_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


def parse_bytes(value: str | float) -> int:
    """Bytes of "256Mi", "0.5Gi", "1e3" or 4096, a fraction of a byte rounded up as Kubernetes does.

    "max" is the caller's. Raises ValueError for anything else, negative or above 2^63-1.
    """
    text = str(value)
    found = _fits(_BYTES, text)
    if not found:
        raise ValueError(f"{quote(text)} is not a quantity: {_bytes_meant(text)}")
    number, suffix, exponent = found.groups()
    amount = Fraction(number) * (BYTES[suffix] if suffix else Fraction(10) ** int(exponent or 0))
    if not suffix and amount.denominator != 1:
        raise ValueError(f"{quote(text)} is not a whole number of bytes")
    if amount > MOST_BYTES:
        raise ValueError(f"{quote(text)} is too much: at most 7.99Ei")
    return ceil(amount)


def format_bytes(amount: int) -> str:
    """The shortest exact form without a fraction: 268435456 → "256Mi", 256000000 → "256M", 1001 → "1001"."""
    forms = [f"{amount // size}{suffix}" for suffix, size in BYTES.items() if amount and amount % size == 0]
    return min([*forms, str(amount)], key=len)


def about_bytes(amount: int, *, up: bool) -> str:
    """With one decimal at most, rounded up or down, for people: 7700000000 → "7.2Gi" rounded up, "7.1Gi" down."""
    unit, size = next((each for each in BINARY.items() if amount >= each[1]), ("", 1))
    tenths = -(-amount * 10 // size) if up else amount * 10 // size
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth}{unit}" if tenth else f"{whole}{unit}"


def format_cpu(thousandths: int) -> str:
    """1500 → "1.5", 2000 → "2"."""
    return f"{thousandths / 1000:g}"


def parse_rate(text: str) -> int:
    """Bits per second of "100Mbit", "1.5Gbit" or "20Mi/s", which is bytes. Raises ValueError.

    Units of bits are powers of 1000, as tc(8) has them.
    """
    found = _fits(_RATE, text)
    if not found:
        raise ValueError(f"{quote(text)} is not a rate: {_rate_meant(text)}")
    number, bits, size = found.groups()
    amount = Fraction(number) * (BITS[bits] if bits else 8 * BYTES.get(size, 1))
    if amount < LEAST_BITS:
        raise ValueError(f"{quote(text)} is too little: at least {LEAST_BITS // 1000}kbit")
    if amount > MOST_BITS:
        raise ValueError(f"{quote(text)} is too much: at most {MOST_BITS // 10**12}Tbit")
    return int(amount)


def format_rate(bits: int) -> str:
    """100000000 → "100Mbit"."""
    units = (each for each in BITS.items() if bits % each[1] == 0 and bits >= each[1])
    unit, size = next(units, ("bit", 1))
    return f"{bits // size}{unit}"


def parse_byte_rate(text: str) -> int:
    """Bytes per second of "50Mi/s", rounded up. Raises ValueError."""
    found = _fits(_BYTE_RATE, text)
    if not found:
        raise ValueError(f"{quote(text)} is not a rate of bytes: {_byte_rate_meant(text)}")
    amount = ceil(Fraction(found[1]) * BYTES.get(found[2], 1))
    if amount < LEAST_BYTES_PER_S:
        raise ValueError(f"{quote(text)} is too little: at least {LEAST_BYTES_PER_S}/s")
    if amount > MOST_BYTES:
        raise ValueError(f"{quote(text)} is too much: write max for no limit")
    return amount


def parse_cpu(value: str | float) -> int:
    """Thousandths of a cpu: "1.5" → 1500, "500m" → 500, 2 → 2000. Raises ValueError."""
    text = str(value)
    found = _fits(_CPU, text)
    if not found:
        raise ValueError(f'{quote(text)} is not a number of cpus: use for example "1.5" or "1500m"')
    number, milli = found.groups()
    amount = Fraction(number) * (1 if milli else 1000)
    if amount.denominator != 1:
        raise ValueError(f"{quote(text)} is finer than a thousandth of a cpu")
    if amount > MOST_CPUS * 1000:
        raise ValueError(f"{quote(text)} is too much: at most {MOST_CPUS} cpus")
    return int(amount)


@lru_cache(256)  # most containers say the same few
def parse_duration(value: str | int) -> int:
    """Milliseconds of "200ms", "10s", "1h30m", "10d" or "0". Raises ValueError, also for a missing unit."""
    text = str(value)
    if text == "0":
        return 0
    found = _fits(_DURATION, text)
    if not text or not found:
        raise ValueError(f"{quote(text)} is not a duration: {_duration_meant(text)}")
    parts = zip(found.groups(), MILLISECONDS.values(), strict=True)
    amount = sum(Fraction(number) * size for number, size in parts if number)
    if amount > MOST_MS:
        raise ValueError(f"{quote(text)} is too long: at most {MOST_MS // MILLISECONDS['d']}d")
    if Fraction(amount).denominator != 1:
        raise ValueError(f"{quote(text)} is finer than a millisecond")
    return int(amount)


def parse_stall(text: str) -> tuple[int, int]:
    """(stall, window) of "150ms/1s", in milliseconds. Raises ValueError.

    The kernel takes windows from 500 ms to 10 s, and no stall above the window (kernel/sched/psi.c).
    """
    stalled, slash, whole = text.partition("/")
    if not slash:
        raise ValueError(f"{quote(text)} has no window: use for example 150ms/1s")
    stall, window = parse_duration(stalled), parse_duration(whole)
    if not LEAST_WINDOW_MS <= window <= MOST_WINDOW_MS:
        raise ValueError(f"{quote(text)}: the window is from 500ms to 10s long")
    if not 0 < stall <= window:
        raise ValueError(f"{quote(text)}: the stall is above 0 and at most as long as the window")
    return stall, window


def format_duration(milliseconds: int) -> str:
    """5400000 → "1h30m", 200 → "200ms", 0 → "0s"."""
    if milliseconds < 0:
        return "-" + format_duration(-milliseconds)
    parts, rest = [], milliseconds
    for unit, size in MILLISECONDS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_cpu_list(text: str) -> frozenset[int]:
    """Numbers of "0-1,3", a list as in cpuset(7), "Formats". Raises ValueError, also for an empty list."""
    numbers: set[int] = set()
    for part in text.split(",") if len(text) <= LONGEST_LIST else [""]:
        found = _CPU_RANGE.fullmatch(part)
        if not found:
            raise ValueError(f'{quote(text)} is not a list of numbers: use for example "0-1,3"')
        first, last = int(found[1]), int(found[2] or found[1])
        if first > last or last > MOST_CPU_NUMBER:
            why = "ends before it begins" if first > last else f"goes beyond {MOST_CPU_NUMBER}"
            raise ValueError(f"{quote(text)}: {part} {why}")
        numbers.update(range(first, last + 1))
    return frozenset(numbers)


def format_cpu_list(numbers: Iterable[int]) -> str:
    """{0, 1, 3} → "0-1,3", as the kernel prints it; "" for none."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _fits(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Short first: a number of a million digits is nobody's limit, and slow to read."""
    return pattern.fullmatch(text) if len(text) <= LONGEST_TEXT else None


def _bytes_meant(text: str) -> str:
    if text.startswith("-"):
        return "it is below zero"
    found = _fits(_BYTES_MEANT, text.strip())
    if not found:
        return "use for example 256Mi (1024) or 256M (1000)"
    number, letter, binary = found.groups()
    two = f"{number}{letter.upper()}i"
    one = f"{number}{'k' if letter in 'kK' else letter.upper()}"
    return f"use {two}" if binary else f"use {one} or {two}"


def _rate_meant(text: str) -> str:
    found = _fits(_RATE_MEANT, text.strip())
    if not found:
        return "use for example 100Mbit (bits) or 20Mi/s (bytes)"
    number, letter = found.groups()
    return f"use {number}{'k' if letter in 'kK' else letter.upper()}bit, or {number}{letter.upper()}i/s for bytes"


def _byte_rate_meant(text: str) -> str:
    found = _fits(_BYTES_MEANT, text.strip().removesuffix("ps").removesuffix("/s"))
    if not found:
        return "use for example 50Mi/s (1024) or 50M/s (1000)"
    number, letter, binary = found.groups()
    two = f"{number}{letter.upper()}i/s"
    one = f"{number}{'k' if letter in 'kK' else letter.upper()}/s"
    return f"use {two}" if binary else f"use {one} or {two}"


def _duration_meant(text: str) -> str:
    if _fits(re.compile(_NUMBER), text):
        return f"it has no unit: use {text}s or {text}ms"
    return "use for example 200ms, 10s, 1h30m or 10d, the largest unit first"
