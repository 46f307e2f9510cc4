"""Programs run to their end: with a time-out, and killed as a group when they do not end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence


def output(argv: Sequence[str], timeout_s: float) -> tuple[int, str]:
    """→ (exit code, standard output and error together); 124 after a time-out, 127 when it cannot run."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return 127, str(error)
    try:
        said, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return 124, _rest(process)
    return process.returncode, said


def _rest(process: subprocess.Popen[str]) -> str:
    """What it had said; whoever left its group and still holds the pipe is not waited for."""
    try:
        return process.communicate(timeout=1)[0]
    except subprocess.TimeoutExpired as error:
        said = error.output or b""
        return said.decode(errors="replace") if isinstance(said, bytes) else said
