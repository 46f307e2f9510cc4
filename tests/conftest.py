"""What every test shares: which process it runs in, and that on CI a skip that nobody expected is a failure."""

from __future__ import annotations

import compileall
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

EXPECTED_SKIPS: frozenset[str] = frozenset()
"""Node ids that may be skipped on CI; each one needs a reason in the test itself."""

_CONTROLLER = Path(__file__).resolve().parents[1] / "controller"
_GATE, _ROOM = Path(__file__), Path(__file__).with_name("__init__.py")
"""Files that are there, to be locked."""
_IS_ONE_OF_TWO = "PYTEST_XDIST_WORKER" in os.environ


def pytest_sessionstart() -> None:
    """As an installed package is: where Python may not do it, every `masu` of a test would compile it all."""
    compileall.compile_dir(_CONTROLLER, quiet=2)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes, not more: the machine has two cpus, and many tests look at how long something takes."""
    for each in items:
        each.add_marker(pytest.mark.xdist_group("long" if _is_long(each) else "rest"))


def _is_long(item: pytest.Item) -> bool:
    """What takes minutes by itself, and most of them another cpu's, and what wants the machine for itself."""
    is_alone = item.get_closest_marker("alone") is not None
    return is_alone or "vm" in item.path.parts or item.path.name == "test_interruption.py"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Nothing of the other process runs beside what measures rates. No test's time is up while it waits here."""
    if not _IS_ONE_OF_TWO:
        return (yield)
    wants = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    with _locked(_GATE, wants) as gate, _locked(_ROOM, wants):
        if wants == fcntl.LOCK_SH:
            gate.close()
        return (yield)


@contextmanager
def _locked(path: Path, how: int) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        fcntl.flock(file, how)
        yield file


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn unexpected skips into a failed run where MASU_STRICT_SKIPS is set."""
    if not os.environ.get("MASU_STRICT_SKIPS"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = [report.nodeid for report in reporter.stats.get("skipped", ())] if reporter else []
    unexpected = [node for node in skipped if node not in EXPECTED_SKIPS]
    if unexpected and exitstatus == 0:
        reporter.write_line(f"unexpected skips: {', '.join(unexpected)}", red=True)
        session.exitstatus = 1
