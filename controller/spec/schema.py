"""The schemas of the spec: read from their files, composed into one document per kind, and applied.

Reads masu's own schema files and nothing else. jsonschema is imported when the first document is validated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from controller.errors import Problem
from controller.spec import explain
from controller.spec.document import Document
from controller.spec.formats import FORMATS

SUFFIX = ".schema.json"
VALUES = "values"
MOST_ERRORS = 100

_INSTALLED = Path(__file__).parents[1] / "schemas"
_CHECKOUT = Path(__file__).parents[2] / "schemas"

_FILE_OF_REF = re.compile(r"^(?:.*/)?([a-z]+)\.schema\.json")
_NOTES = frozenset({"$schema", "$defs", "title", "description", "default"})
_MAPS_OF_SCHEMAS = frozenset({"properties", "$defs"})
_SAID_BY_FORMAT = frozenset({"pattern", "minimum", "maximum"})


@cache
def kinds() -> tuple[str, ...]:
    """Every `kind` a document may have."""
    stems = sorted(path.name.removesuffix(SUFFIX) for path in _directory().glob("*" + SUFFIX))
    return tuple(stem[0].upper() + stem[1:] for stem in stems if stem != VALUES)


def schema(kind: str) -> dict[str, Any]:
    """The whole JSON Schema 2020-12 of a kind, its sections under `$defs`. ValueError for an unknown kind."""
    if kind not in kinds():
        raise ValueError(explain.not_one_of(kind, kinds()))
    parts = {VALUES: _load(_directory() / (VALUES + SUFFIX))}
    for path in sorted((_directory() / "sections").glob("*" + SUFFIX)):
        parts[path.name.removesuffix(SUFFIX)] = _load(path)
    stem = kind[0].lower() + kind[1:]
    whole: dict[str, Any] = _local(_load(_directory() / (stem + SUFFIX)), "")
    defs = {name: _local(part, name) for name, part in parts.items()}
    for part in defs.values():
        del part["$schema"]
    return {**whole, "$defs": _used(whole, defs)}


def bundle() -> dict[str, Any]:
    """One JSON Schema for documents of every kind, for editors: they are told of one file."""
    defs: dict[str, Any] = {}
    for kind in kinds():
        whole = schema(kind)
        defs.update(whole.pop("$defs"))
        dialect = whole.pop("$schema")
        defs[kind] = whole
    return {
        "$schema": dialect,
        "title": "masu",
        "description": "What masu converges: one document, of any kind.",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {"kind": {"description": "What the document describes.", "enum": list(kinds())}},
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": {"$ref": f"#/$defs/{kind}"},
            }
            for kind in kinds()
        ],
        "$defs": dict(sorted(defs.items())),
    }


def validate(document: Document) -> tuple[Problem, ...]:
    """Every problem of a document against the schema of its kind, in the order of the file."""
    kind = document.value.get("kind")
    if "kind" not in document.value:
        overlay = explain.overlay(document.file, document.value)
        return (document.problem((), overlay or '"kind" is missing: write kind: Container'),)
    if not isinstance(kind, str):
        return (document.problem(("kind",), explain.wrong_type(["string"], kind)),)
    if kind not in kinds():
        return (document.problem(("kind",), explain.not_one_of(kind, kinds())),)
    validator = _validator(kind)
    errors = islice(validator.iter_errors(document.value), MOST_ERRORS)

    def fits(part: Mapping[str, Any], value: Any) -> bool:
        return bool(validator.evolve(schema=part).is_valid(value))

    return tuple(sorted(set(islice(explain.problems(document, errors, fits), MOST_ERRORS))))


def _directory() -> Path:
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def _load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _local(node: Any, own: str) -> Any:
    """References between files become references inside one document; `own`: the file's place in `$defs`."""
    if isinstance(node, list):
        return [_local(each, own) for each in node]
    if not isinstance(node, dict):
        return node
    moved = {key: _local(value, own) for key, value in node.items()}
    if isinstance(moved.get("$ref"), str):
        file, _, inside = moved["$ref"].partition("#")
        found = _FILE_OF_REF.match(file)
        moved["$ref"] = f"#/$defs/{found[1] if found else own}{inside}"
    return moved


def _used(whole: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """Only the parts that the kind refers to, directly or through another part."""
    used: dict[str, Any] = {}
    waiting = [whole]
    while waiting:
        text = json.dumps(waiting.pop())
        for name in defs.keys() - used.keys():
            if f'"#/$defs/{name}"' in text or f'"#/$defs/{name}/' in text:
                used[name] = defs[name]
                waiting.append(defs[name])
    return dict(sorted(used.items()))


@cache
def _validator(kind: str) -> Any:
    """Built once per kind: references resolved and most notes left out, which halves the time of a validation."""
    from jsonschema import Draft202012Validator, FormatChecker, validators  # noqa: PLC0415 - takes 0.1 s, which commands that validate nothing need not pay

    checker = FormatChecker(formats=())
    for name, check in FORMATS.items():
        checker.checks(name, raises=ValueError)(check)
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    extend: Any = validators.extend
    strict = extend(Draft202012Validator, type_checker=types)
    whole = schema(kind)
    return strict(_flat(whole, whole), format_checker=checker)


def _flat(node: Any, root: dict[str, Any]) -> Any:
    """A schema without references and notes but examples; what its format says better is left to the format."""
    if isinstance(node, list):
        return [_flat(each, root) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return _flat({**_at(root, node["$ref"]), **rest}, root)
    skipped = _NOTES | _SAID_BY_FORMAT if node.get("format") in FORMATS else _NOTES
    return {key: _keyword(key, value, root) for key, value in node.items() if key not in skipped}


def _keyword(key: str, value: Any, root: dict[str, Any]) -> Any:
    if key == "examples" or key.startswith("x-"):
        return value
    if key in _MAPS_OF_SCHEMAS:
        return {name: _flat(each, root) for name, each in value.items()}
    if key == "pattern":
        return value.removesuffix("$") + r"\Z"  # Python's $ would let one newline at the end pass
    return _flat(value, root)


def _at(root: dict[str, Any], reference: str) -> dict[str, Any]:
    """The part of the document that `#/a/b` points to."""
    node = root
    for name in reference.removeprefix("#/").split("/"):
        node = node[name]
    return node
