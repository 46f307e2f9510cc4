"""What images have in common: once on the disk, fetched once, and of nobody else's making."""

from __future__ import annotations

import gzip
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.errors import StepFailed
from controller.host.image_shares import ImageShares
from controller.host.images import ImageStore
from controller.model.image import Source
from tests.registries import Layout, Registry, entry, quiet

pytestmark = pytest.mark.root

BIG = "the same in all of them\n" * 400
BASE = (
    entry("usr", tarfile.DIRTYPE, mtime=1_000_000_000),
    entry("usr/lib.so", text=BIG, mtime=1_000_000_000),
    entry("usr/copy.so", text=BIG, mtime=1_000_000_000),
    entry("usr/small", text="little", mtime=1_000_000_000),
    entry("etc", tarfile.DIRTYPE),
    entry("etc/crontab", text=BIG, mtime=1_000_000_000),
)
TWINS = ("usr/lib.so", "usr/copy.so")
"""Either of the two may be the one that is shared."""


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(str(tmp_path / "images"), "x86_64", min_free=0)


def fetch(store: ImageStore, reference: str) -> Path:
    """→ its root."""
    source = Source(reference)
    return Path(store.fetch(source, store.resolve(source, 20), quiet).path)


def inode(path: Path) -> int:
    return path.stat().st_ino


def names(path: Path) -> int:
    return path.stat().st_nlink


@pytest.fixture
def two(layout: Layout, store: ImageStore) -> tuple[Path, Path, str, str]:
    """Roots and digests of two images that have most of their files in common."""
    first = layout.image(*BASE, entry("usr/one", text="1" * 5000), tag="1")
    second = layout.image(*BASE, entry("usr/two", text="2" * 5000), tag="2")
    return fetch(store, f"oci:{layout.path}:1"), fetch(store, f"oci:{layout.path}:2"), first, second


def test_a_file_that_two_images_have_is_there_once(two: tuple[Path, Path, str, str]) -> None:
    one, other, _, _ = two
    same = {inode(one / each) for each in TWINS} & {inode(other / each) for each in TWINS}
    assert len(same) == 1
    assert (other / "usr/lib.so").read_text() == BIG
    for each in ("usr/small", "etc/crontab"):
        assert inode(one / each) != inode(other / each)
        assert names(other / each) == 1, "cron takes no crontab that has two names"
    assert inode(other / "usr/lib.so") != inode(other / "usr/copy.so"), "cp takes one inode for one file"
    assert (other / "usr").stat().st_mtime == 1_000_000_000


@pytest.mark.parametrize(
    "traits",
    [{"mode": 0o4755}, {"uid": 7}, {"gid": 7}, {"mtime": 1}, {"pax_headers": {"SCHILY.xattr.user.a": "b"}}],
)
def test_what_differs_in_anything_is_not_the_same_file(
    layout: Layout, store: ImageStore, traits: dict[str, object]
) -> None:
    plain, other = {"mtime": 9, "mode": 0o755}, {"mtime": 9, "mode": 0o755, **traits}
    layout.image(entry("lib.so", text=BIG, **plain), tag="1")
    layout.image(entry("lib.so", text=BIG, **other), entry("more"), tag="2")
    one, two = (fetch(store, f"oci:{layout.path}:{each}") for each in "12")
    assert inode(one / "lib.so") != inode(two / "lib.so")
    assert oct((one / "lib.so").stat().st_mode) == "0o100755"


def test_who_stays_keeps_it_when_another_goes(
    two: tuple[Path, Path, str, str], store: ImageStore, tmp_path: Path
) -> None:
    _, other, first, second = two
    store.remove(first)
    assert (other / "usr/lib.so").read_text() == BIG
    assert {names(other / each) for each in TWINS} == {1, 2}
    store.remove(second)
    assert list((tmp_path / "images").iterdir()) == []


