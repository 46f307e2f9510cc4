"""What cgroup v1 needs that v2 does not."""

from __future__ import annotations

import contextlib
import os

from controller.host.text import read_text


def prepare(mount: str, group: str, subsystems: tuple[str, ...]) -> None:
    """Make a group on a v1 mount, level by level: a cpuset has no cpus until it is given its parent's.

    Documentation/admin-guide/cgroup-v1/cpusets.rst: no task may enter a cpuset with empty cpus or mems.
    """
    above = os.path.dirname(group)
    try:
        _make(mount + group)
    except FileNotFoundError:
        if above == "/":
            raise
        prepare(mount, above, subsystems)
        _make(mount + group)
    if "cpuset" in subsystems:
        for file in ("cpuset.cpus", "cpuset.mems"):
            _inherit(mount, group, file)


def _make(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)


def _inherit(mount: str, group: str, file: str) -> str:
    """The group's own value; where it has none yet, it is given the one of the group above."""
    path = f"{mount}{group}/{file}"
    own = (read_text(path) or "").strip()
    if own or group == "/":
        return own
    inherited = _inherit(mount, os.path.dirname(group), file)
    if inherited:
        with open(path, "w") as knob:
            knob.write(inherited)
    return inherited
