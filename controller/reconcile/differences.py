"""What a checkpoint's processes were made with, and the spec has otherwise now: in words, by its keys. Pure.

Of variables and of what is mounted only the names are told: a value may be a secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from controller.model.frame import Frame, without_secrets

LONGEST = 100
SHOWN = ("args", "cwd", "user")
"""Of `process`, what nobody keeps secrets in: it is in plain sight in /proc, too."""
_KINDS = {"network": "net"}
_IMPLIED = frozenset({"/sys", "/dev/mqueue"})
"""Which follow from namespaces, and are told with them."""
_GIVEN = frozenset({"/etc/hosts", "/etc/resolv.conf", "/etc/hostname"})
"""Where an instance mounts what it keeps itself, wherever that is."""


def differences(then: Mapping[str, Any], rootfs: str, now: Frame) -> tuple[str, ...]:
    """`then`: the bundle config, without secrets; empty: it is not known. `rootfs`: what was below the layer."""
    if not then:
        return ()
    config = json.loads(json.dumps(without_secrets(now.config)))  # with lists for tuples, as it was stored
    return (
        *_rootfs(then, rootfs, config, now.rootfs),
        *_process(_part(then, "process"), _part(config, "process")),
        *_namespaces(_part(then, "linux"), _part(config, "linux")),
        *_mounts(then.get("mounts"), config.get("mounts")),
    )


def _rootfs(then: Mapping[str, Any], before: str, now: Mapping[str, Any], after: str) -> Iterator[str]:
    if before and before != after:
        yield _change("rootfs", before, after)
    if _part(then, "root").get("readonly") != _part(now, "root").get("readonly"):
        yield "rootfs.writable differs"


def _process(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*then, *now} - {"env", "terminal"}):
        if then.get(key) != now.get(key):
            known = key in SHOWN and key in then
            yield _change(f"process.{key}", then[key], now.get(key)) if known else f"process.{key} differs"
    before, after = _variables(then.get("env")), _variables(now.get("env"))
    yield from _names("process.env", before, after)


def _namespaces(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    before, after = _spaces(then.get("namespaces")), _spaces(now.get("namespaces"))
    for kind in sorted({*before, *after}):
        was, is_ = before.get(kind, "host"), after.get(kind, "host")
        if was != is_:
            yield f"namespaces.{_KINDS.get(kind, kind)}: {was} → {is_}"
    for key in sorted({*then, *now} & {"seccomp", "maskedPaths", "readonlyPaths"}):
        if then.get(key) != now.get(key):
            yield f"process.{key} differs"


def _mounts(then: Any, now: Any) -> Iterator[str]:
    yield from _names("mounts", _targets(then), _targets(now))


def _names(where: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        if name not in after:
            yield f"{where}: {name} is gone"
        elif name not in before:
            yield f"{where}: {name} is new"
        elif before[name] != after[name]:
            yield f"{where}: {name} differs"


def _variables(env: Any) -> dict[str, str]:
    found = (each.partition("=") for each in _list(env) if isinstance(each, str))
    return {name: value for name, _, value in found}


def _spaces(entries: Any) -> dict[str, str]:
    found = {str(each.get("type")): each.get("partner") for each in _maps(entries)}
    return {kind: f"container:{partner}" if partner else "private" for kind, partner in found.items()}


def _targets(entries: Any) -> dict[str, Any]:
    """Without where this instance keeps what is its own."""
    return {
        str(each.get("destination")): {
            key: value
            for key, value in each.items()
            if key != "source" or not ("volume" in each or each.get("destination") in _GIVEN)
        }
        for each in _maps(entries)
        if each.get("destination") not in _IMPLIED
    }


def _change(key: str, before: Any, after: Any) -> str:
    return f"{key}: {_shown(before)} → {_shown(after)}"


def _shown(value: Any) -> str:
    """On one line, shortened in the middle."""
    text = value if isinstance(value, str) and value.isprintable() else json.dumps(value, ensure_ascii=False)
    text = "".join(each if each.isprintable() else "?" for each in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _maps(value: Any) -> Iterable[Mapping[str, Any]]:
    return (each for each in _list(value) if isinstance(each, dict))
