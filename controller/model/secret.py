"""What a container is to have of the host's secrets: names and places, never what is in them. Pure values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from controller.frozen import dataclass
from controller.model.frame import IdMapping
from controller.model.names import plain_path
from controller.model.resource import digest

SECRET = "secret"  # noqa: S105  the key, not one of them
SEALED = "-----BEGIN AGE ENCRYPTED FILE-----"
"""How a secret begins that is not named, but written in the spec itself, sealed."""
SECRET_MISSING = "SecretMissing"  # noqa: S105


@dataclass(frozen=True, slots=True)
class SecretFile:
    """`secret`: its name, or itself, sealed. `owner`: user and group on the host. `target`: where it is inside."""

    secret: str
    target: str
    mode: int
    owner: tuple[int, int]

    @property
    def directory(self) -> str:
        return directory_of(self.target)

    @property
    def name(self) -> str:
        return self.target.rpartition("/")[2]


def owned(files: Iterable[SecretFile], ids: IdMapping) -> tuple[SecretFile, ...]:
    """With the owners on the host, of those that are meant inside."""
    return tuple(replace(each, owner=(ids.user(each.owner[0]), ids.group(each.owner[1]))) for each in files)


def directory_of(target: str) -> str:
    """What the directory that a target is in is called on the host."""
    return digest(place_of(target))


def place_of(target: str) -> str:
    """The directory that a target is in, inside."""
    return plain_path(target).rpartition("/")[0]


def places_of(files: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Directories inside, each once, in the order written."""
    return tuple(dict.fromkeys(place_of(each["target"]) for each in files))


def variables_of(env: Mapping[str, Any]) -> dict[str, str]:
    """Name of the variable → the secret that it is to have."""
    return {key: secret_in(each) for key, each in env.items() if isinstance(each, Mapping)}


def secret_in(written: Mapping[str, Any]) -> str:
    """`{secret: NAME}` or `{age: SEALED}` → its name, or itself, sealed."""
    return str(written[SECRET] if SECRET in written else written["age"])
