"""The Images port on the real skopeo and umoci: what is whole has a name, and nothing of an image leads outside."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest

from controller.errors import ImageRefused, MasuError, StepFailed
from controller.host.image_shares import NAME as SHARED
from controller.host.image_tree import text_in, tidy
from controller.host.images import ImageStore
from controller.model.image import Source
from tests.registries import Layout, Registry, entry, quiet

pytestmark = pytest.mark.root

FILES = (
    entry("etc", tarfile.DIRTYPE),
    entry("etc/passwd", text="root:x:0:0::/:\nweb:x:100:101::/:\n"),
    entry("etc/group", text="www:x:200:\n"),
    entry("bin", tarfile.DIRTYPE),
    entry("bin/web", text="#!/bin/sh\n"),
)
SAID = {"Entrypoint": ["/bin/web"], "Cmd": ["-f"], "Env": ["A=1=2"], "User": "web:www", "WorkingDir": "/srv"}


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(str(tmp_path / "images"), "x86_64", stall_s=1.0)


def left(tmp_path: Path) -> list[str]:
    """What is half done."""
    directory = tmp_path / "images"
    found = directory.iterdir() if directory.exists() else ()
    return [each.name for each in found if each.name.startswith(".") and each.name != SHARED]


def fetch(store: ImageStore, reference: str, authfile: str = "") -> str:
    """→ the path of its root."""
    source = Source(reference, authfile)
    return store.fetch(source, store.resolve(source, 20), quiet).path


def test_what_a_layout_says_is_what_is_found(layout: Layout, store: ImageStore, tmp_path: Path) -> None:
    digest = layout.image(*FILES, config={**SAID, "StopSignal": "SIGINT"})
    root = fetch(store, f"oci:{layout.path}:1")
    found = store.look(digest)
    assert found
    assert (found.digest, found.path, found.entrypoint, found.cmd) == (digest, root, ("/bin/web",), ("-f",))
    assert (found.env, found.user, found.cwd, found.stop) == ((("A", "1=2"),), "100:200", "/srv", "SIGINT")
    assert (Path(root) / "bin" / "web").read_text() == "#!/bin/sh\n"
    assert store.names() == {digest}
    assert left(tmp_path) == []
    for each in (tmp_path / "images", Path(root).parent):
        assert each.stat().st_mode & 0o077 == 0, (
            "set-user-id programs of images are nothing for users of the host"
        )


def test_from_a_registry_by_tag_and_by_digest_and_never_twice(
    layout: Layout, registry: Registry, store: ImageStore
) -> None:
    digest = layout.image(*FILES, config=SAID)
    root = fetch(store, registry.reference(":1"))
    assert (Path(root) / "bin" / "web").exists()
    asked = len(registry.requests)
    assert store.fetch(Source(registry.reference(f"@{digest}")), digest, quiet).path == root
    assert len(registry.requests) == asked, "nothing is fetched that is here"


def test_two_that_want_it_at_once_fetch_it_once(
    layout: Layout, registry: Registry, store: ImageStore
) -> None:
    digest = layout.image(*FILES)
    source, roots = Source(registry.reference(":1")), list[str]()
    threads = [
        threading.Thread(target=lambda: roots.append(store.fetch(source, digest, quiet).path))
        for _ in range(3)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert len(roots) == 3
    assert len(set(roots)) == 1
    assert registry.fetched(layout.layers(digest)[0]) == 1


def test_the_image_for_this_machine(layout: Layout, registry: Registry, store: ImageStore) -> None:
    here = layout.image(*FILES, tag="here")
    elsewhere = layout.image(entry("other"), tag="elsewhere")
    index = layout.index("both", {"arm64": elsewhere, "amd64": here})
    for each in (f"oci:{layout.path}:both", registry.reference(":both"), registry.reference(f"@{index}")):
        assert store.resolve(Source(each), 20) == here
    with pytest.raises(ImageRefused, match="no image for riscv64"):
        ImageStore("/nonexistent", "riscv64").resolve(Source(f"oci:{layout.path}:both"), 20)
    assert store.resolve(Source(f"oci:{layout.path}@{elsewhere}"), 20) == elsewhere


def test_a_registry_that_stalls_is_given_up_and_its_program_ended(
    layout: Layout, registry: Registry, store: ImageStore, tmp_path: Path
) -> None:
    digest = layout.image(*FILES)
    registry.stalls = layout.layers(digest)[0]
    began = time.monotonic()
    with pytest.raises(StepFailed, match="nothing has come for 1 s"):
        store.fetch(Source(registry.reference(":1")), digest, quiet)
    assert time.monotonic() - began < 30
    assert left(tmp_path) == []
    assert store.names() == frozenset()
    assert registry.name not in _commands(), "nobody fetches any more"
    registry.stalls = "/manifests/"
    with pytest.raises(StepFailed, match="has not ended within 1 s"):
        store.resolve(Source(registry.reference(":1")), 1)


def test_halt_ends_what_is_fetched_at_once(
    layout: Layout, registry: Registry, store: ImageStore, tmp_path: Path
) -> None:
    digest = layout.image(*FILES)
    registry.stalls = layout.layers(digest)[0]
    patient = ImageStore(str(tmp_path / "images"), "x86_64", stall_s=600)
    said: list[MasuError] = []

    def try_it() -> None:
        try:
            patient.fetch(Source(registry.reference(":1")), digest, quiet)
        except MasuError as error:
            said.append(error)

    thread = threading.Thread(target=try_it)
    thread.start()
    until = time.monotonic() + 20
    while not registry.fetched(registry.stalls) and time.monotonic() < until:
        time.sleep(0.01)
    patient.halt()
    thread.join(20)
    assert str(said[0]) == "masu is being stopped"
    assert left(tmp_path) == []


@pytest.mark.parametrize("what", ["manifest", "config", "layer"])
def test_a_registry_that_lies_about_a_digest_is_refused(
    layout: Layout, registry: Registry, store: ImageStore, tmp_path: Path, what: str
) -> None:
    digest = layout.image(*FILES)
    other = layout.image(entry("evil"), tag="evil")
    manifests = [json.loads(layout.blob(each).read_text()) for each in (digest, other)]
    one, its_place = (
        (digest, other)
        if what == "manifest"
        else [each["config"]["digest"] for each in manifests]
        if what == "config"
        else [each["layers"][0]["digest"] for each in manifests]
    )
    registry.instead[one] = layout.blob(its_place).read_bytes()
    with pytest.raises(MasuError, match=r"sha256:[0-9a-f]{64}|does not match|did not match") as caught:
        store.fetch(Source(registry.reference(f"@{digest}")), digest, quiet)
    assert "igest" in str(caught.value) or "given" in str(caught.value)
    assert store.names() == frozenset()
    assert left(tmp_path) == []


def test_a_layout_that_is_not_what_it_says_is_refused(layout: Layout, store: ImageStore) -> None:
    digest = layout.image(*FILES)
    blob = layout.blob(layout.layers(digest)[0])
    other = layout.image(entry("evil"), tag="evil")
    blob.write_bytes(layout.blob(layout.layers(other)[0]).read_bytes())
    with pytest.raises(StepFailed, match=r"digest mismatch|size mismatch"):
        fetch(store, f"oci:{layout.path}:1")
    layout.blob(digest).write_text("{}")
    with pytest.raises(ImageRefused, match="in truth"):
        fetch(store, f"oci:{layout.path}:1")
    with pytest.raises(ImageRefused, match='no tag "2"'):
        fetch(store, f"oci:{layout.path}:2")
    assert store.names() == frozenset()


@pytest.mark.parametrize("damage", ["", '{"of": "a newer masu"}', None])
@pytest.mark.parametrize("sort", ["layout", "registry"])
def test_a_root_that_somebody_runs_from_stays_where_only_its_note_is_damaged(
    layout: Layout, registry: Registry, store: ImageStore, tmp_path: Path, sort: str, damage: str | None
) -> None:
    digest = layout.image(*FILES, config=SAID)
    reference = registry.reference(":1") if sort == "registry" else f"oci:{layout.path}:1"
    root = Path(fetch(store, reference))
    before, inode = store.look(digest), root.stat().st_ino
    note = root.parent / "image.json"
    upper, work, target = (tmp_path / each for each in "uwt")
    for each in (upper, work, target):
        each.mkdir()
    options = f"lowerdir={root},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(target)], check=True)
    try:
        if damage is None:
            note.unlink()
        else:
            note.write_text(damage)
        assert store.look(digest) is None
        assert Path(fetch(store, reference)) == root
        assert sorted(each.name for each in target.iterdir()) == ["bin", "etc"]
    finally:
        subprocess.run(["umount", str(target)], check=True)
    assert root.stat().st_ino == inode
    assert store.look(digest) == before
    assert registry.fetched(layout.layers(digest)[0]) == (sort == "registry"), "no layer is fetched for that"
    assert left(tmp_path) == []


def test_what_has_no_root_is_unpacked_anew(layout: Layout, store: ImageStore, tmp_path: Path) -> None:
    digest = layout.image(*FILES)
    root = Path(fetch(store, f"oci:{layout.path}:1"))
    root.rename(tmp_path / "elsewhere")
    assert store.look(digest) is None
    assert (Path(fetch(store, f"oci:{layout.path}:1")) / "bin" / "web").exists()
    assert left(tmp_path) == []


@pytest.mark.parametrize("what", ["index", "manifest", "config", "layer"])
@pytest.mark.parametrize("kind", ["fifo", "device", "socket"])
def test_what_is_no_file_is_refused_at_once(layout: Layout, store: ImageStore, what: str, kind: str) -> None:
    """Whoever may write a layout does not make masu wait for ever."""
    digest = layout.image(*FILES)
    manifest = json.loads(layout.blob(digest).read_text())
    path = {
        "index": layout.path / "index.json",
        "manifest": layout.blob(digest),
        "config": layout.blob(manifest["config"]["digest"]),
        "layer": layout.blob(manifest["layers"][0]["digest"]),
    }[what]
    path.unlink()
    modes = {"fifo": stat.S_IFIFO, "device": stat.S_IFCHR, "socket": stat.S_IFSOCK}
    os.mknod(path, 0o600 | modes[kind], os.makedev(1, 5))
    said: list[MasuError] = []

    def try_it() -> None:
        try:
            fetch(store, f"oci:{layout.path}:1")
        except MasuError as error:
            said.append(error)

    thread = threading.Thread(target=try_it, daemon=True)
    thread.start()
    thread.join(20)
    assert said, "it has not come back"
    assert path.name in str(said[0])


HOSTILE = {
    "dots": (entry("../../../../{out}/escaped", text="x"),),
    "absolute": (entry("/{out}/escaped", text="x"),),
    "link-up": (entry("d", tarfile.SYMTYPE, "../../../../../../../../{out}"), entry("d/escaped", text="x")),
    "link-absolute": (entry("d", tarfile.SYMTYPE, "/{out}"), entry("d/escaped", text="x")),
    "hard-link": (entry("h", tarfile.LNKTYPE, "/{out}/secret"),),
    "hard-link-up": (entry("h", tarfile.LNKTYPE, "../../../../../../../../{out}/secret"),),
    "hard-link-through": (entry("d", tarfile.SYMTYPE, "/{out}"), entry("h", tarfile.LNKTYPE, "d/secret")),
    "whiteout": (entry("../../../../../{out}/.wh.secret"),),
    "root": (entry(".", tarfile.SYMTYPE, "/{out}"), entry("escaped", text="x")),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_of_a_hostile_layer_leads_outside(
    layout: Layout, store: ImageStore, tmp_path: Path, case: str
) -> None:
    """Whether umoci refuses it or makes something harmless of it."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "secret").write_text("secret")
    members = []
    for info, content in HOSTILE[case]:
        made = tarfile.TarInfo(info.name.format(out=str(out).lstrip("/")))
        made.type, made.mode, made.size = info.type, info.mode, info.size
        made.linkname = info.linkname.format(out=str(out).lstrip("/"))
        members.append((made, content))
    layout.image(*members)
    try:
        root = fetch(store, f"oci:{layout.path}:1")
    except MasuError:
        assert store.names() == frozenset()
    else:
        found = [Path(path) / name for path, _, names in os.walk(root) for name in names]
        assert all("secret" not in each.read_text() for each in found if not each.is_symlink())
    assert left(tmp_path) == []
    assert [each.name for each in out.iterdir()] == ["secret"]
    assert (out / "secret").stat().st_nlink == 1
    assert (out / "secret").read_text() == "secret"


