"""The driver of `Devices`: what the host knows of links that it gave to containers, in /run, out of their reach."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from controller.errors import NOT_UNDERSTOOD
from controller.host.text import read_text, remove_file, write_atomic
from controller.model.links import Device


class DeviceFiles:
    """`<directory>/<container>.json`: mark → what the link was like."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def lent(self, container: str) -> Mapping[str, Device]:
        """A damaged file tells of none: what stays inside is given back by the kernel, where that can."""
        try:
            kept = json.loads(read_text(self._path(container)) or "{}")
            return {mark: Device(str(each["mac"]), int(each["mtu"])) for mark, each in kept.items()}
        except NOT_UNDERSTOOD:
            return {}

    def lend(self, container: str, mark: str, device: Device) -> None:
        self._save(container, {**self.lent(container), mark: device})

    def take_back(self, container: str, mark: str) -> None:
        self._save(container, {key: each for key, each in self.lent(container).items() if key != mark})

    def forget(self, container: str) -> None:
        remove_file(self._path(container))

    def _save(self, container: str, lent: Mapping[str, Device]) -> None:
        if lent:
            text = json.dumps({mark: asdict(each) for mark, each in lent.items()})
            write_atomic(self._path(container), text, durable=False)
        else:
            self.forget(container)

    def _path(self, container: str) -> str:
        return f"{self._directory}/{container}.json"
