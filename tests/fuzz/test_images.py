"""Images of strangers: a manifest, an index, a config of any shape, and trees with anything in them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controller.errors import ImageRefused, StepFailed
from controller.frozen import as_dict
from controller.host import image_layout
from controller.host.image_tree import MOST_USERS, text_in, tidy
from controller.model.image import (
    Choice,
    Reference,
    image_of,
    in_index,
    is_digest,
    parse_manifest,
    parse_reference,
    process_of,
    tagged,
    unfit,
)
from tests.fuzz.bounds import bounded, printable, soon
from tests.fuzz.strategies import STRANGE, damaged, json_texts, json_values, mutated

DIGEST = "sha256:" + "a" * 64
PLATFORM = {"os": "linux", "architecture": "amd64", "variant": "v1"}
MANIFEST = {
    "schemaVersion": 2,
    "config": {"digest": DIGEST, "size": 5},
    "layers": [{"digest": DIGEST, "size": 9}],
}
INDEX = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.index.v1+json",
    "manifests": [
        {
            "digest": DIGEST,
            "size": 9,
            "platform": PLATFORM,
            "annotations": {"org.opencontainers.image.ref.name": "1"},
        },
        {
            "digest": DIGEST[:-1] + "b",
            "size": 9,
            "platform": {"os": "linux", "architecture": "arm", "variant": "v7"},
        },
    ],
}
CONFIG = {
    "architecture": "amd64",
    "config": {
        "Entrypoint": ["/bin/web"],
        "Cmd": ["-f"],
        "Env": ["A=1=2", "B="],
        "User": "web:www",
        "WorkingDir": "/srv",
        "StopSignal": "SIGINT",
    },
}
USERS, GROUPS = "root:x:0:0::/:\nweb:x:100:101::/:\n", "www:x:200:\n"


@bounded(200)
@given(mutated(st.just(MANIFEST)) | json_values)
@example({**MANIFEST, "layers": [{"digest": DIGEST, "size": float("inf")}]})
@example({**MANIFEST, "layers": [{"digest": DIGEST, "size": -1}]})
def test_a_manifest_is_one_or_is_none(value: Any) -> None:
    try:
        found = parse_manifest(value)
    except ValueError as error:
        printable(error)
        return
    assert is_digest(found.config)
    assert all(is_digest(digest) and size >= 0 for digest, size in found.layers)
    assert 0 <= found.size < 1 << 63


@bounded(200)
@given(mutated(st.just(INDEX)) | json_values, st.sampled_from(["x86_64", "armv7l", "riscv64", ""]))
def test_an_index_is_one_or_is_none(value: Any, machine: str) -> None:
    for read in (lambda: in_index(value, machine), lambda: tagged(value, "1")):
        try:
            found = read()
        except ValueError as error:
            printable(error)
            continue
        assert found is None or is_digest(found)


ENTRIES = st.lists(
    st.sampled_from(["web", ":", "0", "²", "-1", "9" * 30, "\n", "x", "\ud800", "\0", " "])
).map("".join)


@bounded(300)
@given(mutated(st.just(CONFIG)) | json_values, ENTRIES | st.just(USERS), ENTRIES | st.just(GROUPS))
@example({"config": {"Env": ["A=\0"]}}, "", "")
@example({"config": {"User": "٣"}}, "", "")
def test_a_config_says_what_a_process_can_be_made_of(value: Any, users: str, groups: str) -> None:
    try:
        found = image_of(DIGEST, "/x", value, users, groups)
    except ValueError as error:
        printable(error)
        return
    json.dumps(as_dict(found), ensure_ascii=False).encode()
    process = process_of({}, Choice(DIGEST, found))
    words = (*process["args"], *process["env"], *process["env"].values(), process.get("cwd", "/"))
    assert not any("\0" in each for each in words), "execve(2) takes none"
    assert not any("=" in each or not each for each in process["env"])
    if "user" in process:
        assert all(each.isascii() and 0 <= int(each) < 1 << 32 for each in process["user"].split(":"))
    assert unfit({}, found).isprintable()


@bounded(300)
@given(
    st.lists(st.sampled_from(["oci:", "docker:", "//", "/", ":", "@", "[", "]", "..", "a", "A", "1", ".", DIGEST,
    *STRANGE]))
    .map("".join)
)  # fmt: skip
def test_a_reference_of_any_text(text: str) -> None:
    try:
        found = parse_reference(text)
    except ValueError as error:
        printable(error)
        return
    assert text.isprintable()
    assert found.tag or found.digest
    assert found.is_loopback in {True, False}
    if found.transport == "docker":
        assert found.registry
        assert ".." not in found.name.split("/")


def _blob(layout: Path, content: bytes) -> str:
    name = hashlib.sha256(content).hexdigest()
    (layout / "blobs" / "sha256" / name).write_bytes(content)
    return f"sha256:{name}"


@bounded(150)
@given(st.data())
def test_a_layout_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Blobs are called what they are, which is where a stranger's word begins to count; or they are not."""
    shutil.rmtree(tmp_path / "layout", ignore_errors=True)
    layout = tmp_path / "layout"
    (layout / "blobs" / "sha256").mkdir(parents=True)
    config = _blob(layout, data.draw(json_texts(CONFIG)))
    known = {**MANIFEST, "config": {"digest": config, "size": 1}}
    manifest = _blob(layout, data.draw(json_texts(known)))
    entry = {**INDEX["manifests"][0], "digest": manifest}  # type: ignore[index]
    nested = _blob(layout, data.draw(json_texts({**INDEX, "manifests": [entry]})))
    top = {
        **INDEX,
        "manifests": [{**entry, "digest": data.draw(st.sampled_from([manifest, nested, config]))}],
    }
    (layout / "index.json").write_bytes(data.draw(st.just(json.dumps(top).encode()) | json_texts(top)))
    if data.draw(st.integers(0, 4)) == 0:
        victim = layout / "blobs" / "sha256" / manifest.removeprefix("sha256:")
        victim.write_bytes(data.draw(damaged(st.just(victim.read_bytes()))))
    reference = Reference("oci", str(layout), data.draw(st.sampled_from(["1", "2", ""])), "")
    for read in _readings(
        layout, reference if reference.tag else Reference("oci", str(layout), "", manifest), config
    ):
        try:
            with soon():
                read()
        except (ImageRefused, StepFailed) as error:
            printable(error)


