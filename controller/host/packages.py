"""Python packages: whether they are there, and how they come to be. Nothing is imported for that."""

from __future__ import annotations

import importlib.util
import sys


def present(name: str) -> bool:
    """Read-only. Not whether it works here: that shows when it is used."""
    return importlib.util.find_spec(name) is not None


def version(name: str) -> str:
    """Read-only. Empty: it is not known."""
    from importlib import metadata  # noqa: PLC0415 - half as slow as all of masu

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def install(name: str) -> str:
    """Pure. The command: with the interpreter that runs masu, whatever else is on the host."""
    return f"{sys.executable} -m pip install {name}"


def needed(what: str, name: str) -> str:
    """Pure. What is wrong and what to do, in words."""
    return f"{what} need the Python package {name}: {install(name)}"
