"""The forked child that becomes the OCI runtime: a mount namespace of its own, mounts, cgroups, exec.

Whatever is mounted here is seen by the runtime and copied into the container; it is gone with this process,
so nothing can leak into the host's mount table.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:  # the keeper is small: typing is for the checker alone
    from collections.abc import Callable
    from typing import Any

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWTIME = 0x00020000, 0x10000000, 0x40000000, 0x80
MS_REC, MS_BIND, MS_SLAVE, MS_PRIVATE, MS_NOSUID, MS_NOEXEC = 0x4000, 0x1000, 0x80000, 0x40000, 0x2, 0x8
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_IDMAP = 0x1, 0x00100000
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442  # the same on every architecture

LIBC = ctypes.CDLL(None, use_errno=True)


class MountAttr(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def become_runtime(request: dict[str, Any], stdout: int, stderr: int, report: int, open_files: int) -> None:
    """Never returns. A failure before exec goes to `report` as one JSON object."""
    place = "start"
    try:
        os.setsid()
        os.umask(0o022)  # for the places that the runtime makes for mounts
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, hard))
        place = "/proc/self/oom_score_adj"
        _drop_oom_protection(place)
        place = "a mount namespace"
        check(LIBC.unshare(CLONE_NEWNS))
        check(LIBC.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_SLAVE), None))
        for operation in request.get("nodes", ()):
            place = operation["target"]
            _make_nodes(operation)
        for place in request["join"]:  # from here on it may make no device node
            _write(place, "0")
        if request.get("offsets"):
            place = "/proc/self/timens_offsets"
            _make_time_namespace(request["offsets"])
        for operation in request["mounts"]:
            place = operation.get("target", operation["op"])
            _operation(operation["op"])(operation)
        place = request["cwd"]
        os.chdir(request["cwd"])
        _take_streams(stdout, stderr)
        place = request["argv"][0]
        _execute(request["argv"], request["env"])
    except OSError as error:
        said = {"path": place, "errno": error.errno, "message": os.strerror(error.errno or 0)}
        os.write(report, json.dumps(said).encode())
    finally:
        os._exit(127)


def _execute(argv: list[str], env: dict[str, str]) -> None:
    """Through a mount of it that nobody can write to.

    crun makes itself such a mount, lest a container overwrites the host's binary (CVE-2019-5736), and starts anew
    from there, unless it finds that it is in one already.
    """
    try:
        program = _syscall(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(argv[0]), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
        _set_attributes(program, MountAttr(MOUNT_ATTR_RDONLY, 0, MS_PRIVATE, 0))
        os.execve(program, argv, env)  # noqa: S606
    except OSError:  # an old kernel, or a script, which has to be opened by its name
        os.execve(argv[0], argv, env)  # noqa: S606


def _drop_oom_protection(place: str) -> None:
    """What keeps masu alive when memory is short must not keep its containers."""
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    score = int(os.read(descriptor, 16))
    os.close(descriptor)
    if score < 0:
        _write(place, "0")


def _make_time_namespace(offsets: dict[str, int]) -> None:
    """time_namespaces(7): for the children of this process; the offsets are fixed with the first of them."""
    check(LIBC.unshare(CLONE_NEWTIME))
    lines = [f"{clock} {value // 10**9} {value % 10**9}\n" for clock, value in offsets.items()]
    _write("/proc/self/timens_offsets", "".join(lines))


def _take_streams(stdout: int, stderr: int) -> None:
    """Standard input is empty. The pipes are opened for reading, too, so that a writer always has a reader:

    without a keeper the container waits when a pipe is full, and never gets SIGPIPE.
    """
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    for source, target in ((stdout, 1), (stderr, 2)):
        os.dup2(os.open(f"/proc/self/fd/{source}", os.O_RDWR), target)


def _bind(operation: dict[str, Any]) -> None:
    mount(operation["source"], operation["target"], None, MS_BIND | MS_REC, "")


def _overlay(operation: dict[str, Any]) -> None:
    places = {key: _escaped(operation[key]) for key in ("lower", "upper", "work")}
    options = "lowerdir={lower},upperdir={upper},workdir={work}".format(**places)
    mount("overlay", operation["target"], "overlay", 0, options)


def _escaped(path: str) -> str:
    """In the option string of overlayfs, colons separate layers and commas options (overlayfs.rst)."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _idmap(operation: dict[str, Any]) -> None:
    """mount_setattr(2): a detached copy of the mount, seen through a user namespace with these maps."""
    tree = _syscall(
        SYS_OPEN_TREE,
        AT_FDCWD,
        os.fsencode(operation["source"]),
        OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE,
    )
    users = _user_namespace(operation["uids"], operation["gids"])
    attributes = MountAttr(MOUNT_ATTR_IDMAP, 0, 0, users)
    _set_attributes(tree, attributes)
    _syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(operation["target"]), MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree)
    os.close(users)


def _set_attributes(tree: int, attributes: MountAttr) -> None:
    _syscall(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, ctypes.byref(attributes), ctypes.sizeof(attributes))


def _sys(operation: dict[str, Any]) -> None:
    """A sysfs belongs to the network namespace of whoever mounts it."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(operation["source"], os.O_RDONLY | os.O_CLOEXEC)
    check(LIBC.setns(there, CLONE_NEWNET))
    mount("sysfs", operation["target"], "sysfs", 0, "")
    check(LIBC.setns(home, CLONE_NEWNET))
    os.close(home)
    os.close(there)


def _make_nodes(operation: dict[str, Any]) -> None:
    """Device nodes that belong to the container's users, for the runtime to bind where they are wanted."""
    mount(operation["source"], operation["target"], "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=711")
    for each in operation["nodes"]:
        path = f"{operation['target']}/{each['name']}"
        kind = stat.S_IFBLK if each["kind"] == "b" else stat.S_IFCHR
        os.mknod(path, kind, os.makedev(each["major"], each["minor"]))
        os.chown(path, each["user"], each["group"])
        os.chmod(path, each["mode"])


def _operation(name: str) -> Callable[[dict[str, Any]], None]:
    """Those of a restore are loaded when one is asked for."""
    if name in MOUNTS:
        return MOUNTS[name]
    from restoring import OPERATIONS  # noqa: PLC0415

    return OPERATIONS[name]


MOUNTS = {"bind": _bind, "overlay": _overlay, "idmap": _idmap, "sys": _sys}


def _user_namespace(uids: list[list[int]], gids: list[list[int]]) -> int:
    """A descriptor of a user namespace with these maps; the process that made it has ended."""
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(ready_write, b"x" if LIBC.unshare(CLONE_NEWUSER) == 0 else b"e")
        signal.pause()
    try:
        if os.read(ready_read, 1) != b"x":
            raise OSError(1, "unshare(CLONE_NEWUSER)")
        for file, extents in (("uid_map", uids), ("gid_map", gids)):
            _write(f"/proc/{pid}/{file}", "".join(f"{a} {b} {c}\n" for a, b, c in extents))
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready_read)
        os.close(ready_write)


def mount(source: str, target: str, kind: str | None, flags: int, options: str) -> None:
    check(
        LIBC.mount(
            os.fsencode(source),
            os.fsencode(target),
            os.fsencode(kind) if kind else None,
            ctypes.c_ulong(flags),
            os.fsencode(options),
        )
    )


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def _syscall(number: int, *arguments: object) -> int:
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return check(LIBC.syscall(ctypes.c_long(number), *wide))


def check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
