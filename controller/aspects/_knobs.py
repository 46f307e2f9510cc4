"""Limits that are cgroup files: one table per aspect, one way to observe and diff all of them.

A knob is written as text and compared as text, word by word, in the form in which the kernel reads it back.
Of a file that holds many values, such as one for each disk, a knob is one: its `cell`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.errors import HostLacks
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.keyed import Cell
from controller.model.status import HOST_LACKS, Condition
from controller.steps._base import Effect, Step
from controller.steps.cgroups import SetKnob

UNLIMITED = float("inf")


@dataclass(frozen=True, slots=True)
class Knob:
    """One desired cgroup file, or one cell of it: `value` is written, `accepted` is read back.

    `in_use` names a file in the same directory that says how much is used now: a knob that goes below it
    is refused by the guard unless `forced`. Of two that are tied, the kernel keeps the one with the greater
    `order` above the other (v1: memsw above memory), so it shrinks last and grows first.
    """

    key: str
    subsystem: str
    file: str
    value: str
    accepted: str
    in_use: str = ""
    forced: bool = False
    order: int = 0
    cell: Cell | None = None
    below: str = ""
    """A file in the same directory that nobody has written, and that the kernel lets this one not exceed."""

    def read(self, live: Live) -> str | None:
        """Pure. Its own part of what was observed; None: the file is not there."""
        text = live.get((self.subsystem, self.file))
        return self.cell.find(text) if self.cell and text is not None else text


@dataclass(frozen=True, slots=True)
class Lack:
    """A key that cannot be done here; the others of its section are, all the same."""

    key: str
    message: str


Desired = tuple[Knob | Lack, ...]


def each_alone(
    keys: Iterable[str], make: Callable[[str], Iterable[Knob]], reach: Callable[[str], str]
) -> Desired:
    """Pure. What `make` makes of each key, or that this host lacks it. `reach`: the name of the key, whole."""
    found: list[Knob | Lack] = []
    for key in keys:
        try:
            found.extend(make(key))
        except HostLacks as lack:
            found.append(Lack(reach(key), str(lack)))
    return tuple(found)


Live = Mapping[tuple[str, str], str | None]


def observe(subject: Subject, host: Host, knobs: Iterable[Knob]) -> Live:
    """Read-only. The live text of every file of owned knobs, and of the usage files where a guard needs them."""
    live: dict[tuple[str, str], str | None] = {}
    for knob in knobs:
        if (knob.subsystem, knob.file) not in live:
            text = host.cgroups.read(subject.group, knob.subsystem, knob.file)
            live[knob.subsystem, knob.file] = text
        read = knob.read(live)
        if read is not None and not _same(read, knob.accepted):
            for file in filter(None, (knob.in_use, knob.below)):
                live[knob.subsystem, file] = host.cgroups.read(subject.group, knob.subsystem, file)
    return live


def diff(subject: Subject, knobs: Iterable[Knob], live: Live) -> list[Step]:
    """Pure. One SetKnob per differing knob: shrinking partners inner first, growing ones outer first.

    Where there is no group yet all are unlimited, so they shrink.
    """
    steps = [_set(subject, knob, live) for knob in knobs if not _same(knob.read(live), knob.accepted)]
    order = {knob.key: knob.order for knob in knobs}
    steps.sort(key=lambda step: -order[step.key] if step.direction == "up" else order[step.key])
    return list(steps)


def _set(subject: Subject, knob: Knob, live: Live) -> SetKnob:
    now = knob.read(live)
    return SetKnob(
        container=subject.name,
        group=subject.group,
        key=knob.key,
        subsystem=knob.subsystem,
        file=knob.file,
        value=knob.value,
        accepted=knob.accepted,
        live=now,
        direction=_direction(now, knob.accepted),
        danger=_danger(knob, live),
        cell=knob.cell,
    )


def _same(live: str | None, accepted: str) -> bool:
    return live is not None and live.split() == accepted.split()


def _amount(text: str) -> float | None:
    """The first word as a number; `max` and v1's -1 are unlimited; None for lists such as cpusets."""
    word = text.split(maxsplit=1)[0] if text.split() else ""
    if word in {"max", "-1"}:
        return UNLIMITED
    return float(word) if word.isdigit() else None


def _direction(live: str | None, accepted: str) -> str:
    before = _amount(live) if live is not None else None
    after = _amount(accepted)
    if before is None or after is None or before == after:
        return "same"
    return "down" if after < before else "up"


def _danger(knob: Knob, live: Live) -> str:
    return _too_high(knob, live) or _too_low(knob, live)


def _too_high(knob: Knob, live: Live) -> str:
    ceiling = live.get((knob.subsystem, knob.below)) if knob.below else None
    limit, most = _amount(knob.accepted), _amount(ceiling) if ceiling else None
    if limit is None or most is None or limit <= most:
        return ""
    return f"{knob.key}: {knob.below} is {int(most)}, which no file asks for; write limits.memory.swap"


def _too_low(knob: Knob, live: Live) -> str:
    used = live.get((knob.subsystem, knob.in_use)) if knob.in_use else None
    limit, use = _amount(knob.accepted), _amount(used) if used else None
    if knob.forced or limit is None or use is None or use <= limit:
        return ""
    over = f"{knob.key}: {int(use)} bytes are in use, more than the new limit of {int(limit)}"
    return f"{over}; write force: true if this is meant"


class KnobAspect:
    """An aspect made of knobs: a subclass gives the table, by `parse`."""

    name = ""
    section = ""
    keys: Mapping[str, Effect] = {}

    def birth(self, desired: Desired) -> Birth | None:
        """Pure. Limits are set before the process is born; nothing goes into the bundle."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Desired | None) -> Live:
        """Read-only. Only owned knobs are read."""
        return observe(subject, host, _knobs(desired or ()))

    def diff(self, subject: Subject, desired: Desired, observed: Live) -> list[Step]:
        """Pure. Empty means that every owned knob reads as desired."""
        return diff(subject, _knobs(desired), observed)

    def remarks(self, desired: Desired, observed: Live) -> list[Condition]:
        """Pure. Keys that this host lacks."""
        del observed
        return [
            Condition(HOST_LACKS, status=True, reason=f"No{_camel(each.key)}", message=each.message)
            for each in desired
            if isinstance(each, Lack)
        ]

    def remove(self, subject: Subject, observed: Live) -> list[Step]:
        """Pure. Knobs go with their directory."""
        del subject, observed
        return []


def _knobs(desired: Desired) -> tuple[Knob, ...]:
    return tuple(each for each in desired if isinstance(each, Knob))


def _camel(key: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in key.split("."))


def live_keys(section: str, names: Iterable[str]) -> dict[str, Effect]:
    return {f"{section}.{name}": Effect.LIVE for name in names}


def mapping(section: Any) -> Mapping[str, Any]:
    return section if isinstance(section, Mapping) else {}
