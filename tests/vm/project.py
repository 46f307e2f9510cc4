"""The project as a disk for the machine: the wheel as it would be published, and the tests without the package."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

from tests.vm.machine import Image

CHECKOUT = Path(__file__).resolve().parents[2]
TEST_TREE = ("tests", "specs", "schemas", "pyproject.toml")
"""`controller/` is left out on purpose: inside, `import controller` must find the installed package."""


def build_image() -> Image:
    """Made on the first call (about a minute), then found; other processes wait for whoever makes it."""
    script = CHECKOUT / ".setup" / "vm-image.sh"
    done = subprocess.run([script], stdout=subprocess.PIPE, text=True, timeout=900, check=True)
    return Image(Path(done.stdout.strip()))


UNPACK = """
set -e
mkdir /masu
tar -xf /dev/vdb -C /masu
python3 -m installer --compile-bytecode 0 -- /masu/*.whl
"""
"""The script that installs the project in the machine, its disk being the second one."""


def make_disk(directory: Path) -> Path:
    """A tar file in `directory` that qemu can give away as a raw disk: its size is a multiple of 512."""
    wheel = _make_wheel(directory / "wheel")
    disk = directory / "project.tar"
    with tarfile.open(disk, "w") as archive:
        archive.add(wheel, wheel.name)
        for name in TEST_TREE:
            archive.add(CHECKOUT / name, name, filter=_without_caches)
    return disk


def _make_wheel(directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory)]
    subprocess.run([*command, str(CHECKOUT)], check=True, timeout=120)
    (wheel,) = directory.glob("masu-*.whl")
    return wheel


def _without_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name else entry
