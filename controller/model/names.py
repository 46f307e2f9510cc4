"""What may be a name or a host path, and which known word an unknown one was meant to be. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

LONGEST_NAME = 63
LONGEST_PATH = 4095
"""PATH_MAX without the closing NUL (limits.h)."""

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SEPARATORS = re.compile(r"[-_. ]")


def printable(text: str) -> str:
    r"""Pure. On one line, and nothing that a terminal obeys: control characters as \n or \x1b, bytes that are not
    UTF-8 as \xff. What containers are called, open and mount is theirs to choose.
    """
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    byte = ord(character) - 0xDC00  # surrogateescape: what was no UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()


def quote(text: str, longest: int = 60) -> str:
    """Text between double quotes on one line, shortened in the middle, whatever is in it."""
    if len(text) > longest:
        text = f"{text[: longest - 20]}…{text[-19:]}"
    return f'"{printable(text)}"'


def is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text))


def check_name(text: str) -> str:
    """The name of a container, network or group, unchanged. Raises ValueError with what is wrong."""
    if len(text) > LONGEST_NAME:
        raise ValueError(f"{quote(text)} has {len(text)} characters: a name has at most {LONGEST_NAME}")
    if not is_name(text):
        raise ValueError(
            f"{quote(text)} is not a name: use small letters, digits and -, "
            "beginning and ending with a letter or digit"
        )
    return text


def check_host_path(text: str) -> str:
    """An absolute path without `..` or control characters, unchanged. Raises ValueError with the reason."""
    if not text.startswith("/"):
        raise ValueError(f"{quote(text)} is not an absolute path: begin with /")
    if ".." in text.split("/"):
        raise ValueError(f"{quote(text)} contains ..: write the path that is meant")
    if _CONTROL.search(text):
        raise ValueError(f"{quote(text)} contains a control character")
    if len(text.encode(errors="surrogatepass")) > LONGEST_PATH:
        raise ValueError(f"{quote(text)} is longer than {LONGEST_PATH} bytes")
    return text


def plain_path(text: str) -> str:
    """The path without doubled slashes, `.` parts and a slash at the end: two that are the same look the same."""
    return "/" + posixpath.normpath(text).lstrip("/")


def suggest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was most likely meant to be; letter case and `-_. ` do not count."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake needs it, `status` never does

    plain: dict[str, str] = {}
    for choice in choices:
        plain.setdefault(_plain(choice), choice)
    close = get_close_matches(_plain(word[:LONGEST_NAME]), plain, n=1, cutoff=0.65)
    return plain[close[0]] if close else None


def _plain(word: str) -> str:
    return _SEPARATORS.sub("", word).lower()
