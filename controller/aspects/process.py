"""process: what runs, as whom, and with which rights. Fixed at exec; a change needs a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.aspects._bundle import MASKED_PATHS, READONLY_PATHS, without_defaults
from controller.aspects._seccomp import profile
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.model.secret import SECRET, secret_in
from controller.steps._base import Effect, Step

DEFAULT_CAPABILITIES = frozenset(
    {
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    }
)
"""What servers need to bind low ports and drop to a user; no raw sockets, no device nodes."""

ALL = "CAP_ALL"
ALL_CAPABILITIES = frozenset(
    "CAP_" + name
    for name in (
        *(
            "AUDIT_CONTROL",
            "AUDIT_READ",
            "AUDIT_WRITE",
            "BLOCK_SUSPEND",
            "BPF",
            "CHECKPOINT_RESTORE",
            "CHOWN",
        ),
        *("DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE"),
        *("LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE"),
        *(
            "NET_BROADCAST",
            "NET_RAW",
            "PERFMON",
            "SETFCAP",
            "SETGID",
            "SETPCAP",
            "SETUID",
            "SYSLOG",
            "SYS_ADMIN",
        ),
        *("SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO"),
        *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM"),
    )
)
"""capabilities(7), as of Linux 5.9."""

UNWRITTEN: Mapping[str, Any] = {
    "user": [0, 0],
    "capabilities": {},
    "cwd": "/",
    "env": {},
    "rlimits": {},
    "noNewPrivileges": True,
    "seccomp": "default",
    "maskedPaths": "default",
}
"""What says no more than leaving it out."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Process:
    name = "process"
    section = "process"
    keys: Mapping[str, Effect] = {
        f"process.{key}": Effect.RESTART
        for key in (
            "args",
            "env",
            "cwd",
            "user",
            "rlimits",
            "capabilities",
            "noNewPrivileges",
            "seccomp",
            "maskedPaths",
        )
    }

    def parse(self, section: Any, facts: Facts) -> Mapping[str, Any]:
        """Pure. The section with every default filled in; `stop` belongs to the container's life."""
        return {
            "args": [str(each) for each in section["args"]],
            "env": {"PATH": PATH, **{key: _variable(value) for key, value in section.get("env", {}).items()}},
            "cwd": section.get("cwd", "/"),
            "user": _ids(section),
            "rlimits": [_rlimit(name, value) for name, value in sorted(section.get("rlimits", {}).items())],
            "capabilities": sorted(_capabilities(section.get("capabilities", {}))),
            "noNewPrivileges": section.get("noNewPrivileges", True),
            "seccomp": section.get("seccomp", "default"),
            "maskedPaths": section.get("maskedPaths", "default"),
            "machine": facts.machine,
            "written": _written(section),
        }

    def birth(self, desired: Mapping[str, Any]) -> Birth:
        """Pure."""
        capabilities = list(desired["capabilities"])
        process = {
            "terminal": False,
            "args": desired["args"],
            "env": [_assignment(key, value) for key, value in desired["env"].items()],
            "cwd": desired["cwd"],
            "user": {"uid": desired["user"][0], "gid": desired["user"][1]},
            "noNewPrivileges": desired["noNewPrivileges"],
            "rlimits": desired["rlimits"],
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        }
        return Birth(Effect.RESTART, desired["written"], {"process": process, "linux": _confinement(desired)})

    def observe(self, subject: Subject, host: Host, desired: Any) -> None:
        """Read-only. Whether it runs is the concern of `life`."""

    def diff(self, subject: Subject, desired: Any, observed: None) -> list[Step]:
        """Pure."""
        return []

    def remove(self, subject: Subject, observed: None) -> list[Step]:
        """Pure."""
        return []


def _variable(value: Any) -> Any:
    """A secret is a hole in the bundle config, which is filled when it is written."""
    return {SECRET: secret_in(value)} if isinstance(value, Mapping) else str(value)


def _assignment(key: str, value: Any) -> Any:
    return {"name": key, **value} if isinstance(value, Mapping) else f"{key}={value}"


def _ids(section: Mapping[str, Any]) -> list[int]:
    user, _, group = str(section.get("user", "0")).partition(":")
    return [int(user), int(group or user)]


def _written(section: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a process another one; `stop` does not, and what is left out is up to the version."""
    sides = section.get("capabilities", {}).items()
    rights = {side: sorted({_capability(each) for each in names}) for side, names in sides if names}
    plain = {key: value for key, value in section.items() if key not in {"stop", "capabilities"}}
    return without_defaults({**plain, "user": _ids(section), "capabilities": rights}, UNWRITTEN)


def _rlimit(name: str, value: Any) -> dict[str, Any]:
    soft, hard = (value["soft"], value["hard"]) if isinstance(value, Mapping) else (value, value)
    kind = "RLIMIT_" + name.upper().removeprefix("RLIMIT_")
    return {"type": kind, "soft": _ceiling(soft), "hard": _ceiling(hard)}


def _ceiling(value: Any) -> int:
    return 2**64 - 1 if value in {"unlimited", "max"} else int(value)


def _capabilities(section: Mapping[str, Any]) -> frozenset[str]:
    dropped = {_capability(each) for each in section.get("drop", ())}
    added = {_capability(each) for each in section.get("add", ())}
    kept = frozenset() if ALL in dropped else DEFAULT_CAPABILITIES - dropped
    return ALL_CAPABILITIES - dropped if ALL in added else kept | added


def _capability(name: str) -> str:
    return "CAP_" + name.upper().removeprefix("CAP_")


def _confinement(desired: Mapping[str, Any]) -> dict[str, Any]:
    confined: dict[str, Any] = {}
    if desired["seccomp"] == "default":
        confined["seccomp"] = profile(frozenset(desired["capabilities"]), desired["machine"])
    if desired["maskedPaths"] == "default":
        confined["maskedPaths"] = list(MASKED_PATHS)
        confined["readonlyPaths"] = list(READONLY_PATHS)
    return confined
