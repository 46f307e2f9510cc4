"""Resources as they come out of files, in few words."""

from __future__ import annotations

from typing import Any

import yaml

from controller.errors import SpecInvalid
from controller.model.resource import CONTAINER, GROUP, NETWORK, VOLUME, Resource
from controller.spec.parse import parse


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


def problems_of(**sections: Any) -> list[str]:
    """What is wrong with a container that has these sections, each with its path and without the file."""
    spec = {"rootfs": {"path": "/r"}, "process": {"args": ["/x"]}, **sections}
    document = {"apiVersion": "masu/v1", "kind": "Container", "metadata": {"name": "a"}, "spec": spec}
    try:
        parse(yaml.safe_dump(document, sort_keys=False).encode(), "f.yaml")
    except SpecInvalid as error:
        return [str(each).split(": ", 1)[1].removeprefix("spec.") for each in error.problems]
    return []


def by_key(*resources: Resource) -> dict[str, Resource]:
    return {each.key: each for each in resources}
