"""Every error that masu raises on purpose, in one tree.

    MasuError
    ├── SpecInvalid        a spec is wrong                      author acts    exit 3
    ├── SourceUnreadable   the desired state cannot be read     operator acts  exit 1, retried
    ├── GuardRefused       a change is too dangerous unasked    author acts    exit 4
    │   ├── ArchiveRefused an archive holds what none may       author acts    exit 4
    │   └── ImageRefused   an image is not what it should be    author acts    exit 4
    ├── HostLacks          kernel or tool cannot do it          operator acts  exit 5
    ├── NotPermitted       not root, read-only, or locked       operator acts  exit 1
    ├── InstanceBusy       another reconciler holds the lock    operator acts  exit 1
    └── StepFailed         a side effect failed                 operator acts  exit 1, retried
        ├── KnobRefused    the kernel refused a value
        ├── NotReadBack    written, but reads back differently
        ├── LaunchFailed   the runtime could not start the container
        ├── KeeperGone     the keeper did not answer            nobody acts, retried at once
        ├── StoreBusy      another process writes checkpoints   nobody acts, retried
        └── CheckpointDamaged  something of it is torn or gone  operator acts, not retried

OSError and NetlinkError become one of these in `controller.host`, nowhere else.
Absent while observing is an observation, not an error.
"""

from __future__ import annotations

import errno as errno_names
from typing import ClassVar, Final

from controller.frozen import dataclass

NOT_UNDERSTOOD: Final = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What comes of reading JSON that has another shape than it should: nothing, or one of masu's own errors."""


class MasuError(Exception):
    """Base: each class knows its condition reason, whether to retry, and its exit code."""

    reason: ClassVar[str] = "Failed"
    retry: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in one place of a spec; line and column count from 1, 0 where unknown."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class SpecInvalid(MasuError):
    """Carries every problem found, not only the first."""

    reason = "SpecInvalid"
    exit_code = 3

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class SourceUnreadable(MasuError):
    reason = "SourceUnreadable"
    retry = True


class GuardRefused(MasuError):
    reason = "GuardRefused"
    exit_code = 4


class ArchiveRefused(GuardRefused):
    """A checkpoint archive of somebody's that is not taken; the message names the member and why."""

    reason = "ArchiveRefused"


class ImageRefused(GuardRefused):
    """It is not what its digest says, or holds what none may; the message names the image and what."""

    reason = "ImageRefused"


class HostLacks(MasuError):
    reason = "HostLacks"
    exit_code = 5


class NotPermitted(MasuError):
    reason = "NotPermitted"


class InstanceBusy(MasuError):
    reason = "InstanceBusy"


class StepFailed(MasuError):
    """A side effect failed; `errno` is 0 where no system call is to blame."""

    reason = "StepFailed"
    retry = True

    def __init__(self, message: str, *, path: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.path = path
        self.errno = errno


class KnobRefused(StepFailed):
    """The kernel refused a value: the message names path, value and errno."""

    reason = "KnobRefused"

    def __init__(self, path: str, value: str, errno: int) -> None:
        name = errno_names.errorcode.get(errno, str(errno))
        super().__init__(f"writing {value!r} to {path}: {name} (errno {errno})", path=path, errno=errno)
        self.value = value


class NotReadBack(StepFailed):
    """Written without an error, but the live value differs from what was asked."""

    reason = "NotReadBack"


class CommandFailed(StepFailed):
    reason = "CommandFailed"


class LaunchFailed(StepFailed):
    reason = "LaunchFailed"


class KeeperGone(StepFailed):
    reason = "KeeperGone"


class StoreBusy(StepFailed):
    reason = "StoreBusy"


class CheckpointDamaged(StepFailed):
    """What was stored does not come back as it was: the message names what, and `path` where."""

    reason = "CheckpointDamaged"
    retry = False
