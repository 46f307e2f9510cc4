"""What masu did to the host, and what it was asked for, as lines of the audit log. Pure values and their text."""

from __future__ import annotations

import json
from typing import Any, Literal

from controller.frozen import as_dict, dataclass

Outcome = Literal["done", "waits", "failed", "refused"]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks: the process, its user, and who had logged in before he became that user; -1: nobody has."""

    pid: int
    uid: int
    login: int = -1


@dataclass(frozen=True, slots=True)
class Entry:
    """`at` in milliseconds since the epoch. `step`: its kind; `request`: the verb, for what somebody has asked for.

    `key`, `old` and `new` where a value changed; `why` where it failed or has to wait.
    """

    at: int
    container: str
    outcome: Outcome
    step: str = ""
    what: str = ""
    key: str = ""
    old: str = ""
    new: str = ""
    why: str = ""
    request: str = ""
    peer: Peer | None = None

    def to_line(self, revision: str) -> str:
        """`revision`: that of the desired set that was in force."""
        value: dict[str, Any] = {
            key: each for key, each in as_dict(self).items() if each != "" and key != "peer"
        }
        if self.peer:
            value |= {"pid": self.peer.pid, "uid": self.peer.uid}
            value |= {"login": self.peer.login} if self.peer.login >= 0 else {}
        return json.dumps({"at": value.pop("at"), "revision": revision, **value}, ensure_ascii=False) + "\n"
