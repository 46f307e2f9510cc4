"""The CheckpointStores port. The store itself is loaded by whoever has one: most commands never look into it."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, Final

from controller.errors import NOT_UNDERSTOOD, MasuError
from controller.host.syscalls import free_bytes
from controller.host.text import existing_part, failed, make_private, no_room
from controller.model.checkpoint import SPEC

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from controller.host.ports import CheckpointStore
    from controller.model.checkpoint import Checkpoint

LINEAGES: Final = "lineages"


class LocalStores:
    """The stores of an instance are one directory; a key belongs to a container's spec."""

    def __init__(self, root: str) -> None:
        self._root = root

    def at(self, key_file: str) -> CheckpointStore:
        from controller.host.checkpoints.store import LocalStore  # noqa: PLC0415

        return LocalStore(self._root, key_file)

    def check_export(self, path: str, need: int) -> None:
        from controller.host.checkpoints.export import prove  # noqa: PLC0415 - brings tarfile along

        prove(path, need)

    def hindrances(self, key_file: str, min_free: int) -> Iterator[MasuError]:
        """Asked with each status: nothing is imported, and the key forgotten at once."""
        from controller.host.checkpoints.codec import lacking, read_key  # noqa: PLC0415
        from controller.host.checkpoints.packs import PACK_BYTES  # noqa: PLC0415

        yield from lacking(sealed=bool(key_file))
        try:
            if key_file:
                read_key(key_file)
        except MasuError as error:
            yield error
        try:
            free = free_bytes(existing_part(self._root))
        except OSError as error:
            yield failed(error, "asking for the room in", self._root)
            return
        if min_free and free - PACK_BYTES < min_free:
            yield no_room(self._root, free, min_free)

    def checkpoints(self, container: str) -> tuple[Checkpoint, ...]:
        """Heads alone take no more than the depot: `masu status` asks for them."""
        if not os.path.isdir(self._root):
            return ()
        from controller.host.checkpoints.codec import Codec  # noqa: PLC0415
        from controller.host.checkpoints.depot import Depot  # noqa: PLC0415

        return Depot(self._root, Codec(None), patience_s=0.0).heads(container)

    def config(self, identity: str, key_file: str) -> Mapping[str, Any]:
        """An archive may hold whatever somebody wrote in its place."""
        from controller.host.checkpoints.store import LocalStore  # noqa: PLC0415

        try:
            text = LocalStore(self._root, key_file).text(identity, SPEC)
            found = json.loads(text) if text else {}
        except (MasuError, *NOT_UNDERSTOOD):
            return {}
        return found if isinstance(found, dict) else {}

    def lineage(self, container: str) -> str | None:
        try:
            return os.readlink(f"{self._root}/{LINEAGES}/{container}")
        except OSError:
            return None

    def note_lineage(self, container: str, lineage: str) -> None:
        """A symbolic link that points nowhere: the journal keeps its text with its name, without a sync."""
        directory = f"{self._root}/{LINEAGES}"
        path = f"{directory}/{container}"
        try:
            if lineage:
                make_private(self._root)
                make_private(directory)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{directory}/.{container}")
                os.symlink(lineage, f"{directory}/.{container}")
                os.rename(f"{directory}/.{container}", path)
                return
            for each in (path, f"{directory}/.{container}"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(each)
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        except OSError as error:
            raise failed(error, "noting the run of a container in", path) from error
