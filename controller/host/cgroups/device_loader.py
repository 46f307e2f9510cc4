"""Loads the programs of the device rules, and tells them from others that bear their names."""

from __future__ import annotations

import functools
import hashlib
import os
from typing import Final

from controller.host.cgroups import bpf
from controller.host.cgroups.device_program import program, program_name
from controller.host.cgroups.locked_memory import LockedMemory
from controller.model.device import Rules

_TAG: Final = 8
_HASHES: Final = (hashlib.sha256, hashlib.sha1)
"""Of the instructions, the second before Linux 6.18: kernel/bpf/core.c, bpf_prog_calc_tag."""
_KNOWN: Final = 256
"""Sets of rules: as many as there are kinds of containers."""


class Loader:
    """Every method may be called from any thread, and raises OSError."""

    def __init__(self) -> None:
        self._memory = LockedMemory()
        self._known = functools.lru_cache(_KNOWN)(self._learned)

    def load(self, rules: Rules) -> int:
        """A descriptor, the caller's to close."""
        try:
            return bpf.load(program(rules), program_name(rules))
        except PermissionError:
            with self._memory.unlimited():
                return bpf.load(program(rules), program_name(rules))

    def is_of(self, found: bpf.Identity, rules: Rules) -> bool:
        """Whether that is a program of these rules. A hash that is none of those known is compared with that of one
        that is loaded for it, once.
        """
        if found.name != program_name(rules):
            return False
        instructions = program(rules)
        return any(found.tag == hash_(instructions).digest()[:_TAG] for hash_ in _HASHES) or (
            found == self._known(rules)
        )

    def _learned(self, rules: Rules) -> bpf.Identity:
        loaded = self.load(rules)
        try:
            return bpf.identity_of(loaded)
        finally:
            os.close(loaded)
