"""What the step from one desired set to another means for each container, on no host in particular. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.frozen import dataclass
from controller.model.attachment import Leases
from controller.model.facts import USED_SUBSYSTEMS, Facts, Hierarchy
from controller.model.resource import CONTAINER, Resource
from controller.reconcile.desired import Desired, Named, desire, resolve
from controller.steps._base import Effect

ABSENT = object()
NAMED = Named("default", "/run/masu/default/names", "/var/lib/masu/default/spaces")
AMPLE = Facts(
    hierarchies=(Hierarchy("/sys/fs/cgroup", 2, ("core", *USED_SUBSYSTEMS)),),
    page_size=4096,
    cpus=frozenset(range(4096)),
    mems=frozenset(range(64)),
    kernel="6.12",
    machine="x86_64",
    boot_id="",
    swap_limits=True,
    memory_total=1 << 50,
    swap_total=1 << 50,
    tasks_total=1 << 22,
    pressure=True,
    pressure_window_ms=1,
    huge_pages=frozenset({1 << 21, 1 << 30}),
)
"""A host that can do everything: what the real one lacks is said by a plan there."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One value of a document; `old` and `new` are JSON values, ABSENT where nothing is written."""

    path: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Change:
    """Of one key. No edits: something that it uses has changed."""

    key: str
    effect: Effect
    edits: tuple[Edit, ...] = ()


def compare(before: Mapping[str, Resource], after: Mapping[str, Resource]) -> tuple[Change, ...]:
    """By key, containers first. What another document does to a container is told where it ends its processes."""
    old, leases = _desired(before, {})
    new, _ = _desired(after, leases)
    changes = []
    for key in sorted({*before, *after}, key=lambda each: ("/" in each, each)):
        edits = tuple(_edits(before.get(key), after.get(key)))
        effect = _effect(key, before, after, old.get(key), new.get(key), edited=bool(edits))
        if effect is not Effect.NONE:
            changes.append(Change(key, effect, edits))
    return tuple(changes)


def _desired(resources: Mapping[str, Resource], leases: Leases) -> tuple[dict[str, Desired], Leases]:
    """With the addresses that were given before, as on a host."""
    wishes, given = resolve(NAMED, resources, leases, ())
    return {key: desire(wish, AMPLE) for key, wish in wishes.items() if wish.kind == CONTAINER}, given


def _effect(
    key: str,
    before: Mapping[str, Resource],
    after: Mapping[str, Resource],
    old: Desired | None,
    new: Desired | None,
    *,
    edited: bool,
) -> Effect:
    if key not in before:
        return Effect.CREATE
    if key not in after:
        return Effect.DELETE
    if old and new and old.frame.frame_digest != new.frame.frame_digest:
        return Effect.RECREATE
    if old and new and old.frame.digest != new.frame.digest:
        return Effect.RESTART
    return Effect.LIVE if edited else Effect.NONE


def _edits(before: Resource | None, after: Resource | None) -> Iterator[Edit]:
    """Of what is there on both sides."""
    if before and after:
        yield from _differences("metadata.labels", before.labels, after.labels)
        yield from _differences("", before.spec, after.spec)


def _differences(path: str, old: Any, new: Any) -> Iterator[Edit]:
    """Maps key by key; anything else, lists too, as a whole."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            here = f"{path}.{key}" if path else key
            yield from _differences(here, old.get(key, ABSENT), new.get(key, ABSENT))
    elif old != new or type(old) is not type(new):
        yield Edit(path, old, new)
