"""The control socket: root asks whoever reconciles an instance for something, and waits for the answer.

One connection, one line of JSON there, one line back: `{"done": …}` or `{"error": {"kind", "message"}}`. The socket
is of a process that lives, so nothing of it outlives a crash but a name, which the next one replaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from controller import errors
from controller.errors import NOT_UNDERSTOOD, MasuError, NotPermitted, SpecInvalid, StepFailed
from controller.host.text import failed, make_directories, read_text
from controller.model.audit import Peer

SYNC: Final[Mapping[str, Any]] = {"verb": "sync"}
"""Look at the source now."""
LONGEST: Final = 64 << 10
NOBODY: Final = (1 << 32) - 1
PATIENCE_S: Final = 5.0
PAUSE_S: Final = 0.1
"""How long somebody who has connected may take to say what he wants."""
LAST_WAIT_S: Final = 10.0
"""How long what is being done may go on when the instance is left."""

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]
Hear = Callable[[Peer, Mapping[str, Any], MasuError | None], object]
"""Told of each request when it has been answered: who asked, what, and the error that was the answer."""


class ControlSocket:
    """Answers each request in a thread of its own until `close`. Raises StepFailed when it cannot listen."""

    def __init__(self, path: str, answer: Answer, hear: Hear) -> None:
        self._path, self._answer, self._hear = path, answer, hear
        self._workers: list[threading.Thread] = []
        self._closed = threading.Event()
        make_directories(os.path.dirname(path))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self._socket.bind(path)  # masu's umask keeps others out until the mode says so
            os.chmod(path, 0o600)
            self._socket.listen(16)
        except OSError as error:
            self._socket.close()
            raise failed(error, "listening on", path) from error
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """What is being done is waited for, but not for long: it can be broken off anywhere."""
        self._closed.set()
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(PATIENCE_S)
        for worker in self._workers:
            worker.join(LAST_WAIT_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                if self._closed.wait(PAUSE_S):  # else it may be for want of descriptors, which passes
                    return
                continue
            worker = threading.Thread(target=self._serve, args=(connection,), name="request", daemon=True)
            try:
                worker.start()
            except RuntimeError:  # for want of threads: whoever asks hears that nobody answers
                connection.close()
                continue
            self._workers = [each for each in self._workers if each.is_alive()] + [worker]

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            peer = _peer_of(connection)
            if peer.uid != os.geteuid():
                self._hear(peer, {}, NotPermitted(f"user {peer.uid} may ask for nothing"))
                return
            connection.settimeout(PATIENCE_S)
            answer = self._answered(peer, _line(connection))
            connection.sendall(json.dumps(answer).encode() + b"\n")

    def _answered(self, peer: Peer, line: bytes) -> dict[str, Any]:
        request: Mapping[str, Any] = {}
        try:
            request = _mapping(json.loads(line))
            done = {"done": dict(self._answer(request))}
        except MasuError as error:
            self._hear(peer, request, error)
            return {"error": {"kind": type(error).__name__, "message": str(error)}}
        except Exception as error:  # noqa: BLE001  whoever asked has to hear of a defect, too
            message = f"{type(error).__name__}: {error}"
            self._hear(peer, request, StepFailed(message))
            return {"error": {"kind": "", "message": message}}
        self._hear(peer, request, None)
        return done


def listens(path: str) -> bool:
    """Read-only. Whether somebody would hear."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(path)
        except BlockingIOError:
            return True  # more than it has room for do so already
        except OSError:
            return False
    return True


def ask(path: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """None when nobody listens. Raises the error that the answer is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        patience = struct.pack("@ll", int(PATIENCE_S), int(PATIENCE_S % 1 * 1_000_000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)  # the answer may take minutes
        try:
            sock.connect(path)
            sock.sendall(json.dumps(request).encode() + b"\n")
        except BlockingIOError as error:
            raise StepFailed(
                f"whoever reconciles the instance does not answer on {path}", path=path
            ) from error
        except OSError:
            return None
        try:
            answer = _mapping(json.loads(_line(sock)))
            if "error" in answer:
                raise _error(answer["error"])
            return dict(_mapping(answer["done"]))
        except (OSError, *NOT_UNDERSTOOD) as error:
            raise StepFailed(f"whoever reconciles the instance ended before it was done: {error}") from error


def _error(value: Mapping[str, str]) -> MasuError:
    kind = getattr(errors, value["kind"], StepFailed)
    plain = isinstance(kind, type) and issubclass(kind, MasuError) and kind is not SpecInvalid
    try:
        return kind(value["message"]) if plain else StepFailed(value["message"])
    except (TypeError, AttributeError):  # one that is made of more than a message
        return StepFailed(value["message"])


def _line(connection: socket.socket) -> bytes:
    text = b""
    while not text.endswith(b"\n") and len(text) < LONGEST:
        part = connection.recv(LONGEST)
        if not part:
            break
        text += part
    return text


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise StepFailed("not understood: neither a request nor an answer")
    return value


def _peer_of(connection: socket.socket) -> Peer:
    """unix(7), SO_PEERCRED."""
    seen = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", seen)
    return Peer(pid, uid, login_of(pid))


def me() -> Peer:
    """Read-only. This very process, when it does by itself what it would else ask for."""
    return Peer(os.getpid(), os.geteuid(), login_of(os.getpid()))


def login_of(pid: int) -> int:
    """Read-only. Whose session it is: a user who has become root since is told apart; -1: nobody's. proc(5)."""
    with contextlib.suppress(MasuError, ValueError):
        found = int(read_text(f"/proc/{pid}/loginuid") or NOBODY)
        return found if found != NOBODY else -1
    return -1
