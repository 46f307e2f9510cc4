"""The packet filter: one instance's own tables, and nobody else's.

A ruleset that was applied is listed at once and that listing is kept: nft prints rules in its own words, which
differ between its versions, so it is the measure for what is listed later. Sources: nft(8), libnftables-json(5).
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple
from typing import Any, Final

from controller.errors import NOT_UNDERSTOOD, HostLacks, MasuError, NotPermitted, NotReadBack, StepFailed
from controller.host import command, nfnetlink
from controller.host.listing import Form, difference, form_of, from_json, objects_of, structure, to_json
from controller.host.nfnetlink import Committed, Touched
from controller.host.nft_json import Command
from controller.host.ruleset import clearance, commands
from controller.host.ruleset_bridge import Abilities, Scope, allowance_of
from controller.host.text import read_text, remove_file, write_atomic
from controller.model.firewall import Firewall, Publication
from controller.model.process import CANNOT_RUN, TIMED_OUT

NFT: Final = "nft"
PATIENCE_S: Final = 10.0
NEVER_APPLIED: Final = "the ruleset is not known to be masu's present one"
_PROCESSES_REMEMBERED: Final = 8


class NftablesFirewall:
    """Thread-safe. `scope`: the tables' name and the instance's names of links; `baseline`: a file in /run.

    `others`: tells of other instances' tables (instance, its tables' name, its baseline).

    Every method works in the network namespace of the calling thread. All raise NotPermitted unless run by root.
    """

    def __init__(
        self, scope: Scope, baseline: str, others: Callable[[], Iterable[tuple[str, str, str]]] = tuple
    ) -> None:
        self._scope, self._path, self._others = scope, baseline, others
        self._lock = threading.RLock()
        self._listed: tuple[int, Form] | None = None
        self._verified: tuple[int, Firewall] | None = None
        self._published: frozenset[Publication] | None = None
        self._abilities: Abilities | None = None
        self._processes: deque[int] = deque(maxlen=_PROCESSES_REMEMBERED)
        self._touched = False

    def generation(self) -> int | None:
        """Read-only, and cheap: a number that changes with every change of any table. None: no nftables here."""
        return nfnetlink.generation()

    def present(self) -> bool:
        """Read-only. Whether a table of ours is there."""
        return bool(nfnetlink.families_of(self._scope.table))

    def state(self, firewall: Firewall) -> str | None:
        """Read-only. Empty: the tables are exactly what was asked for; else what differs, in words; None: none
        was ever made.

        No process runs where no table of the host has changed since that was found. Raises StepFailed, HostLacks.
        """
        with self._lock:
            generation = nfnetlink.generation()
            if generation is None:
                return None
            if self._verified == (generation, firewall):
                return ""
            live = self._list()
            if not live:
                return "missing" if read_text(self._path) is not None else None
            found = self._compare(self._commands(firewall), live)
            if not found:
                self._verify(firewall)
            return found

    def apply(self, firewall: Firewall) -> None:
        """Make the tables what is asked for, at once or not at all; counters that stay keep their values.

        Raises HostLacks, StepFailed with nft's own words, NotReadBack.
        """
        with self._lock:
            if nfnetlink.generation() is None:
                raise HostLacks("this kernel has no nftables (nf_tables)")
            self._verified = None
            wanted = self._commands(firewall)
            self._change([*clearance(wanted, objects_of(self._list())), *wanted])
            live = self._list()
            found = difference(_structure(wanted), structure(live))
            if found:
                raise NotReadBack(f"nftables, table {self._scope.table}: {found}")
            published = [astuple(each) for each in firewall.publications]
            text = json.dumps({"digest": _digest(wanted), "listing": to_json(live), "published": published})
            write_atomic(self._path, text, durable=False)
            self._verify(firewall)
            self._published = None

    def published(self) -> frozenset[Publication]:
        """Read-only. The ports that were published last, while the table is there."""
        with self._lock:
            if not self.present():
                return frozenset()
            if self._published is None:
                self._published = _read_published(self._path)
            return self._published

    def published_by_others(self) -> Mapping[str, frozenset[Publication]]:
        """Read-only. The same of other instances whose tables are in this network namespace."""
        return {
            instance: found
            for instance, table, path in self._others()
            if (found := _read_published(path)) and nfnetlink.families_of(table)
        }

    def remove(self) -> None:
        """Delete our tables; that they are gone already is fine. Raises StepFailed, HostLacks."""
        with self._lock:
            self._verified = self._listed = self._published = None
            remove_file(self._path)
            for family in nfnetlink.families_of(self._scope.table):
                deletion = {"delete": {"table": {"family": family, "name": self._scope.table}}}
                finished = self._run([deletion])
                if finished.status and family in nfnetlink.families_of(self._scope.table):
                    raise _refusal(finished)

    def counters(self) -> Mapping[str, tuple[int, int]]:
        """Read-only. Allowance → (packets, bytes) that opened connections by it. Within a network that denies them
        otherwise, every datagram counts where bridged frames do not pass the inet tables.
        """
        found: dict[str, tuple[int, int]] = {}
        for one in self._ask("counters table"):
            body = one.get("counter", {})
            name = allowance_of(body.get("name", ""))
            if name is not None:
                packets, octets = found.get(name, (0, 0))
                found[name] = packets + body["packets"], octets + body["bytes"]
        return found

    def subscribe(self) -> int:
        """A descriptor that is readable when something in this host's tables has changed; see `drain`."""
        return nfnetlink.subscribe()

    def drain(self, descriptor: int) -> bool:
        """Read what waits there. Whether somebody else than this object has changed something in our tables, or
        may have: some of it was lost."""
        found = False
        try:
            for event in nfnetlink.read_events(descriptor):
                if isinstance(event, Touched):
                    ours = event.table == self._scope.table and event.family in nfnetlink.FAMILIES.values()
                    self._touched |= ours
                elif isinstance(event, Committed):
                    found |= self._touched and event.pid not in self._processes
                    self._touched = False
        except OSError:
            self._touched = False
            return True
        return found

    def _commands(self, firewall: Firewall) -> list[Command]:
        return commands(firewall, self._scope, self._abilities_for(firewall))

    def _list(self) -> Form:
        """What is there; remembered for as long as nothing changes."""
        generation = nfnetlink.generation()
        if generation is not None and self._listed is not None and self._listed[0] == generation:
            return self._listed[1]
        live = form_of(self._ask("table"))
        same = generation is not None and nfnetlink.generation() == generation
        self._listed = (generation, live) if generation is not None and same else None
        return live

    def _verify(self, firewall: Firewall) -> None:
        """It was found to be so in the generation that was listed."""
        self._verified = (self._listed[0], firewall) if self._listed else None

    def _ask(self, what: str) -> list[Mapping[str, Any]]:
        """One process for each family: nft 1.0.6 finds only the last of two."""
        return [
            each for family in nfnetlink.families_of(self._scope.table) for each in self._ask_of(what, family)
        ]

    def _ask_of(self, what: str, family: str) -> list[Mapping[str, Any]]:
        words = [NFT, "-j", "-n", "list", *what.split(), family, self._scope.table]
        finished = command.converse(words, PATIENCE_S, "", self._processes.append)
        if finished.status:
            if family not in nfnetlink.families_of(self._scope.table):
                return []
            raise _refusal(finished)
        try:
            answer: list[Mapping[str, Any]] = json.loads(finished.output)["nftables"]
        except NOT_UNDERSTOOD as error:
            raise StepFailed(f"nft answers what is not to be understood ({error})") from error
        return answer

    def _compare(self, wanted: list[Command], live: Form) -> str:
        expected = _structure(wanted)
        found = difference(expected, structure(live))
        if found:
            return found
        baseline = self._baseline(_digest(wanted), expected)
        return NEVER_APPLIED if baseline is None else difference(baseline, live)

    def _baseline(self, digest: str, expected: Form) -> Form | None:
        """What was listed right after the same was applied, by whichever process; another file counts for none."""
        try:
            kept = json.loads(read_text(self._path) or "{}")
            if kept.get("digest") != digest:
                return None
            form = from_json(kept["listing"])
            return None if difference(expected, structure(form)) else form
        except NOT_UNDERSTOOD:
            return None

    def _abilities_for(self, firewall: Firewall) -> Abilities:
        """Asked of the kernel once, and only where a bridge table is needed."""
        if all(each.within == "allow" for each in firewall.bridges):
            return Abilities()
        if self._abilities is None:
            names, handover = (
                self._takes(_probe(self._scope.table, "bridge", "forward", _is("meta", key, value)))
                for key, value in (("ibrname", "probe"), ("rtclassid", 1))
            )
            self._abilities = Abilities(names=names, handover=handover)
        return self._abilities

    def _change(self, changes: list[Command]) -> None:
        finished = self._run(changes)
        if finished.status:
            refusal = _refusal(finished)
            lacking = self._lacking() if isinstance(refusal, StepFailed) else ""
            raise HostLacks(f"this kernel cannot {lacking}") if lacking else refusal

    def lacks(self, firewall: Firewall) -> str:
        """Read-only. Why this host cannot have these rules; empty when it can."""
        try:
            if nfnetlink.generation() is None:
                return "this kernel has no nftables (nf_tables)"
            finished = self._run(self._commands(firewall), "-c")
            if not finished.status:
                return ""
            return f"this kernel cannot {self._lacking()}" if self._lacking() else str(_refusal(finished))
        except MasuError as error:
            return str(error)

    def _lacking(self) -> str:
        """The first thing that any ruleset of ours needs and this kernel refuses; empty for none."""
        needs = _needs(self._scope.table)
        return next((words for words, wanted in needs if not self._takes(wanted)), "")

    def _takes(self, wanted: list[Command]) -> bool:
        """Read-only: whether the kernel would take that; it is not done."""
        finished = self._run(wanted, "-c")
        if finished.status in {CANNOT_RUN, TIMED_OUT}:
            raise _refusal(finished)
        return not finished.status

    def _run(self, changes: list[Command], *options: str) -> command.Finished:
        said = json.dumps({"nftables": changes})
        return command.converse([NFT, "-j", *options, "-f", "-"], PATIENCE_S, said, self._processes.append)


