"""What masu's things on the host are called, and the mark that says they are masu's. Pure.

Names of links have 15 characters at most, so they are made of hashes; who they belong to is in the mark.
"""

from __future__ import annotations

import base64
import hashlib

MARK = "masu"
LONGEST_LINK_NAME = 15


def prefix_of(instance: str) -> str:
    """What every link of an instance on the host begins with after its first two letters: five of 32 characters."""
    return _hash("instance", instance)[:5] + "-"


def prefixes(instance: str) -> tuple[str, str]:
    """Of all bridges of an instance, and of all links on them."""
    return "mb" + prefix_of(instance), "mv" + prefix_of(instance)


_DIRECTIONS = ("egress", "ingress")


def table_name(instance: str) -> str:
    """Of nftables."""
    return f"{MARK}_{instance}"


def bridge_name(instance: str, network: str) -> str:
    return prefixes(instance)[0] + _hash(network)[:7]


def veth_name(instance: str, container: str, network: str) -> str:
    return prefixes(instance)[1] + _hash(container, network)[:7]


def funnel_name(instance: str, network: str, direction: str) -> str:
    """Of the ifb through which a network's traffic in one direction goes."""
    return ("mo" if direction == "egress" else "mi") + prefix_of(instance) + _hash(network)[:7]


def network_mark(instance: str, network: str) -> str:
    return f"{MARK}/{instance}/network/{network}"


def funnel_mark(instance: str, network: str, direction: str) -> str:
    return f"{MARK}/{instance}/{direction}/{network}"


def container_mark(instance: str, container: str, network: str, device: str = "") -> str:
    """`device`: what the host calls it, if it is one that moves in."""
    return "/".join((MARK, instance, "container", container, network, *([device] if device else ())))


def device_of_mark(mark: str) -> str:
    """What the host calls the device that has this mark; empty for any other link."""
    parts = mark.split("/", 5)
    return parts[5] if len(parts) == 6 and parts[2] == "container" else ""


def network_of_mark(instance: str, mark: str) -> str:
    """The network whose mark this is, or that of something of it on the host; empty when it is none."""
    prefixes_of_one = (network_mark(instance, ""), *(funnel_mark(instance, "", each) for each in _DIRECTIONS))
    return next((mark.removeprefix(each) for each in prefixes_of_one if mark.startswith(each)), "")


def mac_of(instance: str, *names: str) -> str:
    """Stable, locally administered, of one interface."""
    digest = hashlib.sha256("\0".join(("mac", instance, *names)).encode()).digest()
    return bytes((0x02, *digest[:5])).hex(":")


def _hash(*names: str) -> str:
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return base64.b32encode(digest[:5]).decode().lower()
