"""Programs run to their end: with a time-out, and killed as a group when they do not end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence

from controller.frozen import dataclass
from controller.model.process import CANNOT_RUN, TIMED_OUT


@dataclass(frozen=True, slots=True)
class Finished:
    """Exit code, 124 after a time-out and 127 when it could not run; what it said to either output."""

    status: int
    output: str
    errors: str


def output(argv: Sequence[str], timeout_s: float) -> tuple[int, str]:
    """→ (exit code, standard output and error together); 124 after a time-out, 127 when it cannot run."""
    finished = _run(argv, timeout_s, None, subprocess.STDOUT, _nobody)
    return finished.status, finished.output + finished.errors


def converse(argv: Sequence[str], timeout_s: float, said: str, started: Callable[[int], None]) -> Finished:
    """Give it `said` as its standard input. `started` is told its pid before it has read any of that."""
    return _run(argv, timeout_s, said, subprocess.PIPE, started)


def _run(
    argv: Sequence[str], timeout_s: float, said: str | None, errors: int, started: Callable[[int], None]
) -> Finished:
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if said is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Finished(CANNOT_RUN, "", str(error))
    started(process.pid)
    try:
        answered, complained = process.communicate(said, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return Finished(TIMED_OUT, *_rest(process))
    return Finished(process.returncode, answered, complained or "")


def _nobody(_: int) -> None:
    return


def _rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it had said; whoever left its group and still holds the pipe is not waited for."""
    try:
        answered, complained = process.communicate(timeout=1)
    except subprocess.TimeoutExpired as error:
        return _text(error.output), _text(error.stderr)
    return answered, complained or ""


def _text(said: str | bytes | None) -> str:
    """After a time-out, Python hands over bytes where it was asked for text."""
    return said.decode(errors="replace") if isinstance(said, bytes) else said or ""
