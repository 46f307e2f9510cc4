"""What keeps a directory to a size. No operating system here; each mechanism is a file beside this one.

`base` is the directory of one space, with its file system or directory in `base/fs` and what containers see in
`base/fs/data`. Sizes in bytes. What cannot be done is StepFailed, or HostLacks.
"""

from __future__ import annotations

from typing import Protocol

from controller.frozen import dataclass
from controller.model.space import Mechanism as Name
from controller.model.space import NewSpace, Space


@dataclass(frozen=True, slots=True)
class Held:
    """As in `SpaceSeen`. `unfilled`: bytes that it may still take from the file system around it."""

    limit: int
    used: int
    unfilled: int
    mounted: bool = True
    attached: bool = True
    read_only: bool = False
    grows: bool = True


class Mechanism(Protocol):
    @property
    def name(self) -> Name: ...

    def lack(self, directory: str) -> str:
        """Read-only. Why it cannot be used for what is below; empty: it can."""
        ...

    def make(self, base: str, space: Space, new: NewSpace) -> None:
        """In a directory with nothing but an empty `fs`, which nobody else knows of yet."""
        ...

    def look(self, base: str) -> Held | None:
        """Read-only. None: what should hold the data is not there."""
        ...

    def grow(self, base: str, size: int) -> None:
        """Never makes it smaller."""
        ...

    def mount(self, base: str) -> None:
        """Also when it is mounted already."""
        ...

    def unmount(self, base: str, *, busy: bool) -> None:
        """Where the host sees it. `busy`: also from under programs of the host that are in there."""
        ...

    def destroy(self, base: str, space: Space) -> None:
        """All that is in there, and what is kept of it elsewhere. It is not mounted."""
        ...
