"""File-system snapshots: everything an overlay's upper directory can hold comes back, and nothing gets out."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.checkpoints.manifest import Entry
from controller.errors import CheckpointDamaged, StepFailed
from controller.host.checkpoints import trees
from controller.host.checkpoints.store import LocalStore
from controller.model.checkpoint import Draft, Origin
from tests.images import pages, write_images

RUNS = [(0x7F00_0000_0000, 40)]


def quiet(_what: str, _amount: int) -> None:
    return


class Nothing:
    """Fills files with nothing."""

    def write(self, descriptor: int, size: int, pieces: Any) -> None:
        return


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    root = tmp_path / "upper"
    (root / "etc" / "deep").mkdir(parents=True)
    (root / "etc" / "passwd").write_bytes(b"root:x:0:0" * 100)
    (root / "etc" / "big").write_bytes(os.urandom(700_001))
    (root / "etc" / "empty").touch()
    os.link(root / "etc" / "passwd", root / "etc" / "deep" / "same")
    os.symlink("/etc/shadow", root / "etc" / "absolute")
    os.symlink("../../../..", root / "etc" / "deep" / "up")
    os.mknod(root / "etc" / "gone", stat.S_IFCHR, os.makedev(0, 0))
    os.mkfifo(root / "queue", 0o622)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(root / "talk"))
    with (root / "sparse").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
        file.truncate(80 << 20)
    (root / os.fsdecode(b"n\xf6t utf-8\n")).write_bytes(b"named by bytes")
    os.setxattr(root / "etc", "trusted.overlay.opaque", b"y")
    os.setxattr(root / "etc" / "passwd", "user.note", b"\0\xff")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(root / "etc" / "big", "security.capability", capability)
    os.chown(root / "etc" / "big", 0x70000005, 0x70000006)
    os.setxattr(root / "etc" / "big", "security.capability", capability)
    os.chmod(root / "etc" / "empty", 0o4755)
    os.chown(root / "etc" / "absolute", 7, 8, follow_symlinks=False)
    os.chmod(root / "etc" / "deep", 0o1700)
    for at, each in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(each, ns=(10**18 + at, 10**18 + at * 7), follow_symlinks=False)
    os.utime(root, ns=(1, 12_345))
    return root


def look(root: Path) -> dict[str, Any]:
    """Everything that anybody could tell, but for times of reading and changing."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        seen = path.lstat()
        content: Any = None
        if stat.S_ISREG(seen.st_mode):
            content = (path.read_bytes(), seen.st_ino if seen.st_nlink > 1 else 0, seen.st_blocks < 200)
        elif stat.S_ISLNK(seen.st_mode):
            content = os.readlink(path)
        xattrs = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
        key = str(path.relative_to(root))
        found[key] = (seen.st_mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns, seen.st_rdev, xattrs, content)
    return found


