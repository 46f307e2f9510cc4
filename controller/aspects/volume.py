"""volume: storage of a hard size with a name, which outlives the containers that mount it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from controller.aspects import _space
from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.model.resource import name_of
from controller.model.space import VOLUME_SORT, Space, parse_size
from controller.model.status import Condition, Drift
from controller.steps._base import Effect, Step
from controller.steps.living import live_pid


@dataclass(frozen=True, slots=True)
class Wanted:
    """`users`: names of the containers that mount it."""

    space: _space.Wanted
    users: tuple[str, ...]


class Volume:
    name = "volume"
    section = "volume"
    keys: Mapping[str, Effect] = {"size": Effect.LIVE, "onDelete": Effect.LIVE, "owner": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> Wanted:
        """Pure. `section`: the spec of the volume, and who uses it."""
        del facts
        spec = section["spec"]
        keep = spec.get("onDelete", "keep") == "keep"
        size = parse_size(spec["size"])
        owner, host_users = _ids(spec.get("owner")), tuple(section["hostUsers"])
        return Wanted(_space.Wanted("", size, keep, owner, host_users=host_users), tuple(section["users"]))

    def birth(self, desired: Wanted) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Wanted | None) -> _space.Seen:
        """Read-only. Who uses it is asked only where it matters: while it has yet to grow."""
        seen = _space.observe(Space(VOLUME_SORT, name_of(subject.name)), host, wanted=desired is not None)
        if desired is None or seen.live.grows or seen.live.limit >= desired.space.size:
            return seen
        return replace(seen, busy=any(live_pid(host, host.records.read(each)) for each in desired.users))

    def diff(self, subject: Subject, desired: Wanted, observed: _space.Seen) -> list[Step]:
        """Pure."""
        return list(_space.steps(subject.name, desired.space, observed))

    def verify(self, desired: Wanted, observed: _space.Seen) -> Iterator[Drift]:
        """Pure."""
        return _space.verify(self.name, desired.space, observed.live)

    def remarks(self, desired: Wanted, observed: _space.Seen) -> Iterator[Condition]:
        """Pure."""
        return _space.remarks(desired.space, observed)

    def remove(self, subject: Subject, observed: _space.Seen) -> list[Step]:
        """Pure."""
        return _space.removal(subject.name, "", observed)


def _ids(written: Any) -> tuple[int, int] | None:
    if written is None:
        return None
    user, _, group = str(written).partition(":")
    return int(user), int(group or user)
