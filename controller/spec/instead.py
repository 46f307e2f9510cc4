"""What to write in the place of a value that has the wrong type. Pure.

Either the value itself, put where it fits (`memory: 64Mi` → `{max: 64Mi}`), or an example of the schema. A schema
may say how a short form is to be read: `x-short`, a pattern of text → what it stands for; then nothing is guessed.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from controller.spec.flow import flow

Schema = Mapping[str, Any]
Fits = Callable[[Schema, Any], bool]
"""Whether a schema without references takes a value."""

LONGEST = 120
MOST_WORDS = 12
MOST_VALUES = 64
_PICKY = frozenset({"format", "pattern", "enum"})


def instead(schema: Schema, value: Any, fits: Fits) -> str:
    """What goes on from "expected a mapping, got a string"; "" where nothing is known."""
    meant = next(_meant(schema, value, fits), None) if _is_short(value) else None
    if isinstance(meant, str) and isinstance(value, (bool, int, float)):
        return ": put it in quotes"
    if meant is not None and len(flow(meant)) <= LONGEST:
        why = (
            "; a colon and a space make a mapping"
            if isinstance(value, Mapping) and isinstance(meant, str)
            else ""
        )
        return f"{why}: write {flow(meant)}"
    told = str(schema.get("x-error", "")).partition(": ")[2]
    if told:
        return f": {told}"
    if 1 < len(schema.get("enum", ())) <= MOST_WORDS:
        return f": use {', '.join(map(str, schema['enum']))}"
    example = _short(_example(schema, fits))
    return "" if example is None else f": write for example {flow(example)}"


def _meant(schema: Schema, value: Any, fits: Fits) -> Iterator[Any]:
    """What fits, and was most likely meant; the best first."""
    if fits(schema, value):
        yield value
        return
    kinds = _kinds(schema)
    if isinstance(value, list) and len(value) == 1 and "string" in kinds:
        yield from _meant(schema, value[0], fits)
    readings = [each for kind in kinds for each in _READINGS.get(kind, _none)(schema, value, fits)]
    yield from (each for each in readings if fits(schema, each))
    for branch in schema.get("oneOf", ()):
        yield from (each for each in _meant(branch, value, fits) if fits(schema, each))


def _is_short(value: Any) -> bool:
    """Whether it could be shown at all; what is larger, or made so by aliases, is not worth the time."""
    waiting, seen = [value], 0
    while waiting and seen < MOST_VALUES:
        each = waiting.pop()
        seen += 1
        if isinstance(each, (str, list, Mapping)) and len(each) > LONGEST:
            return False
        if isinstance(each, Mapping):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, list):
            waiting += each
    return not waiting


def _kinds(schema: Schema) -> list[str]:
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _none(schema: Schema, value: Any, fits: Fits) -> Iterator[Any]:
    del schema, value, fits
    yield from ()


def _texts(schema: Schema, value: Any, fits: Fits) -> Iterator[Any]:
    del schema, fits
    if value is None:
        yield ""
    elif isinstance(value, (bool, int, float)):
        yield json.dumps(value)
    elif isinstance(value, Mapping) and len(value) == 1:
        ((key, inner),) = value.items()
        if isinstance(inner, (str, bool, int, float)):
            yield f"{key}: {inner if isinstance(inner, str) else json.dumps(inner)}"


def _lists(schema: Schema, value: Any, fits: Fits) -> Iterator[Any]:
    items = schema.get("items", {})
    if value is None or isinstance(value, list):
        return
    if isinstance(value, str) and not _PICKY & items.keys() and items.get("type") == "string":
        with suppress(ValueError):  # a quote that is not closed
            yield shlex.split(value)
    yield from ([each] for each in _meant(items, value, fits))


def _mappings(schema: Schema, value: Any, fits: Fits) -> Iterator[Any]:
    """The first field that takes it, and no other: which one was meant is a guess already."""
    if value is None or isinstance(value, (bool, Mapping)):
        return
    if isinstance(value, str):
        yield from _long(schema.get("x-short", {}), value)
    if isinstance(value, list) and (pairs := _pairs(value)):
        yield pairs
    if "x-short" in schema:
        return
    for name, below in schema.get("properties", {}).items():
        found = next(_meant(below, value, fits), None)
        if found is not None:
            yield {name: found}
            return


_READINGS: Mapping[str, Callable[[Schema, Any, Fits], Iterator[Any]]] = {
    "string": _texts,
    "array": _lists,
    "object": _mappings,
}


def _long(short: Mapping[str, Mapping[str, Any]], text: str) -> Iterator[Any]:
    for pattern, template in short.items():
        found = re.fullmatch(pattern, text)
        if found:
            yield {
                key: found.expand(each) if isinstance(each, str) else each for key, each in template.items()
            }


def _pairs(value: list[Any]) -> dict[str, Any]:
    """`[A=b]`, `[{A: b}]` and `[{name: A, value: b}]`, as others have it; nothing where it is not all so."""
    pairs: dict[str, Any] = {}
    for each in value:
        if isinstance(each, str) and "=" in each:
            name, _, text = each.partition("=")
            pairs[name] = text
        elif isinstance(each, Mapping) and each.keys() == {"name", "value"}:
            pairs[str(each["name"])] = each["value"]
        elif isinstance(each, Mapping):
            pairs.update(each)
        else:
            return {}
    return pairs


def _example(schema: Schema, fits: Fits) -> Any:
    """Its own, or one that is made of those of its parts; None where there is none."""
    if schema.get("examples"):
        return schema["examples"][0]
    made: Any = None
    if "properties" in schema:
        names = schema.get("required") or list(schema["properties"])[:1]
        made = {name: _example(schema["properties"].get(name, {}), fits) for name in names}
        made = None if None in made.values() else made
    elif "items" in schema:
        inner = _example(schema["items"], fits)
        made = None if inner is None else [inner]
    elif "enum" in schema:
        made = schema["enum"][0]
    return made if made is not None and fits(schema, made) else None


def _short(example: Any) -> Any:
    if isinstance(example, list) and len(flow(example)) > LONGEST:
        example = example[:1]
    return example if len(flow(example)) <= LONGEST else None
