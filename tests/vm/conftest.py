"""The image that all machines boot from. `inner/` holds tests that only make sense inside a machine.

The machine with the tests that run inside is started at once and asked at the end: it takes minutes, most of which
are another cpu's. Where two processes share the tests it is started when it is asked: one of them waits, and
the other has the other cpu. What measures rates comes last.
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
    if "PYTEST_XDIST_WORKER" in os.environ or session.config.option.collectonly:
        return
    if any(map(_asks_the_machine, session.items)) and _possible():
        session.config.stash[SUITE] = Suite()


def pytest_unconfigure(config: pytest.Config) -> None:
    if SUITE in config.stash:
        config.stash[SUITE].close()


@pytest.fixture
def suite(request: pytest.FixtureRequest) -> Suite:
    if not _possible():
        pytest.skip(f"{QEMU} is not installed: apt-get install qemu-system-x86 qemu-utils")
    if SUITE not in request.config.stash:
        request.config.stash[SUITE] = Suite()
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
