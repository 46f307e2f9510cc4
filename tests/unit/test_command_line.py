"""What the command line understands, and what it says where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.cli import _parser, main
from controller.loop.controller import mended_words
from controller.model.desired import FileState
from controller.model.resource import Resource
from controller.model.status import Condition
from controller.report.text import _condition

WEB = """\
apiVersion: masu/v1
kind: Container
metadata: {name: web}
spec: {rootfs: {path: /srv}, process: {args: [/bin/web]}}
"""


@pytest.mark.parametrize(
    "words",
    [
        ("--as", "other", "import", "FILE"),
        ("import", "--as", "other", "FILE"),
        ("import", "FILE", "--as", "other"),
    ],
)
def test_as_may_stand_anywhere(words: tuple[str, ...]) -> None:
    found = _parser().parse_args(["checkpoint", *words])
    assert (found.words, found.to) == (["import", "FILE"], "other")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("checkpoint", "web", "--foo"), "masu checkpoint: not understood: --foo"),
        (("plan", "/a", "/b"), "masu plan: not understood: /b"),
    ],
)
def test_what_is_not_understood_is_told_with_the_usage_of_its_command(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert told.startswith(f"usage: masu {words[0]} ")
    assert told.endswith(f"{said}\n")


def test_what_is_valid_is_said_beside_the_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "web.yaml").write_text(f"{WEB}---\n{WEB.replace('web', 'db')}")
    assert main(["validate", str(tmp_path)]) == 0
    assert capsys.readouterr() == ("", "2 documents in 1 file are valid\n")
    (tmp_path / "web.yaml").write_text("a: 1\n")
    assert main(["validate", str(tmp_path)]) == 3
    assert capsys.readouterr().err == ""


def test_a_condition_that_is_its_own_reason_is_named_once() -> None:
    said = Condition("NotAllowed", status=True, reason="NotAllowed", message="why")
    assert _condition("web", said) == "  web: NotAllowed: why"


def test_only_what_was_in_force_is_in_force_again() -> None:
    some = FileState("", (Resource("web", "web.yaml", {}, {}),))
    assert mended_words(some, some) == "is in force again"
    assert mended_words(FileState("", ()), some) == "is in force"
    assert mended_words(None, some) == "is in force"
    assert mended_words(some, FileState("", ())) == "is no longer rejected"
