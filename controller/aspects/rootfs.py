"""rootfs: the directory that becomes `/`, and where writes go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.aspects._bundle import without_defaults
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.steps._base import Effect, Step


class Rootfs:
    """Nothing of it changes live: the kernel fixes it at the container's birth."""

    name = "rootfs"
    section = "rootfs"
    keys: Mapping[str, Effect] = {"rootfs.path": Effect.RECREATE, "rootfs.writable": Effect.RECREATE}

    def parse(self, section: Any, facts: Facts) -> Mapping[str, Any]:
        """Pure. → {path, writable}."""
        del facts
        return {"path": section["path"], "writable": section.get("writable", "overlay")}

    def birth(self, desired: Mapping[str, Any]) -> Birth:
        """Pure. The keeper mounts it; the bundle config only says whether `/` may be written."""
        config = {"root": {"readonly": desired["writable"] == "readOnly"}}
        identity = without_defaults(desired, {"writable": "overlay"})
        return Birth(Effect.RECREATE, identity, config=config, root=desired)

    def observe(self, subject: Subject, host: Host, desired: Mapping[str, Any] | None) -> None:
        """Read-only. The layer belongs to the life of the container; see `life`."""

    def diff(self, subject: Subject, desired: Mapping[str, Any], observed: None) -> list[Step]:
        """Pure."""
        return []

    def remove(self, subject: Subject, observed: None) -> list[Step]:
        """Pure."""
        return []
