"""The image that all machines boot from. `inner/` holds tests that only make sense inside a machine.

The machine with the tests that run inside is started at once and asked at the end: it takes minutes, most of which
are another cpu's. What measures rates comes after that, when nothing else runs.
"""

from __future__ import annotations

import os
import shutil

import pytest

from tests.vm.machine import QEMU, Image
from tests.vm.project import build_image
from tests.vm.suite import SUITE, Suite

collect_ignore = [] if os.environ.get("MASU_VM") else ["inner"]
"""The machine sets MASU_VM for what runs in it."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda each: 2 if each.get_closest_marker("alone") else int(_asks_the_machine(each)))


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.option.collectonly and any(map(_asks_the_machine, session.items)) and _possible():
        session.config.stash[SUITE] = Suite()


def pytest_unconfigure(config: pytest.Config) -> None:
    if SUITE in config.stash:
        config.stash[SUITE].close()


@pytest.fixture
def suite(request: pytest.FixtureRequest) -> Suite:
    if SUITE not in request.config.stash:
        pytest.skip(f"{QEMU} is not installed: apt-get install qemu-system-x86 qemu-utils")
    return request.config.stash[SUITE]


@pytest.fixture(scope="session")
def image() -> Image:
    """Built on the first run (about a minute), then found. A host without qemu skips; CI installs it."""
    if not _possible():
        pytest.skip(f"{QEMU} is not installed: apt-get install qemu-system-x86 qemu-utils")
    return build_image()


def _possible() -> bool:
    return shutil.which(QEMU) is not None or bool(os.environ.get("CI"))


def _asks_the_machine(item: pytest.Item) -> bool:
    return "suite" in getattr(item, "fixturenames", ())
