"""What this host can do, part by part, and how to fix what it cannot. Read-only."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator

from controller.errors import MasuError
from controller.host import doctor_disks, packages, rights
from controller.host import facts as host_facts
from controller.host.command import output
from controller.host.places import Places
from controller.host.spaces.choice import spaces_in
from controller.host.text import read_text
from controller.model.facts import CORE, USED_SUBSYSTEMS, Facts
from controller.model.finding import Finding, Level
from controller.model.quantity import format_bytes
from controller.model.space import LOOP_IMAGE

SETUP = "run `make run` once as root, which installs it into /opt/masu"
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
MINIMUM_KERNEL = (5, 10)
SERVED_ELSEWHERE = {
    "cpuacct": "part of cpu on cgroup v2",
    "devices": "a BPF program on cgroup v2",
    "freezer": "cgroup.freeze on cgroup v2",
    "blkio": "io on cgroup v2",
    "io": "blkio on cgroup v1",
}


def examine(wanted_runtime: str) -> list[Finding]:
    """Every finding, gravest matters first."""
    facts = host_facts.look(host_facts.runtime(wanted_runtime))
    return [
        *_basics(facts),
        *_cgroups(facts),
        *doctor_disks.findings(facts),
        *_namespaces(),
        *_runtimes(facts),
        _criu(),
        *_tools(),
        _package("encrypted checkpoints", "cryptography"),
        _package("sealed secrets", "pyrage"),
        _device_rules(facts),
        *_networks(),
        *_file_systems(),
    ]


def _basics(facts: Facts) -> Iterator[Finding]:
    if sys.platform != "linux":
        yield Finding("system", "missing", platform.system(), "masu runs on Linux only")
    root = os.geteuid() == 0
    fix = "" if root else "run masu as root"
    yield Finding("user", "ok" if root else "missing", f"uid {os.geteuid()}", fix)
    release = tuple(int(word) for word in facts.kernel.split("-")[0].split(".")[:2])
    recent = release >= MINIMUM_KERNEL
    yield Finding(
        "kernel", "ok" if recent else "limited", facts.kernel, "" if recent else "5.10 or later is tested"
    )
    yield Finding("python", "ok", platform.python_version())


def _cgroups(facts: Facts) -> Iterator[Finding]:
    fix = "mount cgroup2 on /sys/fs/cgroup, or boot with systemd" if facts.layout == "none" else ""
    yield Finding("cgroup layout", "missing" if fix else "ok", facts.layout, fix)
    for subsystem in (CORE, *USED_SUBSYSTEMS):
        yield _subsystem(subsystem, facts)
    fix = "" if facts.swap_limits else "boot with swapaccount=1 (kernels before 6.1), or CONFIG_MEMCG_SWAP=y"
    yield Finding(
        "swap limits", "ok" if facts.swap_limits else "limited", str(facts.swap_limits).lower(), fix
    )
    yield _pressure(facts)
    yield _huge_pages(facts)


def _pressure(facts: Facts) -> Finding:
    """Of what `notify` watches."""
    if not facts.pressure:
        fix = "boot with psi=1, or take a kernel with CONFIG_PSI; without it notify has levels of cgroup v1 alone"
        return Finding("pressure (PSI)", "limited", "not accounted", fix)
    if facts.hierarchy(CORE) is None:
        fix = "mount cgroup2, also beside cgroup v1: pressure of a container is in its files"
        return Finding("pressure (PSI)", "limited", "of the whole host alone", fix)
    if facts.pressure_window_ms > 1:
        fix = f"{rights.GET_SYS_RESOURCE}: without it the kernel looks every two seconds"
        return Finding("pressure (PSI)", "limited", "windows of whole two seconds", fix)
    return Finding("pressure (PSI)", "ok", "windows from 500ms to 10s")


def _huge_pages(facts: Facts) -> Finding:
    sizes = ", ".join(format_bytes(each) for each in sorted(facts.huge_pages))
    fix = "" if sizes else "a kernel with CONFIG_HUGETLBFS"
    return Finding("huge pages", "ok" if sizes else "limited", sizes or "none", fix)


def _subsystem(subsystem: str, facts: Facts) -> Finding:
    found = facts.hierarchy(subsystem)
    name = "cgroup2 core" if subsystem == CORE else f"cgroup {subsystem}"
    if found:
        return Finding(name, "ok", f"v{found.version} at {found.mount}")
    if subsystem in SERVED_ELSEWHERE and facts.layout != "none":
        return Finding(name, "ok", f"not there: {SERVED_ELSEWHERE[subsystem]}")
    return Finding(name, "limited", "not there", "enable it in the kernel, or mount its hierarchy")


def _namespaces() -> Iterator[Finding]:
    absent = [kind for kind in NAMESPACES if not os.path.exists(f"/proc/self/ns/{kind}")]
    found = "all eight kinds" if not absent else f"without {', '.join(absent)}"
    yield Finding(
        "namespaces",
        "limited" if absent else "ok",
        found,
        "a kernel with CONFIG_NAMESPACES" if absent else "",
    )
    limit = (read_text("/proc/sys/user/max_user_namespaces") or "0").strip()
    fix = "" if limit != "0" else "sysctl user.max_user_namespaces=10000"
    yield Finding("user namespaces", "limited" if fix else "ok", f"at most {limit}", fix)


def _runtimes(facts: Facts) -> Iterator[Finding]:
    for name in ("crun", "runc"):
        path = host_facts.find(name)
        found = host_facts.runtime(name) if path else None
        chosen = facts.runtime is not None and facts.runtime.name == name
        if found:
            yield Finding(name, "ok", f"{found.version} at {found.path}" + (", used" if chosen else ""))
        else:
            level: Level = "limited" if facts.runtime else "missing"
            yield Finding(name, level, f"{path} does not run here" if path else "not installed", SETUP)


def _criu() -> Finding:
    path = host_facts.find("criu")
    if path is None:
        return Finding("criu", "limited", "not installed", f"checkpoints need it: {SETUP}")
    code, said = output([path, "check"], timeout_s=20)
    if code == 0 and not rights.may(rights.SYS_RESOURCE):
        fix = (
            f"{rights.GET_SYS_RESOURCE}: else who is not root is dumped with namespaces: {{user: auto}} alone"
        )
        return Finding("criu", "limited", f"{path}: looks good", fix)
    if code == 0:
        return Finding("criu", "ok", f"{path}: looks good")
    last = (said.strip().splitlines() or ["no answer"])[-1]
    return Finding("criu", "limited", f"{path}: {last}", f"a newer criu: {SETUP}")


def _tools() -> Iterator[Finding]:
    for name, package in (
        ("nft", "nftables"),
        ("ip", "iproute2"),
        ("busybox", "busybox-static"),
        ("git", "git"),
        ("skopeo", "skopeo"),
        ("umoci", "umoci"),
    ):
        path = host_facts.find(name)
        yield Finding(
            name,
            "ok" if path else "limited",
            path or "not installed",
            "" if path else f"apt install {package}",
        )


def _package(subject: str, name: str) -> Finding:
    """What only some need of Python, where masu itself is."""
    if packages.present(name):
        return Finding(subject, "ok", f"{name} {packages.version(name)}".rstrip())
    return Finding(subject, "limited", f"the Python package {name} is not there", packages.install(name))


def _device_rules(facts: Facts) -> Finding:
    """On v2 by loading a program that is attached nowhere, and is gone at once."""
    name = "device rules"
    if facts.hierarchy("devices"):
        return Finding(name, "ok", "by the devices subsystem")
    from controller.host.cgroups import device_rules  # noqa: PLC0415  what only the trial needs

    said = device_rules.lacking() if facts.hierarchy(CORE) else "no devices subsystem, and no cgroup2"
    fix = (
        ""
        if not said
        else "a kernel with CONFIG_CGROUP_BPF, and masu as root: containers open what they like"
    )
    return Finding(name, "limited" if said else "ok", said or "by BPF programs on cgroup v2", fix)


def _networks() -> list[Finding]:
    if os.geteuid() != 0:
        return [Finding("networks", "limited", "not tried", "run masu doctor as root")]
    from controller.host import network_abilities  # noqa: PLC0415  what only the trial needs

    try:
        return network_abilities.findings()
    except MasuError as error:
        return [Finding("networks", "limited", str(error), "a kernel with CONFIG_NET_NS and rtnetlink")]


def _file_systems() -> Iterator[Finding]:
    known = {line.split()[-1] for line in (read_text("/proc/filesystems") or "").splitlines()}
    present = "overlay" in known
    fix = "" if present else "modprobe overlay; without it only `writable: direct` and `readOnly` work"
    yield Finding("overlayfs", "ok" if present else "limited", "yes" if present else "not there", fix)
    yield _disk_space()
    for path in ("/run", "/var/lib"):
        writable = os.access(path, os.W_OK)
        yield Finding(
            path,
            "ok" if writable else "missing",
            "writable" if writable else "read-only",
            "" if writable else f"remount {path} read-write",
        )


def _disk_space() -> Finding:
    """How a volume would be kept to its size."""
    offer = spaces_in(Places("default")).offer()
    if offer.lack:
        return Finding("disk space", "limited", "no sized layers and volumes", offer.lack)
    found = f"{offer.mechanism} in {Places('default').state_root}"
    if offer.mechanism == LOOP_IMAGE and not rights.may(rights.SYS_RESOURCE):
        fix = f"{rights.GET_SYS_RESOURCE}: without it a size grows only while nobody uses it"
        return Finding("disk space", "limited", found, fix)
    return Finding("disk space", "ok", found)
