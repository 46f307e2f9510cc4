"""Parsers that are loaded with the first file there is to parse: no other command waits for YAML and schemas."""

from __future__ import annotations

from controller.model.host_policy import HostPolicy, Paths
from controller.model.resource import Resource


def parse(text: bytes, file: str) -> tuple[Resource, ...]:
    """As `controller.spec.parse.parse`."""
    from controller.spec.parse import parse as loaded  # noqa: PLC0415

    return loaded(text, file)


def parse_policy(text: bytes, file: str, paths: Paths) -> HostPolicy:
    """As `controller.spec.host_policy.parse_policy`."""
    from controller.spec.host_policy import parse_policy as loaded  # noqa: PLC0415

    return loaded(text, file, paths)
