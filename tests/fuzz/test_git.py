"""What git lists of a repository of strangers, and URLs of any text: understood, or refused as such."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from controller.errors import SpecInvalid
from controller.model import names
from controller.settings import Settings
from controller.sources.choice import passing_source_of
from controller.sources.git_process import GitFailed
from controller.sources.git_repository import Damaged, Repository, Vanished, _looked
from controller.sources.git_tree import Unfit, choose, entries
from controller.sources.git_url import GitUrl, parse
from tests.fuzz.bounds import bounded, printable, soon
from tests.fuzz.strategies import STRANGE, damaged, texts

TEXT = b"apiVersion: masu/v1\n"
OID = hashlib.sha1(b"blob %d\0" % len(TEXT) + TEXT).hexdigest()
COMMIT = "c" * 40
LISTING = (
    f"100644 blob {OID}      {len(TEXT)}\tweb.yaml\0".encode()
    + b"160000 commit "
    + b"b" * 40
    + b"       -\tsub\0"
)
ANSWER = f"{OID} blob {len(TEXT)}\n".encode() + TEXT + b"\n"
WORDS = st.sampled_from(
    [b"100644", b"120000", b"040000", b"blob", b"tree", b" ", b"\t", b"\0", b"\n", OID.encode(), b"-", b"5",
     b"-5", b"9" * 30, b"9" * 5000,
     b"web.yaml", b"../x.yaml", b"a/b.yaml", b"/", b".git", b"\xff.yaml", b"\x1b[2J.yaml", "²".encode(),
     b"commit", b"missing"]
)  # fmt: skip
LISTINGS = damaged(st.just(LISTING)) | st.lists(WORDS, max_size=20).map(b"".join) | st.just(LISTING)
ANSWERS = damaged(st.just(ANSWER)) | st.lists(WORDS, max_size=20).map(b"".join) | st.just(ANSWER)


class Git:
    """Answers each command with what it was told to."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self._answers = answers

    def run(self, verb: str, *words: str, **_: Any) -> bytes:
        answer = self._answers.get(f"{verb} {words[0]}", self._answers.get(verb))
        if answer is None:
            raise GitFailed(f"git {verb} ended with 1")
        return answer


def repository(**answers: bytes) -> Repository:
    told = {key.replace("_", "-").replace("--", " --", 1): each for key, each in answers.items()}
    return Repository("/nonexistent", GitUrl("file:///x"), Git(told))  # type: ignore[arg-type]


@bounded(200)
@given(LISTINGS, st.sampled_from(["", "nodes/edge"]))
def test_a_listing_of_any_bytes(listing: bytes, directory: str) -> None:
    try:
        with soon():
            found = choose(entries(listing), directory)
    except Unfit as error:
        printable(error)
        return
    for path in found.objects:
        assert path.isprintable()
        assert not {"..", ""} & set(path.split("/"))
    for each in found.problems:
        assert str(each).isprintable(), str(each)


@bounded(200)
@given(
    LISTINGS,
    ANSWERS,
    ANSWERS | st.just(f"{COMMIT} tree 5\n".encode()),
    st.sampled_from(["", "web.yaml", "nodes"]),
)
def test_a_revision_of_any_bytes(listing: bytes, answer: bytes, kind: bytes, directory: str) -> None:
    found = repository(ls_tree=listing, cat_file__batch=answer, cat_file__batch_check=kind)
    try:
        with soon():
            content = found.content(COMMIT, directory)
    except (Unfit, Vanished, Damaged) as error:
        printable(error)
        return
    assert set(content.texts.values()) <= {TEXT, b""}


@bounded(200)
@given(
    st.binary(max_size=20)
    | st.sampled_from([b"5\0why\n", b"\0", b"", b"-5\0x", b"9" * 5000 + b"\0x", b"5", b"5\0\x1b[2J\xff"])
)
def test_a_commit_describes_itself_with_any_bytes(said: bytes) -> None:
    try:
        found = repository(log=said).describe(COMMIT)
    except Damaged as error:
        printable(error)
        return
    assert found.subject.isprintable()


@bounded(200)
@given(
    texts.map(lambda text: text.encode("utf-8", "replace").decode())
    | st.lists(WORDS, max_size=6).map(lambda words: b"".join(words).decode("utf-8", "replace"))
)
@example("a blob ²")
def test_a_line_of_any_text(line: str) -> None:
    kind, oid, size = _looked(line)
    assert size >= 0
    assert oid or kind == "missing" or line.startswith(" ")
    assert names.printable(line).isprintable()


PARTS = st.sampled_from(
    ["https", "ssh", "file", "ext", "://", ":", "/", "//", "@", "#", "?", "[", "]", "%", "example.org", "user",
     "-o", ".", "..", "main", "*",
     "::1", "65536", "0", ".lock", "HEAD", "@{1}", "^", "~", "\u2028", *STRANGE]
)  # fmt: skip


@bounded(400)
@given(
    st.lists(PARTS, max_size=8).map("".join)
    | st.lists(PARTS, max_size=5).map(lambda parts: "https://h/" + "".join(parts))
)
def test_a_url_of_any_text(text: str) -> None:
    source = "git+" + text
    try:
        found = parse(source)
    except ValueError as error:
        printable(error)
        try:
            passing_source_of(source, Settings())
        except SpecInvalid as refused:
            printable(refused)
        return
    assert str(found).isprintable()
    found.url.encode()
    found.ref.encode()
    assert not found.ref.startswith("-")
    assert not found.url.startswith("-")
    assert parse(str(found)) == found
    assert not Path(found.directory).is_absolute()
    assert ".." not in found.directory.split("/")
