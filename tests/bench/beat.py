"""A workload with memory that nothing can squeeze, which measures itself how long it stood still."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

from tests.bench.world import until

BEATS, LONGEST, ASKED = 0, 1, 2
"""In the page: how often it has beaten; the longest time between two beats, in ns; what it is asked to do."""
GO_ON, FORGET, RENEW = 0, 1, 2
WATCH_S = 0.0002
ENOUGH_BEATS = 20
PROGRAM = """
import mmap, os, sys, time
size, longest, beats = int(sys.argv[1]) << 20, 0, 0
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
page = memoryview(mmap.mmap(os.open(sys.argv[2], os.O_RDWR), mmap.PAGESIZE)).cast("Q")
def renew():
    for start in range(0, size, 1 << 20):
        memory[start : start + (1 << 20)] = os.urandom(1 << 20)
renew()
last = time.monotonic_ns()
while True:
    asked = page[2]
    if asked:
        if asked == 2:
            renew()
        longest, last, page[2] = 0, time.monotonic_ns(), 0
    now = time.monotonic_ns()
    longest, last, beats = max(longest, now - last), now, beats + 1
    page[0], page[1] = beats, longest
    time.sleep(0.0005)
"""


class Beat:
    """The page that the workload and whoever watches it share: a file of the host, on a tmpfs.

    Numbers are written and read whole, which those of `struct` are not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(mmap.PAGESIZE))
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._page = memoryview(mmap.mmap(descriptor, mmap.PAGESIZE)).cast("Q")
        os.close(descriptor)

    @property
    def beats(self) -> int:
        return self._page[BEATS]

    def ask(self, what: int) -> None:
        """It has been done when this returns, and it has beaten since."""
        self._page[ASKED] = what
        until(lambda: self._page[ASKED] == GO_ON, "an answer", pause_s=0.001)
        self.go_on()

    def go_on(self) -> None:
        before = self.beats
        until(lambda: self.beats > before + ENOUGH_BEATS, "a beat", pause_s=0.001)

    def longest(self) -> float:
        """Seconds between two beats since it was asked to forget."""
        self.go_on()
        return self._page[LONGEST] / 1e9

    def back(self) -> tuple[float, float]:
        """Wait until it goes on from an earlier beat → (the moment of the last one before, the moment of that)."""
        last, seen = self.beats, time.monotonic()

        def earlier() -> bool:
            nonlocal last, seen
            beats = self.beats
            if beats > last:
                last, seen = beats, time.monotonic()
            return beats < last

        at = until(earlier, "it runs again", pause_s=WATCH_S)
        return seen, at
