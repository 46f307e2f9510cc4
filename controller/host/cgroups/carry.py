"""What a group has that is to hold in the place it moves to, before anybody is there.

Limits, device programs and the freezer are the aspects' business, and they look again after the move; but a process
must not be without them in between, nor for as long as masu is not there when it was killed in the middle. What
cannot be carried over is left to them.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from controller.host.cgroups import bpf
from controller.host.text import read_text

FREEZE = "cgroup.freeze"
WRITABLE = stat.S_IRUSR | stat.S_IWUSR
NOT_LIMITS = ("cgroup.", "notify_on_release", "tasks", "memory.pressure_level")
COUNTERS = (".pressure", ".peak", ".failcnt", ".max_usage_in_bytes")


def over(source: str, target: str) -> None:
    """Directories of one mount. What holds in the first holds in the second."""
    with contextlib.suppress(OSError):
        _programs(source, target)
    for file in _limits(source):
        _copy(source, target, file)
    _copy(source, target, FREEZE)


def _limits(source: str) -> Iterator[str]:
    """In the order of the alphabet, in which v1's memory comes before memory and swap."""
    with os.scandir(source) as entries:
        found = sorted(
            each.name for each in entries if each.is_file(follow_symlinks=False) and _is_limit(each)
        )
    yield from found


def _is_limit(each: os.DirEntry[str]) -> bool:
    named = each.name.startswith(NOT_LIMITS) or each.name.endswith(COUNTERS)
    return not named and each.stat().st_mode & WRITABLE == WRITABLE


def _copy(source: str, target: str, file: str) -> None:
    """A keyed file takes one line with each write (cgroup-v2.rst, "Format")."""
    text = read_text(f"{source}/{file}")
    if not text or text == read_text(f"{target}/{file}"):
        return
    for line in text.splitlines():
        with contextlib.suppress(OSError), open(f"{target}/{file}", "w") as knob:
            knob.write(line)


def _programs(source: str, target: str) -> None:
    with contextlib.ExitStack() as stack:
        here, there = (
            os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for each in (source, target)
        )
        for descriptor in (here, there):
            stack.callback(os.close, descriptor)
        known = set(bpf.attached(there))
        for number in bpf.attached(here):
            program = bpf.opened(number) if number not in known else None
            if program is not None:
                stack.callback(os.close, program)
                bpf.attach(there, program)
