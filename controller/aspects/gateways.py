"""gateways: the host's own addresses on a bridge. Others' on the same bridge stay. Source: ip-address(8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.aspects._base import Birth, Subject
from controller.host.ports import Host
from controller.model.attachment import Bridge
from controller.model.facts import Facts
from controller.model.links import AddressSeen, DeleteAddress, NewAddress
from controller.steps._base import Effect, Step
from controller.steps.network import AddAddress, RemoveAddress

KEY = "gateways"


@dataclass(frozen=True, slots=True)
class Seen:
    addresses: tuple[AddressSeen, ...]


class Gateways:
    name = "gateways"
    section = "bridge"
    keys: Mapping[str, Effect] = {"gateways": Effect.LIVE}

    def parse(self, section: Any, facts: Facts) -> Bridge | None:
        """Pure. `section`: resolved by `controller.reconcile.topology`."""
        del facts
        wanted: Bridge | None = section
        return wanted

    def birth(self, desired: Bridge) -> Birth | None:
        """Pure."""
        del desired
        return None

    def observe(self, subject: Subject, host: Host, desired: Bridge | None) -> Seen:
        """Read-only."""
        link = host.links.link("", desired.link) if desired else None
        if link is None:
            return Seen(())
        return Seen(tuple(each for each in host.links.addresses("") if each.index == link.index))

    def diff(self, subject: Subject, desired: Bridge, observed: Seen) -> list[Step]:
        """Pure. New ones come before old ones go."""
        live = {each.address for each in observed.addresses}
        steps: list[Step] = [
            AddAddress(
                subject.name,
                KEY,
                "missing" if live else "absent",
                each,
                (("", NewAddress(desired.link, each)),),
            )
            for each in desired.addresses
            if each not in live
        ]
        steps += [
            RemoveAddress(
                subject.name, KEY, each.address, "none", (("", DeleteAddress(each.index, each.address)),)
            )
            for each in observed.addresses
            if each.ours and each.address not in desired.addresses
        ]
        return steps

    def remove(self, subject: Subject, observed: Seen) -> list[Step]:
        """Pure. They go with the bridge."""
        del subject, observed
        return []
