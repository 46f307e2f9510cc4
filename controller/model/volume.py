"""Which volumes a container mounts and as whom it writes there, as its spec says it. Pure."""

from __future__ import annotations

from controller.model.resource import Resource


def volumes_of(container: Resource) -> tuple[str, ...]:
    """Names, each once, in the order written."""
    entries = container.section("mounts") or ()
    return tuple(dict.fromkeys(each["volume"] for each in entries if "volume" in each))


def written_by(container: Resource) -> tuple[str, ...]:
    """Those that it mounts writable, by name, each once, in the order written."""
    entries = container.section("mounts") or ()
    return tuple(
        dict.fromkeys(each["volume"] for each in entries if "volume" in each and not each.get("readOnly"))
    )


def writes_as_host(container: Resource, volume: str) -> bool:
    """Whether it may write to the volume, and is in the host's own user namespace."""
    return volume in written_by(container) and is_host_user(container)


def is_host_user(container: Resource) -> bool:
    return bool((container.section("namespaces") or {}).get("user", "host") == "host")
