"""The reference of a kind, as Markdown, from its JSON schema: docs/reference.md is this text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.spec.flow import flow

HEAD = """\
# {kind}

Every field of `kind: {kind}`, printed by `masu schema {kind} -o markdown`. Only what is written is owned.

| field | type | meaning |
|---|---|---|
"""


def markdown(kind: str, schema: Mapping[str, Any]) -> str:
    """Pure. One row per field, nested fields after their parent, examples at the end of the meaning."""
    fields = _fields("", schema, schema)
    rows = "".join(_row(path, node, schema, needed=needed) for path, node, needed in fields)
    return HEAD.format(kind=kind) + rows + "\n"


def _fields(
    path: str, node: Mapping[str, Any], root: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Path, schema, and whether the field must be there wherever its parent is."""
    for each in (node, *_branches(node, root)):
        needed = _resolved(each, root).get("required", ())
        for name, below in _resolved(each, root).get("properties", {}).items():
            here = f"{path}.{name}" if path else name
            found = {**_resolved(below, root), **{k: v for k, v in below.items() if k != "$ref"}}
            yield here, found, name in needed
            yield from _fields(here, _resolved(below, root), root)
        items = _resolved(each, root).get("items")
        if isinstance(items, Mapping):
            yield from _fields(path + "[]", _resolved(items, root), root)


def _branches(node: Mapping[str, Any], root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [_resolved(each, root) for key in ("oneOf", "anyOf", "allOf") for each in node.get(key, ())]


def _resolved(node: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow `$ref` inside this document."""
    found = node
    while "$ref" in found:
        target: Any = root
        for part in found["$ref"].lstrip("#/").split("/"):
            target = target[part]
        found = target
    return found


def _row(path: str, node: Mapping[str, Any], root: Mapping[str, Any], *, needed: bool) -> str:
    parts = [" ".join(str(node.get("description", "")).split())]
    if needed:
        parts.append("**Required.**")
    if "default" in node:
        parts.append(f"Default: `{flow(node['default'])}`.")
    if node.get("examples"):
        parts.append("Examples: " + ", ".join(f"`{flow(each)}`" for each in node["examples"]) + ".")
    text = " ".join(parts).replace("|", "\\|")
    return f"| `{path}` | {_type(node, root)} | {text} |\n"


def _type(node: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    if "enum" in node:
        return " · ".join(f"`{each}`" for each in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    kinds = node.get("type", [_type(each, root) for each in _branches(node, root)])
    return " or ".join(dict.fromkeys([kinds] if isinstance(kinds, str) else kinds))
