"""When the next checkpoint of a container is due. Pure: clocks and zone are arguments, and the answer is a value.

`every` counts on the boot clock, from the start of the container: nobody who sets the clock moves it. cron speaks
of the time on the wall, in the host's zone; what was done is placed on that by how long ago it was, so that a clock
set back or forward neither repeats nor makes up for anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from controller.frozen import dataclass
from controller.model.names import quote

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

MOST_SKIPPED = 10_000
"""Counting stops there."""

Window = tuple[int, int]
"""(first, end) in minutes of a day; the end may be before the first, which means the night between."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """`every_ms` or `cron`. `jitter_ms`: at most so much later, always the same for one container."""

    every_ms: int = 0
    cron: str = ""
    jitter_ms: int = 0
    quiet: Window | None = None


@dataclass(frozen=True, slots=True)
class Clocks:
    """Both now: milliseconds since boot, sleep included, and since the epoch."""

    boot_ms: int
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Past:
    """On the boot clock of this boot. `born_ms`: when the container started; `started_ms` and `ended_ms` of the
    last checkpoint that the schedule began, 0 for none in this boot."""

    born_ms: int
    started_ms: int = 0
    ended_ms: int = 0


@dataclass(frozen=True, slots=True)
class Due:
    """`at_ms` on the boot clock; at or before now: it is due. `skipped`: moments that passed while the last one
    was still at work. `postponed`: it would have been due in the quiet window."""

    at_ms: int
    skipped: int = 0
    postponed: bool = False


def due(schedule: Schedule, container: str, past: Past, now: Clocks, zone: tzinfo) -> Due | None:
    """None when there is no further moment at all (a cron that names 30 February)."""
    late = phase(container, schedule.jitter_ms)
    done = past.started_ms or past.born_ms
    busy_until = max(past.ended_ms, done)
    skipped = 0
    for at in _moments(schedule, past.born_ms + late, done, late, now, zone):
        if at > busy_until:
            return _outside(schedule, at, late, skipped, now, zone)
        skipped = min(skipped + 1, MOST_SKIPPED)
    return None


def phase(container: str, jitter_ms: int) -> int:
    """Milliseconds from 0 to `jitter_ms`, spread over containers and the same for ever for one."""
    if not jitter_ms:
        return 0
    digest = hashlib.blake2b(container.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (jitter_ms + 1)


def parse_cron(text: str) -> str:
    """Five fields as in crontab(5), unchanged. Raises ValueError."""
    from datetime import datetime  # noqa: PLC0415 - with the next one

    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - 22 ms, only for whoever writes cron

    if len(text) > 200 or len(text.split()) != 5:
        raise ValueError(f'{quote(text)} is not a cron expression: five fields, as "*/10 * * * *"')
    try:
        CronSim(text, datetime(2024, 1, 1))  # noqa: DTZ001 - any moment will do
    except CronSimError as error:
        raise ValueError(f"{quote(text)} is not a cron expression: {str(error).lower()}") from error
    return text


def parse_window(text: str) -> Window:
    """02:00-04:00 is (120, 240). Raises ValueError."""
    first, dash, end = text.partition("-")
    if not dash:
        raise ValueError(f'{quote(text)} is not a window of time: use for example "02:00-04:00"')
    found = _minutes(first, text), _minutes(end, text)
    if found[0] == found[1]:
        raise ValueError(f"{quote(text)}: begins and ends at the same time")
    return found


def in_window(minute: int, window: Window) -> bool:
    first, end = window
    return first <= minute < end if first < end else minute >= first or minute < end


def _moments(
    schedule: Schedule, anchor: int, done: int, late: int, now: Clocks, zone: tzinfo
) -> Iterator[int]:
    """On the boot clock, after `done`, ascending."""
    if schedule.every_ms:
        at = anchor + max(1, -(-(done + 1 - anchor) // schedule.every_ms)) * schedule.every_ms
        while True:
            yield at
            at += schedule.every_ms
    from datetime import datetime  # noqa: PLC0415 - as above

    from cronsim import CronSim  # noqa: PLC0415 - as above

    ahead = now.wall_ms - now.boot_ms
    # What was done began up to `late` after its moment: that moment must not come again.
    after = datetime.fromtimestamp((done - late + ahead) / 1000, zone)
    for moment in CronSim(schedule.cron, after):
        at = int(moment.timestamp() * 1000) - ahead + late
        if at > done:
            yield at


def _outside(schedule: Schedule, at: int, late: int, skipped: int, now: Clocks, zone: tzinfo) -> Due:
    """Moved to the end of the quiet window, never dropped: `every: 1d` would otherwise never come."""
    if schedule.quiet is None:
        return Due(at, skipped)
    from datetime import datetime  # noqa: PLC0415 - as above

    ahead = now.wall_ms - now.boot_ms
    start = max(at, now.boot_ms)  # what is overdue would be done now
    local = datetime.fromtimestamp((start + ahead) / 1000, zone)
    if not in_window(local.hour * 60 + local.minute, schedule.quiet):
        return Due(at, skipped)
    hour, minute = divmod(schedule.quiet[1], 60)
    end = local.replace(hour=hour, minute=minute, second=0, microsecond=0, fold=0)
    if end.timestamp() <= local.timestamp():
        end = _later_that_clock_shows(end, local)
    return Due(int(end.timestamp() * 1000) - ahead + late, skipped, postponed=True)


def _later_that_clock_shows(end: datetime, local: datetime) -> datetime:
    """The second of two equal times, when clocks go back in between; else tomorrow's."""
    from datetime import timedelta  # noqa: PLC0415 - as above

    second = end.replace(fold=1)
    return second if second.timestamp() > local.timestamp() else (end + timedelta(days=1)).replace(fold=0)


def _minutes(text: str, whole: str) -> int:
    hours, colon, minutes = text.strip().partition(":")
    fits = colon and hours.isdigit() and minutes.isdigit() and len(hours) <= 2 and len(minutes) == 2
    if not fits or int(hours) > 23 or int(minutes) > 59:
        raise ValueError(f'{quote(whole)} is not a window of time: use for example "02:00-04:00"')
    return int(hours) * 60 + int(minutes)
