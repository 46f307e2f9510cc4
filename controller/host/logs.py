"""Reads the logs that the keeper writes, oldest first, across rotations. Read-only.

The format is the CRI's: `<RFC 3339 time> <stream> <F|P> <text>`; P is a part of a longer line.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from controller.errors import StepFailed

POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class LogLine:
    """`text` ends with a newline unless it is a part."""

    at: str
    stream: str
    text: str


def lines(directory: str, name: str, *, tail: int, follow: bool) -> Iterator[LogLine]:
    """Lines of one container: the last `tail` (all when negative), then what comes, if `follow`."""
    current = f"{directory}/{name}/current.log"
    if not os.path.isdir(os.path.dirname(current)):
        raise StepFailed(f"there is no log of {name}: no container of this name has been started")
    history = [line for path in _files(current) for line in _read(path)]
    yield from history if tail < 0 else history[len(history) - min(tail, len(history)) :]
    if follow:
        yield from _follow(current)


def _files(current: str) -> list[str]:
    directory, base = os.path.split(current)
    rotated = sorted(
        (
            each
            for each in os.listdir(directory)
            if each.startswith(base + ".") and each.rsplit(".", 1)[1].isdigit()
        ),
        key=lambda each: -int(each.rsplit(".", 1)[1]),
    )
    return [*(f"{directory}/{each}" for each in rotated), current]


def _read(path: str) -> Iterator[LogLine]:
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            yield from (_parse(line) for line in file)
    except FileNotFoundError:
        return


def _parse(line: str) -> LogLine:
    at, stream, tag, text = [*line.split(" ", 3), "", "", ""][:4]
    return LogLine(at, stream, text.rstrip("\n") if tag == "P" else text)


def _follow(current: str) -> Iterator[LogLine]:
    """From the end on; when the file is rotated away, what was left in it comes first."""
    file, rest = _open_at_end(current), ""
    while True:
        rest += file.read() if file else ""
        *whole, rest = rest.split("\n")
        yield from (_parse(line + "\n") for line in whole)
        if file is None or _replaced(file, current):
            file = _reopen(current) or file
        if not whole:
            time.sleep(POLL_S)


def _open_at_end(path: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
    file = _reopen(path)
    if file:
        file.seek(0, os.SEEK_END)
    return file


def _reopen(path: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
    try:
        return open(path, encoding="utf-8", errors="replace", newline="\n")
    except FileNotFoundError:
        return None


def _replaced(file, path: str) -> bool:  # type: ignore[no-untyped-def]  # noqa: ANN001
    try:
        return os.fstat(file.fileno()).st_ino != os.stat(path).st_ino
    except FileNotFoundError:
        return False
