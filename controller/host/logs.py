"""Reads the logs that the keeper writes, oldest first, across rotations. Read-only.

The format is the CRI's: `<RFC 3339 time> <stream> <F|P> <text>`; after P the line goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from controller.errors import StepFailed
from controller.frozen import dataclass

POLL_S = 0.05
BLOCK = 1 << 20
MARGIN = 1000
"""Lines that are read before the ones asked for, where the first parts of those may be."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """`text` ends with a newline unless the line goes on; `begins` unless this goes on with one."""

    at: str
    stream: str
    text: str
    begins: bool = True

    @property
    def ends(self) -> bool:
        return self.text.endswith("\n")


def lines(directory: str, name: str, *, tail: int, follow: bool) -> Iterator[LogLine]:
    """Lines of one container: the last `tail` (all when negative), then what comes, if `follow`.

    What has been written is given in whole lines, one that is not finished yet last; what comes, as it comes.
    """
    current = f"{directory}/{name}/current.log"
    if not os.path.isdir(os.path.dirname(current)):
        raise StepFailed(f"there is no log of {name}: no container of this name has been started")
    history = list(_joined(_read_all(current) if tail < 0 else _read_end(current, tail + MARGIN)))
    yield from history if tail < 0 else history[len(history) - min(tail, len(history)) :]
    if follow:
        yield from _follow(current, {line.stream for line in history if not line.ends})


def _joined(parts: Iterable[LogLine]) -> Iterator[LogLine]:
    """A line has the time of its first part and the place of its last."""
    begun: dict[str, list[LogLine]] = {}
    for part in parts:
        begun.setdefault(part.stream, []).append(part)
        if part.ends:
            yield _whole(begun.pop(part.stream))
    yield from map(_whole, begun.values())


def _whole(parts: list[LogLine]) -> LogLine:
    return replace(parts[0], text="".join(part.text for part in parts))


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


def _read_all(current: str) -> Iterator[LogLine]:
    return (line for path in _files(current) for line in _read(path))


def _read_end(current: str, count: int) -> Iterator[LogLine]:
    """The last `count` lines or more, read from the end on; parts of lines do not count."""
    text, complete = b"", False
    for path in reversed(_files(current)):
        for block in _backwards(path):
            text = block + text
            if text.count(b" F ") > count and sum(b" F " in line[:45] for line in text.split(b"\n")) > count:
                complete = True
                break
        if complete:
            text = text.partition(b"\n")[2]  # the first line may be torn
            break
    return (_parse(f"{line}\n") for line in text.decode(errors="replace").split("\n") if line)


def _backwards(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end > 0:
                begin = max(0, end - BLOCK)
                file.seek(begin)
                yield file.read(end - begin)
                end = begin
    except FileNotFoundError:
        return


def _read(path: str) -> Iterator[LogLine]:
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            yield from (_parse(line) for line in file)
    except FileNotFoundError:
        return


def _parse(line: str) -> LogLine:
    at, stream, tag, text = [*line.split(" ", 3), "", "", ""][:4]
    return LogLine(at, stream, text.rstrip("\n") if tag == "P" else text)


def _follow(current: str, begun: set[str]) -> Iterator[LogLine]:
    """From the end on; when the file is rotated away, what was left in it comes first.

    `begun`: streams whose last line goes on.
    """
    file, rest = _open_at_end(current), ""
    while True:
        rest += file.read() if file else ""
        *whole, rest = rest.split("\n")
        for line in whole:
            found = _parse(line + "\n")
            yield replace(found, begins=found.stream not in begun)
            (begun.discard if found.ends else begun.add)(found.stream)
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
