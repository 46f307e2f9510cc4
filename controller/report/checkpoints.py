"""Checkpoints as people and programs read them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from controller.model.checkpoint import Checkpoint
from controller.model.names import printable
from controller.model.quantity import about_bytes
from controller.report.table import table


def checkpoint_json(found: Checkpoint) -> dict[str, Any]:
    """The stable shape; more keys may come, none will go. `createdAt`: milliseconds since 1970; sizes in bytes."""
    origin = found.origin
    return {
        "id": found.id,
        "container": found.container,
        "createdAt": origin.created_ms if origin else None,
        "how": origin.how if origin else None,
        "size": found.size,
        "stored": found.stored,
        "frozenMs": origin.frozen_ms if origin else None,
        "encrypted": bool(found.key),
        "damage": found.damage or None,
    }


def stored(size: int, new: int) -> str:
    """Of one that was just made."""
    return f"{about_bytes(size, up=False)}, {about_bytes(new, up=False)} new in the store"


def checkpoints_text(found: Iterable[Checkpoint], now_ms: int) -> str:
    """A table, newest last."""
    rows = [("CHECKPOINT", "CONTAINER", "AGE", "SIZE", "STORED", "FROZEN", "HOW", "STATE")]
    rows += [_row(each, now_ms) for each in found]
    return "".join(line + "\n" for line in table(rows))


def _row(each: Checkpoint, now_ms: int) -> tuple[str, str, str, str, str, str, str, str]:
    origin = each.origin
    state = printable(f"damaged: {each.damage}") if each.damage else "whole"
    if origin is None:
        return (each.id, "-", "-", "-", "-", "-", "-", state)
    amounts = about_bytes(each.size, up=False), about_bytes(each.stored, up=False)
    frozen = f"{origin.frozen_ms} ms" if origin.frozen_ms else "-"
    return (each.id, each.container, age(now_ms - origin.created_ms), *amounts, frozen, origin.how, state)


def age(milliseconds: int) -> str:
    """Pure. In its largest unit; a clock that was set back makes nothing older than now."""
    seconds = max(0, milliseconds // 1000)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def when(milliseconds: int) -> str:
    """Pure but for the zone: ISO 8601 with the host's offset."""
    return datetime.fromtimestamp(milliseconds / 1000).astimezone().isoformat(timespec="milliseconds")