def _same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Inodes are compared by who shares them."""

    def shared(all_of: dict[str, Any]) -> set[frozenset[str]]:
        by: dict[int, set[str]] = {}
        for name, (*_, content) in all_of.items():
            if isinstance(content, tuple) and content[1]:
                by.setdefault(content[1], set()).add(name)
        return {frozenset(names) for names in by.values()}

    def plain(all_of: dict[str, Any]) -> dict[str, Any]:
        return {
            name: (*rest, (content[0], content[2]) if isinstance(content, tuple) else content)
            for name, (*rest, content) in all_of.items()
        }

    assert plain(found) == plain(expected)
    assert shared(found) == shared(expected)


def test_everything_in_a_layer_comes_back(upper: Path, tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "store"), "")
    images = write_images(tmp_path / "images", RUNS, pages(40, 1))
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_bytes(b"of a volume")
    made = store.save(
        Draft(Origin("web", 1, "manual"), str(images), {"upper": str(upper), "data": str(volume)}), 0, quiet
    )
    assert made.trees == ("data", "upper")
    roots = {"upper": str(tmp_path / "new" / "upper"), "data": str(tmp_path / "new" / "data")}
    store.restore(made.id, str(tmp_path / "back"), roots, quiet)
    _same(look(tmp_path / "new" / "upper"), look(upper))
    assert (tmp_path / "new" / "data" / "file").read_bytes() == b"of a volume"
    assert store.verify(made.id) == ()
    again = store.save(Draft(Origin("web", 2, "manual"), str(images), {"upper": str(upper)}), 0, quiet)
    assert again.stored == 0


def test_a_page_changed_in_a_large_file_costs_a_page(tmp_path: Path) -> None:
    """As a database does."""
    store = LocalStore(str(tmp_path / "store"), "")
    images = write_images(tmp_path / "images", RUNS, pages(40, 1))
    (tmp_path / "upper").mkdir()
    path = tmp_path / "upper" / "table"
    path.write_bytes(os.urandom(8 << 20))
    draft = Draft(Origin("web", 1, "manual"), str(images), {"upper": str(tmp_path / "upper")})
    store.save(draft, 0, quiet)
    with path.open("r+b") as file:
        for at in range(0, 8 << 20, 1 << 20):
            file.seek(at)
            file.write(b"changed")
    made = store.save(draft, 0, quiet)
    assert made.stored < 64 << 10
    store.restore(made.id, str(tmp_path / "back"), {"upper": str(tmp_path / "new")}, quiet)
    assert (tmp_path / "new" / "table").read_bytes() == path.read_bytes()


def test_nothing_is_restored_over_anything(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(StepFailed, match="not empty"):
        trees.restore(str(tmp_path), [Entry(".", "directory")], Nothing())
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(StepFailed):
        trees.restore(str(tmp_path / "link"), [Entry(".", "directory")], Nothing())


ROOT = Entry(".", "directory", 0o755)
HOSTILE = [
    [Entry("a", "directory")],
    [ROOT, Entry("../a", "file")],
    [ROOT, Entry("/a", "file")],
    [ROOT, Entry("a//b", "file")],
    [ROOT, Entry("a/./b", "file")],
    [ROOT, Entry("..", "directory")],
    [ROOT, Entry("", "file")],
    [ROOT, Entry("a\0b", "file")],
    [ROOT, Entry("missing/a", "file")],
    [ROOT, Entry("a", "symlink", target="/tmp"), Entry("a/b", "file")],
    [ROOT, Entry("a", "file"), Entry("a", "file")],
    [ROOT, Entry("a", "file"), Entry("a/b", "file")],
    [ROOT, Entry("a", "link", target="/etc/passwd")],
    [ROOT, Entry("a", "symlink", target="/etc/passwd"), Entry("b", "link", target="a")],
    [ROOT, Entry("a", "unknown")],
    [ROOT, Entry("a", "device", device=("x", 1, 1))],
    [ROOT, Entry("a", "file", mode=0o100777)],
    [ROOT, Entry("a", "file", uid=-1)],
    [ROOT, Entry("a" * 300, "file")],
    [ROOT, Entry("a", "symlink")],
]


@pytest.mark.parametrize("entries", HOSTILE, ids=lambda entries: repr(entries[-1].path)[:20])
def test_a_hostile_tree_is_refused_before_anything_is_made(entries: list[Entry], tmp_path: Path) -> None:
    with pytest.raises(CheckpointDamaged):
        trees.restore(str(tmp_path / "new"), entries, Nothing())
    assert not (tmp_path / "new").exists()


def test_attributes_that_are_not_ours_are_neither_taken_nor_given(tmp_path: Path) -> None:
    entry = replace(Entry("a", "file", 0o600), xattrs={"security.ima": base64.b64encode(b"x").decode()})
    trees.restore(str(tmp_path / "new"), [ROOT, entry], Nothing())
    assert os.listxattr(tmp_path / "new" / "a") == []


@pytest.mark.parametrize(("limit", "most"), [("MOST_ENTRIES", 3), ("MOST_BYTES", 200)])
def test_a_tree_of_too_much_is_refused_in_words(
    limit: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of a tree is held in memory: a container must not be able to fill that."""
    for number in range(4):
        (tmp_path / f"f{number}").touch()
        os.setxattr(tmp_path / f"f{number}", "user.note", b"x" * 50)
    assert len(list(trees.scan(str(tmp_path)))) == 5
    monkeypatch.setattr(trees, limit, most)
    with pytest.raises(StepFailed, match="more than a checkpoint takes"):
        list(trees.scan(str(tmp_path)))


def test_a_very_deep_tree_is_refused_in_words(tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(trees.DEEPEST + 2):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    with pytest.raises(StepFailed, match="directories deep"):
        list(trees.scan(str(tmp_path)))
    shutil.rmtree(tmp_path / "d")


def test_overlayfs_sees_the_restored_layer_as_it_saw_the_first(tmp_path: Path) -> None:
    """Whiteouts and opaque directories, as the kernel itself makes them."""
    for each in ("lower/old", "upper", "work", "merged", "space"):
        (tmp_path / each).mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "masu-test", tmp_path / "space"], check=True)
    mounts = [tmp_path / "space"]
    try:
        for each in ("upper", "work", "new", "work2", "merged2"):
            (tmp_path / "space" / each).mkdir()
        (tmp_path / "lower" / "old" / "file").write_text("old")
        (tmp_path / "lower" / "gone").write_text("old")
        first = tmp_path / "merged"
        _overlay(tmp_path, "upper", "work", first)
        mounts.append(first)
        (first / "gone").unlink()
        shutil.rmtree(first / "old")
        (first / "old").mkdir()
        (first / "old" / "new").write_text("new")
        entries = [entry for entry, _ in trees.scan(str(tmp_path / "space" / "upper"))]
        trees.restore(str(tmp_path / "space" / "new"), entries, Nothing())
        second = tmp_path / "space" / "merged2"
        _overlay(tmp_path, "new", "work2", second)
        mounts.append(second)
        assert sorted(str(each.relative_to(second)) for each in second.rglob("*")) == ["old", "old/new"]
    finally:
        for each in reversed(mounts):
            subprocess.run(["umount", each], check=True)


def _overlay(tmp_path: Path, upper: str, work: str, target: Path) -> None:
    space = tmp_path / "space"
    options = f"lowerdir={tmp_path}/lower,upperdir={space}/{upper},workdir={space}/{work}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "masu-test", target], check=True)
