"""The default system call filter in real containers of a real runtime: what runs, what is refused and how."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from controller.aspects._seccomp import profile

pytestmark = pytest.mark.root

CRUN = shutil.which("crun", path=f"/opt/masu/bin:{os.environ['PATH']}")
CAPABILITIES = frozenset({"CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SYS_CHROOT"})
PLACES = ("/usr", "/bin", "/lib", "/lib64", sys.base_prefix)
DETOUR = """
[ ! -d /sys/fs/cgroup/unified ] || mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup
exec "$@"
"""
PROBE = f"""
import ctypes, errno, subprocess, threading
libc = ctypes.CDLL(None, use_errno=True)
def answer(*call):
    return 0 if libc.syscall(*call) >= 0 else errno.errorcode[ctypes.get_errno()]
threading.Thread(target=print, args=("thread",)).start()
print("child", subprocess.run(["/bin/true"]).returncode)
print("socket", answer(ctypes.c_long(41), 2, 1, 0), answer(ctypes.c_long(41), 40, 1, 0))
print("keyctl", answer(ctypes.c_long(250), 0, -3, 0), "io_uring", answer(ctypes.c_long(425), 1, 0))
print("clone3", answer(ctypes.c_long(435), 0, 0), "future", answer(ctypes.c_long(600)))
print("clone", answer(ctypes.c_long(56), {0x10000000 | signal.SIGCHLD}, 0, 0, 0, 0))
"""


def bundle(words: list[str], capabilities: frozenset[str]) -> dict[str, Any]:
    """A bundle config that runs the host's own programs, bound read-only."""
    held = sorted(capabilities)
    places = dict.fromkeys(each for each in PLACES if os.path.isdir(each))
    binds = [{"destination": p, "type": "bind", "source": p, "options": ["rbind", "ro"]} for p in places]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "args": words,
            "env": ["PATH=/bin:/usr/bin"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), held),
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            *binds,
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
            "seccomp": profile(capabilities, platform.machine()),
        },
    }


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Runs words in a container to their end: (exit code, standard output, standard error)."""
    assert CRUN is not None, "crun is part of the set-up"

    def go(*words: str, capabilities: frozenset[str] = CAPABILITIES) -> tuple[int, str, str]:
        (tmp_path / "rootfs").mkdir()
        (tmp_path / "config.json").write_text(json.dumps(bundle(list(words), capabilities)))
        command = [CRUN, f"--root={tmp_path}/state", "--cgroup-manager=disabled", "run", "-b", str(tmp_path)]
        name = f"t-{uuid.uuid4().hex[:8]}"
        private = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", DETOUR, "sh"]
        ended = subprocess.run(
            [*private, *command, name], capture_output=True, text=True, timeout=30, check=False
        )
        return ended.returncode, ended.stdout, ended.stderr

    return go


def test_shell_and_its_tools_run(run: Any) -> None:
    script = 'for each in 1 2 3; do echo "$each"; done | wc -l; ls /proc/self >/dev/null; sleep 0.01; id -u'
    assert run("/bin/sh", "-ec", script) == (0, "3\n0\n", "")


@pytest.mark.parametrize("words", ["unshare -U true", "unshare -m true", "mount -t tmpfs x /usr"])
def test_ways_out_are_not_permitted(run: Any, words: str) -> None:
    code, _, said = run(*words.split(), capabilities=CAPABILITIES)
    assert code != 0
    assert re.match(rf"{words.split(maxsplit=1)[0]}: .*(Operation not permitted|permission denied)", said)


def test_capability_opens_them(run: Any) -> None:
    script = "unshare -U true && mount -t tmpfs x /proc && echo done"
    assert run("/bin/sh", "-ec", script, capabilities=CAPABILITIES | {"CAP_SYS_ADMIN"}) == (0, "done\n", "")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the probe has the call numbers of x86_64")
def test_each_answer_as_a_program_sees_it(run: Any) -> None:
    code, told, said = run(os.path.realpath(sys.executable), "-c", PROBE)
    assert (code, said) == (0, "")
    assert sorted(told.splitlines()) == [
        "child 0",
        "clone EPERM",
        "clone3 ENOSYS future ENOSYS",
        "keyctl EPERM io_uring EPERM",
        "socket 0 EAFNOSUPPORT",
        "thread",
    ]
