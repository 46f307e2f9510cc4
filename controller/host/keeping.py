"""The controller's side of the keeper: starts it when there is none, asks it to launch, reads exit records."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from controller.errors import NOT_UNDERSTOOD, KeeperGone, LaunchFailed, MasuError, StepFailed
from controller.host.keeper.proc import code_and_signal
from controller.host.text import failed, make_private, read_text, remove_file, remove_tree
from controller.model.launch import ExitRecord, Init, LaunchRecipe

PROGRAM = os.path.join(os.path.dirname(__file__), "keeper")
START_TIMEOUT_S = 5.0
ANSWER_MARGIN_S = 5.0
LAUNCH_PATIENCE_S = 0.25
"""Many times what a launch takes. A workload can make the runtime hang; that must not hold others up."""
MAX_ANSWER = 1024 * 1024
RESTART_PAUSE_S = 0.05
RESTART_PAUSE_MAX_S = 5.0


class KeeperClient:
    """Thread-safe: each request has a connection of its own.

    Read ends of log pipes are held until `forget`, so that what a container wrote last is not lost when it and
    the keeper end together.
    """

    def __init__(self, run_dir: str, log_dir: str, open_files: int) -> None:
        """`open_files`: the soft limit that containers start with."""
        self._run_dir, self._log_dir, self._open_files = run_dir, log_dir, open_files
        self._socket = f"{run_dir}/keeper.sock"
        self._lock = threading.Lock()
        self._pipes: dict[str, list[int]] = {}
        self._pending: dict[str, tuple[LaunchRecipe, socket.socket]] = {}
        self._guard: socket.socket | None = None
        self._closed = False

    def launch(self, recipe: LaunchRecipe) -> Init | None:
        """None when the runtime takes its time: `launched` tells later. Raises LaunchFailed, KeeperGone."""
        self.abandon(recipe.container)
        try:
            sock = self._connect_for_sure()
            self._pending[recipe.container] = recipe, sock
            _send(sock, {"op": "launch", **recipe.to_json()}, ())
        except OSError as error:
            self.abandon(recipe.container)
            raise KeeperGone(f"the keeper did not answer launch: {error}") from error
        return self.launched(recipe.container, LAUNCH_PATIENCE_S)

    def launched(self, name: str, wait_s: float = 0.0) -> Init | None:
        """What became of a launch; None as long as it is under way. Raises LaunchFailed, KeeperGone."""
        recipe, sock = self._pending[name]
        if not is_readable(sock, wait_s):
            return None
        try:
            answer, descriptors = _receive(sock)
        except (OSError, ValueError) as error:
            raise KeeperGone(f"the keeper did not answer launch: {error}") from error
        finally:
            self.abandon(name)
        if not answer.get("ok"):
            raise _launch_failed(recipe, answer)
        self._hold(name, descriptors)
        return Init(int(answer["pid"]), int(answer["start_time"]))

    def launching(self, name: str) -> bool:
        return name in self._pending

    def abandon(self, name: str) -> None:
        """Whatever becomes of a launch that is under way, nobody asks any more."""
        _, sock = self._pending.pop(name, (None, None))
        if sock:
            sock.close()

    def adopt(self, name: str, init: Init) -> None:
        """Tell the keeper who init is, should it not know.

        Raises KeeperGone, and StepFailed when the keeper does not hold the container.
        """
        request = {"op": "adopt", "container": name, "pid": init.pid, "start_time": init.start_time}
        answer, _ = self._ask(request, (), ANSWER_MARGIN_S)
        if not answer.get("ok"):
            raise StepFailed(
                f"the keeper does not hold {name}: {answer.get('message', 'it does not say why')}"
            )

    def knows(self, name: str) -> bool:
        """Whether the keeper, or one that will take its place, can find the container's log pipes."""
        return os.path.exists(f"{self._run_dir}/pipes/{name}.json")

    def forget(self, name: str) -> None:
        """Drop the container's pipes, and remove its log and exit record, with or without a keeper."""
        self._hold(name, [])
        with contextlib.suppress(KeeperGone):
            self._ask({"op": "forget", "container": name}, (), ANSWER_MARGIN_S)
        for path in (f"{self._run_dir}/exits/{name}.json", f"{self._run_dir}/pipes/{name}.json"):
            remove_file(path)
        remove_tree(f"{self._log_dir}/{name}")

    def exit_of(self, name: str) -> ExitRecord | None:
        try:
            return ExitRecord(**json.loads(read_text(f"{self._run_dir}/exits/{name}.json") or ""))
        except NOT_UNDERSTOOD:
            return None

    def ensure(self) -> None:
        """There is a keeper when this returns. Raises KeeperGone when none can be started."""
        if not self._answers():
            with self._lock:
                if not self._answers():
                    self._start()
                    self._hand_over()

    def guard(self, replaced: Callable[[int], None]) -> None:
        """Keep a keeper alive from now on: a thread waits for its end and replaces it.

        `replaced` is called with the number of containers that the new one holds.
        """
        threading.Thread(target=self._watch, args=(replaced,), name="keeper", daemon=True).start()

    def close(self) -> None:
        """Let go of the keeper, which goes on as long as it holds a container."""
        self._closed = True
        if self._guard:
            with contextlib.suppress(OSError):
                self._guard.shutdown(socket.SHUT_RDWR)
        for name in list(self._pipes):
            self._hold(name, [])
        for name in list(self._pending):
            self.abandon(name)

    def stop(self) -> None:
        """Ask the keeper to leave now; it refuses while it holds a container."""
        with contextlib.suppress(KeeperGone):
            self._ask({"op": "stop"}, (), ANSWER_MARGIN_S)

    def pid(self) -> int:
        """The keeper's pid, 0 when there is none."""
        try:
            return self._ping()["pid"]
        except KeeperGone:
            return 0

    def _ping(self) -> dict[str, int]:
        """The keeper's pid, and how many containers it has `held`. Raises KeeperGone."""
        answer, _ = self._ask({"op": "ping"}, (), ANSWER_MARGIN_S)
        return {key: int(answer.get(key, 0)) for key in ("pid", "held")}

    def _watch(self, replaced: Callable[[int], None]) -> None:
        """For as long as this process lives: whatever keeps a keeper from starting now may pass."""
        before, pause_s = 0, RESTART_PAUSE_S
        while not self._closed:
            try:
                self.ensure()
                with self._connect(None) as self._guard:
                    now = self._ping()  # one that is just ending still lets others connect
                    if before not in {0, now["pid"]}:
                        replaced(now["held"])
                    before, pause_s = now["pid"], RESTART_PAUSE_S
                    self._guard.recv(1)
            except (OSError, MasuError):
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, RESTART_PAUSE_MAX_S)

    def _hold(self, name: str, descriptors: list[int]) -> None:
        with self._lock:
            before = self._pipes.pop(name, [])
            if descriptors:
                self._pipes[name] = descriptors
        for each in before:
            os.close(each)

    def _hand_over(self) -> None:
        """What a new keeper could not find by itself: pipes whose writers have all ended."""
        for name, descriptors in list(self._pipes.items()):
            with contextlib.suppress(KeeperGone):
                self._ask({"op": "adopt", "container": name}, descriptors, ANSWER_MARGIN_S)

    def _answers(self) -> bool:
        try:
            self._connect(ANSWER_MARGIN_S).close()
        except OSError:
            return False
        return True

    def _start(self) -> None:
        """In a session of its own, with nothing of ours open; a small interpreter: no site, no user paths."""
        make_private(self._run_dir)
        make_private(self._log_dir)
        argv = [sys.executable, "-I", "-S", "-B", PROGRAM]
        argv += [self._run_dir, self._log_dir, str(self._open_files)]
        try:
            with open(f"{self._run_dir}/keeper.log", "ab") as log:
                process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env={}
                )
        except OSError as error:
            raise failed(error, "starting the keeper", argv[0]) from error
        threading.Thread(target=process.wait, name="keeper-wait", daemon=True).start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if time.monotonic() > deadline:
                raise KeeperGone(f"the keeper does not answer, see {self._run_dir}/keeper.log")
            time.sleep(0.002)

    def _connect_for_sure(self) -> socket.socket:
        """To a keeper that is started if there is none. Raises OSError, KeeperGone."""
        try:
            return self._connect(ANSWER_MARGIN_S)
        except OSError:
            self.ensure()
            return self._connect(ANSWER_MARGIN_S)

    def _connect(self, timeout: float | None) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.settimeout(timeout)
        try:
            sock.connect(self._socket)
        except OSError:
            sock.close()
            raise
        return sock

    def _ask(
        self, request: dict[str, Any], descriptors: Sequence[int], timeout: float
    ) -> tuple[dict[str, Any], list[int]]:
        try:
            with self._connect(timeout) as sock:
                _send(sock, request, descriptors)
                return _receive(sock)
        except (OSError, ValueError) as error:
            raise KeeperGone(f"the keeper did not answer {request['op']}: {error}") from error


