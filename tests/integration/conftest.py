"""What tests of images share: a layout of the test's own, and a registry that serves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registries import Layout, Registry, serving


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


@pytest.fixture
def registry(layout: Layout) -> Iterator[Registry]:
    with serving(layout) as one:
        yield one
