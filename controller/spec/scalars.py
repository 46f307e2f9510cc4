"""One scalar of a YAML file → text, number, boolean or null, by the core schema of YAML 1.2. Pure.

Only true and false are booleans (`on`, `yes` are text), `010` is ten, `1:30` and dates are text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from controller.model.names import quote

LARGEST_INTEGER = (1 << 64) - 1
CORE = "tag:yaml.org,2002:"

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_FORBIDDEN = re.compile("[\x00\ud800-\udfff]")
_CONSTANTS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TAGGED_SCALARS: Mapping[str, type] = {"int": int, "float": float, "bool": bool, "null": type(None)}


def scalar(text: str, tag: str | None, *, plain: bool) -> Any:
    """One scalar by the YAML 1.2 core schema. Raises ValueError with what is wrong."""
    if _FORBIDDEN.search(text):
        raise ValueError(
            f"{quote(text)} contains a character that no program can be given (NUL or half of one)"
        )
    if tag in {None, "!"}:
        return _plain(text) if plain and tag is None else text
    name = str(tag).removeprefix(CORE)
    if name == "str":
        return text
    value = _plain(text) if name in _TAGGED_SCALARS else text
    if name not in _TAGGED_SCALARS or type(value) is not _TAGGED_SCALARS[name]:
        raise ValueError(f"the tag {quote(str(tag))} is not allowed for {quote(text)}")
    return value


def _plain(text: str) -> Any:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a number that can be used here")
    if not _FLOAT.fullmatch(text):
        return text
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise ValueError(f"the number {quote(text)} is too large")
    return value


def _integer(text: str) -> int:
    """Refused by length first: a million digits take minutes to convert."""
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    digits = text[2:] if base != 10 else text
    value = int(digits, base) if len(digits.lstrip("+-0")) <= 22 and len(digits) <= 4000 else None
    if value is None or abs(value) > LARGEST_INTEGER:
        raise ValueError(f"the number {quote(text)} is too large; put it in quotes if it is text")
    return value
