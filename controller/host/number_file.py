"""Numbers of the host that are leased to things of any instance: one locked file of JSON for all instances."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from typing import Any

from controller.errors import StepFailed
from controller.host.text import open_for_writing, read_text, write_atomic


class NumberFile:
    """`{holder: number}`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def of(self, holder: str) -> int | None:
        found = self._read().get(holder)
        return found if isinstance(found, int) else None

    def lease(self, holder: str, choose: Callable[[list[int]], int | None]) -> int:
        """The holder's number, for ever the same until it is released. `choose`: one of what is not taken."""

        def change(leases: dict[str, Any]) -> None:
            if holder not in leases:
                chosen = choose(list(leases.values()))
                if chosen is None:
                    raise StepFailed(f"no number is left, see {self.path}", path=self.path)
                leases[holder] = chosen

        return int(self._change(change)[holder])

    def release(self, holder: str) -> None:
        if self.of(holder) is not None:
            self._change(lambda leases: leases.pop(holder, None))

    def _change(self, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Several instances share the host's numbers, so the file is locked while it changes."""
        lock = open_for_writing(self.path + ".lock", 0, 0o711)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            leases = self._read()
            before = dict(leases)
            change(leases)
            if leases != before:
                write_atomic(self.path, json.dumps(leases, indent=1), durable=True)
            return leases
        finally:
            os.close(lock)

    def _read(self) -> dict[str, Any]:
        """A damaged file is never taken for an empty one: two would then share one number."""
        try:
            value = json.loads(read_text(self.path) or "{}")
        except (ValueError, RecursionError) as error:
            raise StepFailed(
                f"{self.path} is damaged ({error}): restore or remove it", path=self.path
            ) from error
        return value if isinstance(value, dict) else {}
