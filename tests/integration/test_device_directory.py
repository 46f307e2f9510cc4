"""/dev of a container that works against masu: what it puts on the way is never followed."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from controller.errors import StepFailed
from controller.host import device_directory, service
from controller.host.device_directory import DeviceDirectory

pytestmark = pytest.mark.root


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    service.set_umask()
    (tmp_path / "dev").mkdir()
    return tmp_path / "dev"


@pytest.fixture
def directory(dev: Path) -> Iterator[DeviceDirectory]:
    descriptor = os.open(dev, os.O_PATH | os.O_DIRECTORY)
    yield DeviceDirectory(os.getpid(), descriptor, (), ())
    os.close(descriptor)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the host, which nobody else may read."""
    path = tmp_path / "secret"
    path.write_text("host")
    path.chmod(0o600)
    return path


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _at_line(number: int, work: Callable[[], None]) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that does the work before the line of the module that is executed as the number-th."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename != device_directory.__file__:
            return None
        count += event == "line"
        if event == "line" and count == number:
            work()
        return trace

    return trace


def test_directories_above_a_place_are_for_everybody_to_read(dev: Path, directory: DeviceDirectory) -> None:
    with directory.empty_file("a/b/node"):
        assert (dev / "a/b/node").is_file()
    assert (_mode(dev / "a"), _mode(dev / "a/b")) == (0o755, 0o755)


def test_a_link_on_the_way_is_refused(dev: Path, directory: DeviceDirectory, secret: Path) -> None:
    (dev / "net").symlink_to(secret)
    with pytest.raises((OSError, StepFailed)), directory.empty_file("net/tun"):
        pass
    assert _mode(secret) == 0o600


def test_a_link_put_there_at_any_moment_changes_nothing_of_the_host(
    dev: Path, directory: DeviceDirectory, secret: Path
) -> None:
    """The container moves the new directory away and a link to a file of the host in: before each line, once."""
    place, aside = dev / "net", dev / "aside"

    def swap() -> None:
        with suppress(FileNotFoundError):
            place.rename(aside)
            place.symlink_to(secret)

    swapped = 0
    for number in range(1, 80):
        sys.settrace(_at_line(number, swap))
        try:
            with suppress(OSError, StepFailed), directory.empty_file("net/tun"):
                pass
        finally:
            sys.settrace(None)
        assert (_mode(secret), secret.read_text()) == (0o600, "host"), number
        swapped += aside.exists()
        for each in (aside, place):
            if each.is_dir() and not each.is_symlink():
                (each / "tun").unlink(missing_ok=True)
                each.rmdir()
        place.unlink(missing_ok=True)
    assert swapped > 10, "it really was in between"
