"""What is being done is shown on a terminal, and nowhere else."""

from __future__ import annotations

import io
import itertools
import time

from controller.report import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_each_change_is_written_over_the_last_and_goes_in_the_end() -> None:
    said = itertools.chain(["one", "one", "two"], itertools.repeat("three"))
    stream = Terminal()
    with progress.shown(stream, lambda: next(said)):
        deadline = time.monotonic() + 10
        while "three" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    clear = "\r\x1b[K"
    assert stream.getvalue() == f"{clear}one{clear}two{clear}three{clear}"


def test_a_file_gets_nothing() -> None:
    stream = io.StringIO()
    with progress.shown(stream, lambda: "one"):
        time.sleep(2 * progress.LOOK_S)
    assert stream.getvalue() == ""
