"""Looks at the host once and says what it can do. Read-only."""

from __future__ import annotations

import os
import shutil
import subprocess

from controller.host import rights
from controller.host.cgroups import detect
from controller.host.text import read_text
from controller.model.facts import Facts, Runtime
from controller.model.quantity import parse_cpu_list

PREFIX_BIN = "/opt/masu/bin"
"""Where `make run` puts runtimes that work where the distribution's do not."""
VERSION_TIMEOUT_S = 5
UNPRIVILEGED_WINDOW_MS = 2000
"""Documentation/accounting/psi.rst: only multiples of it, without CAP_SYS_RESOURCE."""


def look(runtime: Runtime | None) -> Facts:
    """Every fact but the runtime, which costs a process to ask and is passed in."""
    found, memory = detect.hierarchies(), _meminfo()
    return Facts(
        hierarchies=found,
        page_size=os.sysconf("SC_PAGE_SIZE"),
        cpus=_listed("/sys/devices/system/cpu/online"),
        mems=_listed("/sys/devices/system/node/online"),
        kernel=os.uname().release,
        machine=os.uname().machine,
        boot_id=(read_text("/proc/sys/kernel/random/boot_id") or "").strip(),
        swap_limits=detect.swap_limits(found),
        memory_total=memory.get("MemTotal", 0),
        swap_total=memory.get("SwapTotal", 0),
        tasks_total=_tasks_total(),
        pressure=os.path.exists("/proc/pressure/memory"),
        pressure_window_ms=1 if rights.may(rights.SYS_RESOURCE) else UNPRIVILEGED_WINDOW_MS,
        huge_pages=_huge_pages(),
        named=detect.named(),
        runtime=runtime,
    )


def _listed(path: str) -> frozenset[int]:
    text = (read_text(path) or "0").strip()
    return frozenset(parse_cpu_list(text))


def _meminfo() -> dict[str, int]:
    """Name → bytes (proc_meminfo(5)); lines without a unit are left out."""
    fields = (line.split() for line in (read_text("/proc/meminfo") or "").splitlines())
    return {each[0].rstrip(":"): int(each[1]) * 1024 for each in fields if each[2:] == ["kB"]}


def _tasks_total() -> int:
    """The kernel stops at the lesser of the two (kernel/fork.c; Documentation/admin-guide/sysctl/kernel.rst)."""
    found = (read_text(f"/proc/sys/kernel/{each}") for each in ("pid_max", "threads-max"))
    return min((int(each) for each in found if each), default=0)


def _huge_pages() -> frozenset[int]:
    """Documentation/admin-guide/mm/hugetlbpage.rst."""
    try:
        names = os.listdir("/sys/kernel/mm/hugepages")
    except FileNotFoundError:
        return frozenset()
    return frozenset(int(each.removeprefix("hugepages-").removesuffix("kB")) * 1024 for each in names)


def search_path() -> str:
    return f"{PREFIX_BIN}:{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}"


def find(program: str) -> str | None:
    """The program's path: masu's own prefix first."""
    return shutil.which(program, path=search_path())


def runtime(wanted: str) -> Runtime | None:
    """`auto`, crun or runc → the first that is installed and answers; crun starts twice as fast as runc."""
    for name in ("crun", "runc") if wanted == "auto" else (wanted,):
        path = find(name)
        version = _version(path) if path else ""
        if path and version:
            return Runtime("crun" if name == "crun" else "runc", path, version, joins_itself=name == "runc")
    return None


def _version(path: str) -> str:
    """The first line's last word of `--version`, empty when the program does not run here."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.split("\n")[0].split()[-1] if done.returncode == 0 and done.stdout else ""
