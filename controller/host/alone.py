"""One reconciler per instance: an flock with the holder's pid in it."""

from __future__ import annotations

import fcntl
import os

from controller.errors import InstanceBusy, NotPermitted
from controller.host.text import make_directories, read_text


def holder(path: str) -> int:
    """Read-only. Who reconciles the instance; 0: nobody. Its lock is not touched: somebody may be starting."""
    text = (read_text(path) or "").strip()
    directory = f"/proc/{text}/fd"
    try:
        held = any(os.readlink(f"{directory}/{each}") == path for each in os.listdir(directory))
    except OSError:
        return 0
    return int(text) if held and text.isdigit() else 0


class InstanceLock:
    """Held until `release` or the end of the process; nothing is left to clean after a crash."""

    def __init__(self, path: str, instance: str) -> None:
        make_directories(os.path.dirname(path))
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NotPermitted(f"cannot open {path}: {os.strerror(error.errno or 0)}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            holder = (read_text(path) or "").strip() or "unknown"
            raise InstanceBusy(
                f"instance {instance} is already reconciled by pid {holder}: stop that one, "
                "or use another --instance; it converges by itself when a file changes, and at once with masu sync;"
                " to remove a container while it runs, delete its file"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)
