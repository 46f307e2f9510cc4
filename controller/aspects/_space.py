"""What a container's layer and a volume have in common where they have a size: one diff for both. Pure.

`prefix` is what the keys of the space begin with: "rootfs." or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.quantity import format_bytes
from controller.model.space import (
    BTRFS_QGROUP,
    LOOP_IMAGE,
    PROJECT_QUOTA,
    VOLUME_SORT,
    NewSpace,
    Offer,
    Space,
    SpaceSeen,
)
from controller.model.status import HOST_LACKS, LIMITED, Condition, Drift
from controller.steps._base import Effect, Step
from controller.steps.spaces import (
    ABSENT,
    GrowSpace,
    MakeSpace,
    MountSpace,
    RemoveSpace,
    SetSpaceOwner,
    SetSpaceRule,
    UnmountSpace,
)

NOT_MOUNTED = "not mounted"


@dataclass(frozen=True, slots=True)
class Wanted:
    """`owner`: None where it is not written. `means`: what making it is for whoever uses it.

    `host_users`: containers in the host's user namespace that may write to it.
    """

    prefix: str
    size: int
    keep: bool = False
    owner: tuple[int, int] | None = None
    means: Effect = Effect.CREATE
    host_users: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """`offer`: asked only where a space is wanted. `busy`: a container that uses it runs."""

    space: Space
    live: SpaceSeen
    offer: Offer = field(default_factory=Offer)
    busy: bool = False


def observe(space: Space, host: Host, *, wanted: bool, busy: bool = False) -> Seen:
    """Read-only."""
    live = host.spaces.look(space) or SpaceSeen()
    return Seen(space, live, host.spaces.offer(), busy) if wanted else Seen(space, live, busy=busy)


def steps(key: str, wanted: Wanted, seen: Seen) -> Iterator[Step]:
    """Pure. `key`: of the container or the volume."""
    space, live, prefix = seen.space, seen.live, wanted.prefix
    if not live.exists:
        new = NewSpace(wanted.size, wanted.keep, wanted.owner or (0, 0))
        yield MakeSpace(key, space, prefix, new, seen.offer.mechanism, wanted.means)
        if seen.offer.mechanism == LOOP_IMAGE:
            yield MountSpace(key, space, prefix, ABSENT)
        return
    size = max(wanted.size, live.size)
    grow = GrowSpace(key, space, prefix, live.limit, size)
    mount = MountSpace(key, space, prefix, NOT_MOUNTED)
    match _way_to_grow(size, seen):
        case "mounted":
            yield from ((grow,) if live.mounted else (mount, grow))
        case "unmounted":
            yield from ((UnmountSpace(key, space, prefix, after=False),) if live.mounted else ())
            yield from (grow, mount)
        case _:
            yield from (() if live.mounted else (mount,))
    if live.keep != wanted.keep:
        yield SetSpaceRule(key, space, prefix, wanted.keep)
    if wanted.owner and live.owner and live.owner != wanted.owner:
        yield SetSpaceOwner(key, space, prefix, live.owner, wanted.owner)


def _way_to_grow(size: int, seen: Seen) -> str:
    """Empty: not needed; "later": not as long as somebody uses it."""
    live = seen.live
    loosened = live.limit > size and live.mechanism != LOOP_IMAGE
    if live.limit >= size and live.size >= size and not loosened:
        return ""
    if live.grows:
        return "mounted"
    in_use = seen.busy or (live.attached and not live.mounted)
    return "later" if in_use else "unmounted"


def removal(key: str, prefix: str, seen: Seen) -> list[Step]:
    """Pure. What is kept loses no more than its mount."""
    if seen.live.exists and seen.live.keep:
        return [UnmountSpace(key, seen.space, prefix, after=True)] if seen.live.holds_mount else []
    if seen.live.exists or seen.live.half:
        return [RemoveSpace(key, seen.space, prefix, Effect.DELETE)]
    return []


def verify(aspect: str, wanted: Wanted, live: SpaceSeen) -> Iterator[Drift]:
    """Pure. Shrinking would take a file system apart in which somebody has data: it is said, and not done."""
    if live.size > wanted.size:
        sizes = format_bytes(wanted.size), format_bytes(live.size)
        yield Drift(aspect, f"{wanted.prefix}size", *sizes, "CannotShrink")
    if live.read_only:
        yield Drift(aspect, f"{wanted.prefix}access", "writable", "read-only after an error", "Damaged")


def remarks(wanted: Wanted, seen: Seen) -> Iterator[Condition]:
    """Pure."""
    live, offer = seen.live, seen.offer
    if not live.exists and offer.lack:
        yield Condition(HOST_LACKS, status=True, reason="NoDiskSpace", message=offer.lack)
    if live.exists and _way_to_grow(max(wanted.size, live.size), seen) == "later":
        message = (
            f"growing {format_bytes(live.limit)} to {format_bytes(wanted.size)} in use takes CAP_SYS_RESOURCE,"
            " which masu does not have here: it is done when no container that uses it runs"
        )
        yield Condition(HOST_LACKS, status=True, reason="NoLiveGrowth", message=message)
    yield from _evadable(wanted, seen)
    if offer.promised > offer.free:
        promised, free = (f"{each / (1 << 30):.1f}Gi" for each in (offer.promised, offer.free))
        message = (
            f"{promised} more are promised to spaces than are used, and {free} are free on their file system"
        )
        yield Condition(LIMITED, status=True, reason="Overcommitted", message=message)


def _evadable(wanted: Wanted, seen: Seen) -> Iterator[Condition]:
    """What stays within its size only as long as it wants to. The overlay of a layer lets no subvolume be made."""
    if seen.live.mechanism == PROJECT_QUOTA and wanted.host_users:
        message = (
            f"{', '.join(wanted.host_users)}: in the host's user namespace, the owner of a file may give it to"
            " another project, and then it does not count here; `namespaces: {user: auto}` forbids that"
        )
        yield Condition(LIMITED, status=True, reason="Evadable", message=message)
    if seen.live.mechanism == BTRFS_QGROUP and seen.space.sort == VOLUME_SORT:
        message = (
            "whoever may write here may make subvolumes in it, whose content does not count; where quotas of btrfs"
            " are off, new volumes are images, which hold everybody"
        )
        yield Condition(LIMITED, status=True, reason="Evadable", message=message)
