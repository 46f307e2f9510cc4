"""The AttemptLog port: one small JSON file per container of which a checkpoint was made, or failed."""

from __future__ import annotations

import contextlib
import json

from controller.errors import NOT_UNDERSTOOD, StepFailed
from controller.host.text import read_text, remove_file, write_atomic
from controller.model.attempts import Attempts


class AttemptFiles:
    """One that cannot be read counts as absent."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def read(self, name: str) -> Attempts | None:
        text = read_text(self._path(name))
        if text is None:
            return None
        try:
            return Attempts.from_json(json.loads(text))
        except NOT_UNDERSTOOD:
            return None

    def write(self, name: str, attempts: Attempts) -> None:
        """What cannot be written, as on a full disk, must not be why a checkpoint fails, or is not told of."""
        with contextlib.suppress(StepFailed):
            write_atomic(self._path(name), json.dumps(attempts.to_json()), durable=False)

    def remove(self, name: str) -> None:
        remove_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}.json"
