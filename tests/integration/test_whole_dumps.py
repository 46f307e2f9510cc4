"""What a dump and its pre-dump have becomes whole: what CRIU itself has written, taken apart by hand, since this
kernel may not track what is written to memory."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.checkpoints.pagemap import PARENT, PRESENT, Run, decode, encode
from controller.errors import StepFailed
from controller.host.criu_ahead import check, forgotten
from controller.host.whole_dumps import WINDOW, WholeDumps
from controller.model.dump import PRE_DUMP, DumpOrder
from controller.model.launch import Init
from tests.dumped import dumped
from tests.images import PAGE, page_map, pages, read_all


def single(image: bytes) -> Iterator[tuple[int, int]]:
    """(address, flags) of each page in a page map."""
    for run in decode(image).runs:
        yield from ((run.address + at * PAGE, run.flags) for at in range(run.pages))


def take_apart(whole: Path, parted: Path, seed: int) -> None:
    """As if a pre-dump had found more or less the same: some pages are in it alone, some are different there."""
    dice = random.Random(seed)
    before = parted / PRE_DUMP
    before.mkdir(parents=True)
    (parted / "parent").symlink_to(PRE_DUMP)
    for each in whole.iterdir():
        shutil.copyfile(each, parted / each.name)
    for image in sorted(whole.glob("pagemap-*.img")):
        number = decode(image.read_bytes()).pages_id
        own: list[Run] = []
        earlier: list[Run] = []
        file = (whole / f"pages-{number}.img").open("rb")
        with (
            file,
            (parted / f"pages-{number}.img").open("wb") as own_pages,
            (before / f"pages-{90 + number}.img").open("wb") as earlier_pages,
        ):
            kind = "clean"
            for at, (address, flags) in enumerate(single(image.read_bytes())):
                page = file.read(PAGE)
                kind = kind if at % dice.randrange(1, 40) else dice.choice(("clean", "dirty", "new"))
                own.append(Run(address, 1, PARENT if kind == "clean" else flags))
                if kind != "clean":
                    own_pages.write(page)
                if kind != "new":
                    earlier.append(Run(address, 1, flags))
                    earlier_pages.write(page if kind == "clean" else dice.randbytes(PAGE))
        (parted / image.name).write_bytes(b"".join(encode(number, own)))
        (before / image.name).write_bytes(b"".join(encode(90 + number, earlier)))


def in_pages(directory: Path) -> dict[str, list[tuple[int, int]]]:
    return {each.name: list(single(each.read_bytes())) for each in directory.glob("pagemap-*.img")}


@pytest.mark.parametrize("seed", range(3))
def test_images_are_as_if_they_had_been_dumped_at_once(tmp_path: Path, seed: int) -> None:
    """Byte for byte, but for how page maps are put down."""
    with dumped(24) as process:
        whole = process.dump(tmp_path / "whole")
        wanted = {name: data for name, data in read_all(whole).items() if not name.startswith("pagemap")}
        take_apart(whole, tmp_path / "parted", seed)
        assert in_pages(tmp_path / "parted") != in_pages(whole)
        WholeDumps().make_whole(str(tmp_path / "parted"))
        assert in_pages(tmp_path / "parted") == in_pages(whole)
        assert all((tmp_path / "parted" / name).read_bytes() == data for name, data in wanted.items())
        assert {each.name for each in (tmp_path / "parted").iterdir()} == {
            each.name for each in whole.iterdir()
        }


def test_what_is_whole_already_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "pagemap-1.img").write_bytes(page_map([(0, 1)]))
    (tmp_path / "pages-1.img").write_bytes(bytes(PAGE))
    before = read_all(tmp_path)
    WholeDumps().make_whole(str(tmp_path))
    assert read_all(tmp_path) == before


def large(directory: Path, count: int) -> None:
    """Every eighth page was written since, in a process and in its child."""
    (directory / PRE_DUMP).mkdir(parents=True)
    for number in (1, 2):
        memory = pages(8, number)
        own = [Run(at * PAGE, 1, PRESENT if at % 8 == 0 else PARENT) for at in range(count)]
        (directory / f"pagemap-{number}0.img").write_bytes(b"".join(encode(number, own)))
        (directory / f"pages-{number}.img").write_bytes(memory[0] * (count // 8))
        (directory / PRE_DUMP / f"pagemap-{number}0.img").write_bytes(page_map([(0, count)], number))
        (directory / PRE_DUMP / f"pages-{number}.img").write_bytes(
            b"".join([bytes(PAGE), *memory[1:]]) * (count // 8)
        )


def test_no_more_memory_is_taken_than_there_was(tmp_path: Path) -> None:
    """In a tmpfs with room for a window beside what is in it."""
    place, count = tmp_path / "place", 3 * WINDOW // PAGE
    place.mkdir()
    size = 2 * count * PAGE + 2 * count * PAGE // 8 + WINDOW + (8 << 20)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "masu-test", str(place)], check=True, timeout=10
    )
    try:
        large(place, count)
        WholeDumps().make_whole(str(place))
        for number in (1, 2):
            data = (place / f"pages-{number}.img").read_bytes()
            assert data == b"".join(pages(8, number)) * (count // 8)
            assert decode((place / f"pagemap-{number}0.img").read_bytes()).runs == (Run(0, count, PRESENT),)
        assert not (place / PRE_DUMP).exists()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, timeout=10)


@pytest.mark.parametrize("file", ["pagemap-10.img", "pages-1.img", "own", "short", "long"])
def test_what_does_not_go_together_is_said(tmp_path: Path, file: str) -> None:
    """Something is missing, or not as long as its page map says."""
    large(tmp_path, 64)
    if file == "own":
        (tmp_path / "pages-1.img").unlink()
    elif file in {"short", "long"}:
        os.truncate(tmp_path / "pages-1.img", PAGE * (7 if file == "short" else 9))
    else:
        (tmp_path / PRE_DUMP / file).unlink()
    with pytest.raises(StepFailed):
        WholeDumps().make_whole(str(tmp_path))


def test_who_asks_the_kernel_what_it_wrote_is_told() -> None:
    check([os.getpid(), 1 << 23])
    with (
        Path("/proc/self/clear_refs").open("w"),
        pytest.raises(StepFailed, match=f"process {os.getpid()} itself tracks what is written"),
    ):
        check([os.getpid()])


def test_a_dump_after_one_that_was_given_up_is_whole(tmp_path: Path) -> None:
    """And has the room of the pre-dump."""
    large(tmp_path, 8)
    (tmp_path / "parent").symlink_to(PRE_DUMP)
    found = forgotten(DumpOrder("web", Init(1, 1), str(tmp_path), 1, resumes=True))
    assert not found.resumes
    assert {each.name for each in tmp_path.iterdir()}.isdisjoint({"parent", PRE_DUMP})
    assert forgotten(found) == found
