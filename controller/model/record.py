"""What masu remembers of a container it started: enough to find it again after any crash. Pure values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from controller.frozen import as_dict, dataclass
from controller.model.health import Verdict
from controller.model.launch import Init

Phase = Literal["launching", "running", "stopping", "exited"]
UNHEALTHY = "Unhealthy"
"""Why a run has ended that masu ended because something is wrong with it: a failure, whatever its exit code."""


def exit_status(code: int, signal: int) -> int:
    """Pure. The exit code, or 128 and the signal's number, as shells say it."""
    return 128 + signal if signal else code


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container's init ended; `at` in milliseconds since boot; -1: nobody could know the code."""

    code: int
    signal: int
    reason: str
    at: int

    @property
    def failed(self) -> bool:
        return self.code != 0 or self.signal != 0 or self.reason == UNHEALTHY


@dataclass(frozen=True, slots=True)
class StopRule:
    """Signal number sent first, and milliseconds until SIGKILL."""

    signal: int = 15
    grace_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class Record:
    """One container's volatile memory, kept in `/run`; times in milliseconds since boot.

    `exit` is how the run of `pid` ended, `last_exit` how the run before it did; `missing_at` is when the process
    was first seen to be gone, `kill_at` when a stop turns into SIGKILL,
    `restored` is the checkpoint that this run goes on from, `tries` how often in a row that was done after a crash,
    `lineage` the run that it is of, from its first start on, through all restores,
    `image` is the digest of the image that it was born from, empty without one,
    `asked` whether the stop signal was sent, `start_at` when it may start again,
    `intent` is what it is stopped for, `failure` the same where that counts as a crash,
    `health` is what its health check has last come to.
    A live process is this container's only if pid, start time (field 22 of /proc/PID/stat) and boot id match.
    """

    name: str
    digest: str
    frame: str
    phase: Phase
    boot_id: str
    pid: int = 0
    start_time: int = 0
    launched_at: int = 0
    missing_at: int = 0
    kill_at: int = 0
    asked: bool = False
    intent: str = ""
    failure: str = ""
    restarts: int = 0
    backoff: int = 0
    start_at: int = 0
    oom_kills: int = 0
    restored: str = ""
    tries: int = 0
    lineage: str = ""
    image: str = ""
    health: Verdict | None = None
    stop: StopRule = StopRule()
    exit: Exit | None = None
    last_exit: Exit | None = None

    def in_boot(self, boot_id: str) -> Record:
        """What is still true in this boot: where /run outlives a reboot, its processes and times do not."""
        if self.boot_id == boot_id:
            return self
        return Record(self.name, self.digest, self.frame, "exited", boot_id, stop=self.stop)

    def to_json(self) -> dict[str, Any]:
        return as_dict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Record:
        """Raises KeyError or TypeError for anything `to_json` did not write."""
        known = {key: value[key] for key in cls.__dataclass_fields__ if key in value}
        record = cls(**known)
        stop = StopRule(**value["stop"]) if isinstance(value.get("stop"), dict) else StopRule()
        record = replace(record, exit=_exit(value, "exit"), last_exit=_exit(value, "last_exit"))
        return replace(record, stop=stop, health=_verdict(value))


def _exit(value: dict[str, Any], key: str) -> Exit | None:
    return Exit(**value[key]) if value.get(key) else None


def _verdict(value: dict[str, Any]) -> Verdict | None:
    found = value.get("health")
    return Verdict(found["reason"], found["message"], Init(**found["prober"])) if found else None
