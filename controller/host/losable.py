"""One small JSON file per container, of what may be lost: whoever reads it does without."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from controller.errors import NOT_UNDERSTOOD, StepFailed
from controller.host.text import read_text, remove_file, write_atomic


class Shown(Protocol):
    def to_json(self) -> Any: ...


T = TypeVar("T", bound=Shown)


class LosableFiles(Generic[T]):
    """`parse`: of what `to_json` made. A file that cannot be read counts as absent."""

    def __init__(self, directory: str, parse: Callable[[Any], T]) -> None:
        self._directory, self._parse = directory, parse

    def read(self, name: str) -> T | None:
        text = read_text(self._path(name))
        if text is None:
            return None
        try:
            return self._parse(json.loads(text))
        except NOT_UNDERSTOOD:
            return None

    def write(self, name: str, value: T) -> None:
        """What cannot be written, as on a full disk, is left."""
        with contextlib.suppress(StepFailed):
            write_atomic(self._path(name), json.dumps(value.to_json()), durable=False)

    def remove(self, name: str) -> None:
        remove_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}.json"
