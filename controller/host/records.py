"""The Records port: one small JSON file per container in /run, replaced atomically."""

from __future__ import annotations

import json
import os

from controller.errors import NOT_UNDERSTOOD
from controller.host.text import read_text, remove_file, write_atomic
from controller.model.record import Record

SUFFIX = ".json"


class RecordFiles:
    """A record that cannot be read counts as absent: the world is then observed and cleaned from scratch.

    What a file says is kept with its text, for most of the times it is the same.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._parsed: dict[str, tuple[str, Record]] = {}

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
        last = self._parsed.get(name)
        if last and last[0] == text:
            return last[1]
        try:
            record = Record.from_json(json.loads(text))
        except NOT_UNDERSTOOD:
            return None
        self._parsed[name] = (text, record)
        return record

    def write(self, record: Record) -> None:
        write_atomic(self._path(record.name), json.dumps(record.to_json()), durable=False)

    def remove(self, name: str) -> None:
        remove_file(self._path(name))
        self._parsed.pop(name, None)

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}{SUFFIX}"
