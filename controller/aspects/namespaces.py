"""namespaces: which ones the container has to itself, shares with the host, or shares with another container.

Sources: namespaces(7), user_namespaces(7), time_namespaces(7). Fixed at birth; verified from /proc/PID/ns,
uid_map, gid_map and timens_offsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.aspects._bundle import without_defaults
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.model.frame import OWN_SYS
from controller.model.process import IdMap, IdRange
from controller.model.quantity import parse_duration
from controller.model.status import Drift
from controller.steps._base import Effect, Step
from controller.steps.network import RaiseLoopback
from controller.steps.runtime import StopContainer

OCI_NAMES = {"mount": "mount", "net": "network"}
PROC_NAMES = {"mount": "mnt"}
DEFAULTS = {
    "uts": "private",
    "ipc": "private",
    "pid": "private",
    "mount": "private",
    "net": "private",
    "cgroup": "private",
    "user": "host",
    "time": "host",
}
PARTNER = "container:"


@dataclass(frozen=True, slots=True)
class Spaces:
    """`kinds`: namespace → private, host or container:NAME; `user` and `offsets` when those are private."""

    kinds: Mapping[str, str]
    user: Mapping[str, Any] | None
    offsets: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Seen:
    """Inodes of masu's own, the container's and each partner's namespaces; what the kernel says of ids."""

    own: Mapping[str, int]
    container: Mapping[str, int]
    partners: Mapping[str, Mapping[str, int]]
    ids: IdMap | None
    leased: IdRange | None
    loopback: bool | None
    restored: bool = False
    """CRIU has made it anew, in a time namespace in which its clocks go on from the checkpoint."""


class Namespaces:
    name = "namespaces"
    section = "namespaces"
    keys: Mapping[str, Effect] = {
        **{f"namespaces.{kind}": Effect.RECREATE for kind in DEFAULTS},
        "namespaces.loopback": Effect.LIVE,
    }

    def parse(self, section: Any, facts: Facts) -> Spaces:
        """Pure. What is not written is private, but user and time, which are the host's."""
        del facts
        written = {**DEFAULTS, **(section or {})}
        user, time = written["user"], written["time"]
        kinds = {kind: value for kind, value in written.items() if isinstance(value, str)}
        kinds["user"] = "host" if user == "host" else "private"
        kinds["time"] = "host" if time == "host" else "private"
        return Spaces(kinds, _user(user), {} if time == "host" else _offsets(time))

    def birth(self, desired: Spaces) -> Birth:
        """Pure."""
        linux = {"namespaces": list(_entries(desired.kinds))}
        identity = [without_defaults(desired.kinds, DEFAULTS), desired.user, dict(desired.offsets)]
        root: dict[str, Any] = {"user": desired.user} if desired.user else {}
        if _needs_own_sys(desired.kinds):
            root["sys"] = True
        if desired.offsets:
            root["offsets"] = dict(desired.offsets)
        return Birth(Effect.RECREATE, identity, {"linux": linux, "mounts": _mounts(desired.kinds)}, root)

    def observe(self, subject: Subject, host: Host, desired: Spaces | None) -> Seen | None:
        """Read-only. None while there is no process to look at."""
        if not subject.pid or desired is None:
            return None
        records = {name: host.records.read(name) for name in _partners(desired)}
        mapped = desired.user is not None or desired.offsets
        return Seen(
            own=host.processes.namespaces(0),
            container=host.processes.namespaces(subject.pid),
            partners={
                name: host.processes.namespaces(record.pid) if record and record.pid else {}
                for name, record in records.items()
            },
            ids=host.processes.id_map(subject.pid) if mapped else None,
            leased=host.layers.range_of(subject.name) if desired.user else None,
            loopback=host.inside.loopback_up(subject.pid) if desired.kinds["net"] == "private" else None,
            restored=bool(subject.record and subject.record.restored),
        )

    def diff(self, subject: Subject, desired: Spaces, observed: Seen | None) -> list[Step]:
        """Pure. A partner that was started anew takes its sharers with it; a lowered loopback is raised.

        Other differences cannot be repaired without a restart that might not help: `verify` reports them.
        """
        if observed is None or not observed.container or subject.record is None:
            return []
        if observed.loopback is False:
            return [RaiseLoopback(subject.name, subject.init)]
        if subject.record.phase == "stopping":
            return []
        for kind, value in desired.kinds.items():
            name = value.removeprefix(PARTNER)
            theirs = observed.partners.get(name, {}).get(PROC_NAMES.get(kind, kind))
            if value.startswith(PARTNER) and theirs and theirs != _inode(observed.container, kind):
                why = f"container {name}, whose {kind} namespace it shares, has a new one"
                return [StopContainer(subject.name, subject.record, subject.group, why, Effect.RESTART)]
        return []

    def remove(self, subject: Subject, observed: Seen | None) -> list[Step]:
        """Pure. Namespaces end with their last process."""
        del subject, observed
        return []

    def verify(self, desired: Spaces, observed: Seen | None) -> list[Drift]:
        """Pure. What /proc says differently from what was asked at birth."""
        if observed is None or not observed.container:
            return []
        wrong = [_space_drift(kind, value, observed) for kind, value in desired.kinds.items()]
        return [
            each for each in (*wrong, _ids_drift(desired, observed), *_time_drift(desired, observed)) if each
        ]


