"""What a CRIU that was killed leaves behind, and how it is undone.

Its tracees go on by themselves: the kernel detaches them, and CRIU's code in them sees its socket close and jumps
back. What stays is a locked network (a table of nftables in the container's namespace) and TCP sockets in repair mode,
on which nothing is sent. Sources: criu/criu/netfilter.c, criu/compel/plugins/std/infect.c, tcp(7), TCP_REPAIR.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterable, Iterator
from typing import Final

from controller.host import command, syscalls
from controller.host.departure import depart
from controller.host.facts import find
from controller.host.text import read_text

NFT_TIMEOUT_S: Final = 5.0
_TCP_REPAIR: Final = 19
_LOCK: Final = re.compile(r"^table inet (CRIU-\S+)$", re.MULTILINE)


def mend(network: str, member_files: Iterable[str]) -> tuple[str, ...]:
    """`network`: a file of the container's network namespace, "" for the host's; → what was undone, in words."""
    sockets = sum(_leave_repair(pid) for pid in sorted(_members(member_files)))
    said = [f"{sockets} connections were taken out of repair"] if sockets else []
    try:
        said += [f"its lock {table} on the network was removed" for table in depart(network, None, _unlock)]
    except FileNotFoundError:
        return tuple(said)  # the namespace is gone, and the lock with it
    return tuple(said)


def _unlock() -> list[str]:
    nft = find("nft")
    if nft is None:
        return []
    _, text = command.output([nft, "list", "tables"], NFT_TIMEOUT_S)
    tables = _LOCK.findall(text)
    return [each for each in tables if command.output([nft, "delete", "table", "inet", each], NFT_TIMEOUT_S)[0] == 0]


def _members(files: Iterable[str]) -> set[int]:
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
