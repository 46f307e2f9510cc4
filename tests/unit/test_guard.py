"""Removals that nobody may have meant."""

from __future__ import annotations

import pytest

from controller.errors import GuardRefused
from controller.reconcile.guard import check_removals

FOUR = {"a", "b", "c", "d"}


def test_a_few_may_go_and_most_may_not() -> None:
    check_removals(FOUR, {"a", "b", "c"}, allowed=False)
    with pytest.raises(GuardRefused, match="--allow-removals"):
        check_removals(FOUR, FOUR, allowed=False)
    check_removals(FOUR, FOUR, allowed=True)


def test_another_source_removes_nobody_unasked() -> None:
    moved = ("/etc/masu/specs", "/root/extra.yaml")
    with pytest.raises(
        GuardRefused, match=r"the source was /etc/masu/specs until now, and /root/extra\.yaml does not"
    ):
        check_removals(FOUR, {"a"}, allowed=False, moved=moved)
    check_removals(FOUR, {"a"}, allowed=True, moved=moved)
    check_removals(FOUR, set(), allowed=False, moved=moved)
    check_removals(FOUR, {"a"}, allowed=False, moved=("", "/root/extra.yaml"))
    check_removals(FOUR, {"a"}, allowed=False, moved=("/root/extra.yaml", "/root/extra.yaml"))
