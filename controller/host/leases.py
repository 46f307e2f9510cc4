"""The file of address leases, in /var/lib: written before anything that uses it, and kept across restarts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.host import kept
from controller.model.addresses import parse_address
from controller.model.attachment import LAST_SLOT, Lease, Leases


class LeaseFile:
    """`{network: {container: {addresses, slot}}}`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def load(self) -> Leases:
        """A damaged file is never taken for an empty one: addresses would change under running containers."""
        return kept.load(self._path, _leases)

    def save(self, leases: Leases) -> None:
        value = {
            network: {name: {"addresses": each.addresses, "slot": each.slot} for name, each in found.items()}
            for network, found in leases.items()
        }
        kept.save(self._path, value)


def _leases(value: Mapping[str, Any]) -> Leases:
    return {network: {name: _lease(each) for name, each in found.items()} for network, found in value.items()}


def _lease(value: Mapping[str, Any]) -> Lease:
    found = Lease(tuple(str(parse_address(each)) for each in value["addresses"]), int(value["slot"]))
    if not 0 <= found.slot <= LAST_SLOT:
        raise ValueError(f"slot {found.slot}")
    return found
