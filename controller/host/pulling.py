"""Programs that fetch and unpack images: what they say, and what their complaints come down to."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence

from controller.errors import HostLacks, StepFailed
from controller.host.tool_runs import CannotRun, Halted, SaidTooMuch, TookTooLong, ToolRuns

_FATAL = re.compile(r'level=fatal msg="((?:[^"\\]|\\.)*)"')
_IN_VAIN = re.compile(r'^Error parsing image name "[^"]*": ')
"""What skopeo begins with whatever is wrong; whose name it is, is said anyway."""
_WORDS = re.compile(r"\w.*")
"""umoci begins its lines with a bullet."""
_LONGEST = 400


class Pulling:
    """Thread-safe."""

    def __init__(self) -> None:
        self._runs = ToolRuns()

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
            raise StepFailed("masu is being stopped") from None
        except TookTooLong:
            raise StepFailed(f"{name} has not ended within {timeout_s:g} s") from None
        except SaidTooMuch:
            raise StepFailed(f"{name} says too much") from None
        if ended.status:
            raise _failed(name, ended.status, ended.complained.decode(errors="replace"))
        return ended.said

    def halt(self) -> None:
        self._runs.halt()


def _failed(name: str, status: int, said: str) -> StepFailed:
    fatal = _FATAL.search(said)
    lines = [found[0].strip() for line in said.splitlines() if (found := _WORDS.search(line))]
    words = fatal[1].replace('\\"', '"').replace("\\\\", "\\") if fatal else lines[-1] if lines else ""
    words = _IN_VAIN.sub("", words)
    if len(words) > _LONGEST:
        words = f"{words[: _LONGEST // 2]} … {words[-_LONGEST // 2 :]}"
    full = "no space left on device" in words.lower()
    return StepFailed(f"{name}: {words or f'ended with {status}'}", errno=errno.ENOSPC if full else 0)
