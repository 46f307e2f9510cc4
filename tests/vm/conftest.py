"""The image that all machines boot from. `inner/` holds tests that only make sense inside a machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.vm.machine import QEMU, Image
from tests.vm.project import CHECKOUT

collect_ignore = [] if os.environ.get("MASU_VM") else ["inner"]
"""The machine sets MASU_VM for what runs in it."""


@pytest.fixture(scope="session")
def image() -> Image:
    """Built on the first run (about a minute), then found. A host without qemu skips; CI installs it."""
    if shutil.which(QEMU) is None and not os.environ.get("CI"):
        pytest.skip(f"{QEMU} is not installed: apt-get install qemu-system-x86 qemu-utils")
    script = CHECKOUT / ".setup" / "vm-image.sh"
    done = subprocess.run([script], stdout=subprocess.PIPE, text=True, timeout=600, check=True)
    return Image(Path(done.stdout.strip()))
