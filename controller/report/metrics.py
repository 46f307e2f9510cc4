"""Status as OpenMetrics text, for node_exporter's textfile collector or whoever scrapes. Pure.

https://prometheus.io/docs/specs/om/open_metrics_spec/: what names, units and labels look like, and the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from controller.model.health import HEALTHY, UNKNOWN
from controller.model.status import READY, ContainerStatus, LastCheckpoint
from controller.report.preview import Overview

Value = float | int | None
Read = Callable[[ContainerStatus], Value]


def _last(read: Callable[[LastCheckpoint], Value]) -> Read:
    return lambda each: read(each.checkpoint) if each.checkpoint else None


def _seconds(microseconds: int | None) -> Value:
    return None if microseconds is None else microseconds / 1_000_000


def _healthy(each: ContainerStatus) -> Value:
    told = (said for said in each.conditions if said.type == HEALTHY and said.reason != UNKNOWN)
    return next((said.status for said in told), None)


CONTAINER: tuple[tuple[str, str, str, str, Read], ...] = (
    ("running", "gauge", "", "Whether its init runs.", lambda each: bool(each.pid)),
    ("converged", "gauge", "", "Whether all is as its spec says.", lambda each: each.converged),
    ("healthy", "gauge", "", "Whether its health check passes.", _healthy),
    ("drifting_keys", "gauge", "", "Keys that differ from the spec.", lambda each: len(each.drift)),
    ("restarts", "counter", "", "How often it was started again.", lambda each: each.restarts),
    ("oom_kills", "counter", "", "Processes ended for want of memory.", lambda each: each.counters.oom_kills),
    ("memory_high", "counter", "", "How often it was above memory.high.", lambda each: each.counters.high),
    (
        "cpu_throttled_seconds",
        "counter",
        "seconds",
        "How long a cpu limit held it back.",
        lambda each: _seconds(each.counters.throttled_us),
    ),
    (
        "layer_size_bytes",
        "gauge",
        "bytes",
        "The size of its writable layer.",
        lambda each: each.disk.size if each.disk else None,
    ),
    (
        "layer_used_bytes",
        "gauge",
        "bytes",
        "What its writable layer holds.",
        lambda each: each.disk.used if each.disk else None,
    ),
    (
        "checkpoint_timestamp_seconds",
        "gauge",
        "seconds",
        "When the newest checkpoint was made.",
        _last(lambda last: last.at / 1000),
    ),
    (
        "checkpoint_frozen_seconds",
        "gauge",
        "seconds",
        "How long it stood still for the newest checkpoint.",
        _last(lambda last: last.frozen_ms / 1000),
    ),
    (
        "checkpoint_size_bytes",
        "gauge",
        "bytes",
        "All of the newest checkpoint.",
        _last(lambda last: last.size),
    ),
    (
        "checkpoint_stored_bytes",
        "gauge",
        "bytes",
        "What the newest checkpoint added to the store.",
        _last(lambda last: last.stored),
    ),
    (
        "checkpoint_failures",
        "counter",
        "",
        "Checkpoints of its schedule that failed.",
        lambda each: each.attempts.failures if each.attempts else None,
    ),
    (
        "checkpoint_success_timestamp_seconds",
        "gauge",
        "seconds",
        "When a checkpoint was made last, and none was imported.",
        lambda each: each.attempts.made_ms / 1000 if each.attempts and each.attempts.made_ms else None,
    ),
    (
        "checkpoint_ready",
        "gauge",
        "",
        "Whether the next scheduled checkpoint would be made.",
        lambda each: each.verdict == READY if each.verdict else None,
    ),
)
"""Name, type, unit, help, and where the value is; None: there is none."""


def metrics(instance: str, found: Overview) -> str:
    lines = list(_families(instance, found))
    return "\n".join((*lines, "# EOF", ""))


def _families(instance: str, found: Overview) -> Iterator[str]:
    where = f'instance="{instance}"'
    yield from _family("daemon", "gauge", "", "Whether masu run is there.", [(where, bool(found.daemon))])
    rejected = len(found.desired.rejected)
    yield from _family("rejected_files", "gauge", "", "Problems in spec files.", [(where, rejected)])
    silent = bool(found.desired.silence)
    yield from _family(
        "source_frozen", "gauge", "", "Whether nothing is heard of the source.", [(where, silent)]
    )
    if found.desired.commit:
        which = f'{where},revision="{found.desired.revision}"'
        taken = [(which, found.desired.since / 1000)]
        help_ = "Since when the revision is in force."
        yield from _family("revision_timestamp_seconds", "gauge", "seconds", help_, taken)
    for name, kind, unit, help_, read in CONTAINER:
        values = [(f'{where},container="{each.name}"', read(each)) for each in found.containers]
        yield from _family(f"container_{name}", kind, unit, help_, values)


def _family(
    name: str, kind: str, unit: str, help_: str, values: Iterable[tuple[str, Value]]
) -> Iterator[str]:
    known = [(labels, value) for labels, value in values if value is not None]
    if not known:
        return
    suffix = "_total" if kind == "counter" else ""
    yield f"# TYPE masu_{name} {kind}"
    if unit:
        yield f"# UNIT masu_{name} {unit}"
    yield f"# HELP masu_{name} {help_}"
    for labels, value in known:
        yield f"masu_{name}{suffix}{{{labels}}} {value if isinstance(value, float) else int(value)}"
