"""Which checkpoints go: never a pinned one, never the newest that is whole."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controller.checkpoints.retention import DAY_MS, HOUR_MS, Keep, Kept, doomed, taken

MIB = 1 << 20


@st.composite
def _histories(draw: st.DrawFn) -> list[Kept]:
    """Ids in the order of publication; the clock may have been set back in between."""
    times = draw(st.lists(st.integers(0, 5 * DAY_MS), max_size=30))
    return [
        Kept(
            f"{at:04}",
            time,
            draw(st.integers(0, 50)) * MIB,
            draw(st.integers(50, 100)) * MIB,
            draw(st.booleans()),
        )
        for at, time in enumerate(times)
    ]


KEEPS = st.builds(
    Keep,
    st.integers(0, 5),
    st.integers(0, 30),
    st.integers(0, 5),
    st.sampled_from([0, MIB, 300 * MIB, 1 << 40]),
)
PINS = st.frozensets(st.integers(0, 30).map(lambda at: f"{at:04}"))


@given(_histories(), KEEPS, PINS)
def test_pinned_ones_and_the_newest_whole_one_stay(
    found: list[Kept], keep: Keep, pins: frozenset[str]
) -> None:
    gone = set(doomed(found, keep, pins))
    assert not gone & pins
    whole = [each.id for each in found if each.whole]
    assert not whole or max(whole) not in gone
    assert whole or not gone, "as long as nothing is whole, nothing goes"


@given(_histories(), KEEPS, PINS, st.randoms())
def test_the_order_of_the_listing_says_nothing(
    found: list[Kept], keep: Keep, pins: frozenset[str], dice: random.Random
) -> None:
    shuffled = list(found)
    dice.shuffle(shuffled)
    assert doomed(shuffled, keep, pins) == doomed(found, keep, pins)


@given(_histories(), _histories(), KEEPS, PINS)
def test_what_was_imported_takes_no_place_of_what_was_made_here(
    own: list[Kept], come: list[Kept], keep: Keep, pins: frozenset[str]
) -> None:
    imported = [replace(each, id=f"{each.id}-i", imported=True) for each in come]
    gone = (*doomed(own, keep, pins), *doomed(imported, keep, pins))
    assert doomed([*imported, *own], keep, pins) == tuple(sorted(gone))


@given(_histories(), KEEPS, PINS)
def test_once_is_enough(found: list[Kept], keep: Keep, pins: frozenset[str]) -> None:
    gone = set(doomed(found, keep, pins))
    assert doomed([each for each in found if each.id not in gone], keep, pins) == ()


@given(_histories(), KEEPS, PINS)
def test_what_is_left_fits_or_is_the_least_there_can_be(
    found: list[Kept], keep: Keep, pins: frozenset[str]
) -> None:
    gone = set(doomed(found, keep, pins))
    left = [each for each in found if each.id not in gone]
    whole = [each.id for each in left if each.whole]
    if keep.bytes and whole and taken(left) > keep.bytes:
        assert {each.id for each in left} <= pins | {max(whole)}


@given(_histories())
def test_damaged_ones_go_when_there_is_a_newer_whole_one(found: list[Kept]) -> None:
    gone = set(doomed(found, Keep(last=100), frozenset()))
    whole = [each.id for each in found if each.whole]
    assert gone == {each.id for each in found if whole and not each.whole and each.id < max(whole)}


def test_rules_add_up() -> None:
    """Every twenty minutes for three days: the last two, and the newest of each of three hours and two days."""
    found = [Kept(f"{at:04}", at * HOUR_MS // 3) for at in range(3 * 24 * 3)]
    left = {each.id for each in found} - set(
        doomed(found, Keep(last=2, hourly=3, daily=2), frozenset({"0000"}))
    )
    assert left == {"0000", "0143", "0209", "0212", "0214", "0215"}


def test_the_oldest_counts_whole_and_others_what_they_added() -> None:
    found = [Kept("1", 0, 100, 100), Kept("2", 1, 5, 101), Kept("3", 2, 7, 102)]
    assert taken(found) == 112
    assert taken(found[1:]) == 108
    assert doomed(found, Keep(last=3, bytes=110), frozenset()) == ("1",)


@given(st.integers(1, 5), st.integers(1, 5))
def test_as_many_are_kept_as_there_are_up_to_the_last_few(count: int, last: int) -> None:
    """Also when there are fewer of them than would be kept."""
    found = [Kept(f"{at:04}", at) for at in range(count)]
    assert len(doomed(found, Keep(last=last), frozenset())) == max(0, count - last)


def test_the_last_of_the_run_before_is_kept() -> None:
    """It was started anew, perhaps for want of something that is there again."""
    runs = ["one", "one", "two", "two", "three", "three", "three"]
    found = [Kept(f"{number:02}", number, lineage=each) for number, each in enumerate(runs)]
    assert doomed(found, Keep(last=1), frozenset()) == ("00", "01", "02", "04", "05")