def test_device_nodes_are_taken_out(layout: Layout, store: ImageStore) -> None:
    traits = [
        ("disk", tarfile.BLKTYPE, 254, 0),
        ("null", tarfile.CHRTYPE, 1, 3),
        ("hole", tarfile.CHRTYPE, 0, 0),
    ]
    nodes = [entry(name, kind, devmajor=major, devminor=minor) for name, kind, major, minor in traits]
    layout.image(*FILES, *nodes, entry("pipe", tarfile.FIFOTYPE))
    root = Path(fetch(store, f"oci:{layout.path}:1"))
    assert sorted(each.name for each in root.iterdir()) == ["bin", "etc", "pipe"]


def test_a_tree_is_not_trusted(tmp_path: Path) -> None:
    """What another umoci might leave one day."""
    tree, secret = tmp_path / "tree", tmp_path / "secret"
    (tree / "etc").mkdir(parents=True)
    secret.write_text("root:x:0:0\n")
    (tree / "one").write_text("x")
    os.link(tree / "one", tree / "etc" / "two")
    os.setxattr(tree / "etc", "trusted.overlay.redirect", b"/elsewhere")
    os.setxattr(tree / "one", "user.kept", b"1")
    (tree / "etc" / "passwd").symlink_to(secret)
    assert tidy(str(tree)) == 0
    assert os.listxattr(tree / "etc") == []
    assert os.listxattr(tree / "one") == ["user.kept"]
    assert text_in(str(tree), "etc/passwd") == "", "what a link leads to is below the root"
    os.link(secret, tree / "etc" / "h")
    with pytest.raises(ImageRefused, match='"/etc/h" is a hard link to something outside'):
        tidy(str(tree))
    os.unlink(tree / "etc" / "h")
    (tmp_path / "link").symlink_to(tree)
    with pytest.raises(ImageRefused, match="not a directory"):
        tidy(str(tmp_path / "link"))


