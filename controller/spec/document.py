"""The text of a spec file → plain JSON values that remember their line and column. Pure; knows no schema.

YAML 1.2 (see `scalars`), and `<<` merges. Refused: what JSON cannot hold, what is ambiguous (tags, duplicate
keys), and what is made to hurt (depth, aliases that multiply, absurd sizes).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from itertools import pairwise
from typing import Any, NoReturn

import yaml

from controller.errors import Problem, SpecInvalid
from controller.frozen import dataclass
from controller.model.names import quote
from controller.spec.scalars import CORE, scalar
from controller.spec.yaml_words import parser_says

LARGEST = 1 << 20
DEEPEST = 32
MOST_NODES = 100_000
"""Per file, aliases counted as if they were written out."""
MOST_PROBLEMS = 100

Path = tuple[str | int, ...]
Position = tuple[int, int]

_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
"""YAML 1.2.2, 5.1, without the byte order mark, which was taken off before."""
_PLAIN_KEY = re.compile(r"[A-Za-z_][-A-Za-z0-9_]*")


def path_text(path: Sequence[str | int]) -> str:
    """("spec", "mounts", 1, "target") → `spec.mounts[1].target`; a key that is no plain word is quoted."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif _PLAIN_KEY.fullmatch(key):
            text += f".{key}"
        else:
            text += f"[{quote(key)}]"
    return text.removeprefix(".")


@dataclass(frozen=True, slots=True)
class Document:
    """One mapping of a file: `index` counts the file's documents from 0, empty ones included.

    `marks`: path → line and column from 1 of the key (of the item, in a list) that stands there.
    What an alias stands for is marked at the alias. Parts named by aliases are shared: do not change `value`.
    """

    file: str
    index: int
    value: dict[str, Any]
    marks: Mapping[Path, Position]
    files: Mapping[Path, str] = field(default_factory=dict)
    """Which other file a mark is in: of a document that is laid over another one."""

    def problem(self, path: Sequence[str | int], message: str) -> Problem:
        """A problem at `path`, positioned at its nearest ancestor that is written down."""
        known = tuple(path)
        while known and known not in self.marks:
            known = known[:-1]
        line, column = self.marks.get(known, (0, 0))
        return Problem(self.files.get(known, self.file), line, column, path_text(path), message)


def read(text: bytes, file: str) -> tuple[Document, ...]:
    """Every document of a file that is not empty. Raises SpecInvalid with all problems found."""
    composer = _Composer(file, _decode(text, file), _loader())
    documents = tuple(composer.documents())
    if composer.problems:
        raise SpecInvalid(tuple(sorted(set(composer.problems))))
    return documents


