"""What a source says at one moment. Pure values, the same for every kind of source."""

from __future__ import annotations

import posixpath
from dataclasses import replace

from controller.errors import Problem
from controller.frozen import dataclass

SHORT = 10
"""Digits of a hash that people are shown."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """`path` as shown to people; `digest` is the SHA-256 of the text, in hexadecimal.

    `is_leaving`: it is not there, but it went only just now and may be about to come back. `layer`: what is in a
    higher one patches what is below.
    """

    path: str
    text: bytes
    digest: str
    is_leaving: bool = False
    layer: int = 0


@dataclass(frozen=True, slots=True)
class Commit:
    """A revision of a repository, as it describes itself; `at`: ms since 1970 by its committer's clock."""

    id: str
    subject: str
    at: int

    @property
    def title(self) -> str:
        """As people say it: 3f2a9c1 "limit web"."""
        return f'{self.id[:SHORT]} "{self.subject}"'


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the source says at one moment, by path; `unreadable` names what could not be read.

    A directory, or the source itself, in `unreadable` stands for all the files below it that are not in `files`.
    `stale`: why this is only the last that is known of a source that cannot be asked at the moment. `source`: where
    it is, whichever revision of it is asked for.
    """

    revision: str
    files: tuple[SourceFile, ...]
    unreadable: tuple[Problem, ...]
    commit: Commit | None = None
    stale: str = ""
    atomic: bool = False
    """It is to be taken whole or not at all."""
    source: str = ""


def moved_to(found: Snapshot, root: str, other: str) -> Snapshot:
    """Pure. With the paths that its files would have below another root; "" is the root of a repository."""

    def moved(path: str) -> str:
        if root and path != root and not path.startswith(f"{root}/"):  # of a base, which is beside it
            return posixpath.normpath(posixpath.join(other, posixpath.relpath(path, root)))
        below = path[len(root) :].lstrip("/")
        return "/".join(each for each in (other, below) if each)

    files = tuple(replace(each, path=moved(each.path)) for each in found.files)
    problems = tuple(replace(each, file=moved(each.file)) for each in found.unreadable)
    return replace(found, files=files, unreadable=problems)
