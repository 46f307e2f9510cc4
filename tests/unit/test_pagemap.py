"""Where the pages of an image are cut: along addresses, whatever else is in the file."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.checkpoints.pagemap import PARENT, PRESENT, Run, cuts, decode, even_cuts, page_size_of
from controller.errors import CheckpointDamaged
from tests.images import page_map

WINDOW = 128 << 10
RUNS = st.lists(st.tuples(st.integers(0, 1 << 35), st.integers(1, 200)), max_size=12)


def _apart(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending page numbers, no two runs at the same place."""
    at, apart = 0, []
    for gap, pages in found:
        at += gap % 300 + 1
        apart.append((at * 4096, pages))
        at += pages
    return apart


@given(RUNS)
def test_what_is_written_is_read(found: list[tuple[int, int]]) -> None:
    runs = _apart(found)
    decoded = decode(page_map(runs, 7))
    assert decoded.pages_id == 7
    assert decoded.runs == tuple(Run(address, pages, PRESENT) for address, pages in runs)


@given(RUNS)
def test_cuts_cover_every_page_once_and_none_crosses_a_window(found: list[tuple[int, int]]) -> None:
    runs = decode(page_map(_apart(found))).runs
    parts = cuts(runs, 4096, WINDOW)
    assert sum(part.size for part in parts) == sum(run.pages for run in runs) * 4096
    assert all(part.size <= WINDOW and part.address % WINDOW == 0 for part in parts)
    assert len({part.address for part in parts}) == len(parts)


@given(RUNS, st.integers(1, 50))
def test_memory_that_comes_earlier_moves_no_cut(found: list[tuple[int, int]], pages: int) -> None:
    runs = [(address + (1 << 40), count) for address, count in _apart(found)]
    before = cuts(decode(page_map(runs)).runs, 4096, WINDOW)
    after = cuts(decode(page_map([(4096, pages), *runs])).runs, 4096, WINDOW)
    assert after[len(after) - len(before) :] == before


@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(1, 200)), max_size=12))
def test_a_page_map_that_lies_makes_no_large_piece(runs: list[tuple[int, int]]) -> None:
    """Runs that lie over each other, or at no page's address, as nobody's kernel has them."""
    parts = cuts(decode(page_map(runs)).runs, 4096, WINDOW)
    assert sum(part.size for part in parts) == sum(pages for _, pages in runs) * 4096
    assert all(0 < part.size <= WINDOW for part in parts)


def test_pages_of_the_parent_are_not_in_the_file() -> None:
    decoded = decode(page_map([(0, 4)], flags=PARENT))
    assert decoded.present == 0
    assert cuts(decoded.runs, 4096, WINDOW) == []


@pytest.mark.parametrize("size", [4096, 16384, 65536])
def test_the_size_of_a_page_is_that_of_the_file(size: int) -> None:
    assert page_size_of(decode(page_map([(0, 3), (1 << 20, 2)])), 5 * size) == size


@pytest.mark.parametrize("size", [0, 5 * 4096 + 1, 5 * 5000])
def test_a_file_that_does_not_fit_its_map_is_cut_evenly_instead(size: int) -> None:
    assert page_size_of(decode(page_map([(0, 3), (1 << 20, 2)])), size) == 0
    assert sum(part.size for part in even_cuts(size, WINDOW)) == size


@given(st.binary(max_size=200))
def test_no_bytes_confuse_the_reader(junk: bytes) -> None:
    for image in (junk, page_map([(4096, 9)])[:8] + junk, page_map([(4096, 9)])[: 8 + len(junk) % 20]):
        with contextlib.suppress(CheckpointDamaged):
            decode(image)
