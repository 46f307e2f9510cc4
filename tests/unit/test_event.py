"""Events as lines of text."""

from __future__ import annotations

import pytest

from controller.model.event import Event


@pytest.mark.parametrize(
    "event",
    [
        Event(1, "web", "Repaired", "mended", key="memory.max", old="1", new="2", level="warning"),
        Event(2, "", "Ready", "of the instance as a whole"),
    ],
)
def test_what_is_written_is_read(event: Event) -> None:
    assert Event.from_line(event.to_line()) == event


@pytest.mark.parametrize("line", ['{"at": 1, "contai', "{}", "[]", '{"at": 1, "colour": "red"}'])
def test_a_torn_or_foreign_line_is_refused(line: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        Event.from_line(line)
