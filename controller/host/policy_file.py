"""The policy file of the host: read when it has changed, and only if it can be nobody's but root's."""

from __future__ import annotations

import os
from collections.abc import Callable

from controller.errors import NotPermitted
from controller.host.text import failed
from controller.host.trust import distrust, doubtful
from controller.model.host_policy import HostPolicy, Paths

LARGEST = 1 << 20

Parse = Callable[[bytes, str, Paths], HostPolicy]
Identity = tuple[int, ...]


class PolicyFile:
    """`needed`: somebody has named it, so that it has to be there; the usual one may be missing."""

    def __init__(self, path: str, parse: Parse, *, needed: bool) -> None:
        self.path = os.path.abspath(path)
        self._parse, self._needed = parse, needed
        self._identity: Identity = ()
        self._policy: HostPolicy | None = None

    def read(self) -> HostPolicy | None:
        """None: there is none, and never was. Raises NotPermitted, StepFailed and SpecInvalid.

        One that was there once and is gone is an error, too: silence permits nothing.
        """
        try:
            why = distrust(self.path)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            if self._needed or self._policy:
                raise failed(error, "reading the policy of this host,", self.path) from error
            return None
        except OSError as error:
            raise failed(error, "reading the policy of this host,", self.path) from error
        try:
            found = os.fstat(descriptor)
            why = why or doubtful(found)
            if why:
                raise NotPermitted(
                    f"the policy of this host, {self.path}, is not root's alone: {why};"
                    " whoever may write it could allow himself anything"
                )
            return self._read(descriptor, found)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, found: os.stat_result) -> HostPolicy:
        identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if self._policy is None or identity != self._identity:
            self._policy = self._parse(os.pread(descriptor, LARGEST, 0), self.path, self)
            self._identity = identity
        return self._policy

    def real(self, path: str) -> str:
        """Read-only. Where the symbolic links of a path lead, as far as it is there."""
        return os.path.realpath(path)

    def loose(self, top: str, path: str) -> str:
        """Read-only. Why others than root may exchange what is at `path`, below `top`; "": nobody may."""
        above = path
        while above not in {top, "/"}:
            above = os.path.dirname(above)
            try:
                why = doubtful(os.stat(above))
            except OSError:
                continue  # nothing is there to be exchanged
            if why:
                return f"{above} {why}: whoever it is could exchange what is below"
        return ""
