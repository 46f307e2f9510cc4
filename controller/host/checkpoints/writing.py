"""Many pieces into a file by few calls: each costs a thread of Python its turn."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

AT_ONCE: Final = 1 << 20
"""Bytes that are written by one call."""
MOST_PARTS: Final = 1000
"""Of one call: IOV_MAX is 1024."""


def put(descriptor: int, at: int, parts: Iterable[bytes]) -> None:
    """One after the other, at most IOV_MAX of them; nothing is copied. OSErrors are raised."""
    rest = deque(parts)
    while rest:
        done = os.pwritev(descriptor, rest, at)
        at += done
        while rest and done >= len(rest[0]):
            done -= len(rest.popleft())
        if rest:
            rest[0] = rest[0][done:]


def gathered(pieces: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, list[bytes]]]:
    """(offset, bytes) … → (offset, neighbours), each about as much as is written at once."""
    start = end = 0
    parts: list[bytes] = []
    for at, data in pieces:
        if parts and (at != end or end - start >= AT_ONCE or len(parts) == MOST_PARTS):
            yield start, parts
            parts = []
        if not parts:
            start = end = at
        parts.append(data)
        end += len(data)
    if parts:
        yield start, parts
