"""What jsonschema found → problems in plain words, one per mistake. Pure.

A schema may carry its own words: `x-error` says what a wrong value is not ("is not a host name: use …"),
`x-words` are the words that its pattern allows, for suggestions; `x-meant` is what to write for a field that other
programs have, by its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from controller.errors import Problem
from controller.model.names import quote, suggest
from controller.spec.document import Document, Path
from controller.spec.instead import Fits, instead

MOST_LISTED = 40
"""Fields that are worth listing in one message."""

LAYERING = "masu.yaml"
_COUNTS = "says how its directory is read, and counts where that directory is the source"
LAYERING_KEYS = frozenset({"base", "atomic"})

_TYPES: Mapping[str, str] = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
_BOOLEAN_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("yes", "on", "y", "1"), "true"),
    **dict.fromkeys(("no", "off", "n", "0"), "false"),
}

Error = Any
"""jsonschema.ValidationError, which is not imported here for the sake of commands that validate nothing."""


def problems(document: Document, errors: Iterable[Error], fits: Fits) -> Iterator[Problem]:
    """One problem per missing or unknown field, and one per wrong value: the most telling of its errors."""
    values: dict[Path, tuple[int, str]] = {}
    missing: list[tuple[Path, str]] = []
    told: dict[Path, str] = {}
    for error in errors:
        path = tuple(error.absolute_path)
        if error.validator == "required":
            missing += [(path, key) for key in error.validator_value if key not in error.instance]
        elif error.validator == "additionalProperties":
            unknown = dict(_unknown(error))
            told[path] = " ".join(unknown.values())
            yield from (document.problem((*path, key), said) for key, said in unknown.items())
        else:
            at = (*path, error.instance) if "propertyNames" in error.absolute_schema_path else path
            found = (_rank(error), _message(error, fits))
            values[at] = min(found, values.get(at, found))
    for path, key in missing:
        if not re.search(rf'did you mean "{key}"|write .*\b{key}:', told.get(path, "")):
            yield document.problem(path, f"{quote(key)} is missing")
    yield from (document.problem(path, message) for path, (_, message) in values.items())


def overlay(file: str, value: Mapping[str, Any]) -> str:
    """What to say of the masu.yaml of a directory that is not read by itself; "" of any other document."""
    directory, _, name = file.rpartition("/")
    if name != LAYERING or not value.keys() & LAYERING_KEYS:
        return ""
    return f"{_COUNTS}: masu validate {directory or '.'}"


def without_overlays(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Of a directory that is laid over another one only that: its files by themselves are not whole."""
    found = tuple(problems)
    roots = [each.file.rpartition("/")[0] for each in found if _COUNTS in each.message]
    return tuple(
        each
        for each in found
        if _COUNTS in each.message or not any(each.file.startswith(f"{root}/") for root in roots)
    )


def not_one_of(word: str, choices: Iterable[str], error: str = "") -> str:
    """`"Contaner" is not …, did you mean "Container"?`."""
    known = list(choices)
    if not error and len(known) == 1:
        return f"{quote(word)} is not {quote(known[0])}"
    return f"{quote(word)} {error or 'is not one of ' + ', '.join(known)}{_meant(word, known)}"


def _rank(error: Error) -> int:
    order = ("not", "type", "enum", "format")
    return order.index(error.validator) if error.validator in order else len(order)


def _unknown(error: Error) -> Iterator[tuple[str, str]]:
    known, elsewhere = error.schema.get("properties", {}), error.schema.get("x-meant", {})
    for key, value in error.instance.items():
        if key in elsewhere:
            yield key, f"unknown field: write {elsewhere[key]}"
        elif key not in known:
            meant = _meant(key, known) or _elsewhere(key, value, known) or _listed(known)
            yield key, f"unknown field{meant}"


def _meant(word: str, choices: Iterable[str]) -> str:
    close = suggest(word, choices)
    return f', did you mean "{close}"?' if close and close != word else ""


def _elsewhere(key: str, value: Any, known: Mapping[str, Any]) -> str:
    """A field that exists one level deeper, and takes such a value if one does: `memory` belongs into `limits`."""
    found = [
        (_takes(each["properties"][close], value), f"{owner}.{close}")
        for owner, each in known.items()
        if (close := suggest(key, each.get("properties", ())))
    ]
    return f', did you mean "{max(found, key=lambda each: each[0])[1]}"?' if found else ""


def _takes(schema: Mapping[str, Any], value: Any) -> bool:
    kinds = schema.get("type", ())
    return isinstance(value, Mapping) == ("object" in ([kinds] if isinstance(kinds, str) else kinds))


def _listed(known: Iterable[str]) -> str:
    names = list(known)
    return f"; known here: {', '.join(names)}" if len(names) <= MOST_LISTED else ""


def _message(error: Error, fits: Fits) -> str:  # noqa: PLR0911  one per sort of mistake
    own = str(error.schema.get("x-error", ""))
    if error.validator == "type":
        return _wrong_type(error, own, fits)
    if error.validator == "format" and error.cause is not None:
        return str(error.cause)
    if error.validator == "not" and own:
        return own
    if error.validator == "enum":
        return not_one_of(str(error.instance), map(str, error.validator_value), own)
    if own and not isinstance(error.instance, (dict, list)):
        return f"{_shown(error.instance)} {own}{_meant(str(error.instance), error.schema.get('x-words', ()))}"
    bound = _BOUNDS.get(error.validator)
    if not bound:
        return "is not allowed here" + instead(error.schema, error.instance, fits)
    return bound(_shown(error.instance), error.validator_value)


_BOUNDS: Mapping[str, Callable[[str, Any], str]] = {
    "minimum": lambda value, bound: f"{value} is too small: at least {bound}",
    "maximum": lambda value, bound: f"{value} is too large: at most {bound}",
    "minLength": lambda value, bound: f"{value} is too short: at least {bound}",
    "maxLength": lambda value, bound: f"{value} is too long: at most {bound} characters",
    "minItems": lambda _, bound: f"must have at least {bound} {'entry' if bound == 1 else 'entries'}",
    "maxItems": lambda _, bound: f"has too many entries: at most {bound}",
    "minProperties": lambda _, bound: f"must have at least {bound} {'field' if bound == 1 else 'fields'}",
    "maxProperties": lambda _, bound: f"has too many fields: at most {bound}",
    "pattern": lambda value, bound: f"{value} does not look like {bound}",
}


def _wrong_type(error: Error, own: str, fits: Fits) -> str:
    names = [error.validator_value] if isinstance(error.validator_value, str) else list(error.validator_value)
    if own and len(names) > 1 and isinstance(error.instance, (bool, int, float)):
        return f"{_shown(error.instance)} {own}"
    word = str(error.instance).lower()
    if names == ["boolean"] and word in _BOOLEAN_WORDS:
        return f"{wrong_type(names, error.instance)}: write {_BOOLEAN_WORDS[word]}"
    return wrong_type(names, error.instance) + instead(error.schema, error.instance, fits)


def wrong_type(names: Iterable[str], value: Any) -> str:
    """`expected a list, got a string`; `names` are those of JSON Schema."""
    return f"expected {' or '.join(_TYPES[name] for name in names)}, got {_type_of(value)}"


def _type_of(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return json.dumps(value)
    kinds = {dict: "a mapping", list: "a list", str: "a string", int: "a number"}
    return kinds.get(type(value), "a number with a fraction")


def _shown(value: Any) -> str:
    return quote(value) if isinstance(value, str) else json.dumps(value)
