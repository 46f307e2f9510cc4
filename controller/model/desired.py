"""The desired set: what the source asks for, file by file, with the last good version of each. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from controller.errors import Problem
from controller.model.container import Container


@dataclass(frozen=True, slots=True)
class FileState:
    """One spec file: `containers` are of its last good version, `digest` is of the version last looked at."""

    digest: str
    containers: tuple[Container, ...]
    rejected: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class DesiredSet:
    """What is desired, file by file. `frozen` says why the source is not followed at the moment."""

    revision: str = ""
    files: Mapping[str, FileState] = field(default_factory=dict)
    unreadable: tuple[Problem, ...] = ()
    frozen: str = ""

    @property
    def containers(self) -> dict[str, Container]:
        return {each.name: each for state in self.files.values() for each in state.containers}

    @property
    def rejected(self) -> tuple[Problem, ...]:
        bad = [problem for state in self.files.values() for problem in state.rejected]
        return tuple(sorted({*bad, *self.unreadable}))

    def to_json(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "frozen": self.frozen,
            "unreadable": [asdict(each) for each in self.unreadable],
            "files": {path: _file_json(state) for path, state in self.files.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DesiredSet:
        """Raises KeyError or TypeError for anything `to_json` did not write."""
        files = {path: _file_state(state) for path, state in value["files"].items()}
        unreadable = tuple(Problem(**each) for each in value["unreadable"])
        return cls(value["revision"], files, unreadable, value["frozen"])


def _file_json(state: FileState) -> dict[str, Any]:
    return {
        "digest": state.digest,
        "containers": [each.to_json() for each in state.containers],
        "rejected": [asdict(each) for each in state.rejected],
    }


def _file_state(value: Mapping[str, Any]) -> FileState:
    containers = tuple(Container.from_json(each) for each in value["containers"])
    return FileState(value["digest"], containers, tuple(Problem(**each) for each in value["rejected"]))
