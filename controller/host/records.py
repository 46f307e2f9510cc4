"""The Records port: one small JSON file per container in /run, replaced atomically."""

from __future__ import annotations

import json
import os

from controller.host.text import read_text, remove_file, write_atomic
from controller.model.record import Record

SUFFIX = ".json"


class RecordFiles:
    """A record that cannot be read counts as absent: the world is then observed and cleaned from scratch."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def names(self) -> frozenset[str]:
        try:
            entries = os.listdir(self._directory)
        except FileNotFoundError:
            return frozenset()
        return frozenset(entry.removesuffix(SUFFIX) for entry in entries if entry.endswith(SUFFIX))

    def read(self, name: str) -> Record | None:
        text = read_text(self._path(name))
        if text is None:
            return None
        try:
            return Record.from_json(json.loads(text))
        except (ValueError, KeyError, TypeError):
            return None

    def write(self, record: Record) -> None:
        write_atomic(self._path(record.name), json.dumps(record.to_json()), durable=False)

    def remove(self, name: str) -> None:
        remove_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}{SUFFIX}"
