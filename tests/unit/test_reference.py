"""The reference in docs/ says what the schemas say."""

from __future__ import annotations

from pathlib import Path

from controller.report.reference import markdown
from controller.spec.schema import kinds, schema

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference.md"


KINDS = ("Container", "Network", "Volume", "Group", "Node", "HostPolicy")


def test_the_reference_is_current() -> None:
    """If not: make reference."""
    assert set(KINDS) == set(kinds())
    assert REFERENCE.read_text() == "".join(markdown(kind, schema(kind)) for kind in KINDS)


def test_every_field_has_a_meaning() -> None:
    rows = [line for line in REFERENCE.read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    assert [row for row in rows if row.split("|")[3].strip() == ""] == []
