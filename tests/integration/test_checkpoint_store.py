"""The checkpoint store on a real file system: what comes back, what is shared, what is found to be damaged."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from controller.errors import CheckpointDamaged, HostLacks, NotPermitted, StepFailed
from controller.host.checkpoints import depot
from controller.host.checkpoints.codec import Codec
from controller.host.checkpoints.depot import Depot
from controller.host.checkpoints.store import LocalStore
from controller.model.checkpoint import Checkpoint, Draft, Origin
from tests.images import PAGE, pages, read_all, write_images

COUNT = 600
BASE = 0x7F00_0000_3000
RUNS = [(BASE, COUNT)]
NOW = 1_764_100_000_000


def quiet(_what: str, _amount: int) -> None:
    """No progress is wanted."""


def origin(at: int = 0, container: str = "web") -> Origin:
    return Origin(container, NOW + at, "manual", kernel="6.18", cpu_features=("avx2", "sse4_2"), frozen_ms=12)


@pytest.fixture(params=["plain", "sealed"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LocalStore:
    key = tmp_path / "key"
    if request.param == "sealed":
        key.write_bytes(b"k" * 64)
        key.chmod(0o600)
    return LocalStore(str(tmp_path / "store"), str(key) if request.param == "sealed" else "")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", RUNS, pages(COUNT, 1))


def save(store: LocalStore, images: Path, at: int = 0, container: str = "web") -> Checkpoint:
    return store.save(Draft(origin(at, container), str(images)), 0, quiet)


def back(store: LocalStore, identity: str, tmp_path: Path) -> dict[str, bytes]:
    target = tmp_path / "back"
    shutil.rmtree(target, ignore_errors=True)
    store.restore(identity, str(target), {}, quiet)
    return read_all(target)


def on_disk(tmp_path: Path) -> int:
    return sum(each.stat().st_size for each in (tmp_path / "store").rglob("*") if each.is_file())


def test_what_was_stored_comes_back(store: LocalStore, images: Path, tmp_path: Path) -> None:
    made = save(store, images)
    assert back(store, made.id, tmp_path) == read_all(images)
    assert store.checkpoints("web") == (made,)
    assert store.checkpoints("other") == ()
    assert store.verify(made.id) == ()
    assert made.origin == origin()
    assert made.images == sum(map(len, read_all(images).values()))


def test_nobody_else_can_read_it(store: LocalStore, images: Path, tmp_path: Path) -> None:
    save(store, images)
    for each in (tmp_path / "store").rglob("*"):
        assert stat.S_IMODE(each.stat().st_mode) in {0o600, 0o700}
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) & 0o066 == 0


def test_the_same_memory_costs_nothing_the_second_time(store: LocalStore, images: Path) -> None:
    first, second = save(store, images), save(store, images, 1)
    assert second.stored < first.stored // 100
    assert second.alone == first.alone


def test_memory_that_moved_in_the_file_is_the_same_memory(
    store: LocalStore, images: Path, tmp_path: Path
) -> None:
    first = save(store, images)
    more = pages(7, 3)
    write_images(images, [(0x1000, 7), *RUNS], [*more, *pages(COUNT, 1)])
    second = save(store, images, 1)
    assert second.stored < first.stored // 10
    assert back(store, second.id, tmp_path) == read_all(images)


def test_scattered_changes_cost_what_changed(store: LocalStore, images: Path, tmp_path: Path) -> None:
    """Two pages in a hundred, anywhere, ten times: the windows they are in are mostly the old ones."""
    dice, memory = random.Random(5), pages(COUNT, 1)
    made = [save(store, images)]
    for at in range(9):
        for page in dice.sample(range(COUNT), COUNT // 50):
            memory[page] = pages(1, 1000 + at * COUNT + page)[0]
        write_images(images, RUNS, memory)
        made.append(save(store, images, at + 1))
    assert sum(each.stored for each in made) < 1.3 * made[0].stored
    assert back(store, made[-1].id, tmp_path) == read_all(images)
    assert store.verify(made[4].id) == ()


def test_zeros_cost_nothing_and_come_back_as_holes(store: LocalStore, tmp_path: Path) -> None:
    count = 4096
    images = write_images(tmp_path / "images", [(BASE - BASE % (1 << 20), count)], [bytes(PAGE)] * count)
    made = save(store, images)
    assert made.stored < 4096
    store.restore(made.id, str(tmp_path / "back"), {}, quiet)
    seen = (tmp_path / "back" / "pages-1.img").stat()
    assert seen.st_size == count * PAGE
    assert seen.st_blocks * 512 <= PAGE


def test_unknown_page_maps_are_stored_as_they_are(store: LocalStore, images: Path, tmp_path: Path) -> None:
    (images / "pagemap-2.img").write_bytes(b"of a CRIU of the future")
    made = save(store, images)
    assert back(store, made.id, tmp_path) == read_all(images)


def test_containers_share_what_they_have_in_common(store: LocalStore, images: Path, tmp_path: Path) -> None:
    first, second = save(store, images), save(store, images, 1, "other")
    assert second.stored < first.stored // 100
    store.remove([first.id], quiet)
    assert back(store, second.id, tmp_path) == read_all(images)


def test_ids_are_in_order_when_the_clock_is_set_back(store: LocalStore, images: Path) -> None:
    made = [save(store, images, at) for at in (0, -3_600_000, -7_200_000, 5)]
    assert [each.id for each in store.checkpoints("web")] == [each.id for each in made]


def test_removing_gives_space_back_and_hurts_nobody(store: LocalStore, images: Path, tmp_path: Path) -> None:
    kept = save(store, images)
    (tmp_path / "others").mkdir()
    others = write_images(tmp_path / "others", RUNS, pages(COUNT, 9))
    gone = save(store, others, 1)
    before = on_disk(tmp_path)
    removal = store.remove([gone.id], quiet)
    assert removal.removed == (gone.id,)
    assert removal.kept == ""
    assert before - on_disk(tmp_path) >= removal.freed > gone.stored * 0.9
    assert store.verify(kept.id) == ()
    assert store.remove([gone.id], quiet).removed == ()
    store.remove([kept.id], quiet)
    assert on_disk(tmp_path) < 100


def test_packs_that_are_mostly_dead_are_rewritten(store: LocalStore, images: Path, tmp_path: Path) -> None:
    first = save(store, images)
    memory = [*pages(COUNT // 8, 1), *pages(COUNT, 77)[COUNT // 8 :]]
    write_images(images, RUNS, memory)
    second = save(store, images, 1)
    store.remove([first.id], quiet)
    assert on_disk(tmp_path) < first.stored * 1.3
    assert back(store, second.id, tmp_path) == read_all(images)


def test_a_checkpoint_that_is_read_is_not_swept_away(store: LocalStore, images: Path) -> None:
    made = save(store, images)
    said: list[str] = []

    def sweep(what: str, _amount: int) -> None:
        if what == "image" and not said:
            said.append(store.remove([made.id], quiet).kept)

    store.restore(made.id, str(images.parent / "back"), {}, sweep)
    assert read_all(images.parent / "back") == read_all(images)
    assert "being read" in said[0]
    assert store.remove([], quiet).freed > 0


def test_writers_wait_for_each_other(store: LocalStore, images: Path, tmp_path: Path) -> None:
    others = write_images(tmp_path / "others", RUNS, pages(COUNT, 9))
    threads = [
        threading.Thread(target=save, args=(store, each, 1)) for each in (images, others, images, others)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    found = store.checkpoints("web")
    assert len(found) == 4
    assert all(store.verify(each.id) == () for each in found)


def test_a_writer_that_waits_too_long_says_who_it_waits_for(tmp_path: Path) -> None:
    place = Depot(str(tmp_path / "store"), Codec(None), 0.1)
    with place.writing(), pytest.raises(StepFailed, match=f"locked by {os.getpid()}"), place.writing():
        pass


def _damage(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 4]))


@pytest.fixture
def two(store: LocalStore, images: Path, tmp_path: Path) -> tuple[Checkpoint, Checkpoint]:
    """Two checkpoints that have nothing in common."""
    first = save(store, images)
    others = write_images(tmp_path / "others", [(BASE + PAGE, COUNT)], pages(COUNT, 9))
    (others / "core-1.img").write_bytes(b"other registers")
    (others / "inventory.img").write_bytes(b"other things")
    return first, save(store, others, 1)


def test_a_flipped_bit_is_found_and_named_and_heals(
    store: LocalStore, images: Path, two: tuple[Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    bad, good = two
    pack = next((tmp_path / "store" / "packs").glob(f"{bad.id}*.pack"))
    _damage(pack, pack.stat().st_size // 2)
    wrong = store.verify(bad.id)
    assert len(wrong) == 1
    assert "pages-1.img" in wrong[0]
    assert pack.name in wrong[0]
    with pytest.raises(CheckpointDamaged):
        back(store, bad.id, tmp_path)
    assert store.verify(good.id) == ()
    again = save(store, images, 2)
    assert store.verify(again.id) == ()
    assert store.verify(bad.id) == (), "what was stored anew is good for the old one, too"


def test_a_flipped_bit_that_nobody_saw_is_not_built_upon(
    store: LocalStore, images: Path, two: tuple[Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    """Windows that changed a little are compared with the old chunk, and that one is checked as it is read."""
    bad, _ = two
    pack = next((tmp_path / "store" / "packs").glob(f"{bad.id}*.pack"))
    memory = pages(COUNT, 1)
    for at in range(0, COUNT, 16):
        memory[at] = pages(1, at + 5000)[0]
    _damage(pack, pack.stat().st_size // 2)
    write_images(images, RUNS, memory)
    made = save(store, images, 2)
    assert store.verify(made.id) == ()
    assert back(store, made.id, tmp_path) == read_all(images)


@pytest.mark.parametrize("how", ["truncated", "missing", "empty", "index"])
def test_a_torn_pack_is_found_and_named(
    store: LocalStore, two: tuple[Checkpoint, Checkpoint], images: Path, tmp_path: Path, how: str
) -> None:
    bad, good = two
    pack = next((tmp_path / "store" / "packs").glob(f"{bad.id}*.pack"))
    if how == "missing":
        pack.unlink()
    elif how == "index":
        _damage(pack, pack.stat().st_size - 100)
    else:
        os.truncate(pack, 0 if how == "empty" else pack.stat().st_size - 1000)
    assert any("missing" in each or "index" in each for each in store.verify(bad.id))
    assert store.verify(good.id) == ()
    assert store.verify(save(store, images, 2).id) == ()


@pytest.mark.parametrize("line", [0, 1, 2])
@pytest.mark.parametrize("how", ["flipped", "truncated", "empty"])
def test_a_torn_manifest_is_found_and_named(
    store: LocalStore, two: tuple[Checkpoint, Checkpoint], tmp_path: Path, line: int, how: str
) -> None:
    bad, good = two
    path = tmp_path / "store" / "manifests" / f"{bad.id}.json"
    lines = path.read_bytes().split(b"\n")
    at = sum(len(each) + 1 for each in lines[:line]) + len(lines[line]) // 2
    if how == "flipped":
        _damage(path, at)
    else:
        os.truncate(path, 0 if how == "empty" else at)
    listed = {each.id: each.damage for each in store.checkpoints("web")}
    assert listed[good.id] == ""
    if line == 0 or how != "flipped":
        assert path.name in listed[bad.id]
    assert path.name in store.verify(bad.id)[0]
    assert store.verify(good.id) == ()
    assert bad.id in store.remove([], quiet).kept, "nothing is swept while it is not known what is needed"
    assert store.remove([bad.id], quiet).kept == ""
    assert store.verify(good.id) == ()


def test_a_manifest_under_another_name_is_not_taken(
    store: LocalStore, two: tuple[Checkpoint, Checkpoint], tmp_path: Path
) -> None:
    first, second = two
    directory = tmp_path / "store" / "manifests"
    shutil.copy(directory / f"{first.id}.json", directory / f"{second.id}.json")
    assert store.checkpoints("web")[1].damage
    assert store.verify(second.id)


def test_a_full_disk_loses_nothing_that_was_whole(images: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "masu-test", root], check=True)
    try:
        store = LocalStore(str(root), "")
        made = save(store, images)
        others = write_images(tmp_path / "others", RUNS, pages(COUNT, 9))
        save(store, others, 1)
        more = write_images(tmp_path / "more", RUNS, pages(COUNT, 10))
        with pytest.raises(StepFailed) as failure:
            save(store, more, 2)
        assert failure.value.errno == errno.ENOSPC
        assert str(root) in str(failure.value)
        assert store.verify(made.id) == ()
        assert not list(root.rglob("*.tmp"))
        store.remove([each.id for each in store.checkpoints("web")[1:]], quiet)
        assert save(store, images, 3).stored < 10_000
    finally:
        subprocess.run(["umount", root], check=True)


def test_what_shall_stay_free_stays_free(store: LocalStore, images: Path, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="shall stay free") as failure:
        store.save(Draft(origin(), str(images)), 1 << 60, quiet)
    assert failure.value.errno == errno.ENOSPC
    assert store.checkpoints("web") == ()


def test_images_that_shrink_meanwhile_are_not_a_checkpoint(store: LocalStore, images: Path) -> None:
    def shrink(what: str, amount: int) -> None:
        if what == "read" and amount > 1 << 20:
            os.truncate(images / "pages-1.img", PAGE)

    with pytest.raises(StepFailed, match="shorter"):
        store.save(Draft(origin(), str(images)), 0, shrink)
    assert store.checkpoints("web") == ()


class TestKeys:
    """What the key is for, and what is told without it."""

    @pytest.fixture
    def sealed(self, tmp_path: Path, images: Path) -> Checkpoint:
        return save(self.with_key(tmp_path, b"a" * 32), images)

    @staticmethod
    def with_key(tmp_path: Path, secret: bytes, mode: int = 0o600) -> LocalStore:
        key = tmp_path / "key"
        key.write_bytes(secret)
        key.chmod(mode)
        return LocalStore(str(tmp_path / "store"), str(key))

    def test_without_the_key_it_is_listed_and_removed_but_not_read(
        self, sealed: Checkpoint, tmp_path: Path
    ) -> None:
        keyless = LocalStore(str(tmp_path / "store"), "")
        assert keyless.checkpoints("web") == (sealed,)
        with pytest.raises(HostLacks, match="no key file"):
            back(keyless, sealed.id, tmp_path)
        assert keyless.remove([sealed.id], quiet).freed > 0

    def test_another_key_is_told_from_damage(self, sealed: Checkpoint, tmp_path: Path) -> None:
        with pytest.raises(HostLacks, match="another key"):
            back(self.with_key(tmp_path, b"b" * 32), sealed.id, tmp_path)

    def test_nothing_of_it_is_on_the_disk_in_clear(self, sealed: Checkpoint, tmp_path: Path) -> None:
        stored = b"".join(each.read_bytes() for each in (tmp_path / "store").rglob("*") if each.is_file())
        assert sealed.key
        assert b"masumasu" not in stored
        assert b"pagemap" not in stored, "nor the names of its files"

    def test_a_changed_head_does_not_open(self, sealed: Checkpoint, tmp_path: Path) -> None:
        from controller.checkpoints import manifest

        path = tmp_path / "store" / "manifests" / f"{sealed.id}.json"
        digest = Codec(None).digest
        _, chunks, body = manifest.split(path.read_bytes(), digest)
        from dataclasses import replace

        forged = replace(sealed, origin=origin(0, "other"))
        path.write_bytes(manifest.encode(forged, chunks, body, digest))
        with pytest.raises(CheckpointDamaged):
            back(self.with_key(tmp_path, b"a" * 32), sealed.id, tmp_path)

    @pytest.mark.parametrize(
        ("secret", "mode"), [(b"short", 0o600), (b"x" * 5000, 0o600), (b"x" * 32, 0o640)]
    )
    def test_keys_that_are_none_are_refused(
        self, secret: bytes, mode: int, images: Path, tmp_path: Path
    ) -> None:
        with pytest.raises((StepFailed, NotPermitted), match="key file"):
            save(self.with_key(tmp_path, secret, mode), images)

    def test_a_missing_key_file_is_said(self, images: Path, tmp_path: Path) -> None:
        with pytest.raises(HostLacks, match="missing"):
            save(LocalStore(str(tmp_path / "store"), str(tmp_path / "none")), images)

    def test_plain_and_sealed_live_side_by_side(
        self, sealed: Checkpoint, images: Path, tmp_path: Path
    ) -> None:
        plain = LocalStore(str(tmp_path / "store"), "")
        made = save(plain, images, 1)
        assert plain.verify(made.id) == ()
        keyed = self.with_key(tmp_path, b"a" * 32)
        assert keyed.verify(made.id) == ()
        assert keyed.verify(sealed.id) == ()


def test_leftovers_of_a_writer_that_died_are_cleared(store: LocalStore, images: Path, tmp_path: Path) -> None:
    made = save(store, images)
    root = tmp_path / "store"
    (root / "packs" / "x.pack.tmp").write_bytes(b"half")
    (root / "manifests" / "x.json.tmp").write_bytes(b"half")
    (root / depot.IMPORTING).mkdir()
    store.remove([], quiet)
    assert not list(root.rglob("*.tmp"))
    assert not (root / depot.IMPORTING).exists()
    assert store.verify(made.id) == ()
