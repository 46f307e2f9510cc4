"""Secrets that stand in a spec, sealed with age for this host (age-encryption.org/v1)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

from controller.errors import HostLacks, StepFailed
from controller.host.packages import needed
from controller.host.text import failed, make_directories, sync_directory

_NOTE = b"#"
"""age-keygen(1) writes the public key and the date above the secret one."""
_OPENSSH = b"-----BEGIN"
_LONGEST = 1 << 14
"""Characters of a public key."""


def unseal(text: str, keys: bytes) -> bytes:
    """What is in it. `keys`: a file of `age-keygen`, or an OpenSSH private key without a passphrase.

    Raises StepFailed, which says neither, and HostLacks.
    """
    pyrage = _pyrage()
    try:
        return bytes(pyrage.decrypt(f"{text.rstrip()}\n".encode(), _identities(pyrage, keys)))
    except pyrage.IdentityError as error:
        raise StepFailed(f"the key of sealed secrets is none that age knows: {error}") from error
    except pyrage.DecryptError as error:
        raise StepFailed(f"a sealed secret cannot be opened with the key of this host: {error}") from error


def seal(content: bytes, recipients: Sequence[str]) -> str:
    """As text, for every one of them: `age1…`, or a public key of OpenSSH. Raises StepFailed, HostLacks."""
    pyrage = _pyrage()
    found = [_recipient(pyrage, each.strip(), number) for number, each in enumerate(recipients, 1)]
    try:
        return bytes(pyrage.encrypt(content, found, armored=True)).decode("ascii")
    except pyrage.EncryptError as error:
        raise StepFailed(f"cannot be sealed: {error}") from error


def public_keys(path: str, keys: bytes) -> tuple[str, ...]:
    """Of the keys that are in a file; of an OpenSSH one it is in `PATH.pub`. Raises StepFailed, HostLacks."""
    pyrage = _pyrage()
    if keys.startswith(_OPENSSH):
        return (_public_of_openssh(path, keys),)
    try:
        found = tuple(str(each.to_public()) for each in _identities(pyrage, keys))
    except pyrage.IdentityError as error:
        raise StepFailed(f"{path}: the key of sealed secrets is none that age knows: {error}") from error
    if not found:
        raise StepFailed(f"{path}: there is no key in it", path=path)
    return found


def make_key(path: str) -> None:
    """A new one, root's alone, on disk; never in the place of another. Raises StepFailed, HostLacks."""
    identity = _pyrage().x25519.Identity.generate()
    text = f"# public key: {identity.to_public()}\n{identity}\n"
    directory = os.path.dirname(path)
    make_directories(directory, 0o755)
    try:
        with tempfile.NamedTemporaryFile("w", dir=directory, encoding="ascii") as file:  # 0600
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.link(file.name, path)
        sync_directory(directory)
    except OSError as error:
        raise failed(error, "making the key of sealed secrets", path) from error


def _public_of_openssh(path: str, keys: bytes) -> str:
    """The file beside it may be anybody's: that it is the other half is tried."""
    public = f"{path}.pub"
    try:
        with open(public, encoding="utf-8") as file:
            found = file.read(_LONGEST).strip()
    except (OSError, ValueError) as error:
        raise StepFailed(f"reading {public}: {error}", path=public) from error
    if unseal(seal(b"probe", [found]), keys) != b"probe":
        raise StepFailed(f"{public} is not the public key of {path}", path=public)
    return found


def _pyrage() -> Any:
    """Raises HostLacks."""
    try:
        import pyrage  # noqa: PLC0415 - an extra, for whoever has such secrets
    except ImportError as error:
        raise HostLacks(needed("sealed secrets", "pyrage")) from error
    return pyrage


def _identities(pyrage: Any, keys: bytes) -> list[Any]:
    if keys.startswith(_OPENSSH):
        return [pyrage.ssh.Identity.from_buffer(keys)]
    lines = (each.strip() for each in keys.splitlines())
    written = [each.decode("ascii", "replace") for each in lines if each and not each.startswith(_NOTE)]
    return [pyrage.x25519.Identity.from_str(each) for each in written]


def _recipient(pyrage: Any, text: str, number: int) -> Any:
    """It is not said again: somebody may have taken the secret half for the public one."""
    kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
    try:
        return kind.Recipient.from_str(text)
    except (pyrage.RecipientError, UnicodeError) as error:
        raise StepFailed(
            f"key {number} is none that age can seal for: it begins with age1, or is an ssh-… line of OpenSSH"
        ) from error
