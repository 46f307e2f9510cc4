"""Ids of the host in files of a layer, on a host that has others for the same users."""

from __future__ import annotations

import base64
import struct

import pytest

from controller.checkpoints.manifest import Entry
from controller.checkpoints.users import ACLS, CAPABILITY, Moves, moves, text_of
from controller.model.frame import IdMapping

HERE = IdMapping(((0, 1000, 100),), ((0, 2000, 100),))
THERE = IdMapping(((0, 5000, 100),), ((0, 7000, 100),))


def test_the_same_users_move_nothing() -> None:
    assert moves(text_of(HERE), HERE) == Moves()
    assert moves("", None) == Moves()
    entry = Entry("x", "file", uid=1000, xattrs={CAPABILITY: "x"})
    assert Moves().entry(entry) == entry


def test_owners_become_those_who_are_the_same_inside() -> None:
    move = moves(text_of(HERE), THERE)
    found = move.entry(Entry("x", "file", uid=1099, gid=2001))
    assert (found.uid, found.gid) == (5099, 7001)
    found = move.entry(Entry("x", "file", uid=1100, gid=0))
    assert (found.uid, found.gid) == (1100, 0), "nobody inside"


def test_several_extents() -> None:
    before = IdMapping(((0, 10, 1), (1, 20, 9)), ((0, 10, 10),))
    now = IdMapping(((1, 200, 9), (0, 100, 1)), ((0, 100, 10),))
    move = moves(text_of(before), now)
    assert [move.entry(Entry("x", "file", uid=each)).uid for each in (10, 20, 28, 29)] == [100, 200, 208, 29]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("", HERE),
        (text_of(HERE), None),
        (text_of(HERE), IdMapping(((0, 1, 99),), ((0, 2000, 100),))),
        (text_of(HERE), IdMapping(((0, 1, 50), (50, 70, 50)), ((0, 2000, 100),))),
        ("nonsense", HERE),
        ("1:2/3", HERE),
    ],
)
def test_who_would_not_be_there_any_more_is_refused(before: str, now: IdMapping | None) -> None:
    with pytest.raises(ValueError, match="it was made with"):
        moves(before, now)


def test_capabilities_and_lists_of_access_name_ids_too() -> None:
    capability = struct.pack("<6I", 0x3000000, 1, 0, 0, 0, 1000)
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *each)
        for each in ((1, 6, 0xFFFFFFFF), (2, 4, 1007), (8, 4, 2009), (32, 4, 0xFFFFFFFF))
    )
    xattrs = {CAPABILITY: _text(capability), ACLS[0]: _text(acl), "user.x": _text(b"1000")}
    found = moves(text_of(HERE), THERE).entry(Entry("x", "file", xattrs=xattrs)).xattrs
    assert struct.unpack("<6I", base64.b64decode(found[CAPABILITY]))[-1] == 5000
    raw = base64.b64decode(found[ACLS[0]])
    assert [each[2] for each in struct.iter_unpack("<HHI", raw[4:])] == [0xFFFFFFFF, 5007, 7009, 0xFFFFFFFF]
    assert found["user.x"] == xattrs["user.x"]


def test_what_is_not_understood_stays_as_it_is() -> None:
    xattrs = {CAPABILITY: "!", ACLS[1]: _text(b"12345")}
    assert moves(text_of(HERE), THERE).entry(Entry("x", "file", xattrs=xattrs)).xattrs == xattrs


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
