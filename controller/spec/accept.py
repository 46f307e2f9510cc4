"""From a snapshot of the source to the desired set: one bad file keeps its last good version. Pure.

Silence is not deletion: a source without a single spec file changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from controller.errors import Problem, SpecInvalid
from controller.model.desired import DesiredSet, FileState
from controller.model.resource import GROUP, NETWORK, VOLUME, Resource
from controller.model.snapshot import Snapshot, SourceFile
from controller.spec.across import misfits, users
from controller.spec.misfit import Misfit
from controller.spec.placement import placed

USED_IN = {NETWORK: "spec.networks", GROUP: "spec.group", VOLUME: "spec.mounts"}
"""Kind → the section in which a container names one."""

Parse = Callable[[bytes, str], tuple[Resource, ...]]
Judge = Callable[[Mapping[str, Resource]], list[Misfit]]


def anything(resources: Mapping[str, Resource]) -> list[Misfit]:
    """Pure. The judge of a host without a policy."""
    del resources
    return []


def accept(
    before: DesiredSet,
    found: Snapshot,
    parse: Parse,
    layout: str,
    judge: Judge = anything,
    node: str = "",
) -> DesiredSet:
    """Pure. A file whose digest is known is not parsed again. `layout`: see `across.misfits`.

    `judge`: what of all that is asked for is not allowed here. `node`: see `placement`.
    """
    states = placed(_states(before.files, found, parse), node, before.files)
    if unplaced := _unplaced(states, judge):
        again = {path: replace(each, digest="") for path, each in before.files.items() if path in unplaced}
        known = {**before.files, **again}
        states = placed(_states(known, found, parse), node, before.files)
    leaving = {each.path for each in found.files if each.is_leaving}
    _give_up(states, leaving)
    unsure = [path for path in before.files if path not in states and _concerned(path, found.unreadable)]
    states.update({path: before.files[path] for path in unsure})
    if states:
        states.update(_perhaps_moved(before, states, leaving, found.unreadable))
    if not states:
        reason = "the source holds no spec file; nothing is removed without `masu down`"
        return replace(before, unreadable=found.unreadable, frozen=reason, stale=found.stale)
    settled = _settle_misfits(before, _keep_used(before, _settle_duplicates(before, states)), layout, judge)
    since = before.since if found.revision == before.revision else 0
    return DesiredSet(
        found.revision, settled, found.unreadable, "", found.stale, found.commit, since, found.source
    )


def whole(before: DesiredSet, after: DesiredSet) -> DesiredSet:
    """Pure. `after`, or `before` where anything in it is wrong: for those who want it whole or not at all."""
    if after.frozen or not after.rejected:
        return after
    title = f"revision {after.commit.title}" if after.commit else "the source"
    problems = after.rejected
    reason = f"{title} is refused as a whole (--atomic): {len(problems)} problem{'s' * (len(problems) != 1)}"
    return replace(before, unreadable=problems, frozen=reason)


def _states(before: Mapping[str, FileState], found: Snapshot, parse: Parse) -> dict[str, FileState]:
    if any(each.layer for each in found.files):
        from controller.spec.layers import states_of  # noqa: PLC0415  # brings YAML, which `status` does not need

        return states_of(before, found.files, found.unreadable)
    return {each.path: _read(before.get(each.path), each, parse) for each in found.files}


def _unplaced(states: Mapping[str, FileState], judge: Judge) -> frozenset[str]:
    """Files of what is refused that an earlier masu has read, without its positions: who is told, is told where."""
    resources = {each.key: each for state in states.values() for each in state.resources}
    return frozenset(each.resource.file for each in judge(resources) if not each.resource.marks)


def across(desired: DesiredSet, judge: Judge = anything) -> list[Problem]:
    """Pure. Problems that only show when all files are seen together."""
    found = (*judge(desired.resources), *misfits(desired.resources, {}, ""))
    return [_misfit_problem(each) for each in found]


def freeze(before: DesiredSet, reason: str) -> DesiredSet:
    """Pure. The source cannot be read: what was desired stays desired."""
    return replace(before, frozen=reason)


def _concerned(path: str, unreadable: Iterable[Problem]) -> bool:
    """Whether a file, or a directory above it, could not be read: it is then not known to be gone."""
    return any(path == problem.file or path.startswith(problem.file + "/") for problem in unreadable)


def _read(known: FileState | None, file: SourceFile, parse: Parse) -> FileState:
    if known and known.digest == file.digest:
        return known
    try:
        return FileState(file.digest, parse(file.text, file.path))
    except SpecInvalid as error:
        before = known or FileState("", ())
        return FileState(file.digest, before.resources, error.problems, before.elsewhere)


def _give_up(states: dict[str, FileState], leaving: Collection[str]) -> None:
    """A file that was renamed is seen under both names for a while: what the new one defines is no duplicate."""
    staying = {each.key for path, state in states.items() if path not in leaving for each in state.resources}
    for path in leaving:
        kept = tuple(each for each in states[path].resources if each.key not in staying)
        if kept != states[path].resources:
            states[path] = FileState("", kept)  # without its digest, so that it is read anew if it comes back


def _perhaps_moved(
    before: DesiredSet,
    states: Mapping[str, FileState],
    leaving: Collection[str],
    unreadable: Iterable[Problem],
) -> dict[str, FileState]:
    """What goes just as a file comes that is not understood may be in that one: it stays until that is clear."""
    staying = {path: state for path, state in states.items() if path not in leaving}
    unclear = {path for path, each in staying.items() if each.rejected and not each.resources}
    unclear |= {each.file for each in unreadable} - states.keys()
    new = unclear - before.files.keys() - {each.file for each in before.unreadable}
    there = {each.key for state in staying.values() for each in (*state.resources, *state.elsewhere)}
    kept = {path: replace(each, awaits="") for path, each in staying.items() if each.awaits}
    for path, state in before.files.items():
        awaits = state.awaits if state.awaits in unclear else min(new, default="")
        if path in leaving:
            kept[path] = replace(states[path], awaits=awaits)
        elif path not in states and awaits:
            lost = tuple(each for each in state.resources if each.key not in there)
            kept.update(
                {path: FileState("", lost, (_lost(lost, path, awaits),), awaits=awaits)} if lost else {}
            )
    return kept


def _lost(resources: Iterable[Resource], path: str, awaits: str) -> Problem:
    names = ", ".join(f'"{each.name}"' for each in resources)
    why = (
        f"{names} went from {path} as this came, and may be in it: what ran runs on until this is understood"
    )
    return Problem(awaits, 0, 0, "", why)


def _settle_duplicates(before: DesiredSet, found: Mapping[str, FileState]) -> dict[str, FileState]:
    """Whoever had the name keeps it; the other file is rejected with both named, and keeps its last version."""
    owners = _owners(before, found)
    settled: dict[str, FileState] = {}
    for path, state in found.items():
        taken = [each for each in state.resources if owners[each.key] != path]
        settled[path] = _reject(before, path, state, taken, owners) if taken else state
    return settled


def _keep_used(before: DesiredSet, found: Mapping[str, FileState]) -> dict[str, FileState]:
    """What containers use is not taken away under them: its last version stays until nobody does."""
    resources = {each.key: each for state in found.values() for each in state.resources}
    kept = dict(found)
    for path, state in before.files.items():
        for each in state.resources:
            used_by = users(each, resources.values()) if each.key not in resources else ()
            if used_by:
                user = used_by[0]
                why = f'"{user.name}" uses {each.title}, which is gone from {path}: it is kept until nobody does'
                now = kept.get(path, FileState("", ()))
                problem = _problem(user, USED_IN[each.kind], why)
                # Without its digest, so that the file is looked at again as long as this is so.
                both, rejected = (*now.resources, each), (*now.rejected, problem)
                kept[path] = replace(now, digest="", resources=both, rejected=rejected)
    return kept


def _settle_misfits(
    before: DesiredSet, found: Mapping[str, FileState], layout: str, judge: Judge
) -> dict[str, FileState]:
    """What does not fit the rest is rejected, and keeps its last version; one that had none is not made."""
    earlier, settled, judged = before.resources, dict(found), set[str]()
    while True:
        now = {each.key: each for state in settled.values() for each in state.resources}
        all_of_them = [*judge(now), *misfits(now, earlier, layout)]
        new = [each for each in all_of_them if each.resource.key not in judged]
        if not new:
            return settled
        judged.update(each.resource.key for each in new)
        for path, state in list(settled.items()):
            settled[path] = _without(state, new, earlier)


def _without(state: FileState, found: Iterable[Misfit], earlier: Mapping[str, Resource]) -> FileState:
    wrong = [each for each in found if each.resource in state.resources]
    if not wrong:
        return state
    keys = {each.resource.key for each in wrong}
    kept = [earlier.get(each.key) if each.key in keys else each for each in state.resources]
    problems = tuple(_misfit_problem(each) for each in wrong)
    # The digest is spoiled so that the file is looked at again when the others have changed.
    resources = tuple(each for each in kept if each)
    return replace(state, digest="", resources=resources, rejected=(*state.rejected, *problems))


def _misfit_problem(each: Misfit) -> Problem:
    return _problem(each.resource, each.path, f'"{each.resource.name}" {each.why}')


def _problem(resource: Resource, path: str, message: str) -> Problem:
    return Problem(*resource.where(path), path, message)


def _owners(before: DesiredSet, found: Mapping[str, FileState]) -> dict[str, str]:
    """Key → the file that may define it: the one that did before, else the first by path."""
    definers: dict[str, list[str]] = {}
    for path in sorted(found):
        for each in found[path].resources:
            definers.setdefault(each.key, []).append(path)
    earlier = {each.key: path for path, state in before.files.items() for each in state.resources}
    return {key: earlier[key] if earlier.get(key) in paths else paths[0] for key, paths in definers.items()}


def _reject(
    before: DesiredSet, path: str, state: FileState, taken: list[Resource], owners: Mapping[str, str]
) -> FileState:
    problems = tuple(
        _problem(each, "metadata.name", f'"{each.name}" is already defined in {owners[each.key]}')
        for each in taken
    )
    known = before.files.get(path)
    keys = {each.key for each in taken}
    kept = tuple(each for each in known.resources if each.key not in keys) if known else ()
    # The digest is spoiled so that the file is looked at again when the other one gives the name up.
    return replace(state, digest="", resources=kept, rejected=(*state.rejected, *problems))
