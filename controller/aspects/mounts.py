"""mounts: host directories and files bound into the container, and tmpfs; checked against mountinfo.

A mount that was taken away is put back while the container runs; a changed list needs a restart.
Source: mount_namespaces(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.model.process import MountEntry
from controller.model.quantity import parse_bytes
from controller.steps._base import Effect, Step
from controller.steps.mounts import MountInside

SAFE = ("nosuid", "nodev")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One mount as mountinfo should show it, and as the bundle config asks for it."""

    target: str
    kind: str
    read_only: bool
    entry: Mapping[str, Any]


class Mounts:
    name = "mounts"
    section = "mounts"
    keys: Mapping[str, Effect] = {"mounts": Effect.RESTART}

    def parse(self, section: Any, facts: Facts) -> tuple[Wanted, ...] | None:
        """Pure. In the order written, because one may lie inside another."""
        del facts
        return tuple(_tmpfs(each) if "tmpfs" in each else _bind(each) for each in section or ()) or None

    def birth(self, desired: tuple[Wanted, ...]) -> Birth:
        """Pure."""
        entries = [dict(each.entry) for each in desired]
        return Birth(Effect.RESTART, identity=entries, config={"mounts": entries})

    def observe(self, subject: Subject, host: Host, desired: Any) -> Mapping[str, MountEntry] | None:
        """Read-only. Target → the topmost mount there; None while there is no process."""
        if not subject.pid or desired is None:
            return None
        return {entry.target: entry for entry in host.processes.mounts(subject.pid)} or None

    def diff(
        self, subject: Subject, desired: tuple[Wanted, ...], observed: Mapping[str, MountEntry] | None
    ) -> list[Step]:
        """Pure."""
        if observed is None:
            return []
        return [
            MountInside(
                subject.name, subject.pid, wanted.target, wanted.entry, _live(observed.get(wanted.target))
            )
            for wanted in desired
            if not _is(wanted, observed.get(wanted.target))
        ]

    def remove(self, subject: Subject, observed: Any) -> list[Step]:
        """Pure. They go with the container's mount namespace."""
        del subject, observed
        return []


def _bind(each: Mapping[str, Any]) -> Wanted:
    read_only = bool(each.get("readOnly", False))
    options = ["rbind", "rprivate", "ro" if read_only else "rw", *SAFE]
    entry = {"destination": each["target"], "type": "bind", "source": each["source"], "options": options}
    return Wanted(each["target"].rstrip("/") or "/", "bind", read_only, entry)


def _tmpfs(each: Mapping[str, Any]) -> Wanted:
    options = [*SAFE, "rw", f"mode={each.get('mode', '1777')}"]
    if "size" in each:
        options.append(f"size={parse_bytes(str(each['size']))}")
    target = each["tmpfs"]
    entry = {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}
    return Wanted(target.rstrip("/") or "/", "tmpfs", read_only=False, entry=entry)


def _is(wanted: Wanted, live: MountEntry | None) -> bool:
    if live is None or ((wanted.kind == "tmpfs") != (live.kind == "tmpfs") and wanted.kind == "tmpfs"):
        return False
    return ("ro" in live.options) == wanted.read_only


def _live(entry: MountEntry | None) -> str:
    if entry is None:
        return "absent"
    return f"{entry.kind} {'ro' if 'ro' in entry.options else 'rw'}"
