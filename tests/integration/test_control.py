"""The control socket on a real file system: answers, errors as what they are, and nobody there."""

from __future__ import annotations

import os
import resource
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from controller.errors import GuardRefused, MasuError, StepFailed
from controller.host import control as control_module
from controller.host.control import PAUSE_S, ControlSocket, ask
from controller.model.audit import Peer


class Heard(list[tuple[Peer, Mapping[str, Any], str]]):
    """Who asked, for what, and the error that it came to."""

    def append_(self, peer: Peer, request: Mapping[str, Any], error: MasuError | None) -> None:
        self.append((peer, request, str(error or "")))


@pytest.fixture
def heard() -> Heard:
    return Heard()


def answer(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if value["what"] == "refuse":
        raise GuardRefused("not today")
    if value["what"] == "break":
        raise KeyError("defect")
    return {"heard": value["what"]}


def test_want_of_descriptors_passes(tmp_path: Path, heard: Heard) -> None:
    path = str(tmp_path / "control.socket")
    control = ControlSocket(path, answer, heard.append_)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX) as early:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (early.fileno() + 1, hard))
            early.connect(path)
            time.sleep(3 * PAUSE_S)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        try:
            early.sendall(b'{"what": "still there"}\n')
            early.settimeout(5)
            assert b"still there" in early.recv(4096)
            assert ask(path, {"what": "hello"}) == {"heard": "hello"}
        finally:
            control.close()


def test_who_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "PATIENCE_S", 0.2)
    path = str(tmp_path / "control.socket")
    with socket.socket(socket.AF_UNIX) as deaf, ExitStack() as stack:
        deaf.bind(path)
        deaf.listen(0)
        for _ in range(2):  # who waits to be let in
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            caller.connect_ex(path)
        with pytest.raises(StepFailed, match="does not answer"):
            ask(path, {"what": "hello"})


def test_it_answers_and_errors_arrive_as_what_they_are(tmp_path: Path, heard: Heard) -> None:
    path = str(tmp_path / "control.socket")
    assert ask(path, {"what": "hello"}) is None, "nobody is there"
    Path(path).touch()  # a name that somebody has left
    control = ControlSocket(path, answer, heard.append_)
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
    assert {(each.pid, each.uid) for each, _, _ in heard} == {(os.getpid(), os.geteuid())}
    assert [(dict(request), said) for _, request, said in heard][:3] == [
        ({"what": "hello"}, ""),
        ({"what": "refuse"}, "not today"),
        ({"what": "break"}, "KeyError: 'defect'"),
    ]


@pytest.mark.root
def test_nobody_but_the_same_user_is_answered(heard: Heard) -> None:
    """Also where somebody has opened the socket's mode."""
    script = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); os.setuid(65534); s.connect(sys.argv[1]);"
        "os.write(1, s.recv(99) or b'nothing')"
    )
    with tempfile.TemporaryDirectory() as directory:  # pytest's own nobody else may pass
        os.chmod(directory, 0o755)
        path = f"{directory}/control.socket"
        control = ControlSocket(path, answer, heard.append_)
        try:
            os.chmod(path, 0o666)
            argv = [sys.executable, "-S", "-c", script, path]
            done = subprocess.run(argv, capture_output=True, timeout=20, check=False)
        finally:
            control.close()
    assert done.stdout == b"nothing", done.stderr
    assert [(each.uid, said) for each, _, said in heard] == [(65534, "user 65534 may ask for nothing")]
