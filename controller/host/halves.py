"""Looks at many in two processes: threads would take turns at Python. Nothing is changed there."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

WORTH: Final = 32
"""So many for each process: to start one, and to hear from it, takes as long as to look at some ten."""


def in_halves(look: Callable[[Sequence[str]], list[T]], names: Sequence[str]) -> list[T]:
    """What `look` says of all names, in order. What does not come from the other process is done here.

    For a program that has no threads yet, which a fork would leave behind; with one processor it is not worth it.
    """
    half = len(names) // 2
    if half < WORTH or threading.active_count() > 1 or len(os.sched_getaffinity(0)) < 2:
        return look(names)
    reading, pid = _other(look, names[half:])
    try:
        return [*look(names[:half]), *(_told(reading) or look(names[half:]))]
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _other(look: Callable[[Sequence[str]], list[T]], names: Sequence[str]) -> tuple[int, int]:
    """→ where it tells what it has found, and its pid."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(writing)
        return reading, pid
    try:
        os.close(reading)
        _tell(writing, look(names))
    finally:
        os._exit(0)


def _tell(writing: int, found: list[T]) -> None:
    import pickle  # noqa: PLC0415  for whoever has many

    with open(writing, "wb") as pipe:
        pipe.write(pickle.dumps(found))


def _told(reading: int) -> list[T]:
    """Nothing when the other has failed: whoever does it again finds out why."""
    import pickle  # noqa: PLC0415  for whoever has many

    with open(reading, "rb", closefd=False) as pipe:
        data = pipe.read()
    try:
        found: list[T] = pickle.loads(data)  # noqa: S301  of the same program
    except (EOFError, pickle.UnpicklingError):
        return []
    return found
