"""A dump and its pre-dump become one whole: compared with memory as a dictionary of pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.checkpoints.pagemap import PARENT, PRESENT, Run, decode, encode
from controller.checkpoints.whole import joined, parts
from controller.errors import CheckpointDamaged

PAGE = 4096
LAZY = 2
Kind = st.sampled_from(["clean", "dirty", "new", "gone", "absent"])
MEMORY = st.lists(st.tuples(Kind, st.sampled_from([PRESENT, PRESENT | LAZY])), max_size=60)


def runs_of(pages: list[tuple[int, int]], splits: frozenset[int]) -> list[Run]:
    """(number, flags) of pages as CRIU writes them: neighbours of one kind together, but for where it splits."""
    found: list[Run] = []
    for number, flags in pages:
        last = found[-1] if found else None
        if (
            last
            and last.flags == flags
            and last.address // PAGE + last.pages == number
            and number not in splits
        ):
            found[-1] = Run(last.address, last.pages + 1, flags)
        else:
            found.append(Run(number * PAGE, 1, flags))
    return found


def contents(runs: list[Run], name: str) -> list[tuple[str, int]]:
    """What is in a pages file: whose page, and of which number."""
    return [
        (name, run.address // PAGE + each) for run in runs if run.flags & PRESENT for each in range(run.pages)
    ]


@given(MEMORY, st.frozensets(st.integers(0, 60)), st.frozensets(st.integers(0, 60)))
def test_every_page_is_there_once_with_what_it_had_last(
    memory: list[tuple[str, int]], splits: frozenset[int], others: frozenset[int]
) -> None:
    before = [(at, flags) for at, (kind, flags) in enumerate(memory) if kind in {"clean", "dirty", "gone"}]
    own = [
        (at, PARENT if kind == "clean" else flags)
        for at, (kind, flags) in enumerate(memory)
        if kind in {"clean", "dirty", "new"}
    ]
    own_runs, before_runs = runs_of(own, splits), runs_of(before, others)
    files = {False: contents(own_runs, "own"), True: contents(before_runs, "before")}
    found = list(parts(own_runs, before_runs, PAGE))
    pages = [files[each.inherited][each.at + at] for each in found for at in range(each.run.pages)]
    wanted = [("before" if memory[at][0] == "clean" else "own", at) for at, _ in own]
    assert pages == wanted
    whole = decode(b"".join(encode(7, joined((each.run for each in found), PAGE))))
    assert whole.pages_id == 7
    assert list(whole.runs) == runs_of([(at, memory[at][1]) for at, _ in own], frozenset())


@pytest.mark.parametrize(
    ("own", "before"),
    [
        ([Run(PAGE, 2, PARENT)], [Run(PAGE, 1, PRESENT)]),
        ([Run(PAGE, 2, PARENT)], [Run(2 * PAGE, 1, PRESENT)]),
        ([Run(PAGE, 1, PARENT)], [Run(PAGE, 1, PARENT)]),
        ([Run(PAGE, 1, PARENT)], []),
        ([Run(PAGE, 1, LAZY)], [Run(PAGE, 1, PRESENT)]),
        (
            [Run(4 * PAGE, 1, PARENT), Run(PAGE, 1, PARENT)],
            [Run(PAGE, 1, PRESENT), Run(4 * PAGE, 1, PRESENT)],
        ),
        ([Run(PAGE + 1, 1, PARENT)], [Run(PAGE, 3, PRESENT)]),
    ],
)
def test_what_is_nowhere_is_said(own: list[Run], before: list[Run]) -> None:
    """Pages that are missing, in a pre-dump of the pre-dump, out of order, or at no page's address."""
    with pytest.raises(CheckpointDamaged):
        list(parts(own, before, PAGE))
