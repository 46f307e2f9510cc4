"""What the tests inside the machine share with the end-to-end tests."""

from __future__ import annotations

from tests.e2e.conftest import masu

__all__ = ["masu"]
