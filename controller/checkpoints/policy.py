"""The `checkpoint:` section of a spec as one frozen value. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from controller.checkpoints.paths import is_id
from controller.checkpoints.retention import DEFAULT_LAST, Keep
from controller.frozen import dataclass
from controller.model.names import quote
from controller.model.quantity import parse_bytes, parse_duration

if TYPE_CHECKING:
    from controller.checkpoints.schedule import Schedule

DEFAULT_MIN_FREE = 256 << 20
SHORTEST_MS = 1000


@dataclass(frozen=True, slots=True)
class Volumes:
    """By name, of those that a container mounts writable: `taken` along with a checkpoint, and back with a restore;
    `left` as they are; of these, others mount the `shared` ones, too."""

    taken: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """`never`: this container's memory must not be written anywhere; everything else is then as by default.

    `schedule`: None when nothing is scheduled; by hand it can be done all the same, but then nothing is restored by
    itself unless the spec says so: nobody knows how old the last one is. `key_file`: "" for no key. `stopped`: the
    spec says that it shall not run.
    """

    never: bool = False
    schedule: Schedule | None = None
    keep: Keep = Keep()
    pins: frozenset[str] = frozenset()
    min_free: int = DEFAULT_MIN_FREE
    on_failure: Literal["restore", "restart"] = "restart"
    on_reboot: Literal["restore", "start"] = "start"
    on_shutdown: Literal["checkpoint", "leave"] = "leave"
    tcp: Literal["established", "close"] = "established"
    mode: Literal["keep-running", "stop"] = "keep-running"
    key_file: str = ""
    volumes: Volumes = Volumes()
    stopped: bool = False

    @property
    def restores(self) -> bool:
        """Whether masu restores it by itself, for any reason."""
        return "restore" in {self.on_failure, self.on_reboot}


def parse(section: Mapping[str, Any]) -> Policy:
    """Of a section that fits its schema. Raises ValueError for what the schema cannot say."""
    if section.get("never"):
        return Policy(never=True)
    default = Policy()
    schedule = _schedule(section.get("schedule"))
    return Policy(
        schedule=schedule,
        keep=_keep(section.get("keep")),
        pins=frozenset(section.get("pins", ())),
        min_free=parse_bytes(section["minFree"]) if "minFree" in section else default.min_free,
        on_failure=section.get("onFailure", "restore" if schedule else default.on_failure),
        on_reboot=section.get("onReboot", "restore" if schedule else default.on_reboot),
        on_shutdown=section.get("onShutdown", default.on_shutdown),
        tcp=section.get("tcp", default.tcp),
        mode=section.get("mode", default.mode),
        key_file=section.get("encryption", {}).get("keyFile", ""),
        volumes=_volumes(section.get("volumes", "private"), **section.get("mounted", {})),
        stopped=section.get("stopped", False),
    )


def _volumes(written: str | Sequence[str], own: Sequence[str] = (), shared: Sequence[str] = ()) -> Volumes:
    """`own`: names of those that the container alone mounts."""
    wanted = {"private": own, "none": ()}.get(written, written) if isinstance(written, str) else written
    taken = tuple(each for each in own if each in wanted)
    return Volumes(taken, tuple(each for each in (*own, *shared) if each not in taken), tuple(shared))


def check_id(text: str) -> str:
    """A checkpoint's id, unchanged. Raises ValueError."""
    if not is_id(text):
        raise ValueError(f"{quote(text)} is not a checkpoint: see `masu checkpoints` for their ids")
    return text


def _schedule(value: Mapping[str, Any] | None) -> Schedule | None:
    if value is None:
        return None
    from controller.checkpoints.schedule import Schedule, parse_cron, parse_window  # noqa: PLC0415 - for whoever has one

    every = parse_duration(value["every"]) if "every" in value else 0
    if "every" in value and every < SHORTEST_MS:
        raise ValueError(f"{quote(str(value['every']))} is too short: a second at least")
    jitter = parse_duration(value.get("jitter", 0))
    if every and jitter >= every:
        raise ValueError("jitter has to be shorter than every")
    quiet = parse_window(value["quiet"]) if "quiet" in value else None
    return Schedule(every, parse_cron(value["cron"]) if "cron" in value else "", jitter, quiet)


def _keep(value: Mapping[str, Any] | None) -> Keep:
    """Without a rule, the last three; a rule that is not written is not added to those that are."""
    rules = value or {}
    counts = {name: rules[name] for name in ("last", "hourly", "daily") if name in rules}
    most = parse_bytes(rules["bytes"]) if "bytes" in rules else 0
    return Keep(**{"last": 0 if counts else DEFAULT_LAST, **counts, "bytes": most})
