"""What the CRIU of this host can do: asked once per boot and version, then read from a file.

CRIU itself remembers what it found out about the kernel in a file on /run, if that is a tmpfs, and probes for a
tenth of a second otherwise. There it is given a /run of its own, and its file is kept in masu's directory.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from typing import Any, Final

from controller.errors import HostLacks
from controller.frozen import dataclass
from controller.host import command
from controller.host.departure import FEATURE_CACHE, depart, is_on_tmpfs
from controller.host.facts import find
from controller.host.text import read_text, write_atomic
from controller.model.dump import CriuAbilities

CHECK_TIMEOUT_S: Final = 20.0
_ERROR: Final = re.compile(r"Error \([^)]*\): (.*)")
_HARMLESS: Final = ("RLIMIT_NOFILE", "No parent image found")
"""The latter is said of each process that is younger than a pre-dump."""
_TRACKING: Final = ("mem_dirty_track", "pagemap_scan")
"""Without the latter CRIU takes a huge page of zeros for what was there before."""
_ASKED: Final = 2
"""Raised when something else is asked, so that an upgraded masu asks again."""


@dataclass(frozen=True, slots=True)
class Features:
    """`known_file`: what CRIU can do; `cache_file`: CRIU's own notes. Both are good for one boot."""

    known_file: str
    cache_file: str
    boot_id: str

    def look(self) -> CriuAbilities:
        path = find("criu")
        if path is None:
            return CriuAbilities(said="CRIU is not installed")
        known, key = read_json(self.known_file), self._key(path)
        if known.get("key") == key:
            return CriuAbilities(**known["found"])
        found = self._ask(path)
        write_atomic(self.known_file, json.dumps({"key": key, "found": asdict(found)}), durable=False)
        return found

    def usable(self) -> CriuAbilities:
        """Raises HostLacks."""
        found = self.look()
        if not found.usable:
            raise HostLacks(f"CRIU cannot be used here: {found.said}")
        return found

    def cache(self) -> bytes | None:
        """What CRIU is to find on a /run of its own; None: the real one keeps it."""
        return None if is_on_tmpfs("/run") else read_bytes(self.cache_file)

    def _key(self, path: str) -> str:
        seen = os.stat(path)
        return f"{_ASKED} {self.boot_id} {path} {seen.st_size} {seen.st_mtime_ns}"

    def _ask(self, path: str) -> CriuAbilities:
        hidden = None if is_on_tmpfs("/run") else b""
        try:
            found, known = depart("", hidden, lambda: _try(path))
        except OSError as error:
            return CriuAbilities(path, said=f"{path} cannot be tried: {os.strerror(error.errno or 0)}")
        if hidden is not None:
            write_atomic(self.cache_file, known.decode("utf-8", "surrogateescape"), durable=False)
        return found


def _try(path: str) -> tuple[CriuAbilities, bytes]:
    """Four runs; the first check also writes the file."""
    _, said = command.output([path, "--version"], CHECK_TIMEOUT_S)
    version = next(iter(re.findall(r"Version: (\S+)", said)), "")
    status, said = command.output([path, "check"], CHECK_TIMEOUT_S)
    tracks = all(
        command.output([path, "check", "--feature", each], CHECK_TIMEOUT_S)[0] == 0 for each in _TRACKING
    )
    words = "" if status == 0 else errors_in(said) or said.strip()[-500:]
    return CriuAbilities(path, version, status == 0, tracks, words), read_bytes(FEATURE_CACHE)


def errors_in(text: str) -> str:
    """Pure. The first error that CRIU tells of is the cause; the others follow from it."""
    found = (each for each in _ERROR.findall(text) if not any(word in each for word in _HARMLESS))
    return next(found, "").strip()


def last_error(path: str) -> str:
    """The cause in a log of CRIU's; "" when there is none."""
    return errors_in(read_text(path) or "")


def read_json(path: str) -> dict[str, Any]:
    try:
        value = json.loads(read_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
