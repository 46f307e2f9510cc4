"""The driver of `Spaces`: `<state>/spaces/<sort>/<name>/`, each with the mechanism that it was made with.

    mechanism, rule, size   symbolic links that point nowhere: the journal keeps their text with their names
    called, for             likewise, of one that was made beside another to take its place (`twins`)
    fs/data                 what containers see
    image                   of a loopImage, what is mounted on fs

A space is made under another name and renamed when it is whole, and renamed before it is taken apart. What has its
name is never made anew, whatever has become of it: there may be something to save.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping

from controller.errors import HostLacks, MasuError, StepFailed
from controller.host.places import Places
from controller.host.removal import remove_deep
from controller.host.spaces.mechanism import Held, Mechanism
from controller.host.text import failed, make_directories, sync_directory
from controller.model.space import CONTENT, FILES, NewSpace, Offer, Sort, Space, SpaceChange, SpaceSeen

NEW, COMING, REMOVED = ".new", ".coming", ".removed"
"""What a space beside the one of that name is: half made, about to take its place or out of it, half removed."""
CALLED = "called"
KEEP, REMOVE = "keep", "remove"
OFFER_S = 1.0
"""So long stands what was found for all spaces of the host."""


class SpaceDirectories:
    """`mechanisms`: the better ones first; of those that can be used where the spaces are, the first is taken."""

    def __init__(self, places: Places, mechanisms: tuple[Mechanism, ...]) -> None:
        self._places = places
        self._mechanisms = mechanisms
        self._offered: tuple[float, Offer] | None = None

    def names(self, sort: Sort) -> frozenset[str]:
        try:
            entries = os.listdir(f"{self._places.spaces}/{sort}")
        except FileNotFoundError:
            return frozenset()
        return frozenset(map(plain_name, entries))

    def offer(self) -> Offer:
        """A sum over all spaces of the host that can be read stands for a while."""
        now = time.monotonic()
        if self._offered is None or now > self._offered[0] + OFFER_S:
            chosen, why = self._choose()
            live = os.statvfs(self._existing())
            promised = sum(each.unfilled for each in self._all())
            offer = Offer(chosen.name if chosen else "", why, live.f_bavail * live.f_frsize, promised)
            self._offered = (now, offer)
        return self._offered[1]

    def look(self, space: Space) -> SpaceSeen | None:
        base = self.base(space)
        half = any(os.path.lexists(self.aside(space, suffix)) for suffix in (NEW, REMOVED))
        size = int(read_link(f"{base}/size") or 0)
        if not size:
            return SpaceSeen(half=True) if half else None
        mechanism = self._mechanism(base)
        held = (mechanism.look(base) if mechanism else None) or Held(0, 0, 0, mounted=False, attached=False)
        return SpaceSeen(
            mechanism=mechanism.name if mechanism else "",
            size=size,
            limit=held.limit,
            used=held.used,
            half=half,
            mounted=held.mounted,
            attached=held.attached,
            read_only=held.read_only,
            grows=held.grows,
            owner=_owner(base) if held.mounted else None,
            keep=read_link(f"{base}/rule") == KEEP,
        )

    def make(self, space: Space, new: NewSpace) -> None:
        """Raises HostLacks, StepFailed."""
        base = self.base(space)
        if os.path.lexists(base):
            raise StepFailed(f"{base}: there is something already, and nothing is made over it", path=base)
        self.make_at(base, space, new, {})

    def make_at(self, base: str, space: Space, new: NewSpace, links: Mapping[str, str]) -> None:
        """`base`: `space`'s own or one beside it. `links`: what else is noted in there, by name.

        Raises HostLacks, StepFailed.
        """
        chosen, why = self._choose()
        if chosen is None:
            raise HostLacks(why)
        aside = self.aside(space, NEW)
        self.clear(space)
        make_directories(os.path.dirname(base))
        noted = {
            "mechanism": chosen.name,
            "rule": KEEP if new.keep else REMOVE,
            "size": str(new.size),
            **links,
        }
        try:
            os.mkdir(aside, 0o700)  # a set-user-id program of a container is nothing for users of the host
            os.mkdir(f"{aside}/{FILES}", 0o711)
            for name, text in noted.items():
                os.symlink(text, f"{aside}/{name}")
            chosen.make(aside, _called(aside, space), new)
            os.rename(aside, base)
            sync_directory(os.path.dirname(base))
        except OSError as error:
            raise failed(error, "making", aside) from error
        self._offered = None

    def change(self, space: Space, change: SpaceChange) -> None:
        base = self.base(space)
        mechanism = self.mechanism_of(base)
        if change.mounted is not None:
            mechanism.mount(base) if change.mounted else mechanism.unmount(base, busy=False)
        if change.size is not None:
            mechanism.grow(base, change.size)
            self._offered = None
        try:
            if change.size is not None:
                _write_link(f"{base}/size", str(change.size))
            if change.keep is not None:
                _write_link(f"{base}/rule", KEEP if change.keep else REMOVE)
            if change.owner is not None:
                os.chown(f"{base}/{CONTENT}", *change.owner)
        except OSError as error:
            raise failed(error, "changing", base) from error

    def remove(self, space: Space) -> None:
        self.remove_at(self.aside(space, COMING), space)
        self.remove_at(self.base(space), space)

    def remove_at(self, base: str, space: Space) -> None:
        """`base`: `space`'s own or one beside it; nothing may be there. Also what is half made and half removed."""
        mechanism = self._mechanism(base)
        if mechanism:
            mechanism.unmount(base, busy=True)
        self.clear(space)
        try:
            if os.path.lexists(base):
                os.rename(base, self.aside(space, REMOVED))
        except OSError as error:
            raise failed(error, "removing", base) from error
        self.clear(space)
        self._offered = None

    def clear(self, space: Space) -> None:
        """What is half made and half removed."""
        for suffix in (NEW, REMOVED):
            aside = self.aside(space, suffix)
            if not os.path.lexists(aside):
                continue
            mechanism = self._mechanism(aside)
            if mechanism:
                mechanism.destroy(aside, _called(aside, space))
            try:
                remove_deep(aside)
            except OSError as error:
                raise failed(error, "removing", aside) from error

    def _choose(self) -> tuple[Mechanism | None, str]:
        directory, why = self._existing(), ""
        for each in self._mechanisms:
            why = each.lack(directory)
            if not why:
                return each, ""
        return None, why

    def _all(self) -> Iterator[Held]:
        """What is wrong with one of them is a matter for `look`, and stops nobody who uses another."""
        for instance in self._places.all_spaces():
            for sort in _listed(instance):
                for name in _listed(f"{instance}/{sort}"):
                    base = f"{instance}/{sort}/{name}"
                    mechanism = None if name.startswith(".") else self._mechanism(base)
                    with contextlib.suppress(MasuError):
                        held = mechanism.look(base) if mechanism else None
                        if held:
                            yield held

    def _existing(self) -> str:
        """The directory of the spaces, or the one above in which it will be made."""
        path = self._places.spaces
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        return path

    def mechanism_of(self, base: str) -> Mechanism:
        """Raises HostLacks."""
        mechanism = self._mechanism(base)
        if mechanism is None:
            raise HostLacks(f"{base} was made in a way that this version does not know")
        return mechanism

    def _mechanism(self, base: str) -> Mechanism | None:
        named = read_link(f"{base}/mechanism")
        return next((each for each in self._mechanisms if each.name == named), None)

    def base(self, space: Space) -> str:
        return f"{self._places.spaces}/{space.text}"

    def asides(self, space: Space) -> tuple[str, ...]:
        """Where something of it may be, beside it."""
        return tuple(self.aside(space, each) for each in (NEW, COMING, REMOVED))

    def aside(self, space: Space, suffix: str) -> str:
        return f"{self._places.spaces}/{space.sort}/.{space.name}{suffix}"


def plain_name(entry: str) -> str:
    """Names of spaces begin with no dot."""
    if not entry.startswith("."):
        return entry
    return entry[1:].removesuffix(NEW).removesuffix(COMING).removesuffix(REMOVED)


def _called(base: str, space: Space) -> Space:
    """As what it holds what it has elsewhere: numbers of quotas."""
    return Space(space.sort, read_link(f"{base}/{CALLED}") or space.name)


def read_link(path: str) -> str:
    """Empty: there is none."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _write_link(path: str, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.new")
    os.symlink(text, f"{path}.new")
    os.replace(f"{path}.new", path)


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _owner(base: str) -> tuple[int, int] | None:
    try:
        found = os.stat(f"{base}/{CONTENT}")
    except OSError:
        return None
    return found.st_uid, found.st_gid
