"""One value among the many of a cgroup file."""

from __future__ import annotations

import pytest

from controller.aspects._io_table import bfq_weight
from controller.model.keyed import Cell

IO_MAX = "8:16 rbps=2097152 wbps=max riops=max wiops=120\n8:1 rbps=5 wbps=6 riops=7 wiops=8\n"


@pytest.mark.parametrize(
    ("cell", "text", "found"),
    [
        (Cell("8:16", "rbps"), IO_MAX, "2097152"),
        (Cell("8:16", "wbps"), IO_MAX, "max"),
        (Cell("8:1", "wiops"), IO_MAX, "8"),
        (Cell("8:0", "rbps"), IO_MAX, "max"),
        (Cell("8:16", "more"), IO_MAX, "max"),
        (Cell("8:16"), "8:1 5\n8:16 1000\n", "1000"),
        (Cell("8:16"), "", "max"),
        (Cell("default", unset=""), "default 100\n8:16 200\n", "100"),
        (Cell("8:16", unset="default"), "default 100\n", "default"),
    ],
)
def test_a_cell_is_found_by_its_line_and_its_word(cell: Cell, text: str, found: str) -> None:
    assert cell.find(text) == found


def test_a_cell_is_written_without_its_neighbours() -> None:
    assert Cell("8:16", "wbps").line("max") == "8:16 wbps=max"
    assert Cell("8:16").line("0") == "8:16 0"


@pytest.mark.parametrize(("weight", "bfq"), [(1, 1), (100, 100), (200, 109), (666, 151), (10000, 1000)])
def test_weights_of_bfq_are_those_of_systemd(weight: int, bfq: int) -> None:
    assert bfq_weight(weight) == bfq
