"""Which documents count on this host. Pure.

A host's name is what it is called; its labels are those of the `kind: Node` that counts on it. What counts on other
hosts is kept beside, since it may count here when the labels change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from controller.errors import Problem
from controller.model.desired import FileState
from controller.model.resource import NODE, Resource


def placed(
    states: Mapping[str, FileState], node: str, before: Mapping[str, FileState]
) -> dict[str, FileState]:
    """Pure. Of each file, what counts on the host of that name; "": only what counts everywhere.

    `before`: of what counts twice, the last good version stays; what had none is not made.
    """
    if not any(each.placement for state in states.values() for each in (*state.resources, *state.elsewhere)):
        return dict(states)
    labels = _labels(states, node)
    return {
        path: _split(state, node, labels, before[path].resources if path in before else ())
        for path, state in states.items()
    }


def counts(placement: Mapping[str, object] | None, node: str, labels: Mapping[str, str]) -> bool:
    """Pure."""
    if placement is None:
        return True
    nodes, wanted = placement.get("nodes"), placement.get("labels")
    by_name = node in nodes if isinstance(nodes, (list, tuple)) else bool(node)
    return by_name and (not isinstance(wanted, Mapping) or wanted.items() <= labels.items())


def _labels(states: Mapping[str, FileState], node: str) -> Mapping[str, str]:
    """Of the first Node by path that counts here: a second one is told of by others."""
    for path in sorted(states):
        for each in (*states[path].resources, *states[path].elsewhere):
            if each.kind == NODE and counts(each.placement, node, {}):
                return each.labels
    return {}


def _split(state: FileState, node: str, labels: Mapping[str, str], before: Iterable[Resource]) -> FileState:
    here: dict[str, Resource] = {}
    elsewhere: list[Resource] = []
    twice: list[Problem] = []
    unclear: set[str] = set()
    for each in (*state.resources, *state.elsewhere):
        if not counts(each.placement, node, labels):
            if each not in elsewhere:  # one that was kept for whoever uses it is in both
                elsewhere.append(each)
        elif each.key in here:
            twice.append(_problem(each, here.values()))
            unclear.add(each.key)
        else:
            here[each.key] = each
    earlier = {each.key: each for each in before if each.key in unclear}
    kept = tuple(earlier.get(key, each) for key, each in here.items() if key not in unclear or key in earlier)
    found = replace(state, resources=kept, elsewhere=tuple(elsewhere))
    # Without its digest, so that it is read anew as long as this is so.
    return replace(found, digest="", rejected=(*state.rejected, *twice)) if twice else found


def _problem(each: Resource, others: Iterable[Resource]) -> Problem:
    line = next(other.line for other in others if other.key == each.key)
    why = f'"{each.name}" counts on this host twice: it is already defined in this file at line {line}'
    return Problem(each.file, each.line, each.column, "metadata.name", why)
