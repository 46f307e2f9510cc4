"""The control socket on a real file system: answers, errors as what they are, and nobody there."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from controller.errors import GuardRefused, StepFailed
from controller.host.control import ControlSocket, ask


def answer(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if value["what"] == "refuse":
        raise GuardRefused("not today")
    if value["what"] == "break":
        raise KeyError("defect")
    return {"heard": value["what"]}


def test_it_answers_and_errors_arrive_as_what_they_are(tmp_path: Path) -> None:
    path = str(tmp_path / "control.socket")
    assert ask(path, {"what": "hello"}) is None, "nobody is there"
    Path(path).touch()  # a name that somebody has left
    control = ControlSocket(path, answer)
    try:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert ask(path, {"what": "hello"}) == {"heard": "hello"}
        with pytest.raises(GuardRefused, match="not today"):
            ask(path, {"what": "refuse"})
        with pytest.raises(StepFailed, match="defect"):
            ask(path, {"what": "break"})
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(path)
            rude.sendall(b"no JSON at all\n")
            assert b"error" in rude.recv(4096)
        assert ask(path, {"what": "again"}) == {"heard": "again"}
    finally:
        control.close()
    assert ask(path, {"what": "hello"}) is None
    assert not os.path.exists(path)
