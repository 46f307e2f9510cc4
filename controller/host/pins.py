"""The file of which image each container has, in /var/lib: a tag that moves meanwhile changes nobody's."""

from __future__ import annotations

from typing import Any

from controller.frozen import as_dict
from controller.host import kept
from controller.model.image import Pin, Pins, is_digest, parse_reference


class PinFile:
    """`{container: {reference, digest, spec}}`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def load(self) -> Pins:
        """A damaged file is never taken for an empty one: tags would be asked for anew."""
        return kept.load(self._path, lambda value: {name: _pin(each) for name, each in value.items()})

    def save(self, pins: Pins) -> None:
        kept.save(self._path, {name: as_dict(each) for name, each in pins.items()})


def _pin(value: dict[str, Any]) -> Pin:
    found = Pin(str(value["reference"]), str(value["digest"]), str(value["spec"]))
    parse_reference(found.reference)
    if not is_digest(found.digest):
        raise ValueError(f"digest {found.digest!r}")
    return found
