"""Spaces beside others, to take their place with all that is in them, and to be put out of it again.

    .<name>.coming   the twin, with a link `for` that names on whose behalf; or, once it has taken the place of
                     <name>, what that was before: then <name> has the link

Both change names at one moment, so that there is never none, and whoever finds them knows which is which.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping

from controller.errors import StepFailed
from controller.host import syscalls
from controller.host.spaces.directories import CALLED, COMING, SpaceDirectories, plain_name, read_link
from controller.host.text import failed, sync_directory
from controller.model.checkpoint import Pending
from controller.model.space import CONTENT, ROOTFS, VOLUME_SORT, NewSpace, Space

FOR = "for"


class Twins:
    """Every method may be called from any thread, for one owner by one at a time."""

    def __init__(self, spaces: SpaceDirectories, directory: str) -> None:
        self._spaces, self._volumes = spaces, f"{directory}/{VOLUME_SORT}"

    def of(self, owner: str) -> Iterator[tuple[Space, Pending]]:
        """Read-only. Those that were made for somebody, also half removed, and whether they are in their places."""
        own = Space(ROOTFS, owner)
        asides = [(own, each) for each in self._spaces.asides(own) if os.path.lexists(each)]
        with contextlib.suppress(FileNotFoundError):
            beside = (each for each in os.listdir(self._volumes) if each.startswith("."))
            asides += [(Space(VOLUME_SORT, plain_name(each)), f"{self._volumes}/{each}") for each in beside]
        for space, aside in asides:
            if read_link(f"{aside}/{FOR}") == owner:
                yield space, "coming"
            elif read_link(f"{self._spaces.base(space)}/{FOR}") == owner:
                yield space, "swapped"

    def make(self, space: Space, owner: str, links: Mapping[str, str]) -> str:
        """An empty one of the same size, in which `links` are noted, too. → the directory of what will be in it.

        Raises HostLacks, StepFailed.
        """
        base, aside = self._spaces.base(space), self._spaces.aside(space, COMING)
        live = self._spaces.look(space)
        if live is None or not live.exists:
            raise StepFailed(f"{space.text} is not there: its files cannot be restored", path=base)
        if os.path.lexists(aside) and read_link(f"{base}/{FOR}"):
            raise StepFailed(f"{aside}: another restore has not been ended yet", path=aside)
        self._spaces.remove_at(aside, space)
        self._unmark(base)
        called = f"{space.name}{COMING}.{time.time_ns()}"
        self._spaces.make_at(
            aside, space, NewSpace(live.size, live.keep), {**links, FOR: owner, CALLED: called}
        )
        self._spaces.mechanism_of(aside).mount(aside)
        return f"{aside}/{CONTENT}"

    def swap(self, space: Space) -> None:
        """It takes its place."""
        base = self._spaces.base(space)
        try:
            syscalls.exchange(self._spaces.aside(space, COMING), base)
            sync_directory(os.path.dirname(base))
        except OSError as error:
            raise failed(error, "putting files of a checkpoint in the place of", base) from error

    def settle(self, space: Space) -> None:
        """It stays where it is, and what was there before goes."""
        base = self._spaces.base(space)
        try:
            syscalls.syncfs(f"{base}/{CONTENT}")  # what came is on disk before what it replaces goes
        except OSError as error:
            raise failed(error, "writing to disk", base) from error
        self._spaces.remove_at(self._spaces.aside(space, COMING), space)
        self._unmark(base)

    def put_back(self, space: Space, owner: str) -> None:
        """What was there before is there again; the twin goes."""
        base, aside = self._spaces.base(space), self._spaces.aside(space, COMING)
        if os.path.lexists(aside) and read_link(f"{base}/{FOR}") == owner:
            self.swap(space)
        self._spaces.remove_at(aside, space)
        self._unmark(base)

    @staticmethod
    def _unmark(base: str) -> None:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{base}/{FOR}")
        except OSError as error:
            raise failed(error, "changing", base) from error
