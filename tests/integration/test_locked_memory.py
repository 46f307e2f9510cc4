"""The limit of locked memory is one for all threads, and is as before when the last of them has ended."""

from __future__ import annotations

import resource
import threading

import pytest

from controller.host.cgroups.locked_memory import LockedMemory

pytestmark = pytest.mark.root


def test_whoever_loads_at_the_same_time_waits_and_the_limit_comes_back() -> None:
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    low = (4096, before[1])
    resource.setrlimit(resource.RLIMIT_MEMLOCK, low)
    try:
        first, second = _two_overlap()
        assert first == second, "it is lifted for each until its end"
        assert first in {before[1], resource.RLIM_INFINITY}
        assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == low
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def _two_overlap() -> list[int]:
    """→ the limit of each at its end. The second comes while the first is in, and would end after it."""
    memory, found = LockedMemory(), list[int]()
    first_is_in, first_is_out = threading.Event(), threading.Event()

    def second() -> None:
        first_is_in.wait(5)
        with memory.unlimited():
            first_is_out.wait(5)
            found.append(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])

    thread = threading.Thread(target=second)
    thread.start()
    with memory.unlimited():
        first_is_in.set()
        thread.join(0.1)
        found.append(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])
    first_is_out.set()
    thread.join(5)
    return found
