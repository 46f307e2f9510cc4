"""Removing containers once, side by side, without a daemon."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from controller.host.ports import EventLog, Host
from controller.model.resource import name_of
from controller.model.space import VOLUME_SORT, Space, SpaceChange
from controller.model.status import Condition
from controller.reconcile.reconciler import Reconciler
from controller.report import narrate

POLL_MS = 5
WORKERS = 4


def deny_grace(names: Collection[str], host: Host) -> None:
    """From now on their stop is a kill, also of those that are being stopped."""
    for record in filter(None, map(host.records.read, names)):
        stop = replace(record.stop, grace_ms=0)
        host.records.write(replace(record, stop=stop, kill_at=min(record.kill_at, host.clock.now_ms())))


def set_rules(keys: Collection[str], host: Host, *, keep: bool) -> None:
    """Whether these volumes stay when they are removed: an explicit word, whatever their files say."""
    for key in keys:
        space = Space(VOLUME_SORT, name_of(key))
        live = host.spaces.look(space)
        if live and live.exists and live.keep != keep:
            host.spaces.change(space, SpaceChange(keep=keep))


def take_down(
    names: Collection[str], reconciler: Reconciler, host: Host, told: EventLog, *, deadline_ms: int
) -> dict[str, tuple[Condition, ...]]:
    """Remove all of them side by side; → name → conditions of what is still there at the deadline."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  which no other command waits for

    until = host.clock.now_ms() + deadline_ms
    left: dict[str, tuple[Condition, ...]] = dict.fromkeys(names, ())
    with ThreadPoolExecutor(WORKERS) as workers:
        while left:
            for result in workers.map(reconciler.remove, list(left)):
                for event in narrate.events(result, edited=True, at=host.clock.wall_ms()):
                    told.event(event)
                left[result.container] = result.conditions
                if result.gone:
                    del left[result.container]
            if host.clock.now_ms() > until:
                break
            if left:
                host.clock.sleep_ms(POLL_MS)
    return left
