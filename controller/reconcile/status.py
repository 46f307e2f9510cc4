"""Status of one container, put together from what is recorded and what is observed now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from controller.errors import MasuError
from controller.frozen import dataclass
from controller.host.ports import Conditions, Host
from controller.model.attempts import Attempts
from controller.model.cgroups import SUBSYSTEMS, cgroup_of
from controller.model.image import Choice
from controller.model.network import group_of
from controller.model.record import Record, exit_status
from controller.model.resource import CONTAINER, FIREWALL, VOLUME, Resource, key_of
from controller.model.space import ROOTFS, VOLUME_SORT, Space, content_path
from controller.model.status import (
    LIMITED,
    OF_THE_RUN,
    READY,
    Condition,
    ContainerStatus,
    Disk,
    Drift,
    GroupStatus,
    ImageStatus,
    LastCheckpoint,
    NetworkStatus,
    VolumeStatus,
)
from controller.reconcile.desired import Desired, Wish, desire
from controller.reconcile.plan import Plan, plan, subject_of
from controller.reconcile.reconciler import AWAIT, AWAIT_IMAGE
from controller.reconcile.timing import foreseen, scheduled
from controller.steps.checkpointing import PUT_BY
from controller.steps.counting import counted
from controller.steps.images import PULLING

CHECKPOINT_FAILED = "CheckpointFailed"
WAITS = {AWAIT: "back-off", AWAIT_IMAGE: "waits"}
"""Kinds of steps → the state of who does not run because of them, the first reason last."""


def last_checkpoints(host: Host) -> dict[str, LastCheckpoint]:
    """Read-only. By container. A store that cannot be looked at says so to whoever asks it: not here."""
    try:
        found = host.checkpoints.checkpoints("")
    except MasuError:
        return {}
    return {
        each.container: LastCheckpoint(
            each.id, each.origin.created_ms, each.size, each.stored, each.origin.frozen_ms
        )
        for each in found
        if each.origin and not each.damage
    }


def status_of(
    name: str,
    wish: Wish | None,
    group: str,
    host: Host,
    conditions: Conditions,
    checkpoint: LastCheckpoint | None,
    *,
    dumping: bool,
    kept: bool,
) -> ContainerStatus:
    """Read-only. `dumping`: somebody is making a checkpoint of it. `kept`: somebody is there who converges it."""
    if wish is None:
        return _undesired(name, group, host, conditions)
    wanted = desire(wish, host.facts)
    found = plan(wanted, group, host)
    record = found.subject.record
    attempts = host.attempts.read(name) if scheduled(wanted) else None
    said = _ordered((*_said(wanted, found, conditions), *_failing(attempts), *_put_by(name, wish, found)))
    upcoming, verdict = foreseen(wanted, group, record, host)
    return ContainerStatus(
        name=name,
        state=_state(wish.section("state") or "running", found, record, said, dumping=dumping, kept=kept),
        pid=found.subject.pid,
        converged=_converged(wanted, found),
        restarts=record.restarts if record else 0,
        exit_code=_exit_code(name, record, host),
        conditions=said,
        drift=(*found.drift, *found.broken),
        addresses=tuple(_bare(one) for each in wish.section("networks") or () for one in each.addresses),
        ports=tuple(_ports(name, host)) if wish.section("ports") else (),
        counters=counted(host, name, group).total,
        disk=_disk(host, Space(ROOTFS, name)) if wanted.frame.sized else None,
        checkpoint=checkpoint,
        next_checkpoint=upcoming,
        image=_image(wish, record),
        attempts=attempts,
        verdict=READY if verdict and dumping else verdict,  # what is in the way is what makes it
    )


def _failing(attempts: Attempts | None) -> Iterator[Condition]:
    """Pure. That the last checkpoint of its schedule failed, for as long as none is made."""
    if attempts and attempts.said:
        yield Condition("Checkpoint", status=True, reason=CHECKPOINT_FAILED, message=attempts.said)


def _put_by(name: str, wish: Wish, found: Plan) -> Iterator[Condition]:
    """Pure. That it does not run although its spec says so, because somebody has ended it with a checkpoint."""
    record = found.subject.record
    ended = not found.subject.pid and record and record.exit and record.exit.reason == PUT_BY
    if ended and wish.section("state") != "stopped":
        message = f"masu restore {name} goes on from it; masu apply or masu run brings it back, too"
        yield Condition("Waiting", status=True, reason="EndedWithCheckpoint", message=message)


def _ordered(said: Iterable[Condition]) -> tuple[Condition, ...]:
    """Pure. People are shown the last: what keeps the container itself from being as it should be, if anything."""
    return tuple(sorted(said, key=_gravity))


def _gravity(said: Condition) -> int:
    if said.type in OF_THE_RUN or said.type == LIMITED:
        return 0
    return 1 if said.reason == CHECKPOINT_FAILED else 2


def network_status(
    resource: Resource, wishes: Mapping[str, Wish], host: Host, conditions: Conditions
) -> NetworkStatus:
    """Read-only."""
    wish, key, name = wishes.get(resource.key), resource.key, resource.name
    seen = _look(wish, "", host, conditions)
    bridge = wish.section("bridge") if wish else None
    rules, idle = _rules(name, wishes, host)
    members = {
        each.key: tuple(_bare(one) for one in attachment.addresses)
        for each in wishes.values()
        for attachment in each.section("networks") or ()
        if attachment.network == name
    }
    return NetworkStatus(
        name=name,
        type=resource.spec.get("type", "bridge"),
        link=bridge.link if bridge else resource.spec.get("parent") or resource.spec.get("device", ""),
        converged=seen.converged,
        containers=members,
        conditions=(
            *(seen.said if wish else conditions.read(key)),
            *(firewall_conditions(wishes, conditions) if bridge else ()),
        ),
        drift=seen.drift,
        rules=rules,
        idle=idle,
    )


def group_status(
    resource: Resource,
    wishes: Mapping[str, Wish],
    resources: Mapping[str, Resource],
    root: str,
    host: Host,
    conditions: Conditions,
) -> GroupStatus:
    """Read-only. What a group shares of a network is in the status of that network."""
    seen = _look(wishes.get(resource.key), cgroup_of(root, resource.key), host, conditions)
    shares = tuple(each for each in ("network", *SUBSYSTEMS) if resource.section(each) is not None)
    sharing = {
        each.name: tuple(sort for sort in shares if group_of(each, sort) == resource.name)
        for each in resources.values()
        if each.kind == CONTAINER
    }
    return GroupStatus(
        name=resource.name,
        shares=shares,
        converged=seen.converged,
        members={name: sorts for name, sorts in sorted(sharing.items()) if sorts},
        conditions=seen.said,
        drift=seen.drift,
    )


def volume_status(
    name: str, wishes: Mapping[str, Wish], host: Host, spaces: str, conditions: Conditions
) -> VolumeStatus:
    """Read-only. `spaces`: the instance's directory of them."""
    wish, space = wishes.get(key_of(VOLUME, name)), Space(VOLUME_SORT, name)
    seen = _look(wish, "", host, conditions)
    disk = _disk(host, space)
    users = tuple(wish.section("volume")["users"]) if wish else ()
    state = ("used" if users else "unused") if wish else "kept"
    return VolumeStatus(
        name=name,
        state=state if disk else "absent",
        disk=disk or Disk(0, 0, ""),
        path=content_path(spaces, space),
        converged=seen.converged,
        containers=users,
        conditions=seen.said,
        drift=seen.drift,
    )


