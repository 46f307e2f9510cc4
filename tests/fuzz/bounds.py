"""How long fuzzing takes: on CI so many examples of each kind, always the same ones.

`make fuzz` as many as one likes: MASU_FUZZ_EXAMPLES multiplies them, and the dice are thrown anew each time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("MASU_FUZZ_EXAMPLES", "0"))
PATIENCE_S = 2.0
"""Of this thread's own time, for one input: what is quadratic shows, a busy machine does not."""

_UNCHECKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=_UNCHECKED)
settings.register_profile("long", deadline=None, suppress_health_check=_UNCHECKED, print_blob=True)


def bounded(examples: int) -> settings:
    """`examples`: on CI. All of tests/fuzz together take no more than a minute of one core there."""
    profile = settings.get_profile("long" if TIMES else "ci")
    return settings(profile, max_examples=examples * max(TIMES, 1))


@contextmanager
def soon() -> Iterator[None]:
    """Whatever the input is, masu is done with it soon."""
    begin = time.thread_time()
    yield
    assert time.thread_time() - begin < PATIENCE_S


def printable(error: Exception) -> None:
    """What a stranger wrote is not let loose on a terminal, or on the lines of a log."""
    assert str(error).isprintable(), str(error)
