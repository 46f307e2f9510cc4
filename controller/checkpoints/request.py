"""What is asked of whoever reconciles an instance: one act on one container. Pure values and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from controller.checkpoints.paths import is_id
from controller.frozen import dataclass
from controller.model.names import check_name

Verb = Literal["checkpoint", "restore"]


@dataclass(frozen=True, slots=True)
class Request:
    """`identity`: of the checkpoint to restore, "" for the newest; `ends`: the container ends with it."""

    verb: Verb
    container: str
    identity: str = ""
    ends: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Request:
        """Raises ValueError, KeyError or TypeError for what is no request."""
        verb, identity, ends = value["verb"], value["identity"], value["ends"]
        if verb not in {"checkpoint", "restore"}:
            raise ValueError(f"{verb!r} is nothing that can be asked for")
        if not isinstance(ends, bool) or (identity != "" and not is_id(identity)):
            raise ValueError("this is no request")
        return cls(verb, check_name(value["container"]), identity, ends)
