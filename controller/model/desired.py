"""The desired set: what the source asks for, file by file, with the last good version of each. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Any

from controller.errors import Problem
from controller.frozen import dataclass
from controller.model.resource import CONTAINER, Resource
from controller.model.snapshot import Commit


@dataclass(frozen=True, slots=True)
class FileState:
    """One spec file: `resources` are of its last good version, `digest` is of the version last looked at.

    `elsewhere`: what of it counts on other hosts alone. `parts`: other files that have patched it. `awaits`: it is
    gone, and may have moved to that file, which is not understood.
    """

    digest: str
    resources: tuple[Resource, ...]
    rejected: tuple[Problem, ...] = ()
    elsewhere: tuple[Resource, ...] = ()
    parts: tuple[str, ...] = ()
    awaits: str = ""


@dataclass(frozen=True, slots=True)
class DesiredSet:
    """What is desired, file by file. `frozen` says why the source is not followed at the moment, `stale` why this
    is only the last that is known of it; `since`: when this revision was taken, in ms since 1970; `source`: where.
    """

    revision: str = ""
    files: Mapping[str, FileState] = field(default_factory=dict)
    unreadable: tuple[Problem, ...] = ()
    frozen: str = ""
    stale: str = ""
    commit: Commit | None = None
    since: int = 0
    source: str = ""

    @property
    def silence(self) -> str:
        """Why nothing is heard of the source, or nothing is taken from it."""
        return self.frozen or self.stale

    @property
    def resources(self) -> dict[str, Resource]:
        """By key."""
        return {each.key: each for state in self.files.values() for each in state.resources}

    @property
    def containers(self) -> dict[str, Resource]:
        return self.of_kind(CONTAINER)

    def of_kind(self, kind: str) -> dict[str, Resource]:
        """By name."""
        return {each.name: each for each in self.resources.values() if each.kind == kind}

    @property
    def rejected(self) -> tuple[Problem, ...]:
        bad = [problem for state in self.files.values() for problem in state.rejected]
        return tuple(sorted({*bad, *self.unreadable}))

    def to_json(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "frozen": self.frozen,
            "stale": self.stale,
            "commit": asdict(self.commit) if self.commit else None,
            "since": self.since,
            "source": self.source,
            "unreadable": [asdict(each) for each in self.unreadable],
            "files": {path: _file_json(state) for path, state in self.files.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DesiredSet:
        """Raises KeyError or TypeError for anything `to_json` did not write."""
        files = {path: _file_state(state) for path, state in value["files"].items()}
        unreadable = tuple(Problem(**each) for each in value["unreadable"])
        commit = Commit(**value["commit"]) if value.get("commit") else None
        last = value.get("stale", ""), commit, value.get("since", 0), value.get("source", "")
        return cls(value["revision"], files, unreadable, value["frozen"], *last)


def _file_json(state: FileState) -> dict[str, Any]:
    return {
        "digest": state.digest,
        "resources": [each.to_json() for each in state.resources],
        "rejected": [asdict(each) for each in state.rejected],
        **({"elsewhere": [each.to_json() for each in state.elsewhere]} if state.elsewhere else {}),
        **({"parts": list(state.parts)} if state.parts else {}),
        **({"awaits": state.awaits} if state.awaits else {}),
    }


def _file_state(value: Mapping[str, Any]) -> FileState:
    written = (
        value["resources"] if "resources" in value else value["containers"]
    )  # as the first version wrote it
    resources = tuple(Resource.from_json(each) for each in written)
    elsewhere = tuple(Resource.from_json(each) for each in value.get("elsewhere", ()))
    problems = tuple(Problem(**each) for each in value["rejected"])
    last = tuple(value.get("parts", ())), value.get("awaits", "")
    return FileState(value["digest"], resources, problems, elsewhere, *last)