def _user(value: Any) -> Mapping[str, Any] | None:
    if value == "host":
        return None
    if isinstance(value, str):
        return {"auto": RANGE}
    return {
        side: [[each["container"], each["host"], each["size"]] for each in value[side]]
        for side in ("uids", "gids")
    }


RANGE = 65_536


def _offsets(value: Mapping[str, Any]) -> dict[str, int]:
    """→ clock → nanoseconds."""
    return {clock: _signed_ms(str(text)) * 1_000_000 for clock, text in sorted(value.items())}


def _signed_ms(text: str) -> int:
    return -parse_duration(text[1:]) if text.startswith("-") else parse_duration(text)


def _entries(kinds: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A time namespace is not the runtime's: the keeper makes it, since crun cannot with a user namespace."""
    for kind, value in sorted(kinds.items()):
        if kind == "time":
            continue
        name = OCI_NAMES.get(kind, kind)
        if value.startswith(PARTNER):
            yield {"type": name, "partner": value.removeprefix(PARTNER)}
        elif value != "host":
            yield {"type": name}


def _mounts(kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """A sysfs shows the network namespace it was mounted in, and only its user namespace's root may mount it."""
    options = ["nosuid", "noexec", "nodev", "ro"]
    queue = {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": options[:3]}
    if kinds["net"] == "private" and kinds["user"] == "host":
        sys = {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": options}
    else:
        source = OWN_SYS if _needs_own_sys(kinds) else "/sys"
        sys = {"destination": "/sys", "type": "none", "source": source, "options": ["rbind", *options]}
    return [sys] if kinds["ipc"] != "private" else [queue, sys]


def _needs_own_sys(kinds: Mapping[str, str]) -> bool:
    return kinds["net"] == "private" and kinds["user"] != "host"


def _partners(desired: Spaces) -> set[str]:
    return {value.removeprefix(PARTNER) for value in desired.kinds.values() if value.startswith(PARTNER)}


def _inode(spaces: Mapping[str, int], kind: str) -> int | None:
    return spaces.get(PROC_NAMES.get(kind, kind))


def _space_drift(kind: str, value: str, observed: Seen) -> Drift | None:
    own, container = _inode(observed.own, kind), _inode(observed.container, kind)
    if own is None or container is None or value.startswith(PARTNER):
        return None
    live = "host" if own == container else "private"
    if kind == "time" and observed.restored and live == "private":
        return None
    return None if live == value else Drift("namespaces", f"namespaces.{kind}", value, live)


def _ids_drift(desired: Spaces, observed: Seen) -> Drift | None:
    if desired.user is None or observed.ids is None:
        return None
    if "auto" in desired.user:
        first = observed.leased.first if observed.leased else -1
        uids = gids = ((0, first, RANGE),)
    else:
        uids, gids = desired.user["uids"], desired.user["gids"]
    if _extents(observed.ids.uids) == _extents(uids) and _extents(observed.ids.gids) == _extents(gids):
        return None
    live = f"uids {_extents(observed.ids.uids)}, gids {_extents(observed.ids.gids)}"
    return Drift("namespaces", "namespaces.user", f"uids {_extents(uids)}, gids {_extents(gids)}", live)


def _extents(rows: Iterable[Any]) -> list[tuple[int, ...]]:
    return sorted(tuple(row) for row in rows)


def _time_drift(desired: Spaces, observed: Seen) -> Iterator[Drift]:
    """Clocks that go on from a checkpoint are behind by the time that the container was away."""
    if observed.restored:
        return
    live = dict(observed.ids.offsets) if observed.ids else {}
    for clock, wanted in desired.offsets.items():
        if live.get(clock) != wanted:
            yield Drift("namespaces", f"namespaces.time.{clock}", f"{wanted}ns", f"{live.get(clock)}ns")
