"""The Secrets port: files that only root may read, shown to containers from memory.

Nothing of a secret is kept here: it is read whenever it is asked for. `<run>/secrets/<container>` is a tmpfs of its
own, with a directory for each directory inside; only the container's root may pass through to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Collection, Mapping
from typing import Final

from controller.errors import NOT_UNDERSTOOD, MasuError, StepFailed
from controller.host import syscalls
from controller.host.new_mount import NO_SWAP, attach, tmpfs
from controller.host.places import Places
from controller.host.text import failed, make_directories, read_text, remove_tree, write_all
from controller.host.trust import distrust
from controller.model.secret import SEALED, SecretFile

LARGEST: Final = 1 << 20
LARGEST_VARIABLE: Final = 128 << 10
"""MAX_ARG_STRLEN: execve(2)."""
_ROOM: Final = 64 * LARGEST * 2


class SecretFiles:
    """`source`: the directory of the host's secrets. `identity`: the file of the key for those that are sealed."""

    def __init__(self, places: Places, source: str, identity: str) -> None:
        self._places, self._source, self._identity = places, source, identity

    def lacks(self, secret: str, *, variable: bool) -> str:
        """Read-only. Why it cannot be had, in words; "": it can."""
        try:
            text = self._read(secret)
            if variable:
                _as_variable(text)
        except MasuError as error:
            return str(error)
        return ""

    def given(self, container: str, variables: Mapping[str, str]) -> frozenset[str]:
        """Read-only. Of variable → secret: those that the container was started with as they are now, or of which
        nothing is known now."""
        try:
            config = json.loads(read_text(f"{self._places.bundles}/{container}/config.json") or "")
            started = dict(each.partition("=")[::2] for each in config["process"]["env"])
        except NOT_UNDERSTOOD:
            return frozenset(variables)
        found = set()
        for name, secret in variables.items():
            try:
                same = started.get(name) == self.variable(secret)
            except MasuError:
                same = True
            if same:
                found.add(name)
        return frozenset(found)

    def shown(self, container: str, files: Collection[SecretFile]) -> frozenset[str] | None:
        """Read-only. Targets of those that are as they are to be; None: nothing at all is there."""
        base = self._base(container)
        if not os.path.lexists(base):
            return None
        return frozenset(each.target for each in files if os.path.ismount(base) and self._is(base, each))

    def put(self, container: str, files: Collection[SecretFile], owner: int) -> None:
        """Each at once: whoever reads sees the old one or the new one. `owner`: who is root inside."""
        base = self._base(container)
        try:
            self._mount(base, owner)
            for each in files:
                _replace(f"{base}/{each.directory}", each, self._read(each.secret))
            for directory in os.listdir(base):
                kept = {each.name for each in files if each.directory == directory}
                for name in set(os.listdir(f"{base}/{directory}")) - kept:
                    os.unlink(f"{base}/{directory}/{name}")
        except OSError as error:
            raise failed(error, "putting secrets into", base) from error

    def remove(self, container: str) -> None:
        base = self._base(container)
        try:
            while os.path.ismount(base):
                syscalls.detach_mount(base)
        except OSError as error:
            raise failed(error, "removing", base) from error
        remove_tree(base)
        with contextlib.suppress(OSError):
            os.rmdir(self._places.secrets)

    def variable(self, secret: str) -> str:
        """Read-only. Without the newline that editors put at the end. Raises StepFailed, HostLacks."""
        return _as_variable(self._read(secret))

    def _read(self, secret: str) -> bytes:
        """Raises StepFailed, which never says what is in it, and HostLacks."""
        if not secret.startswith(SEALED):
            return of_root(f"secret {secret}", f"{self._source}/{secret}")
        from controller.host.sealed import unseal  # noqa: PLC0415 - for whoever has one

        return unseal(secret, identity_in(self._identity, " to seal it for anew"))

    def _is(self, base: str, wanted: SecretFile) -> bool:
        path = f"{base}/{wanted.directory}/{wanted.name}"
        try:
            found = os.lstat(path)
            with open(path, "rb") as file:
                same = file.read() == self._read(wanted.secret)
        except MasuError:
            return True  # nobody knows what it is to be now: what is there stays
        except OSError:
            return False
        return (
            same
            and stat.S_IMODE(found.st_mode) == wanted.mode
            and (found.st_uid, found.st_gid) == wanted.owner
        )

    def _mount(self, base: str, owner: int) -> None:
        if not os.path.ismount(base):
            make_directories(self._places.secrets, 0o711)
            remove_tree(base)
            os.mkdir(base, 0o700)
            tree = tmpfs("masu-secrets", _ROOM, ((NO_SWAP,),))
            try:
                attach(tree, base)
            finally:
                os.close(tree)
        os.chown(base, owner, owner)  # its users may be others than the last time

    def _base(self, container: str) -> str:
        return f"{self._places.secrets}/{container}"


def identity_in(path: str, otherwise: str) -> bytes:
    """The key of sealed secrets. `otherwise`: what to say beside how to make one. Raises StepFailed."""
    if not os.path.lexists(path):
        raise StepFailed(f"there is no key {path}: masu seal --public-key makes one{otherwise}", path=path)
    return of_root("the key of sealed secrets", path)


def of_root(title: str, path: str) -> bytes:
    """Of a file that nobody else may read, or have written. Raises StepFailed."""
    try:
        why = distrust(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise failed(error, f"reading {title}", path) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            why = why or f"{path} is not a regular file"
        elif found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = stat.S_IMODE(found.st_mode)
            why = why or f"{path} may be read by others than root (mode {mode:04o})"
        elif found.st_size > LARGEST:
            why = why or f"{path} is larger than {LARGEST >> 20} MiB"
        if why:
            raise StepFailed(f"{title}: {why}", path=path)
        return os.pread(descriptor, LARGEST, 0)
    finally:
        os.close(descriptor)


def _as_variable(text: bytes) -> str:
    """Raises StepFailed."""
    try:
        found = text.removesuffix(b"\n").decode()
    except UnicodeDecodeError:
        raise StepFailed("it is not text, as the value of a variable has to be: use files") from None
    if "\0" in found or len(text) > LARGEST_VARIABLE:
        raise StepFailed("it is too large for a variable, or holds a NUL: use files")
    return found


def _replace(directory: str, wanted: SecretFile, text: bytes) -> None:
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o755)
    new = f"{directory}/.{wanted.name[:200]}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        write_all(descriptor, text)
        os.fchown(descriptor, *wanted.owner)
        os.fchmod(descriptor, wanted.mode)
    finally:
        os.close(descriptor)
    os.rename(new, f"{directory}/{wanted.name}")
