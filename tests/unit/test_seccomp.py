"""What the default system call filter says, read as a runtime reads it."""

from __future__ import annotations

from typing import Any

import pytest

from controller.aspects._seccomp import profile

NOTHING = frozenset[str]()
ENOSYS = ("SCMP_ACT_ERRNO", 38)
EPERM = ("SCMP_ACT_ERRNO", 1)
ALLOW = ("SCMP_ACT_ALLOW", None)


def holds(condition: dict[str, Any], argument: int) -> bool:
    match condition["op"]:
        case "SCMP_CMP_EQ":
            return argument == condition["value"]
        case "SCMP_CMP_NE":
            return argument != condition["value"]
        case "SCMP_CMP_MASKED_EQ":
            return argument & condition["value"] == condition["valueTwo"]
    raise AssertionError(condition)


def verdicts(seccomp: dict[str, Any], call: str, argument: int = 0) -> set[tuple[str, int | None]]:
    """Every answer that some rule gives to a call with this first argument."""
    found = {
        (rule["action"], rule.get("errnoRet"))
        for rule in seccomp["syscalls"]
        if call in rule["names"] and all(holds(each, argument) for each in rule.get("args", ()))
    }
    return found or {(seccomp["defaultAction"], seccomp["defaultErrnoRet"])}


@pytest.mark.parametrize("call", ["read", "execve", "clone", "openat2", "rseq", "statx", "ptrace"])
def test_ordinary_calls_are_allowed(call: str) -> None:
    assert verdicts(profile(NOTHING), call) == {ALLOW}


@pytest.mark.parametrize("call", ["keyctl", "io_uring_setup", "kexec_load", "userfaultfd"])
def test_some_calls_are_refused_with_any_capability(call: str) -> None:
    assert verdicts(profile(frozenset({"CAP_SYS_ADMIN", "CAP_SYS_BOOT"})), call) == {EPERM}


@pytest.mark.parametrize("call", ["clone3", "a_call_of_the_future"])
def test_unknown_calls_look_unimplemented(call: str) -> None:
    assert verdicts(profile(NOTHING), call) == {ENOSYS}


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "unshare"),
        ("CAP_SYS_ADMIN", "setns"),
        ("CAP_SYS_ADMIN", "bpf"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_SYS_PTRACE", "pidfd_getfd"),
        ("CAP_SYS_MODULE", "init_module"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYS_CHROOT", "chroot"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ],
)
def test_capability_opens_its_calls(capability: str, call: str) -> None:
    assert verdicts(profile(NOTHING), call) == {EPERM}
    assert verdicts(profile(frozenset({capability})), call) == {ALLOW}


@pytest.mark.parametrize("bit", [1 << shift for shift in (17, 25, 26, 27, 28, 29, 30)])
def test_clone_makes_no_namespace(bit: int) -> None:
    assert verdicts(profile(NOTHING), "clone", bit | 0x11) == {EPERM}
    assert verdicts(profile(frozenset({"CAP_SYS_ADMIN"})), "clone", bit | 0x11) == {ALLOW}


def test_arguments_of_socket_and_personality() -> None:
    seccomp = profile(NOTHING)
    assert [verdicts(seccomp, "socket", family) for family in (1, 2, 10, 16, 41)] == [{ALLOW}] * 5
    assert verdicts(seccomp, "socket", 40) == {("SCMP_ACT_ERRNO", 97)}
    assert verdicts(seccomp, "personality", 0xFFFFFFFF) == {ALLOW}
    assert verdicts(seccomp, "personality", 0x0040000) == {ENOSYS}


@pytest.mark.parametrize("capabilities", [NOTHING, frozenset({"CAP_SYS_ADMIN"})])
def test_every_call_is_named_once(capabilities: frozenset[str]) -> None:
    """Two unconditional answers to one call would leave the choice to the runtime."""
    plain = [rule["names"] for rule in profile(capabilities)["syscalls"] if "args" not in rule]
    filtered = {
        name for rule in profile(capabilities)["syscalls"] if "args" in rule for name in rule["names"]
    }
    names = [name for rule in plain for name in rule]
    assert len(names) == len(set(names))
    assert not filtered & set(names)


def test_architectures_follow_the_machine() -> None:
    x86 = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    arm = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert profile(NOTHING, "x86_64")["architectures"] == x86
    assert profile(NOTHING, "aarch64")["architectures"] == arm
    assert profile(NOTHING)["architectures"] == x86 + arm


def test_filter_is_deterministic() -> None:
    assert profile(frozenset({"CAP_BPF", "CAP_SYSLOG"})) == profile(frozenset({"CAP_SYSLOG", "CAP_BPF"}))
