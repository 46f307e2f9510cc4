"""What keeps CRIU from dumping a container, found by looking at its processes while they run. Read-only.

Only what is certain to fail: `dump_one_file` and `dump_chrdev` (criu/files.c), `dump_external_sockets` (sk-unix.c),
ghost files (files-reg.c), `dump_task_rlimits` (cr-dump.c) of CRIU 4.2. Sources besides: proc_pid_fd(5),
proc_pid_fdinfo(5), sock_diag(7), prlimit(2).

No file is asked for: whoever answers for its file system may be a program, and never do so.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from controller.frozen import dataclass
from controller.host import syscalls
from controller.host.criu_mended import is_traced
from controller.host.departure import depart
from controller.host.mountinfo import Mount, is_far, is_programs, lines_of, mount_of, mount_under
from controller.host.netlink import NETLINK_SOCK_DIAG, Netlink, attributes, messages
from controller.host.proc_stat import stat_of
from controller.host.syscalls import FileSeen
from controller.host.text import DELETED, failed, read_text
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
_SHARED: Final = re.compile(r"^RssShmem:\s*(\d+) kB$", re.MULTILINE)
_PRIVATE: Final = re.compile(r"^(?:RssAnon|VmSwap|HugetlbPages):\s*(\d+) kB$", re.MULTILINE)
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")
_DIAG_BY_FAMILY: Final = 20
_QUESTION: Final = struct.Struct("=BBHIIIII")
_ALL_STATES, _SHOW_PEER, _PEER = 0xFFFFFFFF, 4, 2
_ANSWER: Final = struct.Struct("=BBBBI")
_ANSWER_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class _Mounts:
    """By their ids: of one mount namespace, and of masu's own, from which files may have been handed in."""

    theirs: Mapping[str, Mount]
    ours: Mapping[str, Mount]

    @property
    def of_programs(self) -> tuple[str, ...]:
        return tuple(each.target for each in self.theirs.values() if is_programs(each.kind))

    def under(self, pid: int, number: str) -> Mount | None:
        """What an open file is on; None: one that is mounted nowhere, or not in sight."""
        found = mount_under(read_text(f"/proc/{pid}/fdinfo/{number}") or "")
        return self.theirs.get(found) or self.ours.get(found)


def look(init: int, members: frozenset[int], ghost_limit: int) -> tuple[Obstacle, ...]:
    """At most `MOST`. `members`: pids in the container's cgroup. What has ended meanwhile is nothing."""
    sockets: dict[int, tuple[int, str]] = {}
    spaces: dict[str, _Mounts] = {}
    found: list[Obstacle] = []
    for pid in sorted(members):
        try:
            found += _of_process(pid, init, ghost_limit, sockets, spaces)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        except OSError as error:
            raise failed(error, "looking at", f"/proc/{pid}") from error
    found += _runaways(init, sockets)
    return tuple(found[:MOST])


def memory(members: Iterable[int]) -> int:
    """Bytes that no other process has for them; proc_pid_status(5)."""
    return _counted(members, _PRIVATE)


def shared(members: Iterable[int]) -> int:
    """Bytes of shared memory that they have mapped, counted as often as they are."""
    return _counted(members, _SHARED)


def _counted(members: Iterable[int], kind: re.Pattern[str]) -> int:
    texts = (read_text(f"/proc/{pid}/status") or "" for pid in members)
    return sum(int(amount) * 1024 for text in texts for amount in kind.findall(text))


