"""What a revision holds, as `git ls-tree` lists it: which of it is read, and what is refused. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controller.errors import Problem
from controller.frozen import dataclass
from controller.model.names import printable
from controller.sources.walk import MAX_BYTES, MAX_DEPTH, MAX_FILES, TOO_LARGE, is_spec

MAX_TOTAL = 64 * 1024 * 1024
"""All spec files of a revision together."""

LINK, SUBMODULE = "120000", "160000"
REGULAR = frozenset({"100644", "100755", "100664"})
"""The last one is written by no git of today, but by old ones."""


class Unfit(Exception):
    """Why a revision is refused as a whole."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of `ls-tree -r -l -z`; `size` in bytes, 0 where there is none."""

    mode: str
    oid: str
    size: int
    path: bytes


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is read: path in the repository → object; and what is not, and why."""

    objects: dict[str, str]
    problems: tuple[Problem, ...]


def entries(listing: bytes) -> Iterable[Entry]:
    """Raises Unfit for what git does not write."""
    for line in listing.split(b"\0"):
        if line:
            yield _entry(line)


def _entry(line: bytes) -> Entry:
    words, tab, path = line.partition(b"\t")
    found = words.split()
    if not tab or len(found) != 4:
        raise Unfit("its listing is not understood")
    try:
        size = int(found[3]) if found[3].isdigit() else 0
        return Entry(found[0].decode("ascii"), found[2].decode("ascii"), size, path)
    except ValueError as error:
        raise Unfit("its listing is not understood") from error


def choose(found: Iterable[Entry], directory: str) -> Chosen:
    """Spec files as in a directory: hidden names are passed over, and nothing but a regular file is read.

    `directory`: what the entries' paths are below. Raises Unfit where there is too much of it.
    """
    objects: dict[str, str] = {}
    problems: list[Problem] = []
    above, total = directory.split("/") if directory else (), 0
    for each in found:
        names = each.path.decode("utf-8", "surrogateescape").split("/")
        if any(name.startswith(".") for name in names) or not _matters(each, names[-1]):
            continue
        shown = "/".join((*above, *(printable(name) for name in names)))
        why = _refused(each, names)
        if why:
            problems.append(Problem(shown, 0, 0, "", why))
            continue
        objects[shown] = each.oid
        total += each.size
        if len(objects) > MAX_FILES:
            raise Unfit(f"it holds more than {MAX_FILES} spec files")
        if total > MAX_TOTAL:
            raise Unfit(f"its spec files hold more than {MAX_TOTAL // 1024 // 1024} MiB")
    return Chosen(objects, tuple(problems[:MAX_FILES]))


def _matters(each: Entry, name: str) -> bool:
    return each.mode == SUBMODULE or is_spec(name)


def _refused(each: Entry, names: list[str]) -> str:
    reasons = {
        "the name is not printable text": not all(name.isprintable() for name in names),
        "the name leads out of the repository": ".." in names or "" in names,
        "is a submodule: not entered": each.mode == SUBMODULE,
        "is a symbolic link: not followed in a git source": each.mode == LINK,
        "is not a regular file": each.mode not in REGULAR,
        f"lies more than {MAX_DEPTH} directories deep: not read": len(names) > MAX_DEPTH,
        TOO_LARGE: each.size > MAX_BYTES,
    }
    return next((why for why, holds in reasons.items() if holds), "")
