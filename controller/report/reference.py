"""The reference of a kind, as Markdown, from its JSON schema: docs/reference.md is this text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

HEAD = """\
# {kind}

Every field of `kind: {kind}`, printed by `masu schema {kind} -o markdown`. Only what is written is owned.

| field | type | meaning |
|---|---|---|
"""


def markdown(kind: str, schema: Mapping[str, Any]) -> str:
    """Pure. One row per field, nested fields after their parent, examples at the end of the meaning."""
    rows = "".join(_row(path, node, schema) for path, node in _fields("", schema, schema))
    return HEAD.format(kind=kind) + rows


def _fields(
    path: str, node: Mapping[str, Any], root: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for each in (node, *_branches(node, root)):
        for name, below in _resolved(each, root).get("properties", {}).items():
            here = f"{path}.{name}" if path else name
            yield here, {**_resolved(below, root), **{k: v for k, v in below.items() if k != "$ref"}}
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


def _row(path: str, node: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    meaning = " ".join(str(node.get("description", "")).split())
    examples = ", ".join(f"`{_yaml(each)}`" for each in node.get("examples", ()))
    text = f"{meaning} Examples: {examples}." if examples else meaning
    return f"| `{path}` | {_type(node, root)} | {text.replace('|', chr(92) + '|')} |\n"


def _type(node: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    if "enum" in node:
        return " · ".join(f"`{each}`" for each in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    kinds = node.get("type", [_type(each, root) for each in _branches(node, root)])
    return " or ".join(dict.fromkeys([kinds] if isinstance(kinds, str) else kinds))


def _yaml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(each) for each in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