def test_hard_links_of_an_image_stay_what_they_are(layout: Layout, store: ImageStore) -> None:
    for each in "12":
        members = (entry("a", text=BIG, mtime=9), entry("b", tarfile.LNKTYPE, "a"), entry(f"more{each}"))
        layout.image(*members, tag=each)
    one, two = (fetch(store, f"oci:{layout.path}:{each}") for each in "12")
    assert inode(two / "a") == inode(two / "b")
    assert inode(one / "a") != inode(two / "a")
    assert names(two / "a") == 2


def test_layers_that_are_here_are_not_fetched_again(
    layout: Layout, registry: Registry, store: ImageStore, tmp_path: Path
) -> None:
    first = layout.image(*BASE, tag="1")
    second = layout.image(entry("usr/new", text="n" * 5000), tag="2", above=first)
    base, top = layout.layers(second)
    fetch(store, registry.reference(":1"))
    root = fetch(store, registry.reference(":2"))
    assert (registry.fetched(base), registry.fetched(top)) == (1, 1)
    assert (root / "usr/new").read_text() == "n" * 5000
    store.remove(first)
    assert kept(tmp_path) == {base, top}, "the second has both"
    store.remove(second)
    assert list((tmp_path / "images").iterdir()) == []


def test_two_that_come_at_once_fetch_what_they_share_once(
    layout: Layout, registry: Registry, store: ImageStore
) -> None:
    base = layout.image(*BASE, tag="base")
    for each in "12":
        layout.image(entry(f"usr/{each}", text=each * 5000), tag=each, above=base)
    with ThreadPoolExecutor(2) as threads:
        roots = list(threads.map(lambda each: fetch(store, registry.reference(f":{each}")), "12"))
    assert [(root / f"usr/{each}").exists() for root, each in zip(roots, "12", strict=True)] == [True, True]
    assert registry.fetched(layout.layers(base)[0]) == 1


def test_a_layer_that_is_damaged_here_is_fetched_the_next_time(
    layout: Layout, registry: Registry, store: ImageStore, tmp_path: Path
) -> None:
    first = layout.image(*BASE, tag="1")
    second = layout.image(entry("usr/new"), tag="2", above=first)
    fetch(store, registry.reference(":1"))
    (damaged,) = (tmp_path / "images/.shared/blobs").glob("*/*")
    damaged.write_bytes(other_of(damaged.stat().st_size))
    with pytest.raises(StepFailed, match="umoci"):
        fetch(store, registry.reference(":2"))
    assert (fetch(store, registry.reference(":2")) / "usr/lib.so").read_text() == BIG
    assert store.names() == {first, second}
    assert registry.fetched(layout.layers(first)[0]) == 2
    third = layout.image(entry("usr/newer"), tag="3", above=first)
    for each in (tmp_path / "images/.shared/blobs").glob("*/*"):
        each.write_bytes(b"short")
    fetch(store, registry.reference(":3"))
    assert registry.fetched(layout.layers(third)[0]) == 3, "it is not used when it is not even as long"


def test_a_layer_is_not_given_to_whoever_knows_its_digest(
    layout: Layout, registry: Registry, store: ImageStore
) -> None:
    first = layout.image(*BASE, tag="1")
    layout.image(entry("usr/new"), tag="2", above=first)
    fetch(store, registry.reference(":1"))
    fetch(store, f"docker://{registry.name}/somebody/else:2")
    assert registry.fetched(layout.layers(first)[0]) == 2


def test_what_is_refused_leaves_no_layer(
    layout: Layout, registry: Registry, store: ImageStore, tmp_path: Path
) -> None:
    layout.image(*BASE, entry("usr/h", tarfile.LNKTYPE, "nowhere"), tag="1")
    with pytest.raises(StepFailed):
        fetch(store, registry.reference(":1"))
    assert kept(tmp_path) == set()


def test_a_file_that_was_damaged_in_one_image_is_not_in_the_next(
    layout: Layout, store: ImageStore, two: tuple[Path, Path, str, str]
) -> None:
    one, _, first, _ = two
    for each in TWINS:
        with (one / each).open("r+") as file:
            file.write("bad!")
        os.utime(one / each, (1_000_000_000, 1_000_000_000))
    layout.image(*BASE, entry("usr/three"), tag="3")
    assert [(fetch(store, f"oci:{layout.path}:3") / each).read_text() for each in TWINS] == [BIG, BIG]
    store.remove(first)
    assert [(fetch(store, f"oci:{layout.path}:1") / each).read_text() for each in TWINS] == [BIG, BIG]


