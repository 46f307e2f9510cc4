"""What others may write: JSON of any shape, and good values and bytes with something wrong in them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

DEEP = "[" * 20_000
"""More levels than a reader that calls itself can go down."""
STRANGE = (
    "", "\0", "a\0b", "..", "../..", "/", "/..", "a/../b", "\n", "\x1b[2J", "\u202e", "\ud800", "²", "٣",
    "é" * 300, "x" * 5000,
    "-1", "1" * 5000, "1e999", "0x10", "null", "true", "~", "<<", "*", "&a", "%", "{{", "!!str", "NaN", "max",
    "host", "none",
    "99999999999999999999", "1.5", "0", "10.0.0.0/8", "::/0", "fd00::1/64", "4294967296", "-0", "1Ei", "1s",
    "0.1ms", ":", "@",
    "sha256:" + "0" * 64, "container:web", "container:", "80:80", "1-2,3", "a.b", "A", "a" * 64, "web", "front",
    "upper",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2**31, 2**32, 2**63, 2**64 - 1, 2**64, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308)
NO_NUMBERS = (float("inf"), float("-inf"), float("nan"))

texts = st.sampled_from(STRANGE) | st.text(st.characters(), max_size=12)
numbers = st.sampled_from(NUMBERS) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | st.sampled_from(NO_NUMBERS) | texts
json_values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def mutated(
    draw: st.DrawFn, values: st.SearchStrategy[Any], others: st.SearchStrategy[Any] = json_values
) -> Any:
    """A good value of which one to three parts are gone, are something else, or are there twice."""
    holder = [copy.deepcopy(draw(values))]
    for _ in range(draw(st.integers(1, 3))):
        inner = list(places(holder[0])) if isinstance(holder[0], (dict, list)) else []
        found = inner if inner and draw(st.integers(0, 30)) != 17 else [(holder, 0)]
        parent, key = draw(st.sampled_from(found))
        act = draw(st.sampled_from(("other", "other", "gone", "moved", "twice", "named")))
        if act == "gone" and parent is not holder:
            del parent[key]
        elif act == "moved":
            there, name = draw(st.sampled_from(found))
            parent[key] = copy.deepcopy(there[name]) if _has(there, name) else None
        elif act == "twice" and isinstance(parent, list) and parent is not holder:
            parent.append(copy.deepcopy(parent[key]))
        elif act == "named" and isinstance(parent, dict):
            parent[draw(texts)] = parent[key]
        else:
            parent[key] = draw(others)
    return holder[0]


def _has(there: Any, name: Any) -> bool:
    return name in there if isinstance(there, dict) else name < len(there)


def places(parent: Any) -> Iterator[tuple[Any, Any]]:
    """Everything in it, as what holds it and the key or index of it there."""
    for key in list(parent) if isinstance(parent, dict) else range(len(parent)):
        yield parent, key
        if isinstance(parent[key], (dict, list)):
            yield from places(parent[key])


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes that were cut off, overwritten, doubled, left out or put in."""
    found = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(found)))
        upto = min(len(found), at + draw(st.integers(0, 64)))
        act = draw(st.sampled_from(("cut", "flip", "zero", "double", "drop", "put")))
        if act == "cut":
            del found[at:]
        elif act == "flip" and at < len(found):
            found[at] ^= 1 << draw(st.integers(0, 7))
        elif act == "zero":
            found[at:upto] = bytes(upto - at)
        elif act == "double":
            found[at:at] = found[at:upto]
        elif act == "drop":
            del found[at:upto]
        else:
            found[at:at] = draw(st.binary(max_size=16))
    return bytes(found)


def json_texts(good: Any) -> st.SearchStrategy[bytes]:
    """Of a file that holds `good`: torn, flipped, of another shape, or somebody else's."""
    whole = json.dumps(good).encode()
    torn = st.integers(0, len(whole)).map(lambda at: whole[:at])
    other = (mutated(st.just(good)) | json_values).map(lambda value: json.dumps(value).encode())
    return torn | damaged(st.just(whole)) | other | st.binary(max_size=40) | st.just(DEEP.encode())
