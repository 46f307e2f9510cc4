"""When a checkpoint is due: clocks that are set, summer time, quiet hours, and dumps that take too long."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.checkpoints.schedule import (
    Clocks,
    Past,
    Schedule,
    due,
    in_window,
    parse_cron,
    parse_window,
    phase,
)

BERLIN = ZoneInfo("Europe/Berlin")
SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
BOOTED = 1_000 * HOUR
"""Boot clock at the moment of which a test tells the time on the wall."""


def _clocks(text: str, zone: ZoneInfo = BERLIN, boot: int = BOOTED, fold: int = 0) -> Clocks:
    at = datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)
    return Clocks(boot, int(at.timestamp() * 1000))


def _when(at_ms: int, now: Clocks, zone: ZoneInfo = BERLIN) -> str:
    return datetime.fromtimestamp((at_ms - now.boot_ms + now.wall_ms) / 1000, zone).strftime("%d %H:%M")


def _next(schedule: Schedule, now: Clocks, started_ago: int = 0) -> str:
    past = Past(now.boot_ms - 10 * HOUR, now.boot_ms - started_ago if started_ago else 0)
    past = past if started_ago else Past(now.boot_ms)
    found = due(schedule, "web", past, now, BERLIN)
    assert found
    return _when(found.at_ms, now)


@given(st.integers(SECOND, HOUR), st.integers(0, HOUR), st.integers(0, HOUR * 100))
def test_every_comes_at_its_distance_from_the_start(every: int, born: int, ahead: int) -> None:
    schedule, past, moments = Schedule(every), Past(born), []
    for _ in range(4):
        found = due(schedule, "web", past, Clocks(born, born + ahead), UTC)
        assert found
        moments.append(found.at_ms)
        past = Past(born, found.at_ms, found.at_ms)
    assert moments == [born + every * count for count in (1, 2, 3, 4)]


@given(st.integers(0, HOUR), st.integers(0, 10**13))
def test_setting_the_clock_moves_no_interval(now: int, wall: int) -> None:
    found = due(Schedule(10 * MINUTE), "web", Past(0, 0, 0), Clocks(now, wall), UTC)
    assert found == due(Schedule(10 * MINUTE), "web", Past(0, 0, 0), Clocks(now, 0), UTC)


def test_a_dump_that_takes_longer_than_the_interval_skips_and_says_so() -> None:
    past = Past(0, started_ms=10 * MINUTE, ended_ms=35 * MINUTE)
    found = due(Schedule(10 * MINUTE), "web", past, Clocks(35 * MINUTE, 0), UTC)
    assert found
    assert (found.at_ms, found.skipped) == (40 * MINUTE, 2)


def test_a_daemon_that_was_away_makes_up_for_one_only() -> None:
    now = Clocks(100 * MINUTE, 0)
    found = due(Schedule(10 * MINUTE), "web", Past(0, 30 * MINUTE, 31 * MINUTE), now, UTC)
    assert found
    assert found.at_ms <= now.boot_ms
    after = due(Schedule(10 * MINUTE), "web", Past(0, now.boot_ms, now.boot_ms + 1), now, UTC)
    assert after
    assert after.at_ms == 110 * MINUTE


@given(st.text(max_size=30), st.integers(0, HOUR))
def test_jitter_is_bounded_and_always_the_same(name: str, jitter: int) -> None:
    assert 0 <= phase(name, jitter) <= jitter
    assert phase(name, jitter) == phase(name, jitter)


def test_jitter_spreads_containers_but_not_the_distances() -> None:
    assert len({phase(f"web-{at}", MINUTE) for at in range(50)}) > 40
    schedule = Schedule(10 * MINUTE, jitter_ms=MINUTE)
    late = phase("web", MINUTE)
    found = due(schedule, "web", Past(0, 10 * MINUTE + late), Clocks(11 * MINUTE, 0), UTC)
    assert found
    assert found.at_ms == 20 * MINUTE + late


def test_cron_speaks_of_local_time() -> None:
    now = _clocks("2026-06-10T10:07:00")
    assert _next(Schedule(cron="*/10 * * * *"), now) == "10 10:10"
    assert _next(Schedule(cron="30 1 * * *"), now) == "11 01:30"


def test_what_cron_began_with_jitter_does_not_come_again() -> None:
    late = phase("web", 9 * MINUTE)
    assert late > 0
    now = _clocks("2026-06-10T10:20:00")
    started = now.boot_ms - 10 * MINUTE + late  # the moment of 10:10
    found = due(Schedule(cron="*/10 * * * *", jitter_ms=9 * MINUTE), "web", Past(0, started), now, BERLIN)
    assert found
    assert found.at_ms - late == now.boot_ms


@pytest.mark.parametrize("now", ["2026-06-10T08:30:00", "2026-06-10T15:30:00"])
def test_cron_after_a_clock_was_set_neither_repeats_nor_makes_up(now: str) -> None:
    """Half an hour after the last one, whatever the clock now says, the next is on the next full hour."""
    assert _next(Schedule(cron="0 * * * *"), _clocks(now), 30 * MINUTE)[3:] == f"{int(now[11:13]) + 1:02}:00"


def test_cron_through_the_hour_that_comes_twice() -> None:
    now = _clocks("2026-10-25T02:30:00", fold=0)
    moments, past = [], Past(now.boot_ms)
    for _ in range(4):
        found = due(Schedule(cron="*/30 * * * *"), "web", past, now, BERLIN)
        assert found
        moments.append(found.at_ms)
        past = Past(0, found.at_ms, found.at_ms)
    assert {later - earlier for earlier, later in pairwise(moments)} == {30 * MINUTE}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-06-10T01:55:00", "10 04:00"),
        ("2026-06-10T03:59:00", "10 04:09"),
        ("2026-06-10T12:00:00", "10 12:10"),
    ],
)
def test_what_is_due_in_the_quiet_window_is_made_at_its_end(now: str, expected: str) -> None:
    assert _next(Schedule(10 * MINUTE, quiet=(120, 240)), _clocks(now)) == expected


def test_what_became_overdue_waits_for_the_end_of_the_quiet_window() -> None:
    now = _clocks("2026-06-10T23:00:00")
    found = due(
        Schedule(10 * MINUTE, quiet=(22 * 60, 6 * 60)), "web", Past(0, now.boot_ms - HOUR * 2), now, BERLIN
    )
    assert found
    assert found.postponed
    assert _when(found.at_ms, now) == "11 06:00"


@given(st.integers(0, 366 * 24 * 60), st.integers(0, 1439), st.integers(1, 1438), st.integers(1, 2000))
def test_nothing_is_ever_begun_in_the_quiet_window(at: int, first: int, length: int, every: int) -> None:
    window = (first, (first + length) % 1440)
    now = Clocks(BOOTED, 1_767_222_000_000 + at * MINUTE)
    found = due(Schedule(every * MINUTE, quiet=window), "web", Past(BOOTED), now, BERLIN)
    assert found
    local = datetime.fromtimestamp((found.at_ms - BOOTED + now.wall_ms) / 1000, BERLIN)
    assert found.at_ms >= BOOTED
    assert not in_window(local.hour * 60 + local.minute, window) or local.fold or _in_a_gap(local, window)


def _in_a_gap(local: datetime, window: tuple[int, int]) -> bool:
    """A window that ends at a time which the clock jumps over, or has twice, that night."""
    return local.month in {3, 10} and local.day >= 25 and 120 <= window[1] <= 180


@pytest.mark.parametrize("text", ["02:00-04:00", "22:30-06:00", " 2:00 - 4:00"])
def test_windows_are_read(text: str) -> None:
    first, end = parse_window(text)
    assert in_window(first, (first, end))
    assert not in_window(end, (first, end))


@pytest.mark.parametrize("text", ["", "2-4", "02:00", "02:00-02:00", "25:00-03:00", "02:60-03:00", "a:b-c:d"])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"02:00|at the same time"):
        parse_window(text)


@pytest.mark.parametrize(
    "text", ["", "* * * *", "* * * * * *", "61 * * * *", "@daily", "x * * * *", "0 0 30 2 *", "* " * 200]
)
def test_what_is_no_cron_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cron"):
        parse_cron(text)
