"""The reference in docs/ says what the schemas say."""

from __future__ import annotations

from pathlib import Path

from controller.report.reference import markdown
from controller.spec.schema import schema

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference.md"


def test_the_reference_is_current() -> None:
    """If not: masu schema Container -o markdown > docs/reference.md."""
    assert REFERENCE.read_text() == markdown("Container", schema("Container"))


def test_every_field_has_a_meaning() -> None:
    rows = REFERENCE.read_text().split("|---|---|---|\n")[1].splitlines()
    assert len(rows) > 40
    assert [row for row in rows if row.split("|")[3].strip() == ""] == []