def _send(sock: socket.socket, request: dict[str, Any], descriptors: Sequence[int]) -> None:
    text = json.dumps({"version": 1, **request}).encode() + b"\n"
    sent = socket.send_fds(sock, [text], list(descriptors)) if descriptors else sock.send(text)
    sock.sendall(text[sent:])


def _receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, descriptors = b"", []
    while b"\n" not in data and len(data) < MAX_ANSWER:
        part, more, _, _ = socket.recv_fds(sock, 65536, 4, socket.MSG_CMSG_CLOEXEC)
        descriptors.extend(more)
        if not part:
            break
        data += part
    return json.loads(data), descriptors


def _ended(status: int) -> str:
    """In words, of a wait status; it runs inside the container's own limits."""
    code, number = code_and_signal(status)
    if number:
        guess = ": is the memory limit too small?" if number == signal.SIGKILL else ""
        return f"was killed by signal {number}{guess}"
    return f"failed with exit code {code} and said nothing"


def is_readable(sock: socket.socket, wait_s: float) -> bool:
    """By poll(2): select(2) knows no descriptor beyond 1023, and every container has several."""
    asked = select.poll()
    asked.register(sock, select.POLLIN)
    return bool(asked.poll(1000 * wait_s))


def _launch_failed(recipe: LaunchRecipe, answer: dict[str, Any]) -> LaunchFailed:
    path = str(answer.get("path", recipe.argv[0]))
    if answer.get("expired"):
        message = f"{recipe.argv[0]} did not finish within {recipe.timeout_ms} ms and was killed"
    elif "errno" in answer:
        message = f"{path}: {answer['message']} (errno {answer['errno']})"
    else:
        said = answer.get("output") or answer.get("message") or _ended(int(answer.get("status", 0)))
        message = f"{recipe.argv[0]} {said}"
    return LaunchFailed(message, path=path, errno=int(answer.get("errno") or 0))
