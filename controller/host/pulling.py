"""Programs that fetch and unpack images: what they say, and what their complaints come down to."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Sequence

from controller.errors import HostLacks, StepFailed
from controller.host.tool_runs import CannotRun, Halted, SaidTooMuch, TookTooLong, ToolRuns
from controller.model.image import Amount

_FATAL = re.compile(r'level=fatal msg="((?:[^"\\]|\\.)*)"')
_IN_VAIN = re.compile(r'^Error parsing image name "[^"]*": ')
"""What skopeo begins with whatever is wrong; whose name it is, is said anyway."""
_WORDS = re.compile(r"\w.*")
"""umoci begins its lines with a bullet."""
_LONGEST = 400
STOPPED = "masu is being stopped"


class Pulling:
    """Thread-safe."""

    def __init__(self) -> None:
        self._runs = ToolRuns()
        self.is_halted = False

    def run(self, argv: Sequence[str], timeout_s: float, watch: Callable[[], None] | None = None) -> bytes:
        """→ what it said. `watch` is called now and then, and ends it by raising.

        Raises HostLacks where it cannot be run at all, StepFailed with its own words, or when it took too long.
        """
        name = os.path.basename(argv[0])
        try:
            ended = self._runs.run(argv, timeout_s, watch=watch)
        except CannotRun as error:
            raise HostLacks(str(error)) from error
        except Halted:
            raise StepFailed(STOPPED) from None
        except TookTooLong:
            raise StepFailed(f"{name} has not ended within {timeout_s:g} s") from None
        except SaidTooMuch:
            raise StepFailed(f"{name} says too much") from None
        if ended.status:
            raise _failed(name, ended.status, ended.complained.decode(errors="replace"))
        return ended.said

    def halt(self) -> None:
        self.is_halted = True
        self._runs.halt()

    def check(self) -> None:
        """Raises StepFailed when masu is being stopped."""
        if self.is_halted:
            raise StepFailed(STOPPED)


class Watch:
    """How much has come, and whether anything still does."""

    def __init__(self, layout: str, total: int, stall_s: float, told: Callable[[Amount], None]) -> None:
        self._layout, self._total, self._stall_s, self._told = layout, total, stall_s, told
        self._done, self._at = -1, time.monotonic()

    def look(self) -> None:
        """Raises StepFailed."""
        done, now = _size(self._layout), time.monotonic()
        if done != self._done:
            self._done, self._at = done, now
            self._told(Amount("fetching", done, self._total))
        elif now - self._at > self._stall_s:
            raise StepFailed(f"nothing has come for {self._stall_s:g} s: given up")


def _size(directory: str) -> int:
    """Bytes of all files in it; of one that is just renamed, perhaps none."""
    total, waiting = 0, [directory]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for each in entries:
                if each.is_dir(follow_symlinks=False):
                    waiting.append(each.path)
                else:
                    with contextlib.suppress(OSError):
                        total += each.stat(follow_symlinks=False).st_size
    return total


def _failed(name: str, status: int, said: str) -> StepFailed:
    fatal = _FATAL.search(said)
    lines = [found[0].strip() for line in said.splitlines() if (found := _WORDS.search(line))]
    words = fatal[1].replace('\\"', '"').replace("\\\\", "\\") if fatal else lines[-1] if lines else ""
    words = _IN_VAIN.sub("", words)
    if len(words) > _LONGEST:
        words = f"{words[: _LONGEST // 2]} … {words[-_LONGEST // 2 :]}"
    full = "no space left on device" in words.lower()
    return StepFailed(f"{name}: {words or f'ended with {status}'}", errno=errno.ENOSPC if full else 0)
