"""The file of which image each container has, in /var/lib: a tag that moves meanwhile changes nobody's."""

from __future__ import annotations

import json
from typing import Any

from controller.errors import NOT_UNDERSTOOD, StepFailed
from controller.frozen import as_dict
from controller.host.text import read_text, remove_file, write_atomic
from controller.model.image import Pin, Pins, is_digest, parse_reference


class PinFile:
    """`{container: {reference, digest, spec}}`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def load(self) -> Pins:
        """A damaged file is never taken for an empty one: tags would be asked for anew."""
        text = read_text(self._path)
        try:
            return {name: _pin(each) for name, each in json.loads(text or "{}").items()}
        except NOT_UNDERSTOOD as error:
            message = f"{self._path} is damaged ({error}): restore or remove it"
            raise StepFailed(message, path=self._path) from error

    def save(self, pins: Pins) -> None:
        if not pins:
            remove_file(self._path)
            return
        value = {name: as_dict(each) for name, each in pins.items()}
        write_atomic(self._path, json.dumps(value, indent=1), durable=True, directory_mode=0o711)


def _pin(value: dict[str, Any]) -> Pin:
    found = Pin(str(value["reference"]), str(value["digest"]), str(value["spec"]))
    parse_reference(found.reference)
    if not is_digest(found.digest):
        raise ValueError(f"digest {found.digest!r}")
    return found
