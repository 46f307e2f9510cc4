"""The Snapshots port: a container's files, copied while it stands still, and put in their place again.

Beside a layer's `upper` there are, only during a restore, `coming` (files of a checkpoint, or what is being thrown
away) and `kept` (the files that were there before). `kept` is made and taken away by one rename each, so that
whoever finds it knows that the restore was neither finished nor undone. What is in a space, a volume or a layer
with a size, gets a twin instead (`spaces.twins`).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from controller.host.places import Places
from controller.host.removal import remove_deep
from controller.host.spaces.twins import Twins
from controller.host.syscalls import syncfs
from controller.host.text import failed, make_private
from controller.host.tree_copy import TreeCopier
from controller.model.checkpoint import UPPER, Pending, TreeCopy, volume_in
from controller.model.space import CONTENT, ROOTFS, VOLUME_SORT, Space, content_path

COMING, KEPT = "coming", "kept"
FRAME, WORK = "frame", "work"
"""Beside a sized layer's content, and in it: what the layer was made for, and what the overlay works with."""
_URGENCY: Final[Sequence[Pending]] = ("swapped", "coming", "")


class FileSnapshots:
    """Every method may be called from any thread, for one container by one at a time."""

    def __init__(self, places: Places, twins: Twins) -> None:
        self._places, self._twins = places, twins
        self._copiers: dict[str, dict[str, TreeCopier]] = {}

    def take(
        self, name: str, trees: Sequence[str], min_free: int, *, ahead: bool = False
    ) -> tuple[TreeCopy, ...]:
        if ahead or name not in self._copiers:
            self.drop(name)
            make_private(self._places.snapshots)
            make_private(self._snapshot(name))
            self._copiers[name] = {}
        return tuple(self._take(name, each, min_free, ahead=ahead) for each in trees)

    def drop(self, name: str) -> None:
        self._copiers.pop(name, None)
        path = self._snapshot(name)
        _try("removing", path, lambda: _remove(path))

    def incoming(self, name: str, trees: Sequence[str]) -> Mapping[str, str]:
        return {each: self._incoming(name, each) for each in trees}

    def swap(self, name: str) -> None:
        for space, pending in self._twins.of(name):
            if pending == "coming":
                self._twins.swap(space)
        layer = self._layer(name)
        if os.path.lexists(f"{layer}/{COMING}"):
            _try("putting files of a checkpoint in", layer, lambda: _swap(layer))

    def put_back(self, name: str) -> None:
        for space, _ in self._twins.of(name):
            self._twins.put_back(space, name)
        layer = self._layer(name)
        _try("putting back the files of", layer, lambda: _put_back(layer))

    def settle(self, name: str) -> None:
        for space, pending in self._twins.of(name):
            if pending == "swapped":
                self._twins.settle(space)
            else:
                self._twins.put_back(space, name)
        layer = self._layer(name)
        _try("removing the files before the restore of", layer, lambda: _settle(layer))

    def pending(self, name: str) -> Pending:
        found = {self._layer_pending(name), *(pending for _, pending in self._twins.of(name))}
        return min(found, key=_URGENCY.index)

    def _take(self, name: str, tree: str, min_free: int, *, ahead: bool) -> TreeCopy:
        source, target = self._files(name, tree), f"{self._snapshot(name)}/{tree}"
        before = time.monotonic()
        try:
            copier = self._copiers[name].get(tree)
            if copier is None:
                make_private(target)
                copier = self._copiers[name][tree] = TreeCopier(target, min_free)
            if ahead:
                copier.copy_ahead(source)
            else:
                copier.copy(source)
        except OSError as error:
            raise failed(error, "copying the files of", error.filename or source) from error
        took_ms = round((time.monotonic() - before) * 1000)
        return TreeCopy(tree, target, copier.copied, copier.cloned, took_ms)

    def _incoming(self, name: str, tree: str) -> str:
        volume = volume_in(tree)
        if volume:
            return self._twins.make(Space(VOLUME_SORT, volume), name, {})
        if space := self._space(name):
            content = self._twins.make(Space(ROOTFS, name), name, {FRAME: os.readlink(f"{space}/{FRAME}")})
            _try("making", content, lambda: _make_like(f"{content}/{WORK}", f"{space}/{CONTENT}/{WORK}"))
            return f"{content}/{UPPER}"
        path = f"{self._layer(name)}/{COMING}"
        _try("removing", path, lambda: _remove(path))
        return path

    def _layer_pending(self, name: str) -> Pending:
        layer = self._layer(name)
        if os.path.lexists(f"{layer}/{KEPT}"):
            return "swapped"
        return "coming" if os.path.lexists(f"{layer}/{COMING}") else ""

    def _files(self, name: str, tree: str) -> str:
        volume = volume_in(tree)
        if volume:
            return content_path(self._places.spaces, Space(VOLUME_SORT, volume))
        return f"{self._layer(name)}/{UPPER}"

    def _snapshot(self, name: str) -> str:
        return f"{self._places.snapshots}/{name}"

    def _layer(self, name: str) -> str:
        space = self._space(name)
        return f"{space}/{CONTENT}" if space else f"{self._places.layers}/{name}"

    def _space(self, name: str) -> str:
        """Of a layer with a size; empty: it has none."""
        space = f"{self._places.spaces}/{Space(ROOTFS, name).text}"
        return space if os.path.lexists(f"{space}/{FRAME}") else ""


def _swap(layer: str) -> None:
    os.rename(f"{layer}/{UPPER}", f"{layer}/{KEPT}")
    os.rename(f"{layer}/{COMING}", f"{layer}/{UPPER}")


def _put_back(layer: str) -> None:
    if os.path.lexists(f"{layer}/{KEPT}"):
        _remove(f"{layer}/{UPPER}")
        os.rename(f"{layer}/{KEPT}", f"{layer}/{UPPER}")
    _remove(f"{layer}/{COMING}")


def _settle(layer: str) -> None:
    _remove(f"{layer}/{COMING}")
    if os.path.lexists(f"{layer}/{KEPT}"):
        syncfs(layer)  # what came is on disk before what it replaces goes
        os.rename(f"{layer}/{KEPT}", f"{layer}/{COMING}")
        _remove(f"{layer}/{COMING}")


def _make_like(path: str, other: str) -> None:
    """A directory with the owner and the mode of another."""
    seen = os.stat(other)
    os.mkdir(path, 0o700)
    os.chown(path, seen.st_uid, seen.st_gid)
    os.chmod(path, stat.S_IMODE(seen.st_mode))


def _try(doing: str, path: str, work: Callable[[], None]) -> None:
    try:
        work()
    except OSError as error:
        raise failed(error, doing, error.filename or path) from error


def _remove(path: str) -> None:
    if os.path.lexists(path):
        remove_deep(path)
