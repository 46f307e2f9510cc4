"""masu's own configuration: what the command line and the environment say. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Settings:
    """`resync_s` is the safety net below the nudges; `fail_at` is a failpoint, `<step kind>:<n>`, for tests."""

    instance: str = "default"
    verbose: bool = False
    log_format: Literal["json", "console"] = "console"
    runtime: str = "auto"
    allow_removals: bool = False
    workers: int = 4
    resync_s: float = 30.0
    fail_at: str = ""
    run_root: str = "/run/masu"
    state_root: str = "/var/lib/masu"


def failpoint(environment: Mapping[str, str]) -> str:
    """MASU_FAIL_AT=<step kind>:<n> ends the process with SIGKILL before the n-th step of that kind."""
    return environment.get("MASU_FAIL_AT", "")
