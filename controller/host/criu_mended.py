"""What a CRIU that was killed leaves behind, and how it is undone.

Its tracees go on by themselves: the kernel detaches them, and CRIU's code in them sees its socket close and jumps
back. What stays is a locked network (a table of nftables in the container's namespace) and TCP sockets in repair
mode, on which nothing is sent and every read fails with EPERM: so a CRIU that masu has to kill is killed while the
container is frozen by its cgroup, which goes on when its sockets are in order again.
Sources: criu/criu/netfilter.c, criu/compel/plugins/std/infect.c, net/ipv4/tcp.c (TCP_REPAIR).
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Final

from controller.errors import StepFailed
from controller.frozen import dataclass
from controller.host import command, syscalls
from controller.host.cgroups.homes import Homes
from controller.host.departure import depart
from controller.host.facts import find
from controller.host.text import failed, read_text

NFT_TIMEOUT_S: Final = 5.0
_TCP_REPAIR: Final = 19
FREEZE_S: Final = 1.0
UNDOING_S: Final = 3.0
"""Somebody may also just be debugging."""
_FROZEN: Final = re.compile(r"^(frozen 1|FROZEN)$", re.MULTILINE)
_TRACER: Final = re.compile(r"^TracerPid:\t(\d+)$", re.MULTILINE)
_LOCK: Final = re.compile(r"^table inet (CRIU-\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Freezer:
    """A file, its two words, and the file that says whether it is done."""

    file: str
    thawed: str
    frozen: str
    told: str


class Ice:
    """The container's own freezers: one for the moment between the end of a CRIU and the mending."""

    def __init__(self, homes: Homes, group: str) -> None:
        self.group = group
        self._freezers = tuple(_freezers(homes, group))
        self._made = False

    @property
    def frozen(self) -> bool:
        """Whether it is, or is about to be, frozen by somebody."""
        return any(map(_freezes, self._freezers))

    def freeze(self) -> None:
        """At most `FREEZE_S`; what is held by CRIU counts as frozen."""
        if not self._freezers:
            return
        self._made, freezer = True, self._freezers[0]
        with contextlib.suppress(StepFailed):  # it has to be killed all the same
            _write(freezer.file, freezer.frozen)
        deadline = time.monotonic() + FREEZE_S
        while time.monotonic() < deadline and not _FROZEN.search(read_text(freezer.told) or ""):
            time.sleep(0.001)

    def thaw(self) -> None:
        if self._made:
            _write(self._freezers[0].file, self._freezers[0].thawed)

    def release(self) -> None:
        """Whoever has frozen it. What is above its group is nobody's here."""
        for each in filter(_freezes, self._freezers):
            with contextlib.suppress(StepFailed):  # it has gone at this moment
                _write(each.file, each.thawed)


def _freezers(homes: Homes, group: str) -> Iterator[_Freezer]:
    core, v1 = homes.core(group), homes.facts.hierarchy("freezer")
    if core and os.path.exists(f"{core}/cgroup.freeze"):
        yield _Freezer(f"{core}/cgroup.freeze", "0", "1", f"{core}/cgroup.events")
    if v1:
        file = f"{homes.locate(v1, group)}/freezer.state"
        yield _Freezer(file, "THAWED", "FROZEN", file)


def _freezes(freezer: _Freezer) -> bool:
    return (read_text(freezer.file) or "").strip() not in {"", freezer.thawed}


def _write(path: str, word: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as knob:
            knob.write(word)
    except OSError as error:
        raise failed(error, f"writing {word} to", path) from error


def mend(network: str, member_files: Iterable[str]) -> tuple[str, ...]:
    """`network`: a file of the container's network namespace, "" for the host's; → what was undone, in words."""
    member_files = tuple(member_files)
    _await_undoing(member_files)
    sockets = sum(_leave_repair(pid) for pid in sorted(members(member_files)))
    said = [f"{sockets} connections were taken out of repair"] if sockets else []
    try:
        said += [f"its lock {table} on the network was removed" for table in depart(network, None, _unlock)]
    except FileNotFoundError:
        return tuple(said)  # the namespace is gone, and the lock with it
    return tuple(said)


def _await_undoing(member_files: Iterable[str]) -> None:
    """A CRIU whose masu has ended may still be at it: it finds that out by itself, and undoes everything."""
    deadline = time.monotonic() + UNDOING_S
    while time.monotonic() < deadline and any(map(is_traced, members(member_files))):
        time.sleep(0.01)


def is_traced(pid: int) -> bool:
    return (_tracer(pid) or 0) > 0


def is_free(pid: int) -> bool:
    """Whether it is there, and nobody holds it."""
    return _tracer(pid) == 0


def _tracer(pid: int) -> int | None:
    found = _TRACER.search(read_text(f"/proc/{pid}/status") or "")
    return int(found[1]) if found else None


def _unlock() -> list[str]:
    nft = find("nft")
    if nft is None:
        return []
    _, text = command.output([nft, "list", "tables"], NFT_TIMEOUT_S)
    tables = _LOCK.findall(text)
    return [
        each
        for each in tables
        if command.output([nft, "delete", "table", "inet", each], NFT_TIMEOUT_S)[0] == 0
    ]


def members(files: Iterable[str]) -> set[int]:
    return {int(pid) for file in files for pid in (read_text(file) or "").split()}


def _leave_repair(pid: int) -> int:
    """How many sockets of the process were in repair mode."""
    count = 0
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            for number in _sockets(pid):
                with contextlib.suppress(OSError):
                    count += _repaired(pidfd, number)
        finally:
            os.close(pidfd)
    return count


def _sockets(pid: int) -> Iterator[int]:
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                yield int(name)


def _repaired(pidfd: int, number: int) -> bool:
    """0 also sends a window probe, so that the other side learns where things stand."""
    with socket.socket(fileno=syscalls.pidfd_getfd(pidfd, number)) as sock:
        if sock.family not in {socket.AF_INET, socket.AF_INET6} or sock.type != socket.SOCK_STREAM:
            return False
        if not sock.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR):
            return False
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)
        return True
