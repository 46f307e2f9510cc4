"""Being a good service: readiness and watchdog for systemd, signals turned into calls, the test failpoint."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable

from controller.errors import NotPermitted
from controller.host.command import output

ASK_S = 2.0


def notify(state: str) -> None:
    """sd_notify(3) without a library: one datagram; nothing happens outside systemd."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), name)
        except OSError:
            return


def watchdog_interval_s() -> float:
    """Half of what systemd allows, 0 when it does not watch (sd_watchdog_enabled(3))."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 2_000_000 if text.isdigit() else 0.0


def host_stops() -> bool:
    """Whether systemd is shutting the host down; elsewhere nobody can know."""
    return output(["systemctl", "is-system-running"], ASK_S)[1].strip() == "stopping"


def on_signals(stop: Callable[[], None], reload: Callable[[], None]) -> None:
    """SIGTERM and SIGINT stop, SIGHUP reads the source again: called in a thread of their own.

    Python's handlers run in the main thread, and after what that waits for, if the signal comes just before it
    waits, or to another thread.
    """
    acts = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
    heard, told = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(told, False)
    for number in acts:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def follow() -> None:
        while numbers := os.read(heard, 64):
            for number in numbers:
                acts.get(signal.Signals(number), lambda: None)()

    threading.Thread(target=follow, name="signals", daemon=True).start()


def end_on_signals() -> None:
    """SIGTERM and SIGHUP unwind what is being done, which tidies up; once is enough.

    Not one that is ignored, as nohup(1) has it.
    """
    ours = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) != signal.SIG_IGN]

    def end(number: int, _: object) -> None:
        for each in ours:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for each in ours:
        signal.signal(each, end)


def open_files() -> int:
    """The soft limit of open files, as it is now."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_open_files() -> None:
    """As high as may be: each container costs descriptors, and the usual 1024 is there for select(2) alone."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def require_root() -> None:
    if os.geteuid() != 0:
        raise NotPermitted("masu changes cgroups and namespaces: run it as root")


def set_umask() -> None:
    """Every mode is chosen; a stricter mask would keep the root of a user namespace from its own bundle."""
    os.umask(0o022)


def failpoint(text: str, trace: str) -> Callable[[str], None]:
    """`<step kind>:<n>` → SIGKILL to this very process before the n-th step of that kind (`<kind>+`: after it).

    `trace`: a file to which the kind of every step is appended, or empty.
    """
    kind, _, count = text.partition(":")
    left = [int(count or 1)]

    def check(reached: str) -> None:
        if trace and not reached.endswith("+"):
            with open(trace, "a") as file:
                file.write(reached + "\n")
        if reached != kind:
            return
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return check
