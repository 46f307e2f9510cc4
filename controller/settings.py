"""masu's own configuration: what the command line and the environment say. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from controller.frozen import dataclass

POLICY = "/etc/masu/policy.yaml"
"""Where the policy of a host is, if there is one."""
SECRETS = "/etc/masu/secrets"
"""The directory of the secrets of a host: one file each, root's, which nobody else may read."""
IDENTITY = "/etc/masu/age.key"
"""With what sealed secrets are opened, unless MASU_AGE_IDENTITY names another file."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`resync_s` is the safety net below the nudges; `last_wait_s`: how long the last checkpoints may take when the
    daemon ends; `policy`: the file of the host's policy, if one was named; `unsafe_source`: others than root may
    write it; `identity`: the key of sealed secrets; `fetch_s`: how often a repository is asked; `atomic`: it is
    taken whole or not at all; `node`: the host's name, for `placement`; `signers`, `known_hosts` and `ssh_key`:
    files, "" for none; `fail_at` is a failpoint, `<step kind>:<n>`, for the interruption tests, and `trace_steps` a
    file to which the kind of every applied step is appended."""

    instance: str = "default"
    verbose: bool = False
    log_format: Literal["json", "console"] = "console"
    runtime: str = "auto"
    allow_removals: bool = False
    workers: int = 5
    resync_s: float = 30.0
    last_wait_s: float = 60.0
    policy: str = ""
    unsafe_source: bool = False
    identity: str = IDENTITY
    fetch_s: float = 60.0
    atomic: bool = False
    signers: str = ""
    known_hosts: str = ""
    ssh_key: str = ""
    node: str = ""
    fail_at: str = ""
    trace_steps: str = ""
    run_root: str = "/run/masu"
    state_root: str = "/var/lib/masu"
    log_root: str = "/var/log/masu"


def testing(environment: Mapping[str, str]) -> tuple[str, str]:
    """MASU_FAIL_AT=<step kind>:<n> ends the process with SIGKILL before the n-th step of that kind;

    MASU_TRACE_STEPS=<file> tells which steps there are. → (fail_at, trace_steps)
    """
    return environment.get("MASU_FAIL_AT", ""), environment.get("MASU_TRACE_STEPS", "")
