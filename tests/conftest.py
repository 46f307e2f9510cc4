"""What every test shares: which process it runs in, and that on CI a skip that nobody expected is a failure."""

from __future__ import annotations

import compileall
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

EXPECTED_SKIPS: frozenset[str] = frozenset()
"""Node ids that may be skipped on CI; each one needs a reason in the test itself."""

_CONTROLLER = Path(__file__).resolve().parents[1] / "controller"
_GATE, _ROOM = Path(__file__), Path(__file__).with_name("__init__.py")
"""Files that are there, to be locked."""
_LONG = ("tests/vm/", "test_interruption.py", "test_bandwidth", "test_io.py")
"""What takes minutes by itself, most of them another cpu's, or wants the machine for itself at the end."""
_IS_ONE_OF_TWO = "PYTEST_XDIST_WORKER" in os.environ


def pytest_sessionstart() -> None:
    """As an installed package is: where Python may not do it, every `masu` of a test would compile it all."""
    compileall.compile_dir(_CONTROLLER, quiet=2)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Two processes, not more: the machine has two cpus, and many tests look at how long something takes."""
    from xdist.scheduler import LoadScopeScheduling

    class TwoHalves(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "long" if any(each in nodeid for each in _LONG) else "rest"

    return TwoHalves(config, log)


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
