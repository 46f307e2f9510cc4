"""names: /etc/hosts, /etc/hostname and /etc/resolv.conf of a container, kept current while it runs.

Sources: hosts(5), hostname(5), resolv.conf(5). They are bound into the container by the aspect `mounts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.attachment import Names as Wanted
from controller.model.facts import Facts
from controller.steps._base import Effect, Step
from controller.steps.mounts import UnmountInside
from controller.steps.names import ForgetNames, WriteNames


@dataclass(frozen=True, slots=True)
class Seen:
    """`files`: what is there; `resolvers`: the host's own configuration; `shown`: those that a container sees which
    is to see them no longer."""

    files: Mapping[str, str | None]
    resolvers: tuple[str, ...] = ()
    shown: frozenset[str] = frozenset()


NONE = Wanted("", ())


class Names:
    name = "names"
    section = "names"
    keys: Mapping[str, Effect] = {"hosts": Effect.LIVE, "resolver": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> Wanted:
        """Pure. `section`: resolved by `controller.reconcile.topology`."""
        del facts
        wanted: Wanted = section or NONE
        return wanted

    def birth(self, desired: Wanted) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Wanted | None) -> Seen:
        """Read-only."""
        files = host.names.files(subject.name)
        if desired == NONE and subject.pid and any(text is not None for text in files.values()):
            sources = {f"/etc/{file}": host.names.path(subject.name, file) for file in files}
            live = host.inside.mounts(subject.pid, sources)
            return Seen(files, shown=frozenset(target for target, each in (live or {}).items() if each.shows))
        follows = desired is not None and desired != NONE and desired.resolver is None
        return Seen(files, host.names.resolvers() if follows else ())

    def diff(self, subject: Subject, desired: Wanted, observed: Seen) -> list[Step]:
        """Pure."""
        if desired == NONE:
            hidden: list[Step] = [
                UnmountInside(
                    subject.name, subject.init, {"destination": each}, "generated", "the image's own"
                )
                for each in sorted(observed.shown)
            ]
            return hidden or _forget(subject, observed)
        wanted = {
            "hosts": "".join(desired.hosts),
            "hostname": desired.hostname + "\n",
            "resolv.conf": _resolver(desired.resolver, observed.resolvers),
        }
        return [
            WriteNames(subject.name, file, text, "missing" if observed.files[file] is None else "outdated")
            for file, text in wanted.items()
            if observed.files[file] != text
        ]

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure. Not before the last process has ended."""
        return [] if subject.pid else _forget(subject, observed)


def _forget(subject: Subject, observed: Seen) -> list[Step]:
    there = any(text is not None for text in observed.files.values())
    return [ForgetNames(subject.name)] if there else []


def _resolver(written: Mapping[str, tuple[str, ...]] | None, texts: Iterable[str]) -> str:
    if written is not None:
        lines = [f"nameserver {each}" for each in written.get("servers", ())]
        lines += [f"{key} {' '.join(written[key])}" for key in ("search", "options") if written.get(key)]
        return "".join(f"{line}\n" for line in lines)
    for text in texts:
        lines = [line.strip() for line in text.splitlines() if line.strip() and line.strip()[0] not in "#;"]
        kept = [line for line in lines if not _is_on_loopback(line)]
        if any(line.split()[0] == "nameserver" for line in kept):
            return "".join(f"{line}\n" for line in kept)
    return "# no name server of this host can be reached from a container: write spec.resolver\n"


def _is_on_loopback(line: str) -> bool:
    """Such a server is not there inside."""
    word, *rest = line.split()
    try:
        return word == "nameserver" and ip_address("".join(rest).partition("%")[0]).is_loopback
    except ValueError:
        return True