def _disk(host: Host, space: Space) -> Disk | None:
    live = host.spaces.look(space)
    return Disk(live.size, live.used, live.mechanism) if live and live.exists else None


@dataclass(frozen=True, slots=True)
class _Seen:
    """Of what nobody wants there is nothing to say."""

    converged: bool = True
    said: tuple[Condition, ...] = ()
    drift: tuple[Drift, ...] = ()


def _look(wish: Wish | None, group: str, host: Host, conditions: Conditions) -> _Seen:
    """Read-only."""
    if wish is None:
        return _Seen()
    wanted = desire(wish, host.facts)
    found = plan(wanted, group, host)
    return _Seen(_converged(wanted, found), _said(wanted, found, conditions), (*found.drift, *found.broken))


def _converged(wanted: Desired, found: Plan) -> bool:
    return not (found.steps or found.broken or wanted.lacks or found.lacks)


def _said(wanted: Desired, found: Plan, conditions: Conditions) -> tuple[Condition, ...]:
    """What is seen now, and what was last reported, unless that says the same in older numbers."""
    now = (*wanted.lacks, *found.remarks)
    known = {(each.type, each.reason) for each in now}
    earlier = (
        each
        for each in conditions.read(wanted.name)
        if (each.type, each.reason) not in known and each.type not in OF_THE_RUN
    )
    return tuple(dict.fromkeys((*now, *earlier)))


