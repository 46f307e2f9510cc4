"""Disks of a test's own: loop devices on files, with file systems. Taken away whatever happens."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOP_MAJOR = 7


def command(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout.strip()


@contextmanager
def loop_device(image: Path, size: str = "64M") -> Iterator[str]:
    """→ /dev/loopN."""
    command("truncate", "-s", size, str(image))
    device = command("losetup", "--find", "--show", str(image))
    try:
        yield device
    finally:
        command("losetup", "--detach", device)


@contextmanager
def mounted(source: str, target: Path, *options: str) -> Iterator[Path]:
    target.mkdir(exist_ok=True)
    command("mount", *options, source, str(target))
    try:
        yield target
    finally:
        command("umount", str(target))


@contextmanager
def ext4_disk(directory: Path, size: str = "64M") -> Iterator[tuple[str, Path]]:
    """→ (the loop device, where it is mounted)."""
    with loop_device(directory / "disk.img", size) as device:
        command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", device)
        with mounted(device, directory / "disk") as target:
            yield device, target
