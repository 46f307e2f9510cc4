"""What cgroup v1 needs that v2 does not."""

from __future__ import annotations

import contextlib
import os

from controller.host.text import read_text


def prepare(mount: str, group: str, subsystems: tuple[str, ...]) -> None:
    """Make a group on a v1 mount, level by level: a cpuset has no cpus until it is given its parent's.

    Documentation/admin-guide/cgroup-v1/cpusets.rst: no task may enter a cpuset with empty cpus or mems.
    """
    path = mount
    for part in group.strip("/").split("/"):
        parent, path = path, f"{path}/{part}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)
        if "cpuset" in subsystems:
            _inherit_cpuset(parent, path)


def _inherit_cpuset(parent: str, child: str) -> None:
    for file in ("cpuset.cpus", "cpuset.mems"):
        if (read_text(f"{child}/{file}") or "").strip():
            continue
        inherited = (read_text(f"{parent}/{file}") or "").strip()
        if inherited:
            with open(f"{child}/{file}", "w") as knob:
                knob.write(inherited)