def _read_published(path: str) -> frozenset[Publication]:
    try:
        kept = json.loads(read_text(path) or "{}")
        return frozenset(Publication(*each) for each in kept.get("published", ()))
    except NOT_UNDERSTOOD:
        return frozenset()


def _structure(wanted: list[Command]) -> Form:
    return structure(form_of(each["add"] for each in wanted))


def _digest(wanted: list[Command]) -> str:
    return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()


def _refusal(finished: command.Finished) -> MasuError:
    """nft's complaint in one line, without the excerpts of what it complains about."""
    if finished.status == CANNOT_RUN:
        return HostLacks("nft is not installed (package nftables)")
    if finished.status == TIMED_OUT:
        return StepFailed(f"nft: no answer in {PATIENCE_S:g} s")
    lines = finished.errors.splitlines()
    said = dict.fromkeys(line.partition("Error: ")[2].strip() for line in lines if "Error: " in line)
    message = "; ".join(said) or next((line for line in lines if line), f"exit status {finished.status}")
    if "JSON support not compiled" in message:
        return HostLacks("this nft was built without JSON")
    if "Operation not permitted" in message:
        return NotPermitted(f"nft: {message}; masu must run as root")
    return StepFailed(f"nft: {message}")


def _needs(table: str) -> Iterator[tuple[str, list[Command]]]:
    local = {"match": {"op": "==", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}}
    yield "have inet tables (nf_tables_inet)", _probe(table, "inet", "forward", {"accept": None})
    yield (
        "track connections (nf_conntrack)",
        _probe(table, "inet", "forward", _is("ct", "state", "established")),
    )
    yield "do NAT (nf_nat)", _probe(table, "inet", "postrouting", {"accept": None}, sort="nat")
    yield "masquerade (nft_masq)", _probe(table, "inet", "postrouting", {"masquerade": None}, sort="nat")
    yield "tell its own addresses (nft_fib_inet)", _probe(table, "inet", "prerouting", local)


def _probe(
    table: str, family: str, hook: str, expression: Mapping[str, Any], sort: str = "filter"
) -> list[Command]:
    where = {"family": family, "table": table}
    base = {"type": sort, "hook": hook, "prio": 0, "policy": "accept"}
    return [
        {"add": {"table": {"family": family, "name": table}}},
        {"add": {"chain": {**where, "name": "probe", **base}}},
        {"add": {"rule": {**where, "chain": "probe", "expr": [expression]}}},
    ]


def _is(subject: str, key: str, value: str | int) -> Mapping[str, Any]:
    return {
        "match": {"op": "in" if subject == "ct" else "==", "left": {subject: {"key": key}}, "right": value}
    }
