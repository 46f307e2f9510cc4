"""What every mechanism of disk space has to do on a real file system, whichever it is."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.errors import StepFailed
from controller.host.places import Places
from controller.host.spaces.choice import spaces_in
from controller.host.spaces.directories import SpaceDirectories
from controller.model.space import NewSpace, Space, SpaceChange, SpaceSeen, content_path

MI = 1 << 20
DATA = Space("volume", "data")


def places(directory: Path) -> Places:
    return Places("test", str(directory / "run"), str(directory / "state"))


def spaces(directory: Path) -> SpaceDirectories:
    return spaces_in(places(directory))


@contextlib.contextmanager
def made(directory: Path, size: int, space: Space = DATA) -> Iterator[tuple[SpaceDirectories, Path]]:
    """A mounted space and what is in it; gone afterwards, whatever has happened."""
    one = spaces(directory)
    try:
        one.make(space, NewSpace(size, keep=True, owner=(7, 8)))
        one.change(space, SpaceChange(mounted=True))
        yield one, Path(content_path(places(directory).spaces, space))
    finally:
        one.remove(space)


def seen(one: SpaceDirectories, space: Space = DATA) -> SpaceSeen:
    found = one.look(space)
    assert found
    return found


FILL = """
import errno, os, sys
written, descriptor = 0, os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
try:
    while True:
        written += os.write(descriptor, bytes([1]) * (1 << 20))
        os.fsync(descriptor)
except OSError as error:
    print(written, error.errno)
"""
TOUCH = """
import errno, os, sys
try:
    for number in range(int(sys.argv[2])):
        os.close(os.open(f"{sys.argv[1]}/{number}", os.O_CREAT | os.O_WRONLY))
except OSError as error:
    print(number, error.errno)
"""


def fill(path: Path) -> tuple[int, int]:
    """Write until it does not go on, and to the disk. → (bytes that went in, errno)."""
    return _as_containers_do(FILL, str(path))


def touch(directory: Path, most: int) -> tuple[int, int]:
    """Make empty files. → (how many there are when it does not go on, errno)."""
    return _as_containers_do(TOUCH, str(directory), str(most))


def _as_containers_do(program: str, *arguments: str) -> tuple[int, int]:
    """Without CAP_SYS_RESOURCE: whoever has that is not held by quotas of ext4."""
    argv = ["setpriv", "--bounding-set=-sys_resource", sys.executable, "-c", program, *arguments]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=200, check=True).stdout.split()
    return int(said[0]), int(said[1])


def check_that_it_holds_what_it_may(directory: Path, mechanism: str, full: int) -> None:
    """Made as asked, and full at its size. `full`: the errno of that."""
    with made(directory, 64 * MI) as (one, content):
        live = seen(one)
        assert (live.mechanism, live.size, live.limit) == (mechanism, 64 * MI, 64 * MI)
        assert (live.mounted, live.keep, live.owner) == (True, True, (7, 8))
        assert os.listdir(content) == [], "nothing is in it, lost+found included"
        written, number = fill(content / "big")
        assert number == full, os.strerror(number)
        assert 48 * MI < written <= 64 * MI
        os.sync()
        assert seen(one).used > 48 * MI
        one.change(DATA, SpaceChange(keep=False, owner=(9, 9)))
        live = seen(one)
        assert (live.keep, live.owner) == (False, (9, 9))
    assert one.look(DATA) is None
    assert list((directory / "state/test/spaces/volume").iterdir()) == []


def check_that_it_grows_in_use(directory: Path) -> None:
    with made(directory, 32 * MI) as (one, content), (content / "open").open("wb") as file:
        assert fill(content / "big")[0] <= 32 * MI
        one.change(DATA, SpaceChange(size=96 * MI))
        live = seen(one)
        assert (live.size, live.limit) == (96 * MI, 96 * MI)
        assert fill(content / "more")[0] > 32 * MI
        file.close()


def check_that_what_is_half_made_goes(directory: Path) -> None:
    """A killed `make` and a killed `remove` leave what the next one takes away."""
    one, where = spaces(directory), Path(places(directory).spaces) / "volume"
    one.make(DATA, NewSpace(32 * MI))
    (where / "data").rename(where / ".data.new")
    assert seen(one).half
    assert one.names("volume") == {"data"}
    one.make(DATA, NewSpace(32 * MI))
    assert not seen(one).half
    (where / "data").rename(where / ".data.removed")
    assert seen(one).half
    one.remove(DATA)
    assert one.look(DATA) is None
    assert list(where.iterdir()) == []


def refused(one: SpaceDirectories, change: SpaceChange) -> str:
    with pytest.raises(StepFailed) as error:
        one.change(DATA, change)
    return str(error.value)
