"""Whether a container could be dumped now, and everything that is in the way. Read-only.

Not everything is known before: what is not, CRIU says in its own words, and the container runs on.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.checkpoints.policy import Policy
from controller.errors import GuardRefused, HostLacks, MasuError, StepFailed
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.record import Record
from controller.reconcile.desired import Desired
from controller.reconcile.plan import subject_of
from controller.steps.freezer import frozen_by

PART = "checkpoint"
_LEAST_AHEAD = 64 << 20
"""A pre-dump stops the container for a moment, too: from here on the dump after it is shorter by more than that."""


@dataclass(frozen=True, slots=True)
class InMemory:
    """Bytes: `needed` by a dump at most; `private`, which a pre-dump can take out of the standstill; and `shared`,
    which it copies once more while everything stands still."""

    needed: int
    private: int
    shared: int


_NOTHING = InMemory(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reasons` why there is no checkpoint now; `left`: what would not be in one; `needed`: bytes of its memory."""

    reasons: tuple[MasuError, ...]
    left: tuple[str, ...]
    needed: int


def verdict(host: Host, desired: Desired, group: str) -> Verdict:
    """Read-only."""
    found, needed = _survey(host, desired, group)
    return Verdict(tuple(found), tuple(left(desired)), needed.needed)


def left(desired: Desired) -> Iterator[str]:
    """Pure. What a container writes to and a restore would not take back."""
    volumes = desired.parts[PART].volumes
    for name in volumes.left:
        why = (
            "others mount it, too"
            if name in volumes.shared
            else "its spec leaves it out (checkpoint.volumes)"
        )
        yield f"the data of volume {name} stays as it is: {why}"


def check_dump(host: Host, desired: Desired, group: str, *, guests: bool = True) -> InMemory:
    """→ what the dump takes in memory.

    Raises GuardRefused for what the spec does not allow, HostLacks, StepFailed for what may be over soon. `guests`:
    also for processes that came in from outside.
    """
    found, needed = _survey(host, desired, group, guests=guests)
    if not found:
        return needed
    first, more = found[0], len(found) - 1
    if more:
        raise type(first)(f"{first} (and {more} more: masu preflight {desired.name})") from first
    raise first


def _survey(
    host: Host, desired: Desired, group: str, *, guests: bool = True
) -> tuple[list[MasuError], InMemory]:
    """Read-only. (each reason as the error that it is, what a dump takes). What cannot be known for one of them is
    left out.
    """
    name = desired.name
    found = list(_of_the_spec(name, desired))
    abilities = host.criu.abilities()
    if not abilities.usable:
        found.append(HostLacks(f"no checkpoints here: {abilities.said}"))
    policy: Policy = desired.parts[PART]
    if not policy.never:
        found += host.checkpoints.hindrances(policy.key_file, policy.min_free)
    subject = subject_of(name, group, host)
    if not subject.pid or subject.record is None:
        return [*found, StepFailed(f"container {name} is not running")], _NOTHING
    found += _of_the_state(host, desired, group, subject.record)
    try:
        prospect = host.criu.prospect(subject.init, group)
    except MasuError as error:
        return [*found, error], _NOTHING
    obstacles = (each for each in prospect.obstacles if guests or each.kind != "guest")
    found += [StepFailed(f"container {name}: {each.text}") for each in obstacles]
    needed, room = _in_memory(host, group, prospect.memory), host.scratches.room(name)
    if needed > room:
        why = f"has {needed} bytes in memory, and {room} are free: a dump is held in memory first"
        found.append(StepFailed(f"container {name} {why}"))
    return found, InMemory(needed, prospect.memory, prospect.shared)


def pays_ahead(host: Host, found: InMemory) -> bool:
    """Read-only. Whether a pre-dump makes the standstill shorter, as far as can be seen."""
    return found.private - found.shared >= _LEAST_AHEAD and host.criu.abilities().tracks_memory


def _of_the_spec(name: str, desired: Desired) -> Iterator[MasuError]:
    policy: Policy = desired.parts[PART]
    kinds = desired.parts["namespaces"].kinds
    if policy.never:
        yield GuardRefused(f"{name}: its spec says that its memory is never written (checkpoint.never)")
    for kind in ("pid", "ipc", "mount"):
        if kinds[kind] == "host" or (kind == "pid" and kinds[kind] != "private"):
            yield GuardRefused(
                f"{name}: it shares the {kind} namespace of {_whose(kinds[kind])},"
                " and processes in it cannot be restored alone"
            )


def _of_the_state(host: Host, desired: Desired, group: str, record: Record) -> Iterator[MasuError]:
    name = desired.name
    if record.phase != "running":
        yield StepFailed(f"container {name} is {record.phase}")
    if frozen_by(host, group):
        yield StepFailed(f"container {name} is frozen: its processes have to run for a moment to be dumped")
    if record.digest != desired.frame.digest:
        yield StepFailed(f"container {name} does not run as its spec says yet: it is to be started anew")


def _whose(space: str) -> str:
    return "the host" if space == "host" else space.replace(":", " ")


def _in_memory(host: Host, group: str, private: int) -> int:
    """Bytes that a dump writes at most: what no file on a disk holds, memory.stat in cgroup-v2.rst.

    `private`: what its processes have: it may be charged to another group, and is in a dump once for each of them.
    """
    anonymous, shared, swap = (
        ("anon", "shmem", "")
        if host.facts.version("memory") == 2
        else ("total_rss", "total_shmem", "total_swap")
    )
    lines = (host.cgroups.read(group, "memory", "memory.stat") or "").splitlines()
    amounts = {key: int(amount) for key, amount in (line.split(" ", 1) for line in lines)}
    swapped = amounts.get(swap) or int(host.cgroups.read(group, "memory", "memory.swap.current") or "0")
    return max(amounts.get(anonymous, 0), private) + amounts.get(shared, 0) + swapped
