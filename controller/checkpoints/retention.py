"""Which checkpoints of a container have to go. Pure.

What is kept is the union of the rules: the newest few, the newest of each of the last hours and days in which there
is one, and what is pinned. Then the oldest go until the rest fits. The newest whole one always stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controller.frozen import dataclass

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
DEFAULT_LAST = 3


@dataclass(frozen=True, slots=True)
class Keep:
    """`hourly`, `daily`: how many hours and days (of UTC) keep their newest. `bytes`: 0 for no limit."""

    last: int = DEFAULT_LAST
    hourly: int = 0
    daily: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Kept:
    """One checkpoint as retention sees it; `stored` and `alone` as in model.checkpoint. Ids sort by age.

    `whole`: False when it is known to be damaged. `imported`: it came in an archive. `lineage`: which run it is of.
    """

    id: str
    created_ms: int
    stored: int = 0
    alone: int = 0
    whole: bool = True
    imported: bool = False
    lineage: str = ""


def doomed(found: Iterable[Kept], keep: Keep, pins: frozenset[str]) -> tuple[str, ...]:
    """Ids to delete, oldest first. A damaged one goes as soon as there is a newer whole one. The last of the run
    before the newest one's stays: whoever was started anew may be better off with that.

    The rules hold for imported ones and for others apart: no archive takes the place of what was made here.
    """
    every = tuple(found)
    own, imported = ([each for each in every if each.imported == come] for come in (False, True))
    return tuple(sorted((*_doomed(own, keep, pins), *_doomed(imported, keep, pins))))


def _doomed(found: Iterable[Kept], keep: Keep, pins: frozenset[str]) -> tuple[str, ...]:
    every = sorted(found)
    whole = [each for each in every if each.whole]
    if not whole:
        return ()
    newest = whole[-1]
    wanted = {newest.id} | {each.id for each in whole[max(0, len(whole) - keep.last) :] if keep.last}
    wanted |= _newest_of(whole, HOUR_MS, keep.hourly) | _newest_of(whole, DAY_MS, keep.daily)
    wanted |= set([each.id for each in whole if each.lineage != newest.lineage][-1:])
    wanted |= {each.id for each in every if each.id in pins or (not each.whole and each.id > newest.id)}
    staying = [each for each in every if each.id in wanted]
    if keep.bytes:
        staying = _fitting(staying, keep.bytes, pins | {newest.id})
    kept = {each.id for each in staying}
    return tuple(each.id for each in every if each.id not in kept)


def taken(found: Sequence[Kept]) -> int:
    """Bytes of disk that these need, without any other: the oldest whole, and what each one added to it."""
    ordered = sorted(found)
    return sum(each.stored for each in ordered[1:]) + sum(each.alone for each in ordered[:1])


def _newest_of(whole: Sequence[Kept], length_ms: int, count: int) -> set[str]:
    """By id, so that a clock that was set back does not make an older one the newest."""
    newest: dict[int, str] = {}
    for each in reversed(whole):
        newest.setdefault(each.created_ms // length_ms, each.id)
        if len(newest) > count:
            break
    return set(list(newest.values())[:count])


def _fitting(staying: list[Kept], most: int, untouchable: frozenset[str]) -> list[Kept]:
    kept = list(staying)
    for each in staying:
        if taken(kept) <= most:
            break
        if each.id not in untouchable:
            kept.remove(each)
    return kept
