"""What keeps CRIU from dumping a container, found by looking at its processes while they run. Read-only.

Only what is certain to fail: `dump_one_file` and `dump_chrdev` (criu/files.c), `dump_external_sockets` (sk-unix.c),
ghost files (files-reg.c), `dump_task_rlimits` (cr-dump.c) of CRIU 4.2. Sources besides: proc_pid_fd(5),
sock_diag(7), prlimit(2).
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import stat
import struct
from collections.abc import Iterator, Mapping
from typing import Final

from controller.host.criu_mended import is_traced
from controller.host.departure import depart
from controller.host.netlink import NETLINK_SOCK_DIAG, Netlink, attributes, messages
from controller.host.proc_stat import stat_of
from controller.host.text import DELETED, read_text
from controller.model.dump import Obstacle

MOST: Final = 20
_DEEPEST: Final = 10_000
"""Generations: only numbers that are given anew meanwhile make more of them."""
_KNOWN: Final = frozenset(
    f"anon_inode:{each}"
    for each in (
        "[eventfd]", "[eventpoll]", "inotify", "[inotify]", "[fanotify]", "[signalfd]", "[timerfd]", "[pidfd]",
    )
)  # fmt: skip
_WORDS: Final = {
    "[io_uring]": "io_uring", "[userfaultfd]": "userfaultfd", "[perf_event]": "a performance counter",
}  # fmt: skip
_IN_MAPS: Final = re.compile(r"anon_inode:(\[io_uring\]|\[perf_event\])$", re.MULTILINE)
_DEVICES: Final = {1, 4, 5, *range(136, 144)}
"""Majors of /dev/null and its like, and of terminals: Documentation/admin-guide/devices.txt."""
_MISC: Final = {(10, 200), (10, 235)}
"""tun and autofs."""
_IN_MEMORY: Final = ("/memfd:", "/SYSV", "/dev/zero", "/[aio]")
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")
_DIAG_BY_FAMILY: Final = 20
_QUESTION: Final = struct.Struct("=BBHIIIII")
_ALL_STATES, _SHOW_PEER, _PEER = 0xFFFFFFFF, 4, 2
_ANSWER: Final = struct.Struct("=BBBBI")
_ANSWER_SIZE: Final = 16


def look(init: int, members: frozenset[int], ghost_limit: int) -> tuple[Obstacle, ...]:
    """At most `MOST`. `members`: pids in the container's cgroup. What has ended meanwhile is nothing."""
    sockets: dict[int, tuple[int, str]] = {}
    found: list[Obstacle] = []
    for pid in sorted(members):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            found += _of_process(pid, init, ghost_limit, sockets)
    found += _runaways(init, sockets)
    return tuple(found[:MOST])


def _of_process(
    pid: int, init: int, ghost_limit: int, sockets: dict[int, tuple[int, str]]
) -> Iterator[Obstacle]:
    if is_traced(pid):
        yield Obstacle("traced", pid, "", "somebody traces it")
    if not _descends(pid, init):
        yield Obstacle("guest", pid, "", "it came in from outside, as those of masu exec do")
        return
    if not _tells_limits(pid):
        yield Obstacle(
            "barred", pid, "", "it is not masu's own user, and masu lacks CAP_SYS_RESOURCE to read its limits"
        )
    for kind in dict.fromkeys(_IN_MAPS.findall(read_text(f"/proc/{pid}/maps") or "")):
        yield Obstacle("unsupported", pid, "its memory", f"{_WORDS.get(kind, kind)} is mapped")
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            link, seen = os.readlink(f"/proc/{pid}/fd/{number}"), os.stat(f"/proc/{pid}/fd/{number}")
            if inode := _SOCKET.fullmatch(link):
                sockets[int(inode[1])] = (pid, f"fd {number}")
            elif why := _why_not(link, seen, ghost_limit):
                yield Obstacle("unsupported", pid, f"fd {number}", why)


def _tells_limits(pid: int) -> bool:
    """CRIU asks as masu does here: of another user's process that takes CAP_SYS_RESOURCE in its user namespace."""
    try:
        resource.prlimit(pid, resource.RLIMIT_CPU)
    except PermissionError:
        return False
    return True


def _why_not(link: str, seen: os.stat_result, ghost_limit: int) -> str:
    """Pure. Empty: it can be dumped, as far as that shows."""
    kind = stat.S_IFMT(seen.st_mode)
    if link.startswith("anon_inode:") and link not in _KNOWN:
        name = link.removeprefix("anon_inode:")
        return f"{_WORDS.get(name, name)} is open"
    if kind == stat.S_IFBLK:
        return f"block device {link} is open"
    if kind == stat.S_IFCHR:
        number = (os.major(seen.st_rdev), os.minor(seen.st_rdev))
        known = number[0] in _DEVICES or number in _MISC
        return "" if known else f"device {link} ({number[0]}:{number[1]}) is open"
    ghost = kind == stat.S_IFREG and seen.st_nlink == 0 and not link.startswith(_IN_MEMORY)
    if ghost and seen.st_blocks * 512 > ghost_limit:
        path, limit = link.removesuffix(DELETED), ghost_limit >> 20
        return f"{path}, which was removed, is open and larger than {limit} MiB"
    return ""


def _descends(pid: int, init: int) -> bool:
    """From the container's init: whoever does not is in its namespaces alone."""
    for _ in range(_DEEPEST):
        if pid == init:
            return True
        found = stat_of(pid)
        if found is None:
            return True  # it has ended meanwhile
        if found.parent <= 1:
            return False
        pid = found.parent
    return False


def _runaways(init: int, sockets: Mapping[int, tuple[int, str]]) -> Iterator[Obstacle]:
    """Unix sockets whose other end is not in the container."""
    if not sockets:
        return
    try:
        peers = depart(f"/proc/{init}/ns/net", None, _peers)
    except OSError:  # no unix_diag in this kernel, or it has ended
        return
    for inode, (pid, where) in sorted(sockets.items()):
        peer = peers.get(inode, 0)
        if peer and peer not in sockets:
            yield Obstacle("outside", pid, where, "a unix socket leads to a process outside the container")


def _peers() -> dict[int, int]:
    """Inode → inode of the other end, of all unix sockets of this thread's network namespace that have one."""
    found = {}
    question = _QUESTION.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _SHOW_PEER, 0, 0)
    with contextlib.closing(Netlink(protocol=NETLINK_SOCK_DIAG)) as asked:
        data = asked.dump(_DIAG_BY_FAMILY, question)
    for _, start, end in messages(data):
        inode = _ANSWER.unpack_from(data, start)[4]
        peer = dict(attributes(data, start + _ANSWER_SIZE, end)).get(_PEER, b"")
        if len(peer) == 4:
            found[inode] = int(struct.unpack("=I", peer)[0])
    return found