@pytest.mark.parametrize("place", ["etc", "var", "root", "home", "run", "srv", "tmp"])
def test_data_has_one_name_and_only_at_the_top_is_a_name_a_place(
    layout: Layout, store: ImageStore, place: str
) -> None:
    for each in "12":
        members = (
            entry(f"{place}/file", text=BIG, mtime=9),
            entry(f"usr/{place}/file", text=BIG * 2, mtime=9),
        )
        layout.image(*members, entry(each), tag=each)
    for each in [fetch(store, f"oci:{layout.path}:{tag}") for tag in "12"]:
        assert names(each / place / "file") == 1
        assert names(each / "usr" / place / "file") == 3


def test_who_is_stopped_shares_no_more(tmp_path: Path) -> None:
    (tmp_path / "tree/usr").mkdir(parents=True)

    def stop() -> None:
        raise StepFailed("stopped")

    with pytest.raises(StepFailed, match="stopped"):
        ImageShares(str(tmp_path)).share(str(tmp_path / "tree"), str(tmp_path / "aside"), stop)


def test_layers_go_before_a_pull_fails_for_want_of_room(
    layout: Layout, registry: Registry, tmp_path: Path
) -> None:
    first = layout.image(*BASE, tag="1")
    layout.image(entry("usr/other", text="o" * 5000), tag="2")
    fetch(ImageStore(str(tmp_path / "images"), "x86_64", min_free=0), registry.reference(":1"))
    assert kept(tmp_path) == set(layout.layers(first))
    with pytest.raises(StepFailed, match="shall stay free"):
        fetch(ImageStore(str(tmp_path / "images"), "x86_64", min_free=1 << 60), registry.reference(":2"))
    assert kept(tmp_path) == set()


def test_what_is_left_of_one_that_was_killed_is_swept_away(
    two: tuple[Path, Path, str, str], layout: Layout, registry: Registry, store: ImageStore, tmp_path: Path
) -> None:
    one, _, first, _ = two
    third = layout.image(*BASE, entry("third"), tag="3")
    fetch(store, registry.reference(":3"))
    for each in (first, third):
        (tmp_path / "images" / each.removeprefix("sha256:")).rename(tmp_path / f"images/.{each[7:]}.removed")
    store.sweep()
    assert kept(tmp_path) == set()
    assert not one.exists()
    files = [path for path in (tmp_path / "images/.shared/files").rglob("*") if path.is_file()]
    assert all(names(each) == 2 for each in files)
    assert len(files) == 2, "one of the twins, and two"


def test_a_file_with_as_many_names_as_it_can_have_is_not_shared_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares, trees = ImageShares(str(tmp_path)), [tmp_path / each for each in "ab"]
    for each in trees:
        (each / "usr").mkdir(parents=True)
        (each / "usr/lib.so").write_text(BIG)
        os.utime(each / "usr/lib.so", (9, 9))
    shares.offer(str(trees[0]), shares.share(str(trees[0]), str(tmp_path / "aside"), nobody))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(31, "Too many links")

    monkeypatch.setattr(os, "link", refuse)
    assert [each.path for each in shares.share(str(trees[1]), str(tmp_path / "aside"), nobody)] == [
        "/usr/lib.so"
    ]
    assert (trees[1] / "usr/lib.so").read_text() == BIG


def kept(tmp_path: Path) -> set[str]:
    """Digests of the layers that are kept."""
    return {each.name for each in (tmp_path / "images/.shared/blobs").glob("*/*")}


def other_of(size: int) -> bytes:
    """A layer of that many bytes that is whole in itself, but has another digest."""
    for count in range(size):
        found = gzip.compress(os.urandom(count), mtime=0)
        if len(found) == size:
            return found
    raise AssertionError(size)


def nobody() -> None:
    return
