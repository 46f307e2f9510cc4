"""A value as YAML on one line, as people write it in a spec. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from controller.model.names import printable
from controller.spec.scalars import scalar

_PLAIN = re.compile(r"(?!-(?:-|$))[-A-Za-z0-9_/.+](?:[-A-Za-z0-9_/.+@=]|:(?=[^\s:]))*")
_OLD = re.compile(r"[0-9].*:.*|y|n|yes|no|on|off", re.IGNORECASE)
"""What YAML 1.1 took for numbers and booleans, and many a program still does."""


def flow(value: Any) -> str:
    """{"max": "64Mi"} → `{max: 64Mi}`."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(key, old=False)}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(flow(each) for each in value) + "]"
    return _text(value, old=True) if isinstance(value, str) else json.dumps(value)


def _text(text: str, *, old: bool) -> str:
    """`old`: also as YAML 1.1 reads it; among keys, `on` is one of masu's own."""
    if _PLAIN.fullmatch(text) and not (old and _OLD.fullmatch(text)) and _is_text(text):
        return text
    return printable(json.dumps(text, ensure_ascii=False))


def _is_text(text: str) -> bool:
    """Not a number, nor true, nor nothing."""
    try:
        return bool(scalar(text, None, plain=True) == text)
    except ValueError:
        return False
