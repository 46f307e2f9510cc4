"""The copy of a repository on this host: bare, and read object by object; nothing of it is ever checked out.

Two refs: `next` is what was fetched last, `current` the newest revision that was good. A copy that is damaged is
thrown away: the repository says it all again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping

from controller.errors import Problem
from controller.frozen import dataclass
from controller.model.names import printable
from controller.model.snapshot import Commit
from controller.sources.git_process import FETCH_S, Git, GitFailed
from controller.sources.git_tree import MAX_TOTAL, Entry, Unfit, choose, entries
from controller.sources.git_url import USUAL_REF, GitUrl
from controller.sources.walk import MAX_BYTES

NEXT, CURRENT = "refs/masu/next", "refs/masu/current"
MOST_PACKS = 20
"""Each fetch that brings anything leaves one."""
MOST_SUBJECT = 120
MOST_DIGITS = 20
LEFT_OVER = (".lock", ".keep")


class Damaged(Exception):
    """An object that should be there is not, or is another one than its name says."""


class Vanished(Exception):
    """The revision has no such directory."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a revision says: path → text, and what of it is not read."""

    texts: Mapping[str, bytes]
    problems: tuple[Problem, ...]


class Repository:
    """Used by one thread at a time, and by one process: whoever holds the instance."""

    def __init__(self, path: str, url: GitUrl, git: Git) -> None:
        self._path, self._url, self._git = path, url, git

    def fetch(self) -> str:
        """→ the commit that the ref is at there. Raises GitFailed, and OSError where nothing can be written."""
        self._prepare()
        try:
            refspec = f"+{self._url.ref}:{NEXT}"
            words = ("--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
            self._git.run("fetch", *words, "--force", "--", self._url.url, refspec, timeout_s=FETCH_S)
        except GitFailed as error:
            raise GitFailed(_fetch_failed(str(error), self._url.ref)) from error
        finally:
            self._sweep()
        return self.commit_at(NEXT)

    def commit_at(self, ref: str) -> str:
        """Empty where there is none. Raises Damaged where it is named, but is not there."""
        if not os.path.isdir(self._path):
            return ""
        ((kind, oid, _),) = self._look(f"{ref}^{{commit}}")
        if kind == "commit":
            return oid
        try:
            found = self._git.run("for-each-ref", "--format=%(objectname)", ref).decode().strip()
        except GitFailed as error:
            raise Damaged(str(error)) from error
        return self._kind_of(f"{found}^{{commit}}", "commit") if found else ""

    def keep(self, commit: str) -> None:
        """It is the last good one from now on; what is only in older ones goes, by and by. Raises GitFailed."""
        self._git.run("update-ref", CURRENT, commit)
        if self._packs() > MOST_PACKS:
            self._git.run("repack", "--quiet", "-a", "-d")

    def discard(self) -> None:
        shutil.rmtree(self._path, ignore_errors=True)

    def is_whole(self) -> bool:
        """Read-only. Whether every object of the last good revision is there and is what its name says."""
        try:
            self._git.run("fsck", "--strict", "--no-dangling", "--no-progress", "--no-reflogs", CURRENT)
        except GitFailed:
            return False
        return True

    def check_signature(self, commit: str, signers: str) -> None:
        """`signers`: where those are written whose signature counts. Raises Unfit."""
        try:
            self._git.run("verify-commit", "--raw", commit)
        except GitFailed as error:
            raise Unfit(_doubt(str(error), signers)) from error

    def describe(self, commit: str) -> Commit:
        """Raises Damaged."""
        try:
            said = self._git.run("log", "-1", "--no-show-signature", "--format=%ct%x00%s", commit, "--")
        except GitFailed as error:
            raise Damaged(str(error)) from error
        at, _, subject = said.decode("utf-8", "replace").rstrip("\n").partition("\0")
        seconds = int(at) if _is_number(at) else 0
        return Commit(commit, printable(subject)[:MOST_SUBJECT], seconds * 1000)

    def content(self, commit: str, directory: str) -> Content:
        """Of what is below a directory, or of one file. Raises Unfit, Vanished, and Damaged."""
        chosen = choose(*self._entries(commit, directory))
        texts = dict(self._texts(chosen.objects))
        return Content(texts, chosen.problems)

    def _entries(self, commit: str, directory: str) -> tuple[Iterable[Entry], str]:
        """With what their paths are below; of a single file, that one."""
        try:  # a directory, most likely: to look first would be one process more
            return entries(self._listing(f"{commit}:{directory}", recurse=True)), directory
        except Damaged:
            ((kind, _, _),) = self._look(f"{commit}:{directory}")
            if kind == "missing":
                self._kind_of(f"{commit}^{{tree}}", "tree")
                raise Vanished(f"it has no {directory}") from None
            if kind != "blob":
                raise
        above, _, name = directory.rpartition("/")
        found = entries(self._listing(f"{commit}:{above}", recurse=False))
        return [each for each in found if each.path == name.encode()], above

    def _listing(self, tree: str, *, recurse: bool) -> bytes:
        words = ("-r",) if recurse else ()
        try:
            return self._git.run("ls-tree", "-z", "-l", "--full-tree", *words, tree)
        except GitFailed as error:
            if "says too much" in str(error):
                raise Unfit("it holds too many files") from error
            raise Damaged(str(error)) from error

    def _look(self, *names: str) -> list[tuple[str, str, int]]:
        """→ (type, object, size) of each; the type is "missing" where there is nothing. Raises Damaged."""
        said = "".join(f"{name}\n" for name in names).encode()
        try:
            lines = (
                self._git.run("cat-file", "--batch-check", said=said).decode("utf-8", "replace").splitlines()
            )
        except GitFailed as error:
            raise Damaged(str(error)) from error
        if len(lines) != len(names):
            raise Damaged("git answers what is not to be understood")
        return [_looked(line) for line in lines]

    def _kind_of(self, name: str, kind: str) -> str:
        ((found, oid, _),) = self._look(name)
        if found != kind:
            raise Damaged(f"{name} is missing")
        return oid

    def _texts(self, objects: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
        """Each is what its name says: git itself only looks when it fetches."""
        if not objects:
            return
        said = "".join(f"{oid}\n" for oid in objects.values()).encode()
        most = MAX_TOTAL + len(objects) * 128
        try:
            answer = self._git.run("cat-file", "--batch", said=said, most=most)
        except GitFailed as error:
            raise Damaged(str(error)) from error
        at = 0
        for path, oid in objects.items():
            end = answer.find(b"\n", at)
            kind, _, size = _looked(answer[at:end].decode("utf-8", "replace"))
            text = answer[end + 1 : end + 1 + size]
            if kind != "blob" or size > MAX_BYTES or len(text) != size or _name_of(text, oid) != oid:
                raise Damaged(f"the object of {path} is damaged")
            yield path, text
            at = end + 1 + size + 1

    def _prepare(self) -> None:
        """A repository that is there, and in which nothing is left of a git that was killed."""
        if os.path.isfile(f"{self._path}/HEAD") and os.path.isdir(f"{self._path}/objects"):
            self._sweep()
            return
        self.discard()
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        self._git.run("init", "--quiet", "--bare", "--template=", self._path)

    def _packs(self) -> int:
        return sum(name.endswith(".pack") for name in os.listdir(f"{self._path}/objects/pack"))

    def _sweep(self) -> None:
        """Locks and halves of whoever did not come to its end: nobody else is at it."""
        for parent, names, files in os.walk(self._path):
            for name in [*names, *files]:
                if name.endswith(LEFT_OVER) or name.startswith(("tmp_", "tmp-", "incoming-")):
                    _remove(f"{parent}/{name}")


def _remove(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.unlink(path)


def _looked(line: str) -> tuple[str, str, int]:
    """A line of `cat-file --batch-check`. A name may hold blanks, and then it is missing."""
    words = line.split(" ")
    if len(words) == 3 and _is_number(words[2]):
        return words[1], words[0], int(words[2])
    return "missing", "", 0


def _is_number(text: str) -> bool:
    """One that git writes: a size, or a time."""
    return text.isascii() and text.isdigit() and len(text) < MOST_DIGITS


def _name_of(text: bytes, oid: str) -> str:
    """gitformat-hash(5): SHA-1, or SHA-256 where names are longer."""
    digest = hashlib.sha1(usedforsecurity=False) if len(oid) == 40 else hashlib.sha256()
    digest.update(b"blob %d\0" % len(text))
    digest.update(text)
    return digest.hexdigest()


def _fetch_failed(said: str, ref: str) -> str:
    if "couldn't find remote ref" not in said:
        return said
    if ref == USUAL_REF:
        return (
            "the repository does not say which branch is its usual one, or has none yet: add #BRANCH,"
            " for example #main"
        )
    return f"the repository has no branch or tag {ref}"


def _doubt(said: str, signers: str) -> str:
    """Why a commit is not taken, from what git says of its signature."""
    if said.startswith("git verify-commit ended"):
        return "it is not signed"
    if "No principal matched" in said or "NO_PUBKEY" in said:
        return f"it is signed by a key that is not in {signers}"
    return f"its signature: {_told(said)}"


def _told(said: str) -> str:
    """Of `--raw`, GPG's own lines for programs, what people read."""
    parts = [part.removeprefix("[GNUPG:] ") for part in said.split("; ")]
    telling = [
        part for part in parts if part.startswith(("NO_PUBKEY", "BADSIG", "EXPKEYSIG", "REVKEYSIG", "EXPSIG"))
    ]
    return "; ".join(telling) or said