def _readings(layout: Path, reference: Reference, config: str) -> list[Callable[[], Any]]:
    def manifest() -> Any:
        return image_layout.manifest(str(layout), image_layout.resolve(reference, "x86_64"))

    def said() -> Any:
        return image_layout.config(str(layout), config)

    return [manifest, said]


ACTS = st.tuples(
    st.sampled_from(["file", "directory", "link", "symlink", "out", "fifo", "device", "socket", "xattr"]),
    st.sampled_from(["a", "b", "a/c", "a/d", "b/a/c", "etc", "etc/passwd", "a\n", "\udcff", ".wh.a", "x" * 255]),
    st.sampled_from(["a", "b", "a/c", "/", "/etc/passwd", "..", "../../outside", "etc/passwd", "a/../..",
    "\udcff", "/proc/self/fd"]),
)  # fmt: skip


@pytest.mark.root
@bounded(100)
@given(st.lists(ACTS, max_size=12))
def test_a_tree_with_anything_in_it_is_made_harmless_or_refused(
    tmp_path: Path, acts: list[tuple[str, str, str]]
) -> None:
    shutil.rmtree(tmp_path, ignore_errors=True)
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("secret")
    for act in acts:
        try:
            _make(os.fsencode(root), os.fsencode(outside), *act)
        except OSError:
            continue
    try:
        tidy(str(root))
    except ImageRefused as error:
        printable(error)
        return
    assert (outside / "secret").read_text() == "secret"
    for where, directories, files in os.walk(os.fsencode(root)):
        for name in (*directories, *files):
            seen = os.lstat(os.path.join(where, name))
            assert not stat.S_ISBLK(seen.st_mode)
            assert not stat.S_ISCHR(seen.st_mode)
            assert stat.S_ISDIR(seen.st_mode) or seen.st_nlink == 1 or _inside(os.fsencode(root), seen)
    for path in ("etc/passwd", "/etc/passwd", "a", "../outside/secret"):
        text = text_in(str(root), path)
        assert "secret" not in text
        assert len(text) <= MOST_USERS


def _inside(root: bytes, wanted: os.stat_result) -> bool:
    found = [
        os.lstat(os.path.join(where, each)).st_ino for where, _, files in os.walk(root) for each in files
    ]
    return found.count(wanted.st_ino) == wanted.st_nlink


def _make(root: bytes, outside: bytes, act: str, name: str, target: str) -> None:
    path, there = os.path.join(root, os.fsencode(name)), os.fsencode(target)
    if act == "file":
        Path(os.fsdecode(path)).write_bytes(b"text\xff")
    elif act == "directory":
        os.mkdir(path)
    elif act == "link":
        os.link(os.path.join(root, there.lstrip(b"/")), path, follow_symlinks=False)
    elif act == "out":
        os.link(os.path.join(outside, b"secret"), path)
    elif act == "symlink":
        os.symlink(there, path)
    elif act == "xattr":
        os.setxattr(path, "trusted.overlay.redirect", there, follow_symlinks=False)
    else:
        kind = {"fifo": stat.S_IFIFO, "device": stat.S_IFCHR, "socket": stat.S_IFSOCK}[act]
        os.mknod(path, kind | 0o600, os.makedev(1, 3))
