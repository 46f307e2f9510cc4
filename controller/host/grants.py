"""The file of what containers were admitted with, in /run: it says who was first, and ends with the boot."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from controller.errors import NOT_UNDERSTOOD, StepFailed
from controller.host.text import read_text, remove_file, write_atomic
from controller.model.grant import Grant, Grants


class GrantFile:
    """`{boot, grants: {container: {sections, amounts}}}`, whoever was admitted first comes first."""

    def __init__(self, path: str, boot_id: str) -> None:
        self._path, self._boot_id = path, boot_id

    def load(self) -> Grants:
        """A missing or damaged file, or one of another boot, is none: who runs then holds what its spec says."""
        try:
            value = json.loads(read_text(self._path) or "{}")
            if value["boot"] != self._boot_id:
                return {}
            return {name: _grant(each) for name, each in value["grants"].items()}
        except NOT_UNDERSTOOD:
            return {}

    def save(self, grants: Grants) -> None:
        """What cannot be written must not stop anybody: it is written again with the next change."""
        found = {name: {"sections": each.sections, "amounts": each.amounts} for name, each in grants.items()}
        value = {"boot": self._boot_id, "grants": found}
        with contextlib.suppress(StepFailed):
            if grants:
                write_atomic(self._path, json.dumps(value), durable=False)
            else:
                remove_file(self._path)


def _grant(value: Mapping[str, Any]) -> Grant:
    amounts = {key: int(each) for key, each in value["amounts"].items()}
    return Grant(dict(value["sections"]), amounts)
