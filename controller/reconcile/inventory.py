"""What is in the store of checkpoints: listed, read through, taken out as archives and taken in from them.

`policy_of`: what the spec of a container says of checkpoints, by its name: it knows the key.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from controller.checkpoints.policy import Policy
from controller.errors import GuardRefused, MasuError, StepFailed
from controller.host.ports import Host
from controller.model.checkpoint import Checkpoint, Origin
from controller.model.names import is_name, quote
from controller.reconcile.apply import Failpoint
from controller.reconcile.audit import do
from controller.steps.checkpointing import RemoveCheckpoint, unheard

PolicyOf = Callable[[str], Policy]


def listed(host: Host, name: str, policy_of: PolicyOf | None) -> tuple[Checkpoint, ...]:
    """Read-only. Oldest first, of all containers for "". With `policy_of` each is read to its last byte."""
    found = host.checkpoints.checkpoints(name)
    if policy_of is None:
        return found
    verified = [_verified(host, each, policy_of) for each in found]
    there = (
        {each.id for each in host.checkpoints.checkpoints(name)}
        if any(each.damage for each in verified)
        else ()
    )
    return tuple(
        each for each in verified if not each.damage or each.id in there
    )  # else a schedule has retired it


def export(host: Host, identity: str, path: str, policy_of: PolicyOf) -> tuple[str, ...]:
    """→ what could not go into the archive. Raises StepFailed, HostLacks."""
    found = _known(host, identity)
    return host.checkpoints.at(_key_file(found, policy_of)).export_to(identity, path)


def take_in(host: Host, path: str, name: str, policy_of: PolicyOf, *, foreign: bool) -> Checkpoint:
    """`name`: of the container that it is to be of; "": as the archive says. `foreign`: also of other programs.

    Raises ArchiveRefused, StepFailed.
    """
    policy = policy_of(name)
    origin = Origin(name, host.clock.wall_ms(), "imported")
    return host.checkpoints.at(policy.key_file).import_from(path, origin, foreign, policy.min_free, unheard)


def give_up(host: Host, identity: str) -> None:
    """What was taken in for something that is not done after all. Should it stay, it goes by the rules."""
    with suppress(MasuError):
        host.checkpoints.at("").remove((identity,), unheard)


def owners(host: Host) -> frozenset[str]:
    """Read-only. Names of the containers of which there is a checkpoint, whether or not anything else is."""
    return frozenset(each.container for each in host.checkpoints.checkpoints("") if is_name(each.container))


def remove(host: Host, identity: str, policy_of: PolicyOf, failpoint: Failpoint) -> Checkpoint:
    """→ the one that is gone. Raises GuardRefused for one that its container's spec pins, StepFailed."""
    found = _known(host, identity)
    if identity in policy_of(found.container).pins:
        raise GuardRefused(
            f"checkpoint {identity} is pinned in the spec of {found.container} (checkpoint.pins):"
            " take it out there first"
        )
    do(RemoveCheckpoint(found.container, identity), host, failpoint)
    return found


def clear(host: Host, failpoint: Failpoint) -> None:
    """Whatever is left when all containers are gone: of which it is, some that are damaged do not say."""
    for each in host.checkpoints.checkpoints(""):
        do(RemoveCheckpoint(each.container, each.id), host, failpoint)


def _known(host: Host, identity: str) -> Checkpoint:
    found = next((each for each in host.checkpoints.checkpoints("") if each.id == identity), None)
    if found is None:
        raise StepFailed(f"there is no checkpoint {quote(identity)}: see `masu checkpoints` for their ids")
    return found


def _verified(host: Host, found: Checkpoint, policy_of: PolicyOf) -> Checkpoint:
    if found.damage:
        return found
    try:
        wrong = host.checkpoints.at(_key_file(found, policy_of)).verify(found.id)
    except MasuError as error:
        wrong = (str(error),)
    return replace(found, damage=wrong[0] if wrong else "")


def _key_file(found: Checkpoint, policy_of: PolicyOf) -> str:
    return policy_of(found.container).key_file if found.key else ""
