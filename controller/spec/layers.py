"""Files over files: a document of a higher layer patches the one of its kind and name below. Pure.

Maps are merged, lists and values are replaced whole, null takes a key away, and `spec: null` the document. What is
wrong is told with the file that it is written in. No templates: every layer is a spec that can be read by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from controller.errors import Problem, SpecInvalid
from controller.model.desired import FileState
from controller.model.names import suggest
from controller.model.snapshot import SourceFile
from controller.spec.document import Document, Path, read
from controller.spec.parse import resources_of

Key = tuple[Any, Any]


def states_of(
    before: Mapping[str, FileState], files: Iterable[SourceFile], unreadable: Iterable[Problem]
) -> dict[str, FileState]:
    """Pure. Like reading each file by itself. What a document comes to belongs to the file that it begins in.

    Any change in any file has all of them read again: which of them hang together is known only then.
    """
    found = sorted(files, key=lambda each: (each.layer, each.path))
    unsure = frozenset(each.file for each in unreadable)
    said = [(each.path, each.layer, each.digest) for each in found], sorted(unsure)
    mark = hashlib.sha256(repr(said).encode()).hexdigest()
    if all(each.path in before and before[each.path].digest == mark for each in found):
        return {each.path: before[each.path] for each in found}
    return _Stack(before, mark, unsure).settle(found)


def merge(below: Document, above: Document) -> Document:
    """Pure. Positions are those of what was written last."""
    marks, files = dict(below.marks), dict(below.files)
    for path in above.marks:
        for old in [each for each in marks if each[: len(path)] == path]:
            if not _is_map(above.value, path):
                del marks[old]
                files.pop(old, None)
    marks.update(above.marks)
    files.update({path: above.files.get(path, above.file) for path in above.marks})
    for path in ((), ("kind",), ("apiVersion",), ("metadata",), ("metadata", "name")):
        if path in below.marks:  # it is what it was, and where it was
            marks[path], files[path] = below.marks[path], below.files.get(path, below.file)
    value = merge_values(below.value, above.value)
    return Document(below.file, below.index, value, marks, files)


def merge_values(below: Any, above: Any) -> Any:
    """Pure. RFC 7396: null in `above` takes a key away."""
    if not isinstance(above, Mapping):
        return above
    merged = dict(below) if isinstance(below, Mapping) else {}
    for key, value in above.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_values(merged.get(key), value)
    return merged


def _is_map(value: Any, path: Path) -> bool:
    for key in path:
        value = value[key]
    return isinstance(value, Mapping)


class _Stack:
    """One reading of all files, lowest layer first."""

    def __init__(self, before: Mapping[str, FileState], mark: str, unsure: frozenset[str]) -> None:
        self._before, self._mark = before, mark
        self._unsure = set(unsure)
        """What may patch anything, and cannot be read."""
        self._homes: dict[str, dict[int, Document]] = {}
        self._layers: dict[str, int] = {}
        self._places: dict[Key, tuple[str, int]] = {}
        self._patched: dict[Key, tuple[int, str]] = {}
        """Key → the layer that was the last to say anything of it, and in which file."""
        self._parts: dict[str, set[str]] = {}
        self._problems: dict[str, list[Problem]] = {}

    def settle(self, files: Iterable[SourceFile]) -> dict[str, FileState]:
        broken: dict[str, FileState] = {}
        for each in files:
            self._homes[each.path], self._layers[each.path] = {}, each.layer
            try:
                documents = read(each.text, each.path)
            except SpecInvalid as error:
                self._unsure.add(each.path)
                broken[each.path] = self._kept(each.path, error.problems)
                continue
            for index, document in enumerate(documents):
                self._lay(document, index, each.layer)
        return {path: broken.get(path) or self._state(path) for path in self._homes}

    def _lay(self, document: Document, index: int, layer: int) -> None:
        key = _key(document)
        place = self._places.get(key)
        if place is None or self._layers[place[0]] == layer:
            self._homes[document.file][index] = document
            self._places.setdefault(key, (document.file, index))
            return
        last, by = self._patched.get(key, (0, ""))
        if last == layer and by:
            why = f'"{key[1]}" is already patched in {by}: of two in one directory none is above the other'
            self._problems.setdefault(document.file, []).append(document.problem(("metadata", "name"), why))
            return
        self._patched[key] = (layer, document.file)
        home, at = place
        self._parts.setdefault(home, set()).add(document.file)
        if "spec" in document.value and document.value["spec"] is None:
            del self._homes[home][at], self._places[key]
        else:
            self._homes[home][at] = merge(self._homes[home][at], document)

    def _state(self, path: str) -> FileState:
        known, problems = self._before.get(path), tuple(self._problems.get(path, ()))
        if known and any(_is_below(part, each) for part in known.parts for each in self._unsure):
            return self._kept(path, problems)
        above = [each for each in self._unsure if self._layers.get(each, 1) > self._layers[path]]
        if above and known is None and self._homes[path]:
            why = f"waits for {min(above)}, which may have to say something of it"
            return self._kept(path, (*problems, Problem(path, 0, 0, "", why)))
        parts = tuple(sorted(self._parts.get(path, ())))
        try:
            resources = resources_of(tuple(self._homes[path].values()))
        except SpecInvalid as error:
            return self._kept(path, (*problems, *self._astray(path, error.problems)))
        return FileState(self._mark, resources, problems, (), parts)

    def _astray(self, path: str, problems: tuple[Problem, ...]) -> Iterator[Problem]:
        """With a word where a patch is not whole, since it lies over nothing."""
        documents = sorted(self._homes[path].values(), key=lambda each: each.marks[()])
        for problem in problems:
            of = [each for each in documents if each.marks[()][0] <= problem.line]
            is_part = problem.path in {"", "spec"} and problem.message.endswith(" is missing")
            why = self._over_nothing(of[-1], path) if of and is_part else ""
            yield (
                of[-1].problem(("metadata", "name"), f"{why} (by itself, {problem.message})")
                if why
                else problem
            )

    def _over_nothing(self, document: Document, path: str) -> str:
        kind, name = _key(document)
        if not self._layers[path] or kind == document.file:
            return ""
        below = [
            other
            for (sort, other), (file, _) in self._places.items()
            if sort == kind and self._layers[file] < self._layers[path]
        ]
        close = suggest(name, below)
        meant = f", did you mean {close}?" if close else ""
        return f"it lies over nothing: the base has no {kind} {name}{meant}"

    def _kept(self, path: str, problems: tuple[Problem, ...]) -> FileState:
        """As it was when it was good."""
        known = self._before.get(path) or FileState("", ())
        return FileState(self._mark, known.resources, problems, known.elsewhere, known.parts)


def _key(document: Document) -> Key:
    metadata = document.value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    kind = document.value.get("kind")
    if isinstance(name, str) and isinstance(kind, str):
        return kind, name
    return document.file, document.index


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")
