"""Secrets that stand in a spec, sealed with age for this host (age-encryption.org/v1)."""

from __future__ import annotations

from typing import Any

from controller.errors import HostLacks, StepFailed
from controller.host.packages import needed

_NOTE = b"#"
"""age-keygen(1) writes the public key and the date above the secret one."""


def unseal(text: str, keys: bytes) -> bytes:
    """What is in it. `keys`: a file of `age-keygen`, or an OpenSSH private key without a passphrase.

    Raises StepFailed, which says neither, and HostLacks.
    """
    try:
        import pyrage  # noqa: PLC0415 - an extra, for whoever has such secrets
    except ImportError as error:
        raise HostLacks(needed("sealed secrets", "pyrage")) from error
    try:
        return bytes(pyrage.decrypt(f"{text.rstrip()}\n".encode(), _identities(pyrage, keys)))
    except pyrage.IdentityError as error:
        raise StepFailed(f"the key of sealed secrets is none that age knows: {error}") from error
    except pyrage.DecryptError as error:
        raise StepFailed(f"a sealed secret cannot be opened with the key of this host: {error}") from error


def _identities(pyrage: Any, keys: bytes) -> list[Any]:
    if keys.startswith(b"-----BEGIN"):
        return [pyrage.ssh.Identity.from_buffer(keys)]
    lines = (each.strip() for each in keys.splitlines())
    written = [each.decode("ascii", "replace") for each in lines if each and not each.startswith(_NOTE)]
    return [pyrage.x25519.Identity.from_str(each) for each in written]
