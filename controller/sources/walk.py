"""Which spec files lie below a directory. Lists names; opens no file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from controller.errors import Problem
from controller.frozen import dataclass
from controller.host.trust import doubtful
from controller.model.names import printable

MAX_DEPTH = 32
MAX_FILES = 10_000
MAX_BYTES = 1024 * 1024
TOO_LARGE = f"is larger than {MAX_BYTES // 1024 // 1024} MiB"
"""What every kind of source reads at most: so deep, so many spec files, and so much of each."""


@dataclass(frozen=True, slots=True)
class Listing:
    """`paths` in order; `unlisted`: directories whose content could not be seen."""

    paths: tuple[str, ...]
    unlisted: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def covers(self, path: str) -> bool:
        """Pure. Whether `path` may be there although it is not listed."""
        return any(path.startswith(f"{each}/") for each in self.unlisted)


def walk(root: str, *, root_only: bool = False) -> Listing:
    """Read-only. Hidden directories are not entered, so neither are Kubernetes' `..2026_…`.

    `root_only`: nor those that others than root may write.
    """
    found = _Walk(root, root_only=root_only)
    paths = tuple(sorted(found.below(root, 0)))
    return Listing(paths, tuple(found.unlisted), tuple(found.problems))


def is_spec(name: str) -> bool:
    """Pure. `*.yaml` and `*.yml`, but nothing that an editor or a version control left: .x, x~, #x#, x.swp."""
    return name.endswith((".yaml", ".yml")) and not name.startswith((".", "#", "~"))


def outside(target: str) -> str:
    return f"is a symbolic link to {printable(target)}, outside of the source: not followed"


class _Walk:
    """Collects what is in the way; `below` yields what is found."""

    def __init__(self, root: str, *, root_only: bool) -> None:
        self._real_root, self._root_only = os.path.realpath(root), root_only
        self._entered: set[tuple[int, int]] = set()
        self.problems: list[Problem] = []
        self.unlisted: list[str] = []

    def below(self, directory: str, depth: int) -> Iterator[str]:
        try:
            why = doubtful(os.stat(directory)) if self._root_only else ""
            if why:
                self._skip(directory, f"{why}: not entered")
                return
            with os.scandir(directory) as entries:
                found = [entry for entry in entries if not entry.name.startswith(".")]
        except FileNotFoundError:
            return
        except OSError as error:
            self._skip(directory, f"cannot be listed: {os.strerror(error.errno or 0)}")
            return
        if depth == MAX_DEPTH:
            self._skip(directory, f"lies {MAX_DEPTH} directories deep: not entered")
            return
        for entry in found:
            yield from self._entry(directory, entry, depth)

    def _entry(self, directory: str, entry: os.DirEntry[str], depth: int) -> Iterator[str]:
        is_directory = _is_directory(entry)
        if not is_directory and not is_spec(entry.name):
            return
        if not entry.name.isprintable():
            self._refuse(f"{directory}/{printable(entry.name)}", "the name is not printable text")
        elif not is_directory:
            yield entry.path
        elif not entry.is_symlink():
            yield from self.below(entry.path, depth + 1)
        elif self._leads_on(directory, entry.path):
            yield from self._linked(entry.path, depth)

    def _leads_on(self, directory: str, link: str) -> bool:
        """Inside the source, and not back up: that would show the same files twice."""
        target = os.path.realpath(link)
        if not f"{target}/".startswith(f"{self._real_root.rstrip('/')}/"):
            self._refuse(link, outside(target))
            return False
        return not f"{os.path.realpath(directory)}/".startswith(f"{target}/")

    def _linked(self, link: str, depth: int) -> Iterator[str]:
        """Kubernetes shows `a/b.yaml` as `a -> ..data/a`. Links that lead to each other are followed once."""
        with contextlib.suppress(OSError):
            found = os.stat(link)
            here = found.st_dev, found.st_ino
            if here not in self._entered:
                self._entered.add(here)
                yield from self.below(link, depth + 1)
                self._entered.discard(here)

    def _skip(self, directory: str, why: str) -> None:
        self.unlisted.append(directory)
        self._refuse(directory, why)

    def _refuse(self, path: str, why: str) -> None:
        self.problems.append(Problem(path, 0, 0, "", why))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself, for one: reading it says so
