"""The control socket: whatever is said to it is answered with one line, and it goes on listening."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.checkpoints.request import Request
from controller.errors import MasuError, StepFailed
from controller.host.control import ControlSocket, ask
from controller.model.audit import Peer
from tests.fuzz.bounds import bounded, soon
from tests.fuzz.strategies import json_texts, mutated

REQUEST = Request("checkpoint", "web").to_json()
ANSWER = {"error": {"kind": "StepFailed", "message": "why"}}
OTHER = {"done": {"id": "x"}}


def _answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return Request.from_json(request).to_json()
    except (ValueError, KeyError, TypeError) as error:
        raise StepFailed(f"not understood: {error}") from error


@pytest.fixture(scope="module")
def heard() -> list[Any]:
    return []


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, heard: list[Any]) -> Iterator[str]:
    found = str(tmp_path_factory.mktemp("control") / "sock")

    def hear(peer: Peer, request: Mapping[str, Any], error: MasuError | None) -> None:
        heard.append((peer, request, error))

    listening = ControlSocket(found, _answer, hear)
    yield found
    listening.close()


def said(path: str, text: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        sock.connect(path)
        try:
            sock.sendall(text)
            sock.shutdown(socket.SHUT_WR)
        except OSError:  # it had heard enough
            pass
        answer = b""
        while part := sock.recv(65536):
            answer += part
        return answer


@bounded(150)
@given(json_texts(REQUEST), st.sampled_from([b"\n", b"", b"\n\n", b"\nmore"]))
def test_whatever_is_asked_is_answered(path: str, heard: list[Any], text: bytes, end: bytes) -> None:
    heard.clear()
    with soon():
        answer = json.loads(said(path, text + end))
    assert len(answer) == 1
    ((what, value),) = answer.items()
    assert what in {"done", "error"}
    if what == "error":
        assert value["message"]
    assert len(heard) == 1, "whoever asked, and what, is written down each time"
    assert heard[0][0].uid == os.geteuid()
    assert ask(path, REQUEST) == REQUEST


@bounded(150)
@given(
    json_texts(ANSWER)
    | mutated(st.sampled_from([ANSWER, OTHER])).map(lambda value: json.dumps(value).encode()),
)
def test_whatever_is_answered_is_told(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    """Whoever listens there may be of another version, or end in the middle."""
    place = str(tmp_path_factory.getbasetemp() / "other")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        if os.path.exists(place):
            os.unlink(place)
        listening.bind(place)
        listening.listen()

        def once() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(text + b"\n")

        answering = threading.Thread(target=once, daemon=True)
        answering.start()
        with contextlib.suppress(MasuError):
            assert isinstance(ask(place, REQUEST), dict)
        answering.join(10)
