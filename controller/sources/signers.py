"""Whether a file names signers as ssh-keygen(1) has it under ALLOWED SIGNERS. Pure."""

from __future__ import annotations

import base64
import re

WRITE = "write me@example.org ssh-ed25519 AAAA…"
_KEY = re.compile(r"(?:^|\s)((?:sk-)?(?:ssh|ecdsa)-[a-z0-9-]+(?:@openssh\.com)?)\s+(\S+)")


def unfit(text: bytes) -> str:
    """What is wrong with it, in words; "": nothing."""
    count = 0
    for number, line in enumerate(text.decode("utf-8", "replace").split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        why = _wrong(line.strip())
        if why:
            return f"line {number} {why}: {WRITE}"
        count += 1
    return "" if count else f"names nobody: {WRITE}"


def _wrong(line: str) -> str:
    found = _KEY.search(line)
    if found is None:
        return "holds no public key of ssh"
    if found.start() == 0:
        return "names no principal"
    try:
        key = base64.b64decode(found[2], validate=True)
    except ValueError:
        key = b""
    kind = found[1].encode()
    return "" if key.startswith(len(kind).to_bytes(4, "big") + kind) else "holds a key that is not whole"
