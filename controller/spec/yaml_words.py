"""What the parser of YAML says → what people can do about it. Pure.

libyaml speaks of tokens and nodes where people see tabs, indentation and quotes.
"""

from __future__ import annotations

from typing import Any

from controller.model.names import quote

_QUOTE_IT = (
    "text that holds a colon and a space, or begins with one of [ ] {{ }} & * ! | > @ % `, goes in quotes"
)
_ESCAPE = r"in double quotes a backslash is written \\, or use single quotes"
_OPEN = "what is opened on line {begin} goes on with a comma or ends with %s: one is missing"

_INDENTED = "line {end} is indented otherwise than the lines it belongs to, from line {begin} on"
_AFTER = f"this does not go on from what is before it on the line: put the whole in quotes; {_QUOTE_IT}"
_NO_KEY = "block mapping: did not find expected key"
_WORDS: tuple[tuple[str, str], ...] = (
    ("cannot start any token", "indent with spaces, not tabs, and quote text that begins with @ ` or %"),
    (
        "did not find expected '-' indicator",
        "line {end} is indented like the entries of the list from line {begin} on, and does not begin with -",
    ),
    ("did not find expected ',' or ']'", _OPEN % "]"),
    ("did not find expected ',' or '}'", _OPEN % "}}"),
    ("did not find expected node content", f"a value is missing here, or has to be quoted: {_QUOTE_IT}"),
    ("unknown escape character", _ESCAPE),
    ("hexdecimal number", _ESCAPE),
    (
        "mapping values are not allowed",
        (
            "there is no place for a key here: indent it like the keys it belongs to; if it is text with a colon"
            " and a space in it, put the whole in quotes"
        ),
    ),
    (
        "block sequence entries are not allowed",
        "a list begins on a line of its own, or is written [a, b]; text that begins with - goes in quotes",
    ),
    (
        "could not find expected ':'",
        (
            "line {begin} is neither KEY: VALUE, with a space after the colon, nor part of a text above it, which"
            " would have to be indented more than its key"
        ),
    ),
    (
        "quoted scalar: found unexpected end of stream",
        "the quotes that are opened on line {begin} are never closed",
    ),
    (
        "expected comment or line break",
        "after | or > nothing else is on the line: the text begins on the next one, indented",
    ),
    (
        "expected alphabetic or numeric character",
        f"& and * are followed by the name of an anchor: {_QUOTE_IT}",
    ),
    ("found undefined tag handle", f"! begins a tag: {_QUOTE_IT}"),
)
"""Part of what libyaml says, after "in which context: " → what to say; the first that fits."""


def parser_says(error: Any, text: str) -> str:
    """Of a yaml.MarkedYAMLError; one line."""
    said = str(error.problem or error.context or "this is not YAML")
    begin, end = _line(error.context_mark), _line(error.problem_mark)
    whole = f"{error.context or ''}: {said}"
    known = [(_NO_KEY, _INDENTED if _begins_line(error.problem_mark, text) else _AFTER), *_WORDS]
    for part, words in known:
        if part in whole:
            return words.format(begin=begin, end=end)
    if error.context and begin and end and begin != end:
        said += f" ({error.context} that begins on line {begin})"
    return quote(said, 300).strip('"')


def _line(mark: Any) -> int:
    """From 1; 0: not known."""
    return mark.line + 1 if mark else 0


def _begins_line(mark: Any, text: str) -> bool:
    lines = text.split("\n")
    return bool(mark) and mark.line < len(lines) and not lines[mark.line][: mark.column].strip()
