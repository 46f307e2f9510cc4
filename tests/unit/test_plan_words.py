"""What a plan says at its end, and with which exit code."""

from __future__ import annotations

import pytest

from controller.cli.converging import _plan_code
from controller.errors import Problem
from controller.report.preview import Preview
from controller.report.text import plan_text

WRONG = (Problem("web.yaml", 1, 1, "", '"kind" is missing'),)


@pytest.mark.parametrize(
    ("rejected", "frozen", "end", "code"),
    [
        ((), "", "in sync: nothing to do", 0),
        (WRONG, "", "nothing to do with what could be read", 3),
        ((), "the source holds no spec file", "nothing to do with what could be read", 1),
    ],
)
def test_nothing_is_in_sync_that_could_not_be_read(
    rejected: tuple[Problem, ...], frozen: str, end: str, code: int
) -> None:
    found = Preview((), (), rejected, frozen, None, ())
    assert plan_text(found, colours=False).splitlines()[-1] == end
    assert _plan_code(found) == code
