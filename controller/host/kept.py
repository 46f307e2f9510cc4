"""JSON files in /var/lib that are never lost in silence: written before anything that uses them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from controller.errors import NOT_UNDERSTOOD, StepFailed
from controller.host.text import read_text, remove_file, write_atomic

T = TypeVar("T")


def load(path: str, parse: Callable[[Any], T]) -> T:
    """What `parse` makes of it, or of {} where there is no file. Raises StepFailed for a damaged one."""
    text = read_text(path)
    try:
        return parse(json.loads(text or "{}"))
    except NOT_UNDERSTOOD as error:
        raise StepFailed(f"{path} is damaged ({error}): restore or remove it", path=path) from error


def save(path: str, value: Mapping[str, Any]) -> None:
    """On disk when it returns; there is no file for nothing. Raises StepFailed."""
    if value:
        write_atomic(path, json.dumps(value, indent=1), durable=True, directory_mode=0o711)
    else:
        remove_file(path)
