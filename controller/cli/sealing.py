"""`seal`: what a spec may carry through a repository, and only one host can read."""

from __future__ import annotations

import argparse
import os
import sys
from getpass import getpass
from typing import Any

from controller.cli.words import DONE, FAILED, add_verb, settings_of

INDENT = "  "


def add(verbs: Any) -> None:
    """The words of this command."""
    seal = add_verb(
        verbs, "seal", _seal, "seal a secret with age, as it stands in a spec; it is read from standard input"
    )
    which = seal.add_mutually_exclusive_group()
    which.add_argument(
        "--for",
        dest="recipients",
        action="append",
        default=[],
        metavar="KEY",
        help="who may read it: age1…, or a public key of OpenSSH; more than once for more (default: this host)",
    )
    which.add_argument(
        "--public-key",
        action="store_true",
        help="print this host's, to seal for it elsewhere; where it has no key, make one",
    )


def _seal(arguments: argparse.Namespace) -> int:
    from controller.app.sealing import public_keys, sealed_for  # noqa: PLC0415

    key = os.path.abspath(settings_of(arguments).identity)
    if arguments.public_key:
        print(*public_keys(key), sep="\n")
        return DONE
    content = _content()
    if not content:
        print("masu seal: there is nothing to seal", file=sys.stderr)
        return FAILED
    text = sealed_for(content, arguments.recipients, key)
    print("age: |", *text.splitlines(), sep=f"\n{INDENT}")
    return DONE


def _content() -> bytes:
    """All of it, byte by byte; of who types it, one line, which nobody sees."""
    if not sys.stdin or not sys.stdin.isatty():
        return sys.stdin.buffer.read() if sys.stdin else b""
    try:
        return os.fsencode(getpass("secret: "))
    except EOFError:
        return b""
