"""Events: one JSON line each, appended where `masu events` finds them with or without a daemon. Pure values
and their text; writing is `controller.host.journal`."""

from __future__ import annotations

import json

from controller.frozen import as_dict, dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """`at` in milliseconds since the epoch; `container` is empty for what concerns the whole instance; `key`, `old`
    and `new` where a value changed."""

    at: int
    container: str
    type: str
    message: str
    key: str = ""
    old: str = ""
    new: str = ""
    level: str = "info"

    def to_line(self) -> str:
        return json.dumps({key: value for key, value in as_dict(self).items() if value != ""}) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Event:
        """Raises ValueError or TypeError for a torn line."""
        return cls(**{"container": "", **json.loads(line)})
