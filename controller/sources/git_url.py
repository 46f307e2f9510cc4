"""`git+https://host/specs.git#main:nodes/edge-7`: which repository, which ref, and which directory in it. Pure."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from controller.frozen import dataclass
from controller.model.names import quote

PREFIX = "git+"
PROTOCOLS = ("https", "ssh", "file")
USUAL_REF = "HEAD"
LONGEST = 2048

_UNFIT = re.compile(r"[\x00-\x20\x7f]")
_NO_REF = re.compile(r"^[-/.]|\.\.|@\{|//|/\.|[\x00-\x20\x7f~^:?*\[\\]|(?:\.|/|\.lock)$")
"""git-check-ref-format(1), and nothing that could be taken for an option."""
_HOST = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+")
_USER = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.]*")


@dataclass(frozen=True, slots=True)
class GitUrl:
    """`url` as git takes it; `ref`: a branch, a tag or a whole commit; `directory`: or a file; "" for all."""

    url: str
    ref: str = USUAL_REF
    directory: str = ""

    @property
    def protocol(self) -> str:
        return self.url.partition(":")[0]

    @property
    def place(self) -> str:
        """What is kept of it on this host is of one ref of one repository."""
        return f"{self.url}#{self.ref}"

    @property
    def home(self) -> str:
        """Where its files are, whichever ref is asked for."""
        return f"{PREFIX}{self.url}" + (f":{self.directory}" if self.directory else "")

    def __str__(self) -> str:
        directory = f":{self.directory}" if self.directory else ""
        ref = "" if self.ref == USUAL_REF else self.ref
        return f"{PREFIX}{self.url}" + (f"#{ref}{directory}" if ref or directory else "")


def is_git(source: str) -> bool:
    return source.startswith(PREFIX)


def parse(source: str) -> GitUrl:
    """Raises ValueError with what is wrong, and what to write."""
    url, _, which = source.removeprefix(PREFIX).partition("#")
    ref, _, directory = which.partition(":")
    _check_url(url)
    if _NO_REF.search(ref) or len(ref) > LONGEST or not ref.isprintable():
        raise ValueError(f"{quote(ref)} cannot be a branch or a tag")
    return GitUrl(url, ref or USUAL_REF, _directory(directory))


def _check_url(url: str) -> None:
    if len(url) > LONGEST or _UNFIT.search(url) or not url.isprintable():
        raise ValueError("a URL holds no white space and no control characters: write %20")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{quote(url)} is not a URL: {error}") from None
    if parts.scheme not in PROTOCOLS:
        known = ", ".join(f"{PREFIX}{each}://" for each in PROTOCOLS)
        raise ValueError(f"{quote(parts.scheme or url)} is not followed: a git source begins with {known}")
    if parts.query:
        raise ValueError("a git source has no ?: the ref stands behind #, as in #main:nodes/edge-7")
    if parts.scheme == "file":
        _check_file(parts)
    else:
        _check_remote(parts, port)


def _check_file(parts: SplitResult) -> None:
    if parts.netloc or parts.path.rstrip("/") == "":
        raise ValueError(f"write {PREFIX}file:///absolute/path")


def _check_remote(parts: SplitResult, port: int | None) -> None:
    if parts.password is not None:
        raise ValueError("a password in a URL is seen by everybody: use git+ssh:// with a key")
    if not _HOST.fullmatch(parts.hostname or ""):
        raise ValueError(f"{quote(parts.netloc)} is not a host")
    if parts.username is not None and not _USER.fullmatch(parts.username):
        raise ValueError(f"{quote(parts.username)} is not a user")
    if port == 0 or len(parts.path.strip("/")) == 0:
        raise ValueError("the URL names no repository")


def _directory(text: str) -> str:
    names = [name for name in text.split("/") if name not in {"", "."}]
    if text.startswith("/") or ".." in names:
        raise ValueError(
            f"{quote(text)} is not a directory of the repository: write it from its top, without .."
        )
    if not text.isprintable():
        raise ValueError(f"{quote(text)} is not printable text")
    return "/".join(names)
