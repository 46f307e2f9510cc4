"""The host's time zone, with its summer time: what people mean when they write a time of day."""

from __future__ import annotations

from datetime import UTC, tzinfo
from typing import Final

LOCALTIME: Final = "/etc/localtime"


def local_zone() -> tzinfo:
    """Read anew each time: somebody may set it. UTC where there is none, localtime(5)."""
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - only for whoever schedules

    try:
        with open(LOCALTIME, "rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except (OSError, ValueError):
        return UTC
