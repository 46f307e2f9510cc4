"""rootfs: the directory or the image that becomes `/`, where writes go, and how much of them there may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects import _space
from controller.aspects._base import Birth, Subject
from controller.aspects._bundle import without_defaults
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.model.image import Choice
from controller.model.space import ROOTFS, Space, parse_size
from controller.model.status import Condition, Drift
from controller.steps._base import Effect, Step
from controller.steps.images import AwaitImage
from controller.steps.spaces import RemoveSpace

PREFIX = "rootfs."


class Rootfs:
    """The kernel fixes at the container's birth what is mounted where; the size of a layer that has one is live."""

    name = "rootfs"
    section = "rootfs"
    keys: Mapping[str, Effect] = {
        "rootfs.path": Effect.RECREATE,
        "rootfs.image": Effect.RECREATE,
        "rootfs.writable": Effect.RECREATE,
        "rootfs.size": Effect.LIVE,
    }

    def parse(self, section: Any, facts: Facts) -> Mapping[str, Any]:
        """Pure. → {path, writable, size in bytes, or 0, hostUser}: whether it is in the host's user namespace.

        Of an image: `reference` as written, `digest`, or empty, and `here`: whether it can be mounted. Where it
        cannot, its path is one that is not on this host.
        """
        del facts
        size = parse_size(section["size"]) if "size" in section else 0
        reference, choice = section.get("image", ""), section.get("choice") or Choice()
        return {
            "path": section["path"] if not reference else choice.image.path if choice.image else reference,
            "reference": reference,
            "digest": choice.digest,
            "here": not reference or choice.image is not None,
            "writable": section.get("writable", "overlay"),
            "size": size,
            "hostUser": section.get("hostUser", True),
        }

    def birth(self, desired: Mapping[str, Any]) -> Birth:
        """Pure. The keeper mounts it; the bundle config only says whether `/` may be written.

        Whether the layer has a size is a matter of where it is, and so of a new container; how much, is not.
        """
        config = {"root": {"readonly": desired["writable"] == "readOnly"}}
        root = {"path": desired["path"], "writable": desired["writable"], "sized": desired["size"] > 0}
        what = root
        if desired["reference"]:  # by whatever name it goes, and wherever it is
            what = {**root, "image": desired["digest"] or desired["reference"]}
            del what["path"]
            root = {**root, "image": desired["digest"]}
        identity = without_defaults(what, {"writable": "overlay", "sized": False})
        return Birth(Effect.RECREATE, identity, config=config, root=root)

    def observe(self, subject: Subject, host: Host, desired: Mapping[str, Any] | None) -> _space.Seen:
        """Read-only. The layer belongs to the life of the container; this is the space that it is in, if any."""
        space, wanted = Space(ROOTFS, subject.name), bool(desired and desired["size"])
        return _space.observe(space, host, wanted=wanted, busy=bool(subject.pid))

    def diff(self, subject: Subject, desired: Mapping[str, Any], observed: _space.Seen) -> list[Step]:
        """Pure. A space that is not asked for any more goes when nobody lives in it.

        Whoever runs from an image does not need it to be here for that.
        """
        awaited = _awaited(subject, desired)
        if desired["size"]:
            return [*awaited, *_space.steps(subject.name, _wanted(desired), observed)]
        if subject.pid or not (observed.live.exists or observed.live.half):
            return awaited
        return [*awaited, RemoveSpace(subject.name, observed.space, PREFIX, Effect.RECREATE)]

    def verify(self, desired: Mapping[str, Any], observed: _space.Seen) -> list[Drift]:
        """Pure."""
        return list(_space.verify(self.name, _wanted(desired), observed.live)) if desired["size"] else []

    def remarks(self, desired: Mapping[str, Any], observed: _space.Seen) -> list[Condition]:
        """Pure."""
        return list(_space.remarks(_wanted(desired), observed)) if desired["size"] else []

    def remove(self, subject: Subject, observed: _space.Seen) -> list[Step]:
        """Pure."""
        return _space.removal(subject.name, PREFIX, observed)


def _awaited(subject: Subject, desired: Mapping[str, Any]) -> list[Step]:
    runs_from = subject.record.image if subject.record and subject.pid else ""
    if desired["here"] or (runs_from and runs_from == desired["digest"]):
        return []
    means = Effect.RECREATE if subject.record else Effect.CREATE
    return [AwaitImage(subject.name, desired["reference"], desired["digest"], means)]


def _wanted(desired: Mapping[str, Any]) -> _space.Wanted:
    host_users = ("this container",) if desired["hostUser"] else ()
    return _space.Wanted(PREFIX, desired["size"], means=Effect.LIVE, host_users=host_users)