def _of_process(
    pid: int,
    init: int,
    ghost_limit: int,
    sockets: dict[int, tuple[int, str]],
    spaces: dict[str, _Mounts],
) -> Iterator[Obstacle]:
    """`spaces`: what is known of mount namespaces."""
    if is_traced(pid):
        yield Obstacle("traced", pid, "", "somebody traces it")
    if not _descends(pid, init):
        yield Obstacle("guest", pid, "", "it came in from outside, as those of masu exec do")
        return
    if not _tells_limits(pid):
        yield Obstacle(
            "barred",
            pid,
            "",
            "it is not masu's own user, and masu lacks CAP_SYS_RESOURCE to read its limits: with"
            " namespaces: {user: auto} in the spec it can be dumped all the same",
        )
    space = os.readlink(f"/proc/{pid}/ns/mnt")
    if space not in spaces:
        spaces[space] = _Mounts(_table(pid), _table(os.getpid()))
        yield from _of_programs(pid, spaces[space])
    yield from _open_files(pid, spaces[space], ghost_limit, sockets)
    if not spaces[space].of_programs:
        yield from _mapped(pid)


def _of_programs(pid: int, mounts: _Mounts) -> Iterator[Obstacle]:
    for each in mounts.of_programs:
        why = "is a program's (FUSE), which could stop a dump for ever: unmount it"
        yield Obstacle("unsupported", pid, "", f"the file system on {each} {why}")


def _mapped(pid: int) -> Iterator[Obstacle]:
    """A program that keeps a page of a file from coming may lock the list: then this is not asked."""
    for kind in dict.fromkeys(_IN_MAPS.findall(read_text(f"/proc/{pid}/maps") or "")):
        yield Obstacle("unsupported", pid, "its memory", f"{_WORDS.get(kind, kind)} is mapped")


def _open_files(
    pid: int, mounts: _Mounts, ghost_limit: int, sockets: dict[int, tuple[int, str]]
) -> Iterator[Obstacle]:
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{number}")
            if inode := _SOCKET.fullmatch(link):
                sockets[int(inode[1])] = (pid, f"fd {number}")
                continue
            why = _why_not(pid, number, link, mounts, ghost_limit)
        except FileNotFoundError:
            continue
        except OSError as error:
            why = f"it cannot be looked at: {os.strerror(error.errno or 0)}"
        if why:
            yield Obstacle("unsupported", pid, f"fd {number}", why)


def _tells_limits(pid: int) -> bool:
    """CRIU asks as masu does here: of another user's process that takes CAP_SYS_RESOURCE in its user namespace."""
    try:
        resource.prlimit(pid, resource.RLIMIT_CPU)
    except PermissionError:
        return False
    return True


def _table(pid: int) -> dict[str, Mount]:
    lines = lines_of(read_text(f"/proc/{pid}/mountinfo") or "")
    return {number: found for number, line in lines if (found := mount_of(line))}


def _why_not(pid: int, number: str, link: str, mounts: _Mounts, ghost_limit: int) -> str:
    """Empty: it can be dumped, as far as that shows. What is no path is of the kernel's own making."""
    if not link.startswith("/"):
        return _why_not_anonymous(link)
    mount = mounts.under(pid, number)
    if mount is not None and is_programs(mount.kind):
        return f"{link} is open, and its file system is a program's (FUSE)"
    if mount is None or is_far(mount.kind):
        return ""
    return _why_not_file(link, syscalls.look_without_asking(f"/proc/{pid}/fd/{number}"), ghost_limit)


def _why_not_anonymous(link: str) -> str:
    """Pure."""
    if not link.startswith("anon_inode:") or link in _KNOWN:
        return ""
    name = link.removeprefix("anon_inode:")
    return f"{_WORDS.get(name, name)} is open"


def _why_not_file(link: str, seen: FileSeen, ghost_limit: int) -> str:
    """Pure."""
    kind = stat.S_IFMT(seen.mode)
    if kind == stat.S_IFBLK:
        return f"block device {link} is open"
    if kind == stat.S_IFCHR:
        major, minor = seen.device
        known = major in _DEVICES or seen.device in _MISC
        return "" if known else f"device {link} ({major}:{minor}) is open"
    ghost = kind == stat.S_IFREG and seen.links == 0 and not link.startswith(_IN_MEMORY)
    if ghost and seen.blocks * 512 > ghost_limit:
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
