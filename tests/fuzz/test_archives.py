"""Checkpoint archives of strangers: taken, or refused with nothing left behind and nothing touched outside."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blake3 import blake3
from hypothesis import example, given
from hypothesis import strategies as st

from controller.checkpoints import archive, tar
from controller.checkpoints.users import Moves, moves, text_of
from controller.errors import ArchiveRefused, StepFailed
from controller.host.checkpoints.store import LocalStore
from controller.model.checkpoint import Origin
from controller.model.frame import IdMapping
from tests.fuzz.bounds import bounded, printable, soon
from tests.fuzz.strategies import damaged, json_texts, texts

pytestmark = pytest.mark.root

ORIGIN = Origin(
    "web", 1_764_100_000_000, "schedule", "spec", "frame", "rootfs", "6.18", "4.2", "crun", "x86_64"
)
HERE = Origin("moved", 1_764_200_000_000, "manual")
OWN = {"version": 1, "id": "x", "origin": ORIGIN.to_json(), "trees": []}
TYPES = [bytes([each]) for each in range(256)]
USUAL = [
    tarfile.REGTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
    b"\0",
]
NAMES = st.sampled_from(
    ["etc", "etc/x", "etc/y", "./etc/x", "etc/.wh.x", "etc/.wh..wh..opq", ".wh..wh..opq", ".wh.", "a/.wh...",
     "..", "../outside", "/etc/x",
     "a", "a/b", "a//b", "a/", ".", "./", "", "a/../b", "a\0b", "\n", "\udcff", "é", "x" * 255, "x" * 256,
     "d/" * 500 + "x", "/".join(["y" * 200] * 30)]
)  # fmt: skip
TOP = st.sampled_from(
    ["checkpoint", "checkpoint/core-1.img", "checkpoint/pages-1.img", "checkpoint/pagemap-1.img",
     "checkpoint/a/b", "checkpoint/..", "volumes",
     "volumes/data.tar", "volumes/.tar", "volumes/a/b.tar", "rootfs-diff.tar", "deleted.files", "config.dump",
     "spec.dump", "masu.json",
     "masu.sums", "network.status", "artifacts/x", "dump.log", "./config.dump", "../x", "/x",
     "checkpoint/masu-runtime-state.json", "bind.mounts"]
)  # fmt: skip
PAX_KEYS = st.sampled_from(
    ["path", "linkpath", "size", "mtime", "uid", "gid", "uname", "SCHILY.xattr.user.a",
     "SCHILY.xattr.system.posix_acl_access",
     "SCHILY.xattr.trusted.overlay.redirect", "SCHILY.xattr.user." + "x" * 300, "SCHILY.xattr.user.",
     "GNU.sparse.map", "GNU.sparse.major", "hdrcharset"]
)  # fmt: skip
PAX_VALUES = st.sampled_from(
    ["etc/x", "../../outside/pax", "/etc/passwd", "0", "5", "1.5", "-1", "9" * 18, "9" * 30, "1e9", "nan", "",
     "4294967295", "4294967296", "BINARY", "\0", "etc"]
)  # fmt: skip
CONTENTS = st.sampled_from(
    [b"", b"x", b"x" * 600, bytes(600), b"[]", b"{}", b'["/etc/x", "../outside/gone"]', b"\x1f\x8b"]
)


@st.composite
def members(draw: st.DrawFn, names: st.SearchStrategy[str], contents: st.SearchStrategy[bytes]) -> bytes:
    """One member as tarfile writes it, or with more in its headers than that."""
    info = tarfile.TarInfo(draw(names))
    content = draw(contents)
    kind = draw(st.sampled_from([tarfile.REGTYPE] * 4 + USUAL) | st.sampled_from(TYPES))
    info.type, info.linkname = kind, draw(names)
    info.size = len(content) if kind in {tarfile.REGTYPE, b"\0"} else 0
    if draw(st.integers(0, 9)) == 0:
        info.size = draw(
            st.sampled_from([0, 1, 511, 513, 1 << 20, 1 << 33, 1 << 62, (1 << 71) - 1, -1, -(1 << 70)])
        )
    info.mode = draw(st.sampled_from([0o644, 0o755, 0, 0o7777, 0o100644, -1]))
    info.uid, info.gid = (
        draw(st.sampled_from([0, 1000, 1 << 20, (1 << 32) - 1, 1 << 40, -1])) for _ in range(2)
    )
    info.mtime = draw(st.sampled_from([0, 1, 1 << 31, 1 << 33, 1 << 34, 1 << 62, -1]))
    info.pax_headers = draw(st.dictionaries(PAX_KEYS, PAX_VALUES, max_size=2))
    form = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    try:
        header = info.tobuf(form, "utf-8", "surrogateescape")
    except (ValueError, OverflowError):
        header = tarfile.TarInfo("etc/x").tobuf()
    return header + content + bytes(tar.padding(len(content)))


def archives(one: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    end = st.sampled_from([bytes(1024), bytes(1024), bytes(512), b"", b"junk" * 128])
    return st.tuples(st.lists(one, max_size=6).map(b"".join), end).map(b"".join)


LAYERS = archives(members(NAMES, CONTENTS))
ARCHIVES = archives(members(TOP, CONTENTS | LAYERS | json_texts(OWN)))


def member(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf() + content + bytes(tar.padding(len(content)))


def own_archive(texts_: dict[str, bytes], told: bytes) -> bytes:
    """As masu exports it, with the right sums for whatever is in it."""
    sums = {name: blake3(text).hexdigest() for name, text in {**texts_, "masu.json": told}.items()}
    whole = {"masu.json": told, **texts_, "masu.sums": json.dumps(sums).encode()}
    return b"".join(itertools.starmap(member, whole.items())) + bytes(1024)


def _root(**more: Any) -> bytes:
    """What says of the whole layer who it belongs to."""
    info = tarfile.TarInfo("./")
    info.type = tarfile.DIRTYPE
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


CORE = {"checkpoint/core-1.img": b"core"}
GOOD_LAYER = b"".join(member(each, b"x") for each in ("etc/x", "etc/.wh.y", "./b")) + bytes(1024)
GOOD = own_archive(
    {**CORE, "rootfs-diff.tar": GOOD_LAYER, "deleted.files": b'["gone"]'}, json.dumps(OWN).encode()
)


def take(tmp_path: Path, content: bytes) -> None:
    """Whatever comes of it: nothing outside is touched, and nothing of what was refused stays."""
    shutil.rmtree(tmp_path, ignore_errors=True)
    outside = tmp_path / "outside"
    outside.mkdir(parents=True)
    (outside / "kept").write_bytes(b"kept")
    (tmp_path / "a.tar").write_bytes(content)
    store = LocalStore(str(tmp_path / "store"), "")
    found = None
    try:
        with soon():
            found = store.import_from(str(tmp_path / "a.tar"), HERE, True, 0, lambda *_: None)
    except StepFailed as error:
        assert error.errno, "only of what is wrong with the host"  # noqa: PT017
        printable(error)
    except ArchiveRefused as error:
        printable(error)
    assert sorted(each.name for each in outside.iterdir()) == ["kept"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.tar", "outside", "store"]
    assert sorted(each.name for each in (tmp_path / "store").iterdir() if each.name != "reading") == [
        "lock",
        "manifests",
        "packs",
    ]
    assert not list((tmp_path / "store").rglob("*.tmp"))
    if found is None:
        assert store.checkpoints("") == ()
        return
    assert found.id < "20251127", "it is of no later than its import"
    assert store.verify(found.id) == ()
    roots = {name: str(tmp_path / "back" / str(at)) for at, name in enumerate(found.trees)}
    store.restore(found.id, str(tmp_path / "images"), roots, lambda *_: None)
    assert sorted(each.name for each in outside.iterdir()) == ["kept"]
    store.export_to(found.id, str(tmp_path / "again.tar"))
    other = LocalStore(str(tmp_path / "other"), "")
    again = other.import_from(str(tmp_path / "again.tar"), HERE, True, 0, lambda *_: None)
    assert again.images == found.images


@bounded(120)
@given(ARCHIVES)
def test_an_archive_of_anything(tmp_path: Path, content: bytes) -> None:
    take(tmp_path, content)


@bounded(60)
@given(LAYERS)
@example(_root(gid=-1))
@example(_root(type=tarfile.REGTYPE, size=5) + b"12345" + bytes(507))
def test_a_layer_of_anything(tmp_path: Path, layer: bytes) -> None:
    take(tmp_path, own_archive({**CORE, "rootfs-diff.tar": layer}, json.dumps(OWN).encode()))


@bounded(60)
@given(json_texts(OWN))
@example(json.dumps({**OWN, "origin": {**ORIGIN.to_json(), "created_ms": 10**18}}).encode())
@example(json.dumps({**OWN, "origin": {**ORIGIN.to_json(), "created_ms": 10**300}}).encode())
@example(json.dumps({**OWN, "origin": {**ORIGIN.to_json(), "created_ms": -1}}).encode())
@example(json.dumps({**OWN, "version": "\x1b[2J"}).encode())
def test_an_origin_of_any_shape(tmp_path: Path, text: bytes) -> None:
    take(tmp_path, own_archive(CORE, text))


EXTRA = {"ociVersion": "1.0.2", "annotations": {"a": "b"}, "process": {"args": ["/x"]}}


@bounded(60)
@given(json_texts(EXTRA), st.sampled_from(["spec.dump", "config.dump", "network.status", "deleted.files"]))
@example(b"[]", "spec.dump")
@example(b'{"annotations": 5}', "spec.dump")
@example(b"{", "spec.dump")
def test_texts_of_any_shape(tmp_path: Path, text: bytes, name: str) -> None:
    take(tmp_path, own_archive({**CORE, name: text}, json.dumps(OWN).encode()))


def _packed(content: bytes, how: str) -> bytes:
    if how == "gz":
        return gzip.compress(content, mtime=0)
    return zstandard.ZstdCompressor(write_checksum=True).compress(content) if how == "zst" else content


@bounded(100)
@given(st.sampled_from(["", "gz", "zst"]).flatmap(lambda how: damaged(st.just(_packed(GOOD, how)))))
@example(gzip.compress(GOOD, mtime=0)[:-8] + bytes(8))
def test_an_archive_that_is_damaged(tmp_path: Path, content: bytes) -> None:
    take(tmp_path, content)


@bounded(200)
@given(ARCHIVES | LAYERS | damaged(LAYERS) | st.binary(max_size=1100))
def test_headers_of_anything(content: bytes) -> None:
    stream = io.BytesIO(content)
    try:
        with soon():
            for each in tar.members(stream.read, 100):
                assert each.kind in {"file", "link", "symlink", "directory", "fifo"}
                assert each.size >= 0
                assert 0 <= each.mode <= 0o7777
                stream.seek(each.size + tar.padding(each.size), os.SEEK_CUR) if each.size < 1 << 40 else None
    except ArchiveRefused as error:
        printable(error)


@bounded(200)
@given(texts | TOP | NAMES, st.booleans())
def test_a_name_has_a_place_or_none(name: str, directory: bool) -> None:
    try:
        kind, known = archive.role(name, directory=directory)
    except ArchiveRefused as error:
        printable(error)
        return
    assert kind in {"directory", "ignored"} or (known and "/" not in known and known not in {".", ".."})


IDS = IdMapping(((0, 100_000, 65536),), ((0, 100_000, 65536),))


@bounded(200)
@given(
    st.lists(st.sampled_from(["0:100000:65536", "/", ",", ":", "0", "²", "-1", "9" * 5000, "\n"])).map(
        "".join
    )
    | texts,
    st.sampled_from([None, IDS]),
)
def test_users_of_anything(before: str, now: Any) -> None:
    try:
        found = moves(before, now)
    except ValueError as error:
        printable(error)
        return
    assert isinstance(found, Moves)
    assert before or before == text_of(now)