def _loader() -> Any:
    """The parser of libyaml is about ten times as fast; only events are taken from either."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _decode(text: bytes, file: str) -> str:
    if len(text) > LARGEST:
        raise _invalid(file, 0, 0, f"the file has {len(text)} bytes; at most {LARGEST} are read")
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _invalid(file, 1, 1, "the file is UTF-16: save it as UTF-8")
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        rest, start = error.object, error.start
        why = f"byte 0x{rest[start]:02x} is not UTF-8: save the file as UTF-8"
        raise _invalid(file, *_position(rest[:start].decode()), why) from None
    strange = _NOT_YAML.search(decoded)
    if strange:
        at = _position(decoded[: strange.start()])
        raise _invalid(file, *at, f"character U+{ord(strange[0]):04X} is not allowed in YAML")
    return decoded


def _position(before: str) -> Position:
    return before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1


def _invalid(file: str, line: int, column: int, message: str) -> SpecInvalid:
    return SpecInvalid((Problem(file, line, column, "", message),))


class _Refused(Exception):
    """The rest of the file is not worth reading; the problem is noted already."""


@dataclass(frozen=True, slots=True)
class _Node:
    """A value, how many nodes it would be with its aliases written out, and how many levels deep."""

    value: Any
    size: int
    height: int


@dataclass(frozen=True, slots=True)
class _Entry:
    key: str
    node: _Node
    at: Position
    merge: bool


class _Composer:
    """Events → values. Counts nodes and levels before they exist, so that nothing is ever expanded."""

    def __init__(self, file: str, text: str, loader: Any) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._text = text
        self._events: Iterator[Any] = yaml.parse(text, Loader=loader)
        self._marks: dict[Path, Position] = {}
        self._anchors: dict[str, _Node | None] = {}
        self._size = 0

    def documents(self) -> Iterator[Document]:
        """Until the end of the file, or until it is refused; what is wrong collects in `problems`."""
        index = 0
        try:
            for event in iter(self._next, None):
                if isinstance(event, yaml.DocumentStartEvent):
                    yield from self._document(index)
                    index += 1
        except _Refused:
            return

    def _document(self, index: int) -> Iterator[Document]:
        self._marks, self._anchors = {}, {}
        first = self._next()
        at = self._marks[()] = _place(first.start_mark)
        value = self._node(first, (), 1).value
        if isinstance(value, dict):
            yield Document(self._file, index, value, self._marks)
        elif value is not None:
            self._note(at, (), "a document is a mapping with apiVersion, kind, metadata and spec")

    def _next(self) -> Any:
        """The next event, or None at the end; the parser's own errors end the reading."""
        try:
            return next(self._events, None)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            at = _place(mark) if mark else (0, 0)
            self._refuse(at, (), parser_says(error, self._text))
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            self._refuse((0, 0), (), f"not YAML: {quote(str(error), 200)}")

    def _note(self, at: Position, path: Path, message: str) -> None:
        self.problems.append(Problem(self._file, *at, path_text(path), message))
        if len(self.problems) >= MOST_PROBLEMS:
            raise _Refused

    def _refuse(self, at: Position, path: Path, message: str) -> NoReturn:
        self._note(at, path, message)
        raise _Refused

    def _grow(self, by: int, height: int, at: Position, path: Path) -> None:
        self._size += by
        if self._size > MOST_NODES:
            self._refuse(at, path, f"more than {MOST_NODES} values, each alias written out")
        if height > DEEPEST:
            self._refuse(at, (), f"nested more than {DEEPEST} levels deep")

    def _node(self, event: Any, path: Path, level: int) -> _Node:
        at = _place(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor, at, path, level)
        before = self._size
        self._grow(1, level, at, path)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        value, below = self._content(event, at, path, level)
        node = _Node(value, self._size - before, below + 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _content(self, event: Any, at: Position, path: Path, level: int) -> tuple[Any, int]:
        """→ the value, and how many levels there are below it."""
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, at, path), 0
        if isinstance(event, yaml.SequenceStartEvent):
            kind, read_rest = "seq", self._sequence
        else:
            kind, read_rest = "map", self._mapping
        if event.tag not in {None, "!", CORE + kind}:
            self._note(at, path, f"the tag {quote(event.tag)} is not allowed here")
        return read_rest(path, level)

    def _alias(self, anchor: str | None, at: Position, path: Path, level: int) -> _Node:
        if anchor is None or anchor not in self._anchors:
            self._note(at, path, f"*{anchor} stands for nothing: there is no &{anchor} before it")
            return _Node(None, 1, 1)
        node = self._anchors[anchor]
        if node is None:
            self._refuse(at, path, f"*{anchor} contains itself")
        self._grow(node.size, level + node.height - 1, at, path)
        return node

    def _scalar(self, event: Any, at: Position, path: Path) -> Any:
        try:
            return scalar(event.value, event.tag, plain=event.implicit[0])
        except ValueError as error:
            self._note(at, path, str(error))
            return None

    def _sequence(self, path: Path, level: int) -> tuple[Any, int]:
        nodes: list[_Node] = []
        for event in iter(self._next, None):
            if isinstance(event, yaml.SequenceEndEvent):
                break
            item = (*path, len(nodes))
            self._marks[item] = _place(event.start_mark)
            nodes.append(self._node(event, item, level + 1))
        return [node.value for node in nodes], _height(nodes)

    def _mapping(self, path: Path, level: int) -> tuple[Any, int]:
        entries: list[_Entry] = []
        for event in iter(self._next, None):
            if isinstance(event, yaml.MappingEndEvent):
                break
            entries.append(self._entry(event, path, level))
        self._check_duplicates(entries, path)
        value = {each.key: each.node.value for each in entries if not each.merge}
        for each in entries:
            if each.merge:
                self._merge(each, value, path)
        return value, _height([each.node for each in entries])

    def _entry(self, event: Any, path: Path, level: int) -> _Entry:
        at = _place(event.start_mark)
        merge = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]
        key = self._node(event, path, level + 1).value
        if not isinstance(key, str):
            written = quote(event.value) if isinstance(event, yaml.ScalarEvent) else "this"
            self._note(at, path, f"{written} cannot be a key: keys are text; put it in quotes")
            key = str(getattr(event, "value", at))
        below = (*path, key)
        self._marks.setdefault(below, at)
        return _Entry(key, self._node(self._next(), below, level + 1), at, merge)

    def _check_duplicates(self, entries: list[_Entry], path: Path) -> None:
        for before, after in pairwise(sorted(entries, key=lambda each: (each.key, each.at))):
            if before.key == after.key:
                lines = f"on line {before.at[0]} and again on line {after.at[0]}"
                self._note(after.at, (*path, after.key), f"{quote(after.key)} is written twice: {lines}")

    def _merge(self, entry: _Entry, value: dict[str, Any], path: Path) -> None:
        """What is written in the mapping itself wins, then what is named first (yaml.org/type/merge)."""
        sources = entry.node.value if isinstance(entry.node.value, list) else [entry.node.value]
        for source in sources:
            if not isinstance(source, dict):
                self._note(entry.at, path, "<< takes a mapping or a list of mappings")
                continue
            for key in source.keys() - value.keys():
                self._marks[(*path, key)] = entry.at
            value.update({key: each for key, each in source.items() if key not in value})


def _place(mark: Any) -> Position:
    return mark.line + 1, mark.column + 1


def _height(nodes: list[_Node]) -> int:
    return max((node.height for node in nodes), default=0)
