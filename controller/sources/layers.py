"""Directories laid over each other: `base: ../../base` in a directory's masu.yaml. What comes of it: `spec`."""

from __future__ import annotations

import posixpath
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from controller.errors import Problem, SourceUnreadable, SpecInvalid
from controller.frozen import dataclass
from controller.model.snapshot import Commit, Snapshot, SourceFile
from controller.sources.directory import DirectorySource, revision_of
from controller.sources.watch import Watch

NAME = "masu.yaml"
MOST = 8
KEYS = {"base": str, "atomic": bool}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the masu.yaml of a directory says. `base`: the directory below it, or ""."""

    base: str = ""
    atomic: bool = False


def stacked(
    root: str, look: Callable[[str], Snapshot], *, inside: bool = False
) -> tuple[Snapshot, tuple[str, ...]]:
    """With all that it is laid over, and where that is. Raises SpecInvalid, and what `look` raises.

    `inside`: paths are those of a repository, and lead to nothing outside of it.
    """
    layers: list[tuple[str, Snapshot]] = []
    atomic, where = False, root
    while True:
        found, settings, at = _settings(look(where), where)
        if layers and not (found.files or found.unreadable or settings.base):
            raise _wrong(Problem(where, 0, 0, "", "is a base, and holds no spec file"))
        layers.append((where, found))
        atomic = atomic or (settings.atomic and len(layers) == 1)
        if not settings.base:
            break
        where = posixpath.normpath(posixpath.join(where, settings.base))
        _check(where, [each for each, _ in layers], at, inside=inside)
    if len(layers) == 1:
        return replace(layers[0][1], atomic=atomic), (root,)
    files = tuple(
        replace(file, layer=index)
        for index, (_, found) in enumerate(reversed(layers))
        for file in found.files
    )
    problems = tuple(problem for _, found in layers for problem in found.unreadable)
    top = layers[0][1]
    ordered = tuple(sorted(files, key=lambda each: each.path))
    return replace(top, files=ordered, unreadable=problems, atomic=atomic), tuple(each for each, _ in layers)


def _check(where: str, above: list[str], at: Problem, *, inside: bool) -> None:
    """Raises SpecInvalid."""
    if inside and (where == ".." or where.startswith("../")):
        why = "leads out of the repository"
    elif len(above) == MOST:
        why = f"is the base of {MOST} directories one over the other: that is too many"
    elif any(_holds(each, where) or _holds(where, each) for each in above):
        why = "is inside what it is the base of, or the other way round"
    else:
        return
    raise _wrong(replace(at, message=f"{where} {why}"))


def _holds(directory: str, other: str) -> bool:
    above, below = posixpath.abspath(directory), posixpath.abspath(other)
    return f"{below}/".startswith(f"{above.rstrip('/')}/")


def _settings(found: Snapshot, root: str) -> tuple[Snapshot, Settings, Problem]:
    """Without its masu.yaml, if that is no spec; what that says; and where it speaks of its base."""
    path = f"{root}/{NAME}" if root else NAME
    file = next((each for each in found.files if each.path == path), None)
    if file is None:
        if any(each.file == path for each in found.unreadable):  # which base is meant is not known
            raise _wrong(*(each for each in found.unreadable if each.file == path))
        return found, Settings(), Problem(path, 0, 0, "", "")
    settings, at = _parsed(file)
    if settings is None:
        return found, Settings(), at
    return replace(found, files=tuple(each for each in found.files if each is not file)), settings, at


def _parsed(file: SourceFile) -> tuple[Settings | None, Problem]:
    """None: it is a spec by that name. Raises SpecInvalid."""
    from controller.spec.document import read  # noqa: PLC0415  # YAML is loaded with the first file that needs it

    documents = read(file.text, file.path)
    if any("kind" in each.value for each in documents):
        return None, Problem(file.path, 0, 0, "", "")
    problems, values = list[Problem](), dict[str, Any]()
    for each in documents:
        for key, value in each.value.items():
            if key not in KEYS:
                problems.append(each.problem((key,), f"is not known here: write {' or '.join(KEYS)}"))
            elif type(value) is not KEYS[key] or value == "":
                problems.append(
                    each.problem((key,), f"is not {'a directory' if key == 'base' else 'true or false'}")
                )
            elif key == "base" and str(value).startswith("/"):
                problems.append(each.problem((key,), "is not a relative path"))
        values.update(each.value)
    if problems:
        raise _wrong(*problems)
    at = documents[0].problem(("base",), "") if documents else Problem(file.path, 0, 0, "", "")
    return Settings(**values), at


def _wrong(*problems: Problem) -> SpecInvalid:
    return SpecInvalid(problems)


class LayeredDirectory:
    """A directory, or one file, with all that it is laid over. Thread-safe."""

    def __init__(self, path: str, *, root_only: bool = False) -> None:
        """`root_only`: nothing is taken that others than root may write."""
        self._path, self._root_only = path.rstrip("/") or "/", root_only
        self._sources: dict[str, DirectorySource] = {}
        self._watch: Watches | None = None
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        """Raises SourceUnreadable."""
        with self._lock:
            sources, used = self._sources, dict[str, DirectorySource]()

            def look(root: str) -> Snapshot:
                used[root] = sources.get(root) or DirectorySource(root, root_only=self._root_only)
                return used[root].snapshot()

            try:
                found, roots = stacked(self._path, look)
            except SpecInvalid as error:
                raise SourceUnreadable(str(error)) from error
            finally:
                self._sources = {**sources, **used}
                if self._watch:
                    self._watch.follow(used)
            self._sources = {root: used[root] for root in roots}
            return replace(found, revision=revision_of(found.files)) if len(roots) > 1 else found

    def sync(self) -> Commit | None:
        """What is there is there already."""
        return None

    def watch(self, nudge: Callable[[], None]) -> Watches:
        """Call `nudge` whenever anything in any of the directories may have changed."""
        with self._lock:
            self._watch = Watches(self._path, nudge)
            return self._watch


class Watches:
    """A watch of each directory that is read; which these are may change."""

    def __init__(self, path: str, nudge: Callable[[], None]) -> None:
        self._nudge = nudge
        self._watches = {path: Watch(path, nudge)}
        self._lock = threading.Lock()
        self._closed = False

    def follow(self, roots: dict[str, DirectorySource]) -> None:
        """These, too, and not what is no longer read."""
        with self._lock:
            if self._closed:
                return
            for root in [each for each in self._watches if each not in roots]:
                self._watches.pop(root).close()
            for root in [each for each in roots if each not in self._watches]:
                self._watches[root] = Watch(root, self._nudge)
                self._nudge()  # it may have changed between the look and the watch

    def hurry(self) -> None:
        """Somebody wants it looked at now."""
        self._nudge()

    def wait_no_more(self) -> None:
        """Nobody waits for a directory."""

    def close(self) -> None:
        """No nudge comes after this."""
        with self._lock:
            self._closed = True
            for each in self._watches.values():
                each.close()
