"""What is wrong between resources, and which of them is at fault. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.frozen import dataclass
from controller.model.resource import Resource

Order = Mapping[str, tuple[bool, str, int]]
"""By key: whether it is as it was accepted before, its file, its line."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """A resource that cannot be as things are: `why` goes on from its name."""

    resource: Resource
    path: str
    why: str


def by_seniority(resources: Iterable[Resource], order: Order) -> list[Resource]:
    """Pure. What stands since longer comes first, then what comes first by file and line: the last gives way."""

    def rank(each: Resource) -> tuple[bool, str, int]:
        unchanged, file, line = order[each.key]
        return not unchanged, file, line

    return sorted(resources, key=rank)


def at_fault(one: Resource, other: Resource, order: Order) -> tuple[Resource, Resource]:
    """Pure. (who has to give way, the other one)."""
    first, second = by_seniority((one, other), order)
    return second, first


def whose(early: Resource, late: Resource) -> str:
    """Pure. As people say it, with its file where that is another one."""
    return early.title if early.file == late.file else f"{early.title} ({early.file})"
