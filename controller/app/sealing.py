"""`masu seal`: secrets for the key of this host, or of others, as they stand in a spec."""

from __future__ import annotations

import os
from collections.abc import Sequence

from controller.host import sealed, service
from controller.host.secrets import identity_in


def sealed_for(content: bytes, recipients: Sequence[str], key: str) -> str:
    """`key`: the file of this host's, which it is for where nobody is named. Raises StepFailed, HostLacks."""
    return sealed.seal(content, recipients or _public_keys(key))


def public_keys(key: str) -> tuple[str, ...]:
    """Of this host. Where it has none, one is made. Raises StepFailed, HostLacks, NotPermitted."""
    service.require_root()
    if not os.path.lexists(key):
        sealed.make_key(key)
    return _public_keys(key)


def _public_keys(key: str) -> tuple[str, ...]:
    return sealed.public_keys(key, identity_in(key, "; or say --for"))
