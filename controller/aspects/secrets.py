"""secrets: what of the host's secrets a container has, in variables and in files; never what is in them.

A variable is as it is from the first instruction on: a secret that has changed needs a restart. A file is replaced
while the container runs. The directories are mounted by the aspect `mounts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.model.frame import IdMapping
from controller.model.secret import SECRET_MISSING, SecretFile, owned, secret_in
from controller.model.status import LIMITED, Condition
from controller.steps._base import Effect, Step
from controller.steps.runtime import Await, StopContainer
from controller.steps.secrets import ForgetSecrets, PutSecrets, lacking

LOOK_MS = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """`variables`: name → secret. Owners of `files` are those inside, as `user` maps them: see `PutSecrets`."""

    variables: Mapping[str, str]
    files: tuple[SecretFile, ...]
    user: Mapping[str, Any] | None


NONE = Wanted({}, (), None)


@dataclass(frozen=True, slots=True)
class Seen:
    """`lacking`: why secrets cannot be had; `lives`: by somebody who runs. `given`: variables that are as they are
    to be; `shown`: such targets, None where there is nothing at all."""

    lacking: tuple[str, ...] = ()
    given: frozenset[str] = frozenset()
    shown: frozenset[str] | None = None
    lives: bool = False


def needed(desired: Wanted) -> tuple[tuple[str, bool], ...]:
    """Pure. (secret, whether it is to be a variable)."""
    variables = ((each, True) for each in desired.variables.values())
    return (*variables, *((each.secret, False) for each in desired.files))


class Secrets:
    name = "secrets"
    section = "secrets"
    keys: Mapping[str, Effect] = {"files": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> Wanted:
        """Pure. `section`: {variables, files, user}, put together by `controller.reconcile.desired`."""
        del facts
        if section is None:
            return NONE
        user = section["user"]
        mapping = {"auto": 0} if user == "auto" else _extents(user) if isinstance(user, Mapping) else None
        return Wanted(section["variables"], tuple(map(_file, section["files"])), mapping)

    def birth(self, desired: Wanted) -> Birth:
        """Pure. Nobody is stopped for a start that would have to wait for them."""
        return Birth(Effect.LIVE, root={"secrets": needed(desired)})

    def observe(self, subject: Subject, host: Host, desired: Wanted | None) -> Seen:
        """Read-only."""
        if desired is None or desired == NONE:
            return Seen(shown=host.secrets.shown(subject.name, ()))
        files = _on_host(subject, host, desired)
        return Seen(
            lacking(host, needed(desired)),
            host.secrets.given(subject.name, desired.variables) if subject.pid else frozenset(),
            host.secrets.shown(subject.name, files) if files is not None else None,
            bool(subject.pid),
        )

    def diff(self, subject: Subject, desired: Wanted, observed: Seen) -> list[Step]:
        """Pure."""
        return list(_steps(subject, desired, observed))

    def remarks(self, desired: Wanted, observed: Seen) -> list[Condition]:
        """Pure. Who runs goes on with what it has; whoever does not waits, which is told as such."""
        said = observed.lacking if observed.lives else ()
        return [Condition(LIMITED, status=True, reason=SECRET_MISSING, message=each) for each in said]

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure. Not before the last process has ended."""
        return [ForgetSecrets(subject.name)] if observed.shown is not None and not subject.pid else []


def _steps(subject: Subject, desired: Wanted, observed: Seen) -> Iterator[Step]:
    if not desired.files and observed.shown is not None and not subject.pid:
        yield ForgetSecrets(subject.name)
    if observed.lacking:
        if not subject.pid:
            yield Await(subject.name, SECRET_MISSING, "; ".join(observed.lacking), subject.now_ms + LOOK_MS)
        return
    targets = {each.target for each in desired.files}
    if targets - (observed.shown or frozenset()):
        live = "missing" if observed.shown is None else "outdated"
        yield PutSecrets(subject.name, desired.files, desired.user, live)
    changed = sorted(desired.variables.keys() - observed.given)
    record = subject.record
    if subject.pid and record and record.phase == "running" and changed:
        why = f"the secret of {', '.join(changed)} has changed"
        yield StopContainer(subject.name, record, subject.group, why, Effect.RESTART)


def _file(each: Mapping[str, Any]) -> SecretFile:
    user, _, group = str(each.get("owner", "0:0")).partition(":")
    owner = int(user), int(group or user)
    return SecretFile(secret_in(each), each["target"], int(each.get("mode", "0400"), 8), owner)


def _extents(user: Mapping[str, Any]) -> dict[str, Any]:
    return {
        side: [[each["container"], each["host"], each["size"]] for each in user[side]]
        for side in ("uids", "gids")
    }


def _on_host(subject: Subject, host: Host, desired: Wanted) -> tuple[SecretFile, ...] | None:
    """Read-only. With the owners that they have outside; None: nobody has been given a range of ids yet."""
    if not desired.user:
        return desired.files
    leased = host.layers.range_of(subject.name) if "auto" in desired.user else None
    if "auto" in desired.user and leased is None:
        return None
    return owned(desired.files, IdMapping.of(desired.user, leased))
