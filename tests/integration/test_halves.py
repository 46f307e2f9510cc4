"""Looking in two processes: all is told, in order, and whatever fails there is found out here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from controller.host import halves
from controller.host.halves import in_halves

NAMES = [f"c-{number:03}" for number in range(4 * halves.WORTH)]


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(halves.threading, "active_count", lambda: 1)


def _look(names: Sequence[str]) -> list[tuple[str, int]]:
    return [(name, os.getpid()) for name in names]


def test_all_is_told_in_order_by_two_processes() -> None:
    found = in_halves(_look, NAMES)
    assert [name for name, _ in found] == NAMES
    assert len({pid for _, pid in found}) == 2


def test_a_few_are_not_worth_it() -> None:
    assert {pid for _, pid in in_halves(_look, NAMES[: halves.WORTH])} == {os.getpid()}


def test_what_the_other_process_does_not_tell_is_done_here() -> None:
    here = os.getpid()

    def look(names: Sequence[str]) -> list[tuple[str, int]]:
        if os.getpid() != here:
            os._exit(1)
        return _look(names)

    assert in_halves(look, NAMES) == [(name, here) for name in NAMES]


def test_an_error_is_that_of_whoever_looks_and_nobody_is_left() -> None:
    def look(names: Sequence[str]) -> list[str]:
        raise ValueError(names[0])

    before = _children()
    with pytest.raises(ValueError, match=NAMES[0]):
        in_halves(look, NAMES)
    assert _children() <= before


def _children() -> set[str]:
    """Of this thread, whoever started them: another test's may be still ending."""
    return set(Path("/proc/thread-self/children").read_text().split())
