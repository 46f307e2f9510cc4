"""A dump whose unchanged pages are in a pre-dump: which pages come from where, so that it is whole by itself. Pure.

CRIU finds a page by counting in the page map: a pages file that is whole has every page in the order of addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from controller.checkpoints.pagemap import PARENT, Run
from controller.errors import CheckpointDamaged
from controller.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring pages of memory, and where they are: from page `at` on in a pages file, the pre-dump's if
    `inherited`, else the dump's own."""

    run: Run
    inherited: bool
    at: int


def parts(own: Iterable[Run], before: Iterable[Run], page_size: int) -> Iterator[Part]:
    """Everything that the dump has, in its order. `own`: its runs; `before`: those of the pre-dump.

    Raises CheckpointDamaged for pages that are nowhere.
    """
    earlier = _Earlier(before, page_size)
    at = 0
    for run in own:
        if run.present:
            yield Part(run, inherited=False, at=at)
            at += run.pages
        elif run.flags & PARENT:
            yield from earlier.parts(run)
        else:
            raise CheckpointDamaged(f"pages at {run.address:#x} are neither in a dump nor in its pre-dump")


def joined(runs: Iterable[Run], page_size: int) -> Iterator[Run]:
    """Neighbours become one: the page map as it would be if all had been dumped at once."""
    last: Run | None = None
    for run in runs:
        if last and last.flags == run.flags and last.address + last.pages * page_size == run.address:
            last = Run(last.address, last.pages + run.pages, run.flags)
            continue
        if last:
            yield last
        last = run
    if last:
        yield last


class _Earlier:
    """A pre-dump's runs, gone through once: addresses ascend in both."""

    def __init__(self, runs: Iterable[Run], page_size: int) -> None:
        self._runs, self._page_size = iter(runs), page_size
        self._run = Run(0, 0, 0)
        self._at = 0
        """Where its pages begin in the pages file."""

    def parts(self, wanted: Run) -> Iterator[Part]:
        address, left = wanted.address, wanted.pages
        while left:
            self._go_to(address)
            skipped, odd = divmod(address - self._run.address, self._page_size)
            if skipped < 0 or odd or not self._run.present:
                raise CheckpointDamaged(f"the page at {address:#x} is not in the pre-dump")
            pages = min(left, self._run.pages - skipped)
            yield Part(Run(address, pages, self._run.flags), inherited=True, at=self._at + skipped)
            address, left = address + pages * self._page_size, left - pages

    def _go_to(self, address: int) -> None:
        while self._run.address + self._run.pages * self._page_size <= address:
            self._at += self._run.pages if self._run.present else 0
            following = next(self._runs, None)
            if following is None:
                raise CheckpointDamaged(f"the page at {address:#x} is not in the pre-dump")
            self._run = following
