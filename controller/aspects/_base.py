"""What an aspect is: one kind of live state that masu can observe and converge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, Protocol, TypeVar

from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.facts import Facts
from controller.model.launch import Init
from controller.model.record import Record
from controller.steps._base import Effect, Step

D = TypeVar("D")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is looked at: the name, its cgroup, and its live init (pid 0: none)."""

    name: str
    group: str
    pid: int
    record: Record | None
    now_ms: int

    @property
    def init(self) -> Init:
        return Init(self.pid, self.record.start_time if self.record else 0)


@dataclass(frozen=True, slots=True)
class Birth:
    """What an aspect adds to the container's birth: a part of the OCI bundle config, and how it is mounted.

    `config` is merged into the bundle config (maps deeply, lists appended). `root` describes the root file
    system. `identity` is what was asked for, in canonical JSON: when it changes, `effect` says whether a
    restart or a new container is needed; None means that the aspect changes it live.
    """

    effect: Effect
    identity: Any = None
    config: Mapping[str, Any] = field(default_factory=dict)
    root: Mapping[str, Any] = field(default_factory=dict)


class Aspect(Protocol[D, S]):
    """Pure `parse`, `birth`, `diff` and `remove`; read-only `observe`. Aspects never import aspects.

    One may also have, pure: `verify(desired, observed)` → Drift that no step can mend, and
    `remarks(desired, observed)` → Conditions: HOST_LACKS for what cannot be done here, as far as only a look tells;
    LIMITED for what is done and means less here than elsewhere.
    """

    @property
    def name(self) -> str: ...

    @property
    def section(self) -> str:
        """Dotted path of the section of the spec that this aspect reads."""
        ...

    @property
    def keys(self) -> Mapping[str, Effect]:
        """Each key it owns → what a change of that key means."""
        ...

    def parse(self, section: Any, facts: Facts) -> D | None:
        """Pure. None: nothing is owned. Raises HostLacks where this host cannot do it."""
        ...

    def birth(self, desired: D) -> Birth | None:
        """Pure. What must be so from the first instruction on."""
        ...

    def observe(self, subject: Subject, host: Host, desired: D | None) -> S:
        """Read-only. Looks only at what `desired` owns; absent is an observation."""
        ...

    def diff(self, subject: Subject, desired: D, observed: S) -> Iterable[Step]:
        """Pure. Empty means converged."""
        ...

    def remove(self, subject: Subject, observed: S) -> Iterable[Step]:
        """Pure. What takes this aspect's traces away."""
        ...
