"""The Tallies port: one small JSON file per container of which something was counted."""

from __future__ import annotations

import contextlib
import json
import os

from controller.errors import NOT_UNDERSTOOD, StepFailed
from controller.host.cgroups.homes import Homes
from controller.host.text import read_text, remove_file, write_atomic
from controller.model.counters import Tally


class TallyFiles:
    """One that cannot be read counts as absent: the group that is there still has its own counters."""

    def __init__(self, homes: Homes, directory: str) -> None:
        self._homes, self._directory = homes, directory

    def number(self, group: str, subsystem: str) -> int:
        """The inode, which the kernel gives out once (fs/kernfs/dir.c; on 32 bits the generation is not in it)."""
        hierarchy = self._homes.facts.hierarchy(subsystem)
        try:
            return os.stat(self._homes.locate(hierarchy, group)).st_ino if hierarchy else 0
        except FileNotFoundError:
            return 0

    def read(self, name: str) -> Tally | None:
        text = read_text(self._path(name))
        if text is None:
            return None
        try:
            return Tally.from_json(json.loads(text))
        except NOT_UNDERSTOOD:
            return None

    def write(self, name: str, tally: Tally) -> None:
        """What cannot be written is lost only with the group that it was counted in."""
        with contextlib.suppress(StepFailed):
            write_atomic(self._path(name), json.dumps(tally.to_json()), durable=False)

    def remove(self, name: str) -> None:
        remove_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}.json"
