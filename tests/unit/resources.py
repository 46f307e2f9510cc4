"""Resources as they come out of files, in few words."""

from __future__ import annotations

from typing import Any

from controller.model.resource import CONTAINER, GROUP, NETWORK, VOLUME, Resource


def network(name: str, line: int = 1, **spec: Any) -> Resource:
    return Resource(name, "a.yaml", {}, spec, line, kind=NETWORK)


def bridge(name: str = "front", subnet: str = "10.88.0.0/24", line: int = 1, **spec: Any) -> Resource:
    return network(name, line, subnets=[subnet], **spec)


def group(name: str, line: int = 1, **network: Any) -> Resource:
    return Resource(name, "a.yaml", {}, {"network": network}, line, kind=GROUP)


def budgets(name: str, line: int = 1, **sorts: Any) -> Resource:
    """A group that shares more than bandwidth."""
    return Resource(name, "a.yaml", {}, sorts, line, kind=GROUP)


def volume(name: str, line: int = 1, **spec: Any) -> Resource:
    return Resource(name, "a.yaml", {}, spec, line, kind=VOLUME)


def container(name: str, *networks: str | dict[str, Any], line: int = 2, **spec: Any) -> Resource:
    """A word stands for a network and nothing more."""
    written = [{"network": each} if isinstance(each, str) else each for each in networks]
    labels = spec.pop("labels", {})
    return Resource(
        name, "a.yaml", labels, {**({"networks": written} if written else {}), **spec}, line, kind=CONTAINER
    )


def by_key(*resources: Resource) -> dict[str, Resource]:
    return {each.key: each for each in resources}
