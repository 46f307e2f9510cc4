"""Which kind of source a word on the command line means. Looks at no source yet."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from controller.errors import Problem, SpecInvalid
from controller.settings import Settings
from controller.sources.git_url import PROTOCOLS, GitUrl, is_git, parse
from controller.sources.layers import LayeredDirectory
from controller.sources.signers import unfit

if TYPE_CHECKING:
    from controller.sources.git import GitSource, PassingGitSource
    from controller.sources.git_process import GitOptions

MOST_SIGNERS = 1 << 20
SCHEMES = frozenset({*PROTOCOLS, "http"})
"""Somebody means a repository."""


def source_of(
    source: str, settings: Settings, below: str, doubt: Callable[[], str]
) -> LayeredDirectory | GitSource:
    """`below`: where copies of repositories are kept. `doubt`: why one is not to be fetched. Raises SpecInvalid."""
    _check_options(source, settings)
    if not is_git(source):
        return LayeredDirectory(source, root_only=not settings.unsafe_source)
    from controller.sources.git import GitSource  # noqa: PLC0415  # not needed for a directory

    return GitSource(_url(source), _options(settings), below, settings.fetch_s, doubt)


def passing_source_of(
    source: str, settings: Settings, *, root_only: bool = False
) -> LayeredDirectory | PassingGitSource:
    """For a look that keeps nothing. `root_only`: nothing is read that others may write. Raises SpecInvalid."""
    _check_options(source, settings)
    if not is_git(source):
        return LayeredDirectory(source, root_only=root_only)
    from controller.sources.git import PassingGitSource  # noqa: PLC0415

    return PassingGitSource(_url(source), _options(settings))


def path_of(source: str) -> str:
    """Where it is on this host; "" where it is on another. Raises SpecInvalid."""
    if not is_git(source):
        return source
    parts = urlsplit(_url(source).url)
    return unquote(parts.path, errors="surrogateescape") if parts.scheme == "file" else ""


def root_of(source: str) -> str:
    """What paths of its files begin with. Raises SpecInvalid."""
    return _url(source).directory if is_git(source) else source.rstrip("/")


def _url(source: str) -> GitUrl:
    try:
        return parse(source)
    except ValueError as error:
        raise _wrong("SOURCE", str(error)) from error


def _options(settings: Settings) -> GitOptions:
    from controller.sources.git_process import KNOWN_HOSTS, GitOptions  # noqa: PLC0415

    return GitOptions(settings.signers, settings.known_hosts or KNOWN_HOSTS, settings.ssh_key)


def _check_options(source: str, settings: Settings) -> None:
    if source.partition(":")[0].lower() in SCHEMES and not os.path.exists(source):
        raise _wrong("SOURCE", f"{source} is no directory: a repository is written git+{source}")
    files = {
        "--require-signature": settings.signers,
        "--ssh-known-hosts": settings.known_hosts,
        "--ssh-key": settings.ssh_key,
    }
    for option, path in files.items():
        if path and not is_git(source):
            raise _wrong(option, f"is for a git source, which {source} is not")
        if path and not os.path.exists(path):
            raise _wrong(option, f"there is no {path}")
    if os.path.isfile(settings.signers):
        why = unfit(_text(settings.signers))
        if why:
            raise _wrong("--require-signature", f"{settings.signers}: {why}")


def _text(path: str) -> bytes:
    """Raises SpecInvalid."""
    try:
        with open(path, "rb") as file:
            return file.read(MOST_SIGNERS)
    except OSError as error:
        raise _wrong("--require-signature", f"{path}: {os.strerror(error.errno or 0)}") from error


def _wrong(option: str, why: str) -> SpecInvalid:
    return SpecInvalid((Problem(option, 0, 0, "", why),))
