"""From a snapshot of the source to the desired set: one bad file keeps its last good version. Pure.

Silence is not deletion: a source without a single spec file changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from controller.errors import Problem, SpecInvalid
from controller.model.container import Container
from controller.model.desired import DesiredSet, FileState
from controller.model.snapshot import Snapshot, SourceFile
from controller.spec.check import missing_partners

Parse = Callable[[bytes, str], tuple[Container, ...]]


def accept(before: DesiredSet, found: Snapshot, parse: Parse) -> DesiredSet:
    """Pure. A file whose digest is known is not parsed again."""
    states = {each.path: _read(before.files.get(each.path), each, parse) for each in found.files}
    _give_up(states, {each.path for each in found.files if each.is_leaving})
    unsure = [path for path in before.files if path not in states and _concerned(path, found.unreadable)]
    states.update({path: before.files[path] for path in unsure})
    if not states:
        reason = "the source holds no spec file; nothing is removed without `masu down`"
        return replace(before, unreadable=found.unreadable, frozen=reason)
    settled = _settle_partners(before, _settle_duplicates(before, states))
    return DesiredSet(found.revision, settled, found.unreadable)


def across(desired: DesiredSet) -> list[Problem]:
    """Pure. Problems that only show when all files are seen together."""
    missing = missing_partners(desired.containers)
    return [_dangling(desired.containers[name], why) for name, why in missing.items()]


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
        return FileState(file.digest, known.containers if known else (), error.problems)


def _give_up(states: dict[str, FileState], leaving: Collection[str]) -> None:
    """A file that was renamed is seen under both names for a while: what the new one defines is no duplicate."""
    staying = {
        each.name for path, state in states.items() if path not in leaving for each in state.containers
    }
    for path in leaving:
        kept = tuple(each for each in states[path].containers if each.name not in staying)
        if kept != states[path].containers:
            states[path] = FileState("", kept)  # without its digest, so that it is read anew if it comes back


def _settle_duplicates(before: DesiredSet, found: Mapping[str, FileState]) -> dict[str, FileState]:
    """Whoever had the name keeps it; the other file is rejected with both named, and keeps its last version."""
    owners = _owners(before, found)
    settled: dict[str, FileState] = {}
    for path, state in found.items():
        taken = [each for each in state.containers if owners[each.name] != path]
        settled[path] = _reject(before, path, state, taken, owners) if taken else state
    return settled


def _settle_partners(before: DesiredSet, found: Mapping[str, FileState]) -> dict[str, FileState]:
    """Whoever shares with nobody is rejected, and keeps its last version; one that had none is not made."""
    containers = {each.name: each for state in found.values() for each in state.containers}
    missing = missing_partners(containers)
    settled = dict(found)
    for path, state in found.items() if missing else ():
        dangling = [each for each in state.containers if each.name in missing]
        if dangling:
            known = {each.name: each for each in before.files.get(path, FileState("", ())).containers}
            kept = [known.get(each.name) if each in dangling else each for each in state.containers]
            problems = tuple(_dangling(each, missing[each.name]) for each in dangling)
            rejected = (*state.rejected, *problems)
            # The digest is spoiled so that the file is looked at again when the other one comes.
            settled[path] = FileState("", tuple(each for each in kept if each), rejected)
    return settled


def _dangling(container: Container, why: str) -> Problem:
    return _problem(container, "spec.namespaces", f'"{container.name}" {why}')


def _problem(container: Container, path: str, message: str) -> Problem:
    return Problem(container.file, container.line, container.column, path, message)


def _owners(before: DesiredSet, found: Mapping[str, FileState]) -> dict[str, str]:
    """Name → the file that may define it: the one that did before, else the first by path."""
    definers: dict[str, list[str]] = {}
    for path in sorted(found):
        for each in found[path].containers:
            definers.setdefault(each.name, []).append(path)
    earlier = {each.name: path for path, state in before.files.items() for each in state.containers}
    return {
        name: earlier[name] if earlier.get(name) in paths else paths[0] for name, paths in definers.items()
    }


def _reject(
    before: DesiredSet, path: str, state: FileState, taken: list[Container], owners: Mapping[str, str]
) -> FileState:
    problems = tuple(
        _problem(each, "metadata.name", f'"{each.name}" is already defined in {owners[each.name]}')
        for each in taken
    )
    known = before.files.get(path)
    names = {each.name for each in taken}
    kept = tuple(each for each in known.containers if each.name not in names) if known else ()
    # The digest is spoiled so that the file is looked at again when the other one gives the name up.
    return FileState("", kept, (*state.rejected, *problems))
