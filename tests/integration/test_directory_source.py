"""What a snapshot of a directory holds: files from inside, and a problem for each that is none."""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.errors import SourceUnreadable
from controller.model.snapshot import Snapshot
from controller.sources.directory import DirectorySource
from controller.sources.walk import MAX_BYTES, MAX_FILES

NOBODY = 65534


def texts(snapshot: Snapshot, root: Path) -> dict[str, str]:
    return {os.path.relpath(each.path, root): each.text.decode() for each in snapshot.files}


def wrong(snapshot: Snapshot, root: Path) -> dict[str, str]:
    return {os.path.relpath(each.file, root): each.message for each in snapshot.unreadable}


def replace(path: Path, text: str) -> None:
    """As careful programs do it: a temporary file, renamed into place."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.rename(path)


def as_nobody(act: Callable[[], Snapshot]) -> Snapshot:
    """In a thread of its own, without root's right to read everything (setfsuid(2) is per thread)."""
    result: list[Snapshot] = []

    def run() -> None:
        ctypes.CDLL(None).setfsuid(NOBODY)
        result.append(act())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return result[0]


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that anybody reaches: pytest's own lie in one of root's alone."""
    with tempfile.TemporaryDirectory(prefix="masu-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_takes_specs_recursively_and_nothing_else(tmp_path: Path) -> None:
    for name in (
        "b.yaml",
        "a.yml",
        "x/y/c.yaml",
        ".d.yaml",
        "e.yaml~",
        ".git/f.yaml",
        "g.json",
        "..1/h.yaml",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    snapshot = DirectorySource(f"{tmp_path}/").snapshot()
    assert texts(snapshot, tmp_path) == {name: name for name in ("a.yml", "b.yaml", "x/y/c.yaml")}
    assert [each.path for each in snapshot.files] == sorted(each.path for each in snapshot.files)
    assert snapshot.unreadable == ()


def test_shows_paths_as_the_user_wrote_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/web.yaml").write_text("a")
    monkeypatch.chdir(tmp_path)
    assert [each.path for each in DirectorySource("specs/").snapshot().files] == ["specs/web.yaml"]


def test_one_file_is_a_source_too_even_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text("a")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "web.yaml")
    for name in ("web.yaml", "link.yaml"):
        assert texts(DirectorySource(str(tmp_path / name)).snapshot(), tmp_path) == {name: "a"}


@pytest.mark.parametrize("kind", ["missing", "fifo"])
def test_a_source_that_cannot_be_listed_is_an_error_and_never_empty(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "source"
    if kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(SourceUnreadable, match=str(path)):
        DirectorySource(str(path)).snapshot()


def test_the_revision_follows_the_texts_alone(tmp_path: Path) -> None:
    source, path = DirectorySource(str(tmp_path)), tmp_path / "web.yaml"
    path.write_text("a")
    first = source.snapshot().revision
    replace(path, "b")
    second = source.snapshot().revision
    replace(path, "a")
    assert source.snapshot().revision == first != second


def configmap(root: Path, version: str) -> None:
    """As the kubelet publishes a ConfigMap: a new directory, and `..data` swapped over to it."""
    (root / f"..{version}/sub").mkdir(parents=True)
    (root / f"..{version}/web.yaml").write_text(version)
    (root / f"..{version}/sub/db.yaml").write_text(version)
    (root / "..data_tmp").symlink_to(f"..{version}")
    (root / "..data_tmp").rename(root / "..data")


def test_follows_the_kubernetes_swap_and_never_mixes_names(tmp_path: Path) -> None:
    configmap(tmp_path, "1")
    (tmp_path / "web.yaml").symlink_to("..data/web.yaml")
    (tmp_path / "sub").symlink_to("..data/sub")
    source = DirectorySource(str(tmp_path))
    assert texts(source.snapshot(), tmp_path) == {"web.yaml": "1", "sub/db.yaml": "1"}
    configmap(tmp_path, "2")
    snapshot = source.snapshot()
    assert texts(snapshot, tmp_path) == {"web.yaml": "2", "sub/db.yaml": "2"}
    assert snapshot.unreadable == ()


def test_refuses_what_lies_outside(tmp_path: Path) -> None:
    root, secret = tmp_path / "specs", tmp_path / "specs-secret"
    root.mkdir()
    secret.mkdir()
    (secret / "key.yaml").write_text("secret")
    (root / "file.yaml").symlink_to(secret / "key.yaml")
    (root / "relative.yaml").symlink_to("../specs-secret/key.yaml")
    (root / "directory").symlink_to(secret)
    snapshot = DirectorySource(str(root)).snapshot()
    assert snapshot.files == ()
    assert set(wrong(snapshot, root)) == {"file.yaml", "relative.yaml", "directory"}
    assert all("outside of the source" in each for each in wrong(snapshot, root).values())


def test_links_in_circles_end(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "up").symlink_to("..")
    (tmp_path / "a/b").symlink_to("../b")
    (tmp_path / "b/a").symlink_to("../a")
    (tmp_path / "self.yaml").symlink_to("self.yaml")
    (tmp_path / "a/web.yaml").write_text("a")
    snapshot = DirectorySource(str(tmp_path)).snapshot()
    assert "a/web.yaml" in texts(snapshot, tmp_path)
    assert list(wrong(snapshot, tmp_path)) == ["self.yaml"]


def test_what_is_no_file_is_one_problem_each_and_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    os.mknod(tmp_path / "device.yaml", 0o600 | 0o020000, os.makedev(1, 5))
    (tmp_path / "dangling.yaml").symlink_to("nothing")
    (tmp_path / "large.yaml").write_bytes(b"x" * (MAX_BYTES + 1))
    (tmp_path / "full.yaml").write_bytes(b"x" * MAX_BYTES)
    (tmp_path / "a\x1b[31m\n.yaml").write_text("x")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.yaml")).write_text("x")
    snapshot = DirectorySource(str(tmp_path)).snapshot()
    assert list(texts(snapshot, tmp_path)) == ["full.yaml"]
    assert wrong(snapshot, tmp_path) == {
        "fifo.yaml": "is not a regular file",
        "device.yaml": "is not a regular file",
        "dangling.yaml": "cannot be read: No such file or directory",
        "large.yaml": "is larger than 1 MiB",
        r"a\x1b[31m\n.yaml": "the name is not printable text",
        r"\xff.yaml": "the name is not printable text",
    }


@pytest.mark.root
def test_what_may_not_be_read_is_named_and_what_is_below_stays(open_to_all: Path) -> None:
    (open_to_all / "sub").mkdir()
    (open_to_all / "sub/db.yaml").write_text("db")
    (open_to_all / "web.yaml").write_text("web")
    source = DirectorySource(str(open_to_all))
    source.snapshot()
    (open_to_all / "sub").chmod(0)
    (open_to_all / "new.yaml").write_text("new")
    (open_to_all / "new.yaml").chmod(0)
    snapshot = as_nobody(source.snapshot)
    assert wrong(snapshot, open_to_all) == {
        "sub": "cannot be listed: Permission denied",
        "new.yaml": "cannot be read: Permission denied",
    }
    assert texts(snapshot, open_to_all) == {"sub/db.yaml": "db", "web.yaml": "web"}


def test_more_files_than_the_cap_are_said_to_be_too_many(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 1):
        (tmp_path / f"{number:05}.yaml").touch()
    snapshot = DirectorySource(str(tmp_path)).snapshot()
    assert len(snapshot.files) == MAX_FILES
    assert [each.file for each in snapshot.unreadable] == [str(tmp_path)]
    assert str(MAX_FILES) in snapshot.unreadable[0].message


def test_leaves_no_descriptor_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "web.yaml").write_text("a")
    source, before = DirectorySource(str(tmp_path)), len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        source.snapshot()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("below", ["", ".git"])
def test_a_repository_without_spec_files_is_told_with_how_to_follow_it(tmp_path: Path, below: str) -> None:
    for name in ("HEAD", "objects", "refs"):
        (tmp_path / below / name).mkdir(parents=True)
    with pytest.raises(SourceUnreadable, match=rf"write git\+file://{tmp_path}$"):
        DirectorySource(str(tmp_path)).snapshot()
    (tmp_path / "web.yaml").write_text("a: 1\n")
    assert len(DirectorySource(str(tmp_path)).snapshot().files) == 1
