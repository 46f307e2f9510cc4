"""What CRIU and the checkpoint store wrote, and something then damaged: told as such, at whichever byte it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from controller.checkpoints import manifest, pagemap
from controller.checkpoints.manifest import Body, Entry, StoredFile
from controller.checkpoints.paths import check_tree
from controller.checkpoints.users import Moves
from controller.checkpoints.whole import joined, parts
from controller.errors import CheckpointDamaged, StepFailed
from controller.host.checkpoints.store import LocalStore
from controller.model.checkpoint import Checkpoint, Draft, Origin
from tests.fuzz.bounds import bounded, printable, soon
from tests.fuzz.strategies import damaged, json_texts, json_values, mutated
from tests.images import page_map, pages, write_images

ORIGIN = Origin("web", 1_764_100_000_000, "manual")
IMAGE = page_map([(0x7F00_0000_0000, 200), (0x7F00_1000_0000, 3)])
ENTRY = Entry(
    "etc/x", "file", 0o644, 1, 2, 3, {"user.a": "YQ=="}, size=5, pieces=(0, -5, ["a" * 64, 0, 0, 5])
)
BODY = Body(
    (StoredFile("core-1.img", 5, (0, -4096)),),
    (StoredFile("spec.dump", 2, (1,)),),
    {"upper": (Entry(".", "directory"), Entry("etc", "directory"), ENTRY)},
    (5, 2),
)
WORDS = st.sampled_from(
    [
        b"\x08",
        b"\x10",
        b"\x18",
        b"\x20",
        b"\x28",
        b"\xff" * 12,
        b"\x80",
        b"\0",
        b"\1\0\0\0",
        b"\xff\xff\xff\xff",
        b"\x0a",
    ]
)


@bounded(200)
@given(damaged(st.just(IMAGE)) | st.lists(WORDS, max_size=12).map(lambda words: IMAGE[:24] + b"".join(words)))
def test_a_page_map_is_one_or_is_none(image: bytes) -> None:
    try:
        with soon():
            found = pagemap.decode(image)
    except CheckpointDamaged as error:
        printable(error)
        return
    assert all(each.pages >= 0 and each.address >= 0 for each in found.runs)
    if found.present < 1 << 16:
        with soon():
            pagemap.page_cuts(found, found.present * 4096, 1 << 18)
    try:
        with soon():
            b"".join(pagemap.encode(found.pages_id, joined(found.runs, 4096)))
    except CheckpointDamaged:
        return


RUNS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 4096, 8192, 1 << 47, (1 << 64) - 4096]), st.integers(0, 5), st.integers(0, 7)
    ).map(lambda each: pagemap.Run(*each)),
    max_size=5,
)


@bounded(200)
@given(RUNS, RUNS)
def test_pages_are_somewhere_or_it_is_told(own: list[pagemap.Run], before: list[pagemap.Run]) -> None:
    try:
        with soon():
            found = list(parts(own, before, 4096))
    except CheckpointDamaged as error:
        printable(error)
        return
    assert sum(each.run.pages for each in found) == sum(each.pages for each in own)


def digest(data: bytes) -> bytes:
    return blake3(data).digest()


HEAD = Checkpoint("20261125-201523-042-1f9a3c07", ORIGIN, 5, 5, 5, ("upper",))
WHOLE = manifest.encode(HEAD, [b"a" * 32, b"b" * 32], manifest.canonical(BODY.to_json()), digest)


@bounded(200)
@given(damaged(st.just(WHOLE)))
def test_a_manifest_is_whole_or_told_of(text: bytes) -> None:
    try:
        _, chunks, body = manifest.split(text, digest)
        manifest.decode_body(body)
    except (CheckpointDamaged, ValueError):
        assert text != WHOLE
        return
    assert chunks == (b"a" * 32, b"b" * 32)


@bounded(200)
@given(st.data())
def test_a_head_of_any_shape_with_the_right_sum(data: st.DataObject) -> None:
    """As another version may have written it, or somebody who may write there."""
    head = json.loads(WHOLE.partition(b"\n")[0])
    head.pop("checksum")
    value = data.draw(mutated(st.just(head)) | json_values)
    if isinstance(value, dict):
        value["checksum"] = digest(manifest.canonical(value)).hex()
    line = manifest.canonical(value)
    try:
        manifest.decode_head(line, data.draw(st.sampled_from([len(WHOLE), len(line)])), digest)
    except CheckpointDamaged as error:
        printable(error)


@bounded(200)
@given(json_texts(BODY.to_json()))
def test_a_body_of_any_shape(text: bytes) -> None:
    try:
        found = manifest.decode_body(text)
        for entries in found.trees.values():
            check_tree(entries)
            for each in entries:
                Moves(((0, 100_000, 65536),)).entry(each)
    except CheckpointDamaged as error:
        printable(error)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    base = tmp_path_factory.mktemp("stored")
    images = write_images(base / "images", [(0x7F00_0000_0000, 20)], pages(20, 1))
    upper = base / "upper"
    upper.mkdir()
    (upper / "file").write_bytes(b"text" * 100)
    store = LocalStore(str(base / "store"), "")
    return base, store.save(
        Draft(ORIGIN, str(images), {"upper": str(upper)}, {"spec.dump": b"{}"}), 0, lambda *_: None
    ).id


@pytest.mark.root
@bounded(80)
@given(st.data())
def test_a_store_with_a_damaged_file(stored: tuple[Path, str], data: st.DataObject) -> None:
    """What it lists as whole is whole, or is told of by whoever reads it; the rest of it goes on."""
    base, identity = stored
    root = base / "damaged"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(base / "store", root)
    files = sorted(
        each for each in root.rglob("*") if each.is_file() and each.name.endswith((".json", ".pack"))
    )
    victim = data.draw(st.sampled_from(files))
    text = victim.read_bytes()
    victim.write_bytes(
        data.draw(damaged(st.just(text)) | damaged(st.just(text[-200:])).map(lambda end: text[:-200] + end))
    )
    store = LocalStore(str(root), "")
    with soon():
        (listed,) = store.checkpoints("")
    assert listed.damage.isprintable()
    try:
        wrong = store.verify(identity)
        shutil.rmtree(base / "back", ignore_errors=True)
        store.restore(
            identity, str(base / "back" / "images"), {"upper": str(base / "back" / "upper")}, lambda *_: None
        )
    except StepFailed as error:
        printable(error)
        wrong = (str(error),)
    else:
        assert wrong == ()
        assert (base / "back" / "upper" / "file").read_bytes() == b"text" * 100
    assert not listed.damage or wrong
    store.remove([], lambda *_: None)
    again = Draft(ORIGIN, str(base / "images"), {"upper": str(base / "upper")}, {})
    new = store.save(again, 0, lambda *_: None)
    assert store.verify(new.id) == (), "a damaged checkpoint before it does no harm to the next one"
