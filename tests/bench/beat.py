"""A workload with memory that nothing can squeeze, which measures itself how long it stood still."""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

from tests.bench.world import until

PAGE = struct.Struct("<QdQ")
"""How often it has beaten; the longest time between two beats, in seconds; what it is asked to do."""
GO_ON, FORGET, RENEW = 0, 1, 2
WATCH_S = 0.0002
ENOUGH_BEATS = 20
PROGRAM = """
import mmap, os, struct, sys, time
size, at, longest, beats = int(sys.argv[1]) << 20, struct.Struct("<QdQ"), 0.0, 0
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
file = os.open(sys.argv[2], os.O_RDWR)
page = mmap.mmap(file, mmap.PAGESIZE)
def renew():
    for start in range(0, size, 1 << 20):
        memory[start : start + (1 << 20)] = os.urandom(1 << 20)
renew()
last = time.monotonic()
while True:
    asked = at.unpack_from(page)[2]
    if asked == 2:
        renew()
    if asked:
        longest, last = 0.0, time.monotonic()
    now = time.monotonic()
    longest, last, beats = max(longest, now - last), now, beats + 1
    at.pack_into(page, 0, beats, longest, 0)
    time.sleep(0.0005)
"""


class Beat:
    """The page that the workload and whoever watches it share: a file of the host, on a tmpfs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(mmap.PAGESIZE))
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)
        os.close(descriptor)

    def close(self) -> None:
        self._page.close()

    @property
    def beats(self) -> int:
        count: int = PAGE.unpack_from(self._page)[0]
        return count

    def ask(self, what: int) -> None:
        """It has been done when this returns, and it has beaten since."""
        struct.pack_into("<Q", self._page, 16, what)
        until(lambda: PAGE.unpack_from(self._page)[2] == GO_ON, "an answer", pause_s=0.001)
        self.go_on()

    def go_on(self) -> None:
        before = self.beats
        until(lambda: self.beats > before + ENOUGH_BEATS, "a beat", pause_s=0.001)

    def longest(self) -> float:
        """Seconds between two beats since it was asked to forget."""
        self.go_on()
        value: float = PAGE.unpack_from(self._page)[1]
        return value

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
