"""Whose files a layer's are: ids of the host that a container's users are mapped to, others on another one. Pure.

Memory has the ids that are seen inside (criu/namespaces.c, userns_uid), and so have volumes, whose mounts map them.
"""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import replace
from typing import Final

from controller.checkpoints.manifest import Entry
from controller.frozen import dataclass
from controller.model.frame import IdMapping
from controller.model.process import Extent

CAPABILITY: Final = "security.capability"
ACLS: Final = ("system.posix_acl_access", "system.posix_acl_default")
_OWNED_CAPABILITY: Final = 24
"""Bytes of a struct vfs_ns_cap_data, which ends with a user id: linux/capability.h."""
_ACL_HEAD, _ACL_ENTRY = 4, struct.Struct("<HHI")
_USER, _GROUP = 2, 8
"""ACL_USER and ACL_GROUP, whose entries name an id: linux/posix_acl.h."""

Range = tuple[int, int, int]
"""From where to where, and how many."""


@dataclass(frozen=True, slots=True)
class Moves:
    """Ids of users and of groups that become others."""

    users: tuple[Range, ...] = ()
    groups: tuple[Range, ...] = ()

    def entry(self, entry: Entry) -> Entry:
        xattrs = {name: self._attribute(name, value) for name, value in entry.xattrs.items()}
        return replace(
            entry, uid=moved(entry.uid, self.users), gid=moved(entry.gid, self.groups), xattrs=xattrs
        )

    def _attribute(self, name: str, value: str) -> str:
        """What is not understood stays as it is."""
        if name != CAPABILITY and name not in ACLS:
            return value
        try:
            raw = base64.b64decode(value, validate=True)
            return base64.b64encode(self._capability(raw) if name == CAPABILITY else self._acl(raw)).decode()
        except (binascii.Error, struct.error):
            return value

    def _capability(self, raw: bytes) -> bytes:
        if len(raw) != _OWNED_CAPABILITY:
            return raw
        return raw[:-4] + struct.pack("<I", moved(struct.unpack("<I", raw[-4:])[0], self.users))

    def _acl(self, raw: bytes) -> bytes:
        parts = [raw[:_ACL_HEAD]]
        for tag, rights, identity in _ACL_ENTRY.iter_unpack(raw[_ACL_HEAD:]):
            ranges = {_USER: self.users, _GROUP: self.groups}.get(tag, ())
            parts.append(_ACL_ENTRY.pack(tag, rights, moved(identity, ranges)))
        return b"".join(parts)


def text_of(ids: IdMapping | None) -> str:
    """As it is kept with a checkpoint; empty: the host's own users."""
    if ids is None:
        return ""
    return "/".join(
        ",".join(":".join(map(str, each)) for each in extents) for extents in (ids.uids, ids.gids)
    )


def moves(before: str, now: IdMapping | None) -> Moves:
    """`before`: a text as above. Raises ValueError where somebody inside would not be there any more."""
    if before == text_of(now):
        return Moves()
    users, _, groups = before.partition("/")
    if not before or now is None:
        raise ValueError(
            "it was made with the host's own users" if now else "it was made with users of its own"
        )
    return Moves(_ranges(users, now.uids), _ranges(groups, now.gids))


def moved(identity: int, ranges: tuple[Range, ...]) -> int:
    for start, target, count in ranges:
        if start <= identity < start + count:
            return identity - start + target
    return identity


def _ranges(before: str, now: tuple[Extent, ...]) -> tuple[Range, ...]:
    """The extents of both have to be of the same ids inside."""
    known = [tuple(int(part) for part in each.split(":") if part.isdigit()) for each in before.split(",")]
    inside = {(start, count): outside for start, outside, count in now}
    if len(known) != len(inside) or any(len(each) != 3 or (each[0], each[2]) not in inside for each in known):
        raise ValueError("it was made with other users inside than the spec has now")
    return tuple((outside, inside[start, count], count) for start, outside, count in known)
