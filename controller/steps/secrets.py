"""Side effects on the secrets that a container has in files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.frame import Frame
from controller.model.secret import SecretFile, owned
from controller.steps._base import Effect, Stage, Step, Wait
from controller.steps.runtime import id_mapping


@dataclass(frozen=True, slots=True)
class PutSecrets(Step):
    """Put all of the container's secrets into its directories in memory, each at once.

    `user`: its user namespace, as `Frame.root` has it; None: the host's. Owners in `files` are those inside.
    """

    stage: ClassVar[Stage] = Stage.LINK
    effect: ClassVar[Effect] = Effect.LIVE

    files: tuple[SecretFile, ...]
    user: Mapping[str, Any] | None
    live: str

    @property
    def text(self) -> str:
        return f"put {', '.join(each.target for each in self.files)} in place: {self.live}"

    def apply(self, host: Host) -> Wait | None:
        root = {"user": self.user} if self.user else {}
        ids = id_mapping(host, self.container, Frame("", "", {}, root))
        files = owned(self.files, ids) if ids else self.files
        host.secrets.put(self.container, files, ids.root_user if ids else 0)
        return None


@dataclass(frozen=True, slots=True)
class ForgetSecrets(Step):
    """Remove the container's secrets from memory."""

    stage: ClassVar[Stage] = Stage.CLEAR
    effect: ClassVar[Effect] = Effect.DELETE

    @property
    def text(self) -> str:
        return "remove its secrets"

    def apply(self, host: Host) -> Wait | None:
        host.secrets.remove(self.container)
        return None


def lacking(host: Host, secrets: Iterable[tuple[str, bool]]) -> tuple[str, ...]:
    """Read-only. Why secrets (and whether each is to be a variable) cannot be had, in words, each once."""
    return tuple(sorted({host.secrets.lacks(each, variable=variable) for each, variable in secrets} - {""}))
