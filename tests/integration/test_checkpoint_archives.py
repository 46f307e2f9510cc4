"""Archives: there and back, in podman's layout; and archives that somebody made to do harm."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.checkpoints import tar
from controller.errors import ArchiveRefused, StepFailed
from controller.host.checkpoints.store import LocalStore
from controller.model.checkpoint import Draft, Origin, volume_tree
from tests.images import pages, read_all, write_images

RUNS = [(0x7F00_0000_0000, 200)]
ORIGIN = Origin(
    "web", 1_764_100_000_000, "schedule", "spec", "frame", "sha256:rootfs", "6.18", "4.2.1", "crun 1.28", "x86_64",
    ("avx2",), "boot", 12,
)  # fmt: skip
HERE = Origin("moved", 1_764_200_000_000, "manual")
SPEC = {
    "ociVersion": "1.0.2",
    "process": {"args": ["/bin/httpd"]},
    "mounts": [{"source": "/etc"}],
    "hooks": {"poststart": []},
}
Fill = Callable[[tarfile.TarFile], None]


def quiet(_what: str, _amount: int) -> None:
    return


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"), "")


@pytest.fixture
def made(store: LocalStore, tmp_path: Path) -> str:
    images = write_images(tmp_path / "images", RUNS, pages(200, 1))
    (images / "stats-dump").write_bytes(b"of CRIU")
    upper, volume = tmp_path / "upper", tmp_path / "volume"
    (upper / "etc" / "deep").mkdir(parents=True)
    volume.mkdir()
    (volume / "row").write_bytes(b"of a volume")
    (upper / "etc" / "file").write_bytes(b"changed" * 1000)
    os.link(upper / "etc" / "file", upper / "etc" / "linked")
    os.symlink("/etc/file", upper / "etc" / "absolute")
    os.mknod(upper / "etc" / "gone", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(upper / "device", stat.S_IFCHR, os.makedev(1, 3))
    os.setxattr(upper / "etc" / "deep", "trusted.overlay.opaque", b"y")
    os.setxattr(upper / "etc" / "file", "user.note", b"kept")
    os.chown(upper / "etc" / "file", 1234, 4321)
    os.chmod(upper / "etc", 0o750)
    extras = {"spec.dump": json.dumps(SPEC).encode(), "network.status": b"[]"}
    return store.save(
        Draft(ORIGIN, str(images), {"upper": str(upper), volume_tree("data"): str(volume)}, extras), 0, quiet
    ).id


@pytest.mark.parametrize("suffix", [".tar", ".tar.zst", ".tar.gz"])
def test_there_and_back_again(store: LocalStore, made: str, tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"web{suffix}"
    left = store.export_to(made, str(archive))
    assert left == ("upper/device: device",), "what cannot go into an archive is said"
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    other = LocalStore(str(tmp_path / "elsewhere"), "")
    found = other.import_from(str(archive), HERE, False, 0, quiet)
    assert found.origin
    assert (found.origin.container, found.origin.how, found.origin.spec_digest) == (
        "moved",
        "imported",
        "spec",
    )
    assert found.origin.cpu_features == ("avx2",)
    roots = {"upper": str(tmp_path / "new"), volume_tree("data"): str(tmp_path / "data")}
    other.restore(found.id, str(tmp_path / "back"), roots, quiet)
    assert read_all(tmp_path / "back") == read_all(tmp_path / "images")
    assert (tmp_path / "data" / "row").read_bytes() == b"of a volume"
    _same_layer(tmp_path / "new", tmp_path / "upper")
    assert not (tmp_path / "elsewhere" / "importing").exists()


def _same_layer(new: Path, old: Path) -> None:
    (old / "device").unlink()
    names = sorted(str(each.relative_to(old)) for each in old.rglob("*"))
    assert sorted(str(each.relative_to(new)) for each in new.rglob("*")) == names
    for name in names:
        one, other = (new / name).lstat(), (old / name).lstat()
        assert (one.st_uid, one.st_gid, one.st_rdev, one.st_nlink) == (
            other.st_uid,
            other.st_gid,
            other.st_rdev,
            other.st_nlink,
        ), name
        assert stat.S_ISCHR(one.st_mode) or one.st_mode == other.st_mode, name
    assert (new / "etc" / "file").read_bytes() == (old / "etc" / "file").read_bytes()
    assert os.readlink(new / "etc" / "absolute") == "/etc/file"
    assert os.getxattr(new / "etc" / "deep", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(new / "etc" / "file", "user.note") == b"kept"


def test_others_find_what_they_look_for(store: LocalStore, made: str, tmp_path: Path) -> None:
    """What checkpointctl's `show` and podman's import read: lib/metadata.go, internal/container.go."""
    store.export_to(made, str(tmp_path / "web.tar"))
    with tarfile.open(tmp_path / "web.tar") as found:
        names = found.getnames()
        config, spec, deleted = (
            json.load(found.extractfile(name) or io.BytesIO())
            for name in ("config.dump", "spec.dump", "deleted.files")
        )
        diff, statistics = found.extractfile("rootfs-diff.tar"), found.extractfile("stats-dump")
        assert diff
        assert statistics
        assert statistics.read() == b"of CRIU", "checkpointctl inspect has it beside the images alone"
        with tarfile.open(fileobj=diff) as layers:
            inner = layers.getnames()
    assert {
        "checkpoint",
        "checkpoint/pages-1.img",
        "checkpoint/inventory.img",
        "network.status",
        "volumes/data.tar",
    } <= set(names)
    assert (config["name"], config["runtime"], config["createdTime"]) == (
        "web",
        "crun",
        "2025-11-25T19:46:40Z",
    )
    assert len(config["id"]) == 64
    assert spec["annotations"]["io.container.manager"] == "libpod"
    assert spec["process"] == SPEC["process"]
    assert deleted == ["/etc/gone"]
    assert "etc/gone" not in inner
    assert "etc/deep/.wh..wh..opq" in inner


def test_an_export_replaces_at_once_or_not_at_all(store: LocalStore, made: str, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="exporting"):
        store.export_to(made, str(tmp_path / "nowhere" / "web.tar"))
    pack = next((tmp_path / "store" / "packs").glob("*.pack"))
    os.truncate(pack, pack.stat().st_size - 10)
    (tmp_path / "web.tar").write_bytes(b"older")
    with pytest.raises(StepFailed):
        store.export_to(made, str(tmp_path / "web.tar"))
    assert (tmp_path / "web.tar").read_bytes() == b"older"
    assert not (tmp_path / "web.tar.tmp").exists()


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", **more: int
) -> Fill:
    def fill(found: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.type, info.linkname = len(content), kind, link
        for key, value in more.items():
            setattr(info, key, value)
        found.addfile(info, io.BytesIO(content))

    return fill


def tarball(*members: Fill) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as found:
        for each in members:
            each(found)
    return file.getvalue()


GOOD = (
    member("config.dump", b"{}"),
    member("checkpoint", kind=tarfile.DIRTYPE),
    member("checkpoint/core-1.img", b"core"),
)
OWN_TEXT = json.dumps({"version": 1, "origin": ORIGIN.to_json(), "trees": [], "id": "x"}).encode()
OWN = member("masu.json", OWN_TEXT)


def sums(**more: bytes) -> Fill:
    texts = {"masu.json": OWN_TEXT, "config.dump": b"{}", "checkpoint/core-1.img": b"core", **more}
    found = {name: blake3(text).hexdigest() for name, text in texts.items()}
    return member("masu.sums", json.dumps(found).encode())


def layer(*members: Fill) -> Fill:
    return member("rootfs-diff.tar", tarball(*members))


HOSTILE = {
    "dotdot": member("checkpoint/../../etc/passwd", b"x"),
    "dotdot name": member("..", b"x"),
    "absolute": member("/etc/passwd", b"x"),
    "image below": member("checkpoint/a/b.img", b"x"),
    "nul": member("checkpoint/", b"x"),
    "symlink": member("checkpoint/pages-1.img", kind=tarfile.SYMTYPE, link="/etc/shadow"),
    "hard link": member("checkpoint/pages-1.img", kind=tarfile.LNKTYPE, link="/etc/shadow"),
    "parent": member("checkpoint/parent", kind=tarfile.SYMTYPE, link="../1"),
    "device": member("checkpoint/sda", kind=tarfile.BLKTYPE, devmajor=8),
    "fifo": member("checkpoint/fifo", kind=tarfile.FIFOTYPE),
    "directory": member("etc", kind=tarfile.DIRTYPE),
    "unknown file": member("bin/sh", b"x"),
    "devshm of junk": member("devshm-checkpoint.tar", b"x"),
    "devshm with files": member("devshm-checkpoint.tar", tarball(member("lost", b"x"))),
    "devshm outside": member("devshm-checkpoint.tar", tarball(member("../../etc/passwd", b"x"))),
    "twice": member("checkpoint/core-1.img", b"other"),
    "twice, said differently": member("./checkpoint/core-1.img", b"other"),
    "sparse": member("checkpoint/s.img", kind=tarfile.GNUTYPE_SPARSE),
    "huge text": member("spec.dump", b" " * (5 << 20)),
    "json of nothing": member("deleted.files", b"{]"),
    "json too deep": member("deleted.files", b"[" * 200_000),
    "deleted outside": member("deleted.files", b'["/../../etc/passwd"]'),
    "deleted no list": member("deleted.files", b'[["x"]]'),
    "layer dotdot": layer(member("../x", b"x")),
    "layer dotdot inside": layer(member("a/../../x", b"x")),
    "layer absolute": layer(member("/etc/x", b"x")),
    "layer through a link": layer(member("a", kind=tarfile.SYMTYPE, link="/tmp"), member("a/x", b"x")),
    "layer over a link": layer(member("a", kind=tarfile.SYMTYPE, link="/tmp"), member("a", b"x")),
    "layer directory over a link": layer(
        member("a", kind=tarfile.SYMTYPE, link="/tmp"), member("a", kind=tarfile.DIRTYPE)
    ),
    "layer link outside": layer(member("a", kind=tarfile.LNKTYPE, link="../../etc/shadow")),
    "layer link absolute": layer(member("a", kind=tarfile.LNKTYPE, link="/etc/shadow")),
    "layer link to a link": layer(
        member("a", kind=tarfile.SYMTYPE, link="/etc/shadow"), member("b", kind=tarfile.LNKTYPE, link="a")
    ),
    "layer device": layer(member("sda", kind=tarfile.BLKTYPE, devmajor=8)),
    "layer time": layer(member("a", b"x", mtime=1 << 60)),
    "layer owner": layer(member("a", b"x", uid=1 << 40)),
    "layer twice": layer(member("a", b"x"), member("a", b"y")),
    "layer white-out of nothing": layer(member("a/.wh.", b"")),
    "layer white-out of dotdot": layer(member("a/.wh...", b"")),
    "layer opaque link": layer(member("a", kind=tarfile.SYMTYPE, link="/"), member("a/.wh..wh..opq")),
    "layer cut short": member("rootfs-diff.tar", tarball(member("a", b"x" * 5000))[:2000]),
    "layer of junk": member("rootfs-diff.tar", b"junk" * 400),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_member_is_refused(name: str, store: LocalStore, tmp_path: Path) -> None:
    before = Path("/etc/passwd").read_bytes()
    (tmp_path / "bad.tar").write_bytes(tarball(*GOOD, HOSTILE[name]))
    with pytest.raises(ArchiveRefused):
        store.import_from(str(tmp_path / "bad.tar"), HERE, True, 0, quiet)
    assert Path("/etc/passwd").read_bytes() == before
    assert store.checkpoints("") == ()
    assert sorted(each.name for each in (tmp_path / "store").iterdir()) == ["lock", "manifests", "packs"]


def test_the_good_part_of_those_alone_is_taken(store: LocalStore, tmp_path: Path) -> None:
    inner = tarball(member("etc/x", b"x"), member("./etc/.wh.y"))
    members = (OWN, *GOOD, member("rootfs-diff.tar", inner), sums(**{"rootfs-diff.tar": inner}))
    (tmp_path / "good.tar").write_bytes(tarball(*members))
    found = store.import_from(str(tmp_path / "good.tar"), HERE, False, 0, quiet)
    store.restore(found.id, str(tmp_path / "back"), {"upper": str(tmp_path / "new")}, quiet)
    assert (tmp_path / "new" / "etc" / "x").read_bytes() == b"x"
    assert (tmp_path / "new" / "etc" / "y").lstat().st_rdev == 0


def test_foreign_archives_need_the_nodes_word(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "foreign.tar").write_bytes(tarball(*GOOD))
    with pytest.raises(ArchiveRefused, match="foreign"):
        store.import_from(str(tmp_path / "foreign.tar"), HERE, False, 0, quiet)
    found = store.import_from(str(tmp_path / "foreign.tar"), HERE, True, 0, quiet)
    assert found.origin
    assert found.origin.foreign


@pytest.mark.parametrize("name", ["masu.json", "nothing"])
def test_what_says_too_little_is_refused(name: str, store: LocalStore, tmp_path: Path) -> None:
    members = (member("masu.json", b'{"version": 2}'), *GOOD) if name == "masu.json" else ()
    (tmp_path / "a.tar").write_bytes(tarball(*members))
    with pytest.raises(ArchiveRefused):
        store.import_from(str(tmp_path / "a.tar"), HERE, True, 0, quiet)


@pytest.mark.parametrize("pack", ["gz", "zst"])
def test_a_bomb_is_refused_before_it_is_written(pack: str, store: LocalStore, tmp_path: Path) -> None:
    """A header that claims more than there is room for, and one that is believed no further than that."""
    info = tarfile.TarInfo("checkpoint/pages-1.img")
    info.size = 1 << 42
    bomb = info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)
    packed = gzip.compress(bomb) if pack == "gz" else zstandard.ZstdCompressor().compress(bomb)
    (tmp_path / "bomb").write_bytes(packed)
    with pytest.raises(ArchiveRefused, match="room"):
        store.import_from(str(tmp_path / "bomb"), HERE, True, 0, quiet)


def test_a_long_name_of_a_gigabyte_is_not_read(store: LocalStore, tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    (tmp_path / "long").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    with pytest.raises(ArchiveRefused, match="header"):
        store.import_from(str(tmp_path / "long"), HERE, True, 0, quiet)


def test_a_window_of_a_gigabyte_is_not_given(store: LocalStore, tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=30)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "window").write_bytes(packer.compress(tarball(OWN, *GOOD)) + packer.flush())
    with pytest.raises(ArchiveRefused, match="decompressed"):
        store.import_from(str(tmp_path / "window"), HERE, True, 0, quiet)


@pytest.mark.parametrize("cut", [1, 100, 511, 512, 700, 1500])
@pytest.mark.parametrize("pack", ["plain", "gz", "zst"])
def test_what_ends_in_the_middle_is_refused(cut: int, pack: str, store: LocalStore, tmp_path: Path) -> None:
    whole = tarball(OWN, *GOOD)
    if pack == "gz":
        whole = gzip.compress(whole)
    elif pack == "zst":
        whole = zstandard.ZstdCompressor().compress(whole)
    (tmp_path / "torn").write_bytes(whole[: min(cut, len(whole) - 20)])
    with pytest.raises(ArchiveRefused):
        store.import_from(str(tmp_path / "torn"), HERE, True, 0, quiet)


def test_a_container_is_not_called_what_none_may_be_called(store: LocalStore, tmp_path: Path) -> None:
    own = {"version": 1, "origin": replace(ORIGIN, container="../web").to_json()}
    text = json.dumps(own).encode()
    archive = tarball(member("masu.json", text), *GOOD, sums(**{"masu.json": text}))
    (tmp_path / "bad.tar").write_bytes(archive)
    with pytest.raises(ArchiveRefused, match="web"):
        store.import_from(str(tmp_path / "bad.tar"), replace(HERE, container=""), False, 0, quiet)


@pytest.mark.parametrize("what", ["changed", "left out", "added", "without sums"])
def test_what_is_not_as_exported_is_refused(what: str, store: LocalStore, tmp_path: Path) -> None:
    other = {"changed": (*GOOD[:2], member("checkpoint/core-1.img", b"c0re")), "left out": GOOD[1:]}
    added = (member("checkpoint/more.img", b"x"),) if what == "added" else ()
    end = () if what == "without sums" else (sums(),)
    (tmp_path / "bad.tar").write_bytes(tarball(OWN, *other.get(what, GOOD), *added, *end))
    with pytest.raises(ArchiveRefused, match=r"as it was exported|too early"):
        store.import_from(str(tmp_path / "bad.tar"), HERE, False, 0, quiet)


def test_too_many_members_are_refused() -> None:
    stream = io.BytesIO(tarball(*(member(f"checkpoint/{at}") for at in range(20))))
    with pytest.raises(ArchiveRefused, match="more than 10"):
        list(tar.members(stream.read, 10))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1 << 16), st.integers(0, 255))
def test_one_wrong_byte_anywhere_does_no_harm(tmp_path: Path, at: int, byte: int) -> None:
    """It is taken, with other contents perhaps, or refused; nothing else happens."""
    store = LocalStore(str(tmp_path / "store"), "")
    whole = bytearray(tarball(*GOOD, layer(member("etc/x", b"x"), member("etc/y", b"y"))))
    whole[at % len(whole)] = byte
    (tmp_path / "flipped").write_bytes(whole)
    try:
        found = store.import_from(str(tmp_path / "flipped"), HERE, True, 0, quiet)
    except ArchiveRefused:
        return
    assert store.verify(found.id) == ()
