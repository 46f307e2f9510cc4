"""Pre-dumps: when they cannot be relied on, and what is left of one that is of no use any more.

CRIU asks the kernel which pages were written since it has last asked (soft-dirty bits), and whoever else asks takes
part of the answer away. Source: Documentation/admin-guide/mm/soft-dirty.rst.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from controller.errors import StepFailed
from controller.host.text import remove_file, remove_tree
from controller.host.whole_dumps import PARENT_LINK
from controller.model.dump import PRE_DUMP, DumpOrder

_CLEARS: Final = "/clear_refs"


def check(members: Iterable[int]) -> None:
    """Raises StepFailed: what others clear would be taken for what was not written."""
    for pid in members:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    if os.readlink(f"/proc/{pid}/fd/{number}").endswith(_CLEARS):
                        raise StepFailed(f"process {pid} itself tracks what is written, fd {number}")


def forgotten(order: DumpOrder) -> DumpOrder:
    """A dump that was given up has cleared what the kernel knew: the next one has to be whole."""
    if order.resumes:
        remove_file(f"{order.directory}/{PARENT_LINK}")
        remove_tree(f"{order.directory}/{PRE_DUMP}")
    return replace(order, resumes=False)
