"""The Clock port."""

from __future__ import annotations

import time


class SystemClock:
    def now_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep_ms(self, duration: int) -> None:
        time.sleep(duration / 1000)
