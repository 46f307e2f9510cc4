"""The file of address leases, in /var/lib: written before anything that uses it, and kept across restarts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from controller.errors import NOT_UNDERSTOOD, StepFailed
from controller.host.text import read_text, remove_file, write_atomic
from controller.model.addresses import parse_address
from controller.model.attachment import LAST_SLOT, Lease, Leases


class LeaseFile:
    """`{network: {container: {addresses, slot}}}`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def load(self) -> Leases:
        """A damaged file is never taken for an empty one: addresses would change under running containers."""
        text = read_text(self._path)
        try:
            value = json.loads(text or "{}")
            return {
                network: {name: _lease(each) for name, each in found.items()}
                for network, found in value.items()
            }
        except NOT_UNDERSTOOD as error:
            message = f"{self._path} is damaged ({error}): restore or remove it"
            raise StepFailed(message, path=self._path) from error

    def save(self, leases: Leases) -> None:
        if not leases:
            remove_file(self._path)
            return
        value = {
            network: {name: {"addresses": each.addresses, "slot": each.slot} for name, each in found.items()}
            for network, found in leases.items()
        }
        write_atomic(self._path, json.dumps(value, indent=1), durable=True, directory_mode=0o711)


def _lease(value: Mapping[str, Any]) -> Lease:
    found = Lease(tuple(str(parse_address(each)) for each in value["addresses"]), int(value["slot"]))
    if not 0 <= found.slot <= LAST_SLOT:
        raise ValueError(f"slot {found.slot}")
    return found
