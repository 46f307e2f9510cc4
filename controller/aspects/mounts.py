"""mounts: host directories, files and volumes bound into the container, and tmpfs; checked against mountinfo.

A mount that was taken away, covered or changed is put right while the container runs, also when another file has
taken the source's place on the host; a changed list needs a restart.
Source: mount_namespaces(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.model.names import plain_path
from controller.model.process import MountSeen
from controller.model.quantity import parse_bytes
from controller.steps._base import Effect, Step
from controller.steps.mounts import MountInside, SetMountOptions, UnmountInside

SAFE = ("nosuid", "nodev")
"""On every mount; "r" before an option: also on the mounts below it (OCI config.md, Mounts)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One mount as mountinfo should show it, and as the bundle config asks for it; no `source`: a tmpfs.

    `generated`: masu's own file, which nobody has written down, and which is left out where it has no place.
    """

    target: str
    source: str
    read_only: bool
    entry: Mapping[str, Any]
    written: tuple[Any, ...]
    generated: bool = False

    @property
    def text(self) -> str:
        return f"{'bind' if self.source else 'tmpfs'} {'ro' if self.read_only else 'rw'}"


class Mounts:
    name = "mounts"
    section = "mounts"
    keys: Mapping[str, Effect] = {"mounts": Effect.RESTART}

    def parse(self, section: Any, facts: Facts) -> tuple[Wanted, ...] | None:
        """Pure. In the order written, because one may lie inside another; with what masu generates at the end."""
        del facts
        return tuple(_tmpfs(each) if "tmpfs" in each else _bind(each) for each in section or ()) or None

    def birth(self, desired: tuple[Wanted, ...]) -> Birth:
        """Pure."""
        entries = [dict(each.entry) for each in desired]
        identity = [list(each.written) for each in desired if not each.generated]
        volumes = {each["volume"]: each["source"] for each in entries if "volume" in each}
        root = {"volumes": volumes} if volumes else {}
        return Birth(Effect.RESTART, identity or None, config={"mounts": entries}, root=root)

    def observe(
        self, subject: Subject, host: Host, desired: tuple[Wanted, ...] | None
    ) -> Mapping[str, MountSeen] | None:
        """Read-only. Target → what is mounted there; None while there is no process."""
        if not subject.pid or desired is None:
            return None
        return host.inside.mounts(subject.pid, {each.target: each.source for each in desired})

    def diff(
        self, subject: Subject, desired: tuple[Wanted, ...], observed: Mapping[str, MountSeen] | None
    ) -> list[Step]:
        """Pure. What lies inside a mount that has to be put right comes with the next look."""
        if observed is None:
            return []
        steps: dict[str, Step] = {}
        for wanted in desired:
            step = _step(subject, wanted, observed.get(wanted.target))
            if step and not any(wanted.target.startswith(f"{outer}/") for outer in steps):
                steps[wanted.target] = step
        return list(steps.values())

    def remove(self, subject: Subject, observed: Any) -> list[Step]:
        """Pure. They go with the container's mount namespace."""
        del subject, observed
        return []


def _bind(each: Mapping[str, Any]) -> Wanted:
    """Of a volume, where it is on the host is up to masu."""
    read_only, volume = bool(each.get("readOnly", False)), each.get("volume")
    access = ("ro", "rro") if read_only else ("rw",)
    options = ["bind" if volume else "rbind", "rprivate", *access, *SAFE, *(f"r{each}" for each in SAFE)]
    target = plain_path(each["target"])
    entry = {"destination": target, "type": "bind", "source": each["source"], "options": options}
    if volume:
        entry["volume"] = volume
    written = (target, f"volume:{volume}" if volume else each["source"], read_only)
    return Wanted(target, each["source"], read_only, entry, written, bool(each.get("generated")))


def _tmpfs(each: Mapping[str, Any]) -> Wanted:
    options = [*SAFE, "rw", f"mode={each.get('mode', '1777')}"]
    size = parse_bytes(str(each["size"])) if "size" in each else None
    if size is not None:
        options.append(f"size={size}")
    target = plain_path(each["tmpfs"])
    entry = {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}
    return Wanted(target, "", False, entry, (target, size, each.get("mode")))


def _step(subject: Subject, wanted: Wanted, live: MountSeen | None) -> Step | None:
    """Nothing is stacked above what is there: that goes away first, or is changed in place."""
    if live and not live.kind and wanted.generated:
        return None
    if live is None or not live.kind:
        return MountInside(subject.name, subject.init, wanted.entry, "not mounted", wanted.text)
    other = live.shows is False if wanted.source else live.kind != "tmpfs"
    if other:
        return UnmountInside(subject.name, subject.init, wanted.entry, f"another {live.kind}", wanted.text)
    access = {"ro" if wanted.read_only else "rw", *SAFE}
    if access <= live.options:
        return None
    lacking = ",".join(sorted(access - live.options))
    return SetMountOptions(subject.name, subject.init, wanted.entry, f"not {lacking}", wanted.text)
