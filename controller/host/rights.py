"""What masu itself may do: a container that it runs in may have taken something away. Source: capabilities(7)."""

from __future__ import annotations

from typing import Final

from controller.host.text import read_text

SYS_RESOURCE: Final = 24
GET_SYS_RESOURCE: Final = (
    "masu lacks CAP_SYS_RESOURCE, also as root: the container, VM or systemd unit that it runs in must not drop it"
    " (docker and podman: --cap-add SYS_RESOURCE)"
)
"""What to do about that, in words."""


def may(capability: int) -> bool:
    """Read-only. Whether this process has the capability now."""
    lines = (read_text("/proc/self/status") or "").splitlines()
    held = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) >> capability & 1)
