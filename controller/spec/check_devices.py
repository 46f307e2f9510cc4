"""Rules about devices that a schema cannot say. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from controller.errors import Problem
from controller.model.names import plain_path
from controller.model.resource import Resource

if TYPE_CHECKING:
    from controller.spec.document import Document

DEV = "/dev"
TAKEN = frozenset(
    {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts"}
    | {"shm", "mqueue", "fd", "stdin", "stdout", "stderr", "core"}
)
"""What a runtime puts there by itself (OCI config-linux.md, Default Devices and Default Filesystems)."""


def devices(document: Document, wanted: Resource) -> Iterator[Problem]:
    """Pure."""
    written = wanted.section("devices") or ()
    seen: dict[str, int] = {}
    for index, each in enumerate(written):
        place = _place(each)
        path = ("spec", "devices", index)
        if place.split("/")[0] in TAKEN:
            yield document.problem(
                path, f"{DEV}/{place} is there in every container: choose another place with as"
            )
        elif place and "match" not in each and seen.setdefault(place, index) != index:
            yield document.problem(path, f"{DEV}/{place} is already a device of this container")
    if written:
        yield from _mounts_over(document, wanted)


def _mounts_over(document: Document, wanted: Resource) -> Iterator[Problem]:
    """Nothing is made in what belongs to somebody else."""
    for index, each in enumerate(wanted.section("mounts") or ()):
        if plain_path(str(each.get("tmpfs") or each.get("target"))) == DEV:
            message = f"devices need a {DEV} of the container's own: nothing may be mounted there"
            yield document.problem(("spec", "mounts", index), message)


def _place(each: Mapping[str, Any]) -> str:
    """Below /dev; empty where only the host knows."""
    if "as" in each:
        return str(each["as"]).strip("/")
    path = plain_path(str(each.get("path", "")))
    return path.removeprefix(f"{DEV}/") if path.startswith(f"{DEV}/") else path.rpartition("/")[2]