def test_a_user_that_nobody_knows_is_said_and_not_root(layout: Layout, store: ImageStore) -> None:
    digest = layout.image(*FILES, config={"User": "stranger"})
    fetch(store, f"oci:{layout.path}:1")
    found = store.look(digest)
    assert found
    assert (found.user, found.unknown_user) == ("", "stranger")


def test_a_disk_that_is_full(layout: Layout, tmp_path: Path) -> None:
    """What shall stay free stays free; half an image is never there."""
    digest, directory = layout.image(*FILES, entry("big", text="x" * (8 << 20))), tmp_path / "images"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory)], check=True)
    try:
        for min_free, words in ((1 << 30, "shall stay free"), (0, "no space left on device|shall stay free")):
            store = ImageStore(str(directory), "x86_64", min_free=min_free)
            with pytest.raises(StepFailed, match=words) as caught:
                fetch(store, f"oci:{layout.path}:1")
            assert caught.value.errno == errno.ENOSPC
            assert store.look(digest) is None
            assert list(directory.iterdir()) == []
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_what_a_killed_masu_has_left_is_swept_away(layout: Layout, store: ImageStore, tmp_path: Path) -> None:
    digest = layout.image(*FILES)
    root = Path(fetch(store, f"oci:{layout.path}:1"))
    half = root.parent.parent / f".{digest.removeprefix('sha256:')}.coming"
    (half / "made" / "rootfs" / "etc").mkdir(parents=True)
    root.parent.rename(root.parent.parent / ".00.removed")
    assert store.names() == frozenset()
    store.sweep()
    assert list((tmp_path / "images").iterdir()) == []
    store.sweep()


