"""The Clock port."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import tzinfo

LOCALTIME: Final = "/etc/localtime"


class SystemClock:
    def now_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep_ms(self, duration: int) -> None:
        time.sleep(duration / 1000)

    def zone(self) -> tzinfo:
        """tzset(3) and localtime(5), with the rules for summer and winter; what is not there is UTC."""
        from datetime import UTC  # noqa: PLC0415 - for whoever has a schedule
        from zoneinfo import ZoneInfo  # noqa: PLC0415 - likewise

        name = os.environ.get("TZ", "").removeprefix(":")
        try:
            if name and not name.startswith("/"):
                return ZoneInfo(name)
            with open(name or LOCALTIME, "rb") as file:
                return ZoneInfo.from_file(file, name or LOCALTIME)
        except (OSError, ValueError, KeyError):
            return UTC
