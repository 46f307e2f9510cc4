"""Which volumes a container mounts, as its spec says it. Pure."""

from __future__ import annotations

from controller.model.resource import Resource


def volumes_of(container: Resource) -> tuple[str, ...]:
    """Names, each once, in the order written."""
    entries = container.section("mounts") or ()
    return tuple(dict.fromkeys(each["volume"] for each in entries if "volume" in each))
