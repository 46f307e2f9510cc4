"""What a checkpoint cost the container, in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from controller.frozen import dataclass
from controller.model.checkpoint import TreeCopy
from controller.model.dump import Dumped
from controller.model.launch import Init
from controller.model.quantity import about_bytes


@dataclass(frozen=True, slots=True)
class Ahead:
    """What came of a pre-dump of `init` and its processes. `frozen_us`: how long they stood still for it. `failed`:
    why there is none, or why it was of no use."""

    init: Init
    frozen_us: int = 0
    failed: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Ahead:
        return cls(Init(**value["init"]), value["frozen_us"], value["failed"])


def cost(dumped: Dumped, copied: Sequence[TreeCopy]) -> str:
    """Pure. What the standstill was for, in words."""
    frozen = f"frozen for {round(dumped.frozen_us / 1000)} ms"
    if dumped.thawed:
        frozen += " (its cgroup was frozen by somebody else meanwhile, and was thawed)"
    if not copied:
        return frozen
    ways = {"copied": sum(each.copied for each in copied), "shared": sum(each.cloned for each in copied)}
    amounts = ", ".join(f"{about_bytes(amount, up=False)} {way}" for way, amount in ways.items() if amount)
    took_ms = sum(each.took_ms for each in copied)
    return f"{frozen}, {took_ms} ms of it for files ({amounts or 'none'})"


def saved(dumped: Dumped, ahead: Ahead | None, page_size: int) -> str:
    """Pure. What the pre-dump was good for, in words; empty when there was none."""
    if ahead is None:
        return ""
    if ahead.failed:
        return f"pre-dump failed: {ahead.failed}"
    written, inherited = (
        about_bytes(each * page_size, up=False) for each in (dumped.pages_written, dumped.pages_inherited)
    )
    before = f"{inherited} ahead (frozen for {round(ahead.frozen_us / 1000)} ms more)"
    return f"of its memory {written} dumped then, {before}"
