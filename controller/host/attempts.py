"""The AttemptLog port: how the checkpoints of each container went."""

from __future__ import annotations

from controller.host.losable import LosableFiles
from controller.model.attempts import Attempts


class AttemptFiles(LosableFiles[Attempts]):
    """A full disk must not be why a checkpoint fails, or is not told of."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory, Attempts.from_json)
