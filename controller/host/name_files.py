"""The driver of `NameFiles`: what is generated for /etc of a container, in /run, bound into it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from controller.host.text import failed, make_directories, read_text, remove_tree
from controller.model.attachment import NAME_FILES

_RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
"""The second one is what the first leads to by way of a stub on the loopback address (systemd-resolved(8))."""


class NameFiles:
    """`<directory>/<container>/{hosts,hostname,resolv.conf}`."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def names(self) -> frozenset[str]:
        try:
            return frozenset(os.listdir(self._directory))
        except FileNotFoundError:
            return frozenset()

    def path(self, container: str, file: str) -> str:
        return f"{self._directory}/{container}/{file}"

    def files(self, container: str) -> Mapping[str, str | None]:
        there = os.path.isdir(f"{self._directory}/{container}")
        return {file: read_text(self.path(container, file)) if there else None for file in NAME_FILES}

    def write(self, container: str, file: str, text: str) -> None:
        """In place: a file that is bound into a container stays the same file. Whoever reads meanwhile may see the
        new text with an end of the old one.
        """
        path = self.path(container, file)
        make_directories(f"{self._directory}/{container}", 0o711)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                data = text.encode()
                if os.pwrite(descriptor, data, 0) != len(data):
                    raise OSError(28, os.strerror(28))
                os.ftruncate(descriptor, len(data))
                os.fchmod(descriptor, 0o644)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise failed(error, "writing", path) from error

    def remove(self, container: str) -> None:
        remove_tree(f"{self._directory}/{container}")

    def resolvers(self) -> tuple[str, ...]:
        """The texts of the host's own resolver configuration, as far as there are any."""
        return tuple(text for path in _RESOLVERS if (text := read_text(path)))
