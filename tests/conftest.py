"""What every test shares: on CI a skip that nobody expected is a failure."""

from __future__ import annotations

import compileall
import os
from pathlib import Path

import pytest

EXPECTED_SKIPS: frozenset[str] = frozenset()
"""Node ids that may be skipped on CI; each one needs a reason in the test itself."""

_CONTROLLER = Path(__file__).resolve().parents[1] / "controller"


def pytest_sessionstart() -> None:
    """As an installed package is: where Python may not do it, every `masu` of a test would compile it all."""
    compileall.compile_dir(_CONTROLLER, quiet=2)


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
