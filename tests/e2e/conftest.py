"""One `masu` fixture: an instance of its own, taken away whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Masu, NetworkedMasu


@pytest.fixture
def masu(tmp_path: Path) -> Iterator[Masu]:
    one = Masu(tmp_path)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def networked(tmp_path: Path) -> Iterator[NetworkedMasu]:
    """The same, with a host network of its own."""
    one = NetworkedMasu(tmp_path)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(params=["crun", "runc"])
def either(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Masu]:
    """The same with each runtime in turn."""
    one = Masu(tmp_path, request.param)
    try:
        yield one
    finally:
        one.close()
