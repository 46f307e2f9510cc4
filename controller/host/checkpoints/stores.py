"""The CheckpointStores port. The store itself is loaded by whoever has one: most commands never look into it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.host.ports import CheckpointStore
    from controller.model.checkpoint import Checkpoint


class LocalStores:
    """The stores of an instance are one directory; a key belongs to a container's spec."""

    def __init__(self, root: str) -> None:
        self._root = root

    def at(self, key_file: str) -> CheckpointStore:
        from controller.host.checkpoints.store import LocalStore  # noqa: PLC0415

        return LocalStore(self._root, key_file)

    def checkpoints(self, container: str) -> tuple[Checkpoint, ...]:
        """Heads alone take no more than the depot: `masu status` asks for them."""
        if not os.path.isdir(self._root):
            return ()
        from controller.host.checkpoints.codec import Codec  # noqa: PLC0415
        from controller.host.checkpoints.depot import Depot  # noqa: PLC0415

        return Depot(self._root, Codec(None), patience_s=0.0).heads(container)