def firewall_conditions(wishes: Mapping[str, Wish], conditions: Conditions) -> tuple[Condition, ...]:
    """Read-only. What is to be said of the packet filter, which belongs to all bridges."""
    keys = [each.key for each in wishes.values() if each.kind == FIREWALL]
    return tuple(one for key in keys for one in conditions.read(key))


def _rules(
    network: str, wishes: Mapping[str, Wish], host: Host
) -> tuple[dict[str, tuple[int, int]], frozenset[str]]:
    """(what each has let through, those that are about nobody). nftables is asked only where there are any."""
    filters = [each.section("firewall") for each in wishes.values() if each.kind == FIREWALL]
    found = {
        each.name: each.name.removeprefix(f"{network}/")
        for one in filters
        for each in one.allowances
        if each.network == network
    }
    idle = {each.name for one in filters for each in one.allowances if not (each.sources and each.targets)}
    counted = host.firewall.counters() if found else {}
    counts = {short: counted.get(name, (0, 0)) for name, short in found.items()}
    return counts, frozenset(short for name, short in found.items() if name in idle)


def _ports(name: str, host: Host) -> Iterator[str]:
    """Without saying it once more for each family."""
    ours = (each for each in host.firewall.published() if each.container == name)
    published = {(each.host_address, each.host_port, each.port, each.protocol) for each in ours}
    for address, host_port, port, protocol in sorted(published):
        where = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
        yield f"{where}{host_port} → {port}/{protocol}"


def _bare(address: str) -> str:
    return address.partition("/")[0]


def _undesired(name: str, group: str, host: Host, conditions: Conditions) -> ContainerStatus:
    subject = subject_of(name, group, host)
    message = "no spec file defines it; it is being removed, or its source is frozen"
    orphan = Condition("Orphan", status=True, reason="NotDesired", message=message)
    record = subject.record
    state = "running" if subject.pid else "absent"
    restarts, code = (record.restarts if record else 0), _exit_code(name, record, host)
    return ContainerStatus(
        name, state, subject.pid, False, restarts, code, (orphan, *conditions.read(name)), ()
    )


def _state(
    wanted: str,
    found: Plan,
    record: Record | None,
    said: Iterable[Condition],
    *,
    dumping: bool,
    kept: bool,
) -> str:
    if found.subject.pid:
        if record and record.phase == "stopping":
            return "stopping"
        if dumping:
            return "checkpointing"
        thawing = any(step.kind == "SetFreezer" for step in found.steps)
        return "frozen" if (wanted == "frozen") != thawing else "running"
    pulled = kept and any(each.reason == PULLING for each in said)
    return _while_dead({step.kind for step in found.steps}, record, pulled=pulled)


def _while_dead(kinds: set[str], record: Record | None, *, pulled: bool) -> str:
    waits = kinds & WAITS.keys()
    if record is None and AWAIT_IMAGE not in waits:
        return "absent"
    if waits:
        return "pulling" if pulled and AWAIT_IMAGE in waits else WAITS[max(waits)]
    return "exited" if record and record.pid else "stopped"


def _image(wish: Wish, record: Record | None) -> ImageStatus | None:
    rootfs = wish.section("rootfs") or {}
    if "image" not in rootfs:
        return None
    choice: Choice = rootfs["choice"]
    return ImageStatus(rootfs["image"], choice.digest, record.image if record else "")


def _exit_code(name: str, record: Record | None, host: Host) -> int | None:
    """Of the last run that ended; the keeper may know of one that no controller has lived to record."""
    if record is None:
        return None
    kept = host.runtime.exit_of(name)
    if kept and record.exit is None and kept.start_time == record.start_time:
        return exit_status(kept.code, kept.signal)
    ended = record.exit or record.last_exit
    return None if ended is None else exit_status(ended.code, ended.signal)
