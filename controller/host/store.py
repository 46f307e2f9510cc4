"""Files in which masu keeps what it was told and what it has to say."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import replace

from controller.errors import NOT_UNDERSTOOD, StepFailed
from controller.host.places import Places
from controller.host.text import read_text, remove_file, write_atomic
from controller.model.desired import DesiredSet
from controller.model.status import Condition

SLASH = "@"
"""In place of the slash in what is no container's name."""


class DesiredFile:
    """The last good desired set, in /var/lib; another version of masu parses every file anew, and until then
    keeps what was good."""

    def __init__(self, places: Places, version: str) -> None:
        self._places, self._version = places, version

    def load(self) -> DesiredSet:
        """A missing or damaged file is an empty set: the source says it all again."""
        try:
            value = json.loads(read_text(self._places.desired) or "{}")
            desired = DesiredSet.from_json(value["desired"])
        except NOT_UNDERSTOOD:
            return DesiredSet()
        return desired if value.get("version") == self._version else _unparsed(desired)

    def save(self, desired: DesiredSet) -> None:
        text = json.dumps({"version": self._version, "desired": desired.to_json()})
        write_atomic(self._places.desired, text, durable=True, directory_mode=0o711)

    def clear(self) -> None:
        """Forget what was desired: somebody said so."""
        remove_file(self._places.desired)


def _unparsed(desired: DesiredSet) -> DesiredSet:
    files = {path: replace(state, digest="") for path, state in desired.files.items()}
    return replace(desired, files=files, revision="")


class ConditionFiles:
    """One small file per container that has something to say; none for the others."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def read(self, name: str) -> tuple[Condition, ...]:
        try:
            values = json.loads(read_text(self._path(name)) or "[]")
            return tuple(Condition.from_json(each) for each in values)
        except NOT_UNDERSTOOD:
            return ()

    def save(self, name: str, conditions: tuple[Condition, ...]) -> None:
        """What cannot be written must not stop a repair: status then shows what it observes by itself."""
        try:
            if not conditions:
                if os.path.exists(self._path(name)):
                    remove_file(self._path(name))
                return
            write_atomic(self._path(name), json.dumps([each.to_json() for each in conditions]), durable=False)
        except StepFailed:
            return

    def remove(self, name: str) -> None:
        remove_file(self._path(name))

    def keep(self, names: Collection[str]) -> None:
        try:
            found = os.listdir(self._directory)
        except FileNotFoundError:
            return
        for file in found:
            if file.endswith(".json") and _key(file.removesuffix(".json")) not in names:
                remove_file(f"{self._directory}/{file}")

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name.replace('/', SLASH)}.json"


def _key(file: str) -> str:
    return file.replace(SLASH, "/")
