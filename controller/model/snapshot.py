"""What a source says at one moment. Pure values, the same for every kind of source."""

from __future__ import annotations

from controller.errors import Problem
from controller.frozen import dataclass


@dataclass(frozen=True, slots=True)
class SourceFile:
    """`path` as shown to people; `digest` is the SHA-256 of the text, in hexadecimal.

    `is_leaving`: it is not there, but it went only just now and may be about to come back.
    """

    path: str
    text: bytes
    digest: str
    is_leaving: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the source says at one moment, by path; `unreadable` names what could not be read.

    A directory, or the source itself, in `unreadable` stands for all the files below it that are not in `files`.
    """

    revision: str
    files: tuple[SourceFile, ...]
    unreadable: tuple[Problem, ...]
