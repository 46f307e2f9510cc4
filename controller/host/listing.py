"""What is in nftables' tables in one form that can be compared, whether nft listed it or it is in commands. Pure.

`Form`: "inet chain forward" and the like → what it is and what is in it, without handles and counters' values.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Final

from controller.frozen import dataclass
from controller.host.ruleset import definition

_VOLATILE: Final = frozenset({"handle", "index", "packets", "bytes", "elem"})
_MOST_TOLD: Final = 3
_WORDS: Final = {"chain": "rule", "set": "element", "map": "element"}


@dataclass(frozen=True, slots=True)
class Part:
    """`body`: the object itself; `contents`: a chain's rules in order, or the elements of a set or map, sorted."""

    kind: str
    body: Mapping[str, Any]
    contents: tuple[Any, ...] = ()

    def described(self) -> tuple[str, ...]:
        """Equal for equal contents."""
        return tuple(json.dumps(each, sort_keys=True) for each in self.contents)


Form = Mapping[str, Part]


def form_of(objects: Iterable[Mapping[str, Any]]) -> Form:
    """Pure. Of what `nft -j list table` answers, or of the objects that commands add; others' kinds are kept."""
    bodies: dict[str, tuple[str, dict[str, Any]]] = {}
    contents: dict[str, list[Any]] = {}
    for one in objects:
        for kind, body in one.items():
            if kind == "rule":
                key = f"{body['family']} chain {body['chain']}"
                contents.setdefault(key, []).append(_rule(body))
            elif kind == "element":
                key = _key_of_elements(body, bodies)
                contents.setdefault(key, []).extend(_elements(body))
            elif kind != "metainfo":
                key = f"{body['family']} {kind} {body['name']}"
                bodies[key] = kind, {name: value for name, value in body.items() if name not in _VOLATILE}
                contents.setdefault(key, []).extend(_elements(body))
    return {
        key: Part(kind, body, tuple(_in_order(kind, contents[key]))) for key, (kind, body) in bodies.items()
    }


def objects_of(form: Form) -> list[dict[str, Any]]:
    """Pure. The objects alone, as nft lists them."""
    return [{part.kind: dict(part.body)} for part in form.values()]


def structure(form: Form) -> Form:
    """Pure. Of rules only their comments, of objects only what defines them: the same however nft prints them."""
    return {
        key: Part(
            part.kind,
            definition(part.kind, part.body),
            tuple(each.get("comment", "") for each in part.contents)
            if part.kind == "chain"
            else part.contents,
        )
        for key, part in form.items()
    }


def difference(wanted: Form, live: Form) -> str:
    """Pure. What is different, for people; empty when nothing is."""
    found = list(_differences(wanted, live))
    more = f" and {len(found) - _MOST_TOLD} more" if len(found) > _MOST_TOLD else ""
    return "; ".join(found[:_MOST_TOLD]) + more


def to_json(form: Form) -> dict[str, Any]:
    return {key: [part.kind, part.body, part.contents] for key, part in form.items()}


def from_json(value: Any) -> Form:
    """Raises ValueError, TypeError or AttributeError on anything else than what `to_json` made."""
    return {key: Part(kind, body, tuple(contents)) for key, (kind, body, contents) in value.items()}


def _differences(wanted: Form, live: Form) -> Iterator[str]:
    tables = {key for key in wanted if wanted[key].kind == "table"} - set(live)
    missing = {key.partition(" ")[0] for key in tables}
    for key, part in wanted.items():
        found = live.get(key)
        if found is None:
            if key in tables or key.partition(" ")[0] not in missing:
                yield f"{_said(key)} is missing"
        elif found.body != part.body:
            yield f"{_said(key)} is of another sort"
        elif found.contents != part.contents:
            yield f"{_said(key)}: {_inner(part, found)}"
    yield from (f"{_said(key)} is nobody's" for key in live if key not in wanted)


def _inner(wanted: Part, live: Part) -> str:
    word = _WORDS.get(wanted.kind, "part")
    one, other = Counter(wanted.described()), Counter(live.described())
    missing, more = (one - other).total(), (other - one).total()
    if not missing and not more:
        return f"the {word}s are in another order"
    changed = min(missing, more) if word == "rule" else 0
    counts = ((missing - changed, "missing"), (more - changed, "too many"), (changed, "changed"))
    return ", ".join(_count(number, word, what) for number, what in counts if number)


def _count(number: int, word: str, what: str) -> str:
    return f"1 {word} is {what}" if number == 1 else f"{number} {word}s are {what}"


def _said(key: str) -> str:
    """The family only where it is not the usual one."""
    return key.removeprefix("inet ")


def _key_of_elements(body: Mapping[str, Any], bodies: Mapping[str, Any]) -> str:
    keys = (f"{body['family']} {kind} {body['name']}" for kind in ("set", "map"))
    return next(key for key in keys if key in bodies)


def _rule(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: body[key] for key in ("comment", "expr") if key in body}


def _elements(body: Mapping[str, Any]) -> list[Any]:
    return [_element(each) for each in body.get("elem") or ()]


def _in_order(kind: str, contents: list[Any]) -> list[Any]:
    return contents if kind == "chain" else sorted(contents, key=repr)


def _element(value: Any) -> Any:
    """A prefix and a range as one word, addresses in one way of writing."""
    if isinstance(value, dict):
        if "prefix" in value:
            return f"{_address(value['prefix']['addr'])}/{value['prefix']['len']}"
        if "range" in value:
            return "-".join(_address(str(each)) for each in value["range"])
        return [[key, _element(value[key])] for key in sorted(value)]
    if isinstance(value, list):
        return [_element(each) for each in value]
    return _address(value) if isinstance(value, str) else value


def _address(text: str) -> str:
    """nft and Python differ in those alone that hold an IPv4 address."""
    if ":" not in text or "." not in text:
        return text
    try:
        return str(ip_address(text))
    except ValueError:
        return text
