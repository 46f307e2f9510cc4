"""The Tallies port: what was counted of each container."""

from __future__ import annotations

import os

from controller.host.cgroups.homes import Homes
from controller.host.losable import LosableFiles
from controller.model.counters import Tally


class TallyFiles(LosableFiles[Tally]):
    """Without its file the group that is there still has its own counters; what could not be written is lost only
    with the group that it was counted in.
    """

    def __init__(self, homes: Homes, directory: str) -> None:
        super().__init__(directory, Tally.from_json)
        self._homes = homes

    def number(self, group: str, subsystem: str) -> int:
        """The inode, which the kernel gives out once (fs/kernfs/dir.c; on 32 bits the generation is not in it)."""
        hierarchy = self._homes.facts.hierarchy(subsystem)
        try:
            return os.stat(self._homes.locate(hierarchy, group)).st_ino if hierarchy else 0
        except FileNotFoundError:
            return 0