def test_removed_unless_it_is_mounted(layout: Layout, store: ImageStore, tmp_path: Path) -> None:
    digest = layout.image(*FILES)
    root, upper, work, target = fetch(store, f"oci:{layout.path}:1"), *(tmp_path / each for each in "uwt")
    for each in (upper, work, target):
        each.mkdir()
    options = f"lowerdir={root},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(target)], check=True)
    try:
        with pytest.raises(StepFailed, match="is mounted somewhere still"):
            store.remove(digest)
        assert store.look(digest)
    finally:
        subprocess.run(["umount", str(target)], check=True)
    store.remove(digest)
    assert list((tmp_path / "images").iterdir()) == []
    store.remove(digest)


def test_credentials_are_a_file_of_roots_and_never_said(
    layout: Layout, registry: Registry, store: ImageStore, tmp_path: Path
) -> None:
    layout.image(*FILES)
    registry.password = "correct-horse"
    auth = tmp_path / "auth.json"
    secret = "bWFzdTpjb3JyZWN0LWhvcnNl"
    auth.write_text(json.dumps({"auths": {registry.name: {"auth": secret}}}))
    auth.chmod(0o644)
    with pytest.raises(StepFailed, match="root's alone"):
        fetch(store, registry.reference(":1"), str(auth))
    auth.chmod(0o600)
    assert Path(fetch(store, registry.reference(":1"), str(auth))).is_dir()
    auth.write_text(json.dumps({"auths": {registry.name: {"auth": secret[:-4]}}}))
    for authfile in (str(auth), ""):
        with pytest.raises(StepFailed) as caught:
            store.resolve(Source(registry.reference(":1"), authfile), 20)
        assert secret[:-4] not in str(caught.value)
        assert "correct" not in str(caught.value)


def _commands() -> str:
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(each.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(each for each in found if each.startswith(("skopeo", "/usr/bin/skopeo", "setpriv")))
