"""From rtnetlink's answers to values: traffic control. Pure.

Written out by hand, as links_read.py is. Messages carry counters that never stand still, so it is the parts of them
that do stand still that are decoded once. Sources: linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from controller.host.netlink import attributes, messages, text
from controller.model.links import MARK
from controller.model.queueing import TICK_NS, TREE_HANDLE, Classifier, Foreign, HtbClass, HtbTree, Shaper

RTM_GETQDISC: Final = 38
RTM_GETTCLASS: Final = 42
RTM_GETTFILTER: Final = 46

ROOT: Final = 0xFFFF_FFFF
HOOKS: Final = 0xFFFF_FFF1
HOOK: Final = {"ingress": 0xFFFF_FFF2, "egress": 0xFFFF_FFF3}
"""Parents: a link's root, its clsact, and the two hooks of that."""

SHAPER_HANDLE: Final = MARK << 16
FILTER_PLACE: Final = MARK
FILTER_HANDLE: Final = 1
"""masu's number as that of a Shaper, and as a filter's priority among those at one place."""

REDIRECTING: Final = struct.pack("=HBBI", 0x06, 0, 0, 0xFFFF_FFFF)
"""A program of one instruction, which is true of every packet."""

MIRRED_REDIRECT: Final = 1
ETHERNET: Final = 1

MESSAGE: Final = struct.Struct("=BxxxiIII")
RATE: Final = struct.Struct("=BBHhHI")
BUCKET: Final = struct.Struct("=12s12sIII")
CLASS: Final = struct.Struct("=12s12sIIIII")
TREE: Final = struct.Struct("=IIIII")
SIZES: Final = struct.Struct("=BBhiIIII")
MIRRED: Final = struct.Struct("=IIiiiiI")
NUMBER: Final = struct.Struct("=I")
WIDE: Final = struct.Struct("=Q")

TCA_KIND, TCA_OPTIONS, TCA_STAB = 1, 2, 8
TCA_STAB_BASE: Final = 1
TCA_TBF_PARMS, TCA_TBF_RATE64 = 1, 4
TCA_HTB_PARMS, TCA_HTB_INIT, TCA_HTB_RATE64, TCA_HTB_CEIL64 = 1, 2, 6, 7
TCA_BPF_ACT, TCA_BPF_OPS_LEN, TCA_BPF_OPS = 1, 4, 5
TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 1, 2, 2


class Discipline(NamedTuple):
    """One qdisc: which of a link's places it has (`parent`), and what it is there."""

    handle: int
    parent: int
    kind: str
    options: bytes
    sizes: bytes


class Class(NamedTuple):
    """`queue`: the handle of its own qdisc, 0 when there are classes below it."""

    handle: int
    parent: int
    queue: int
    options: bytes


def question(index: int, parent: int = 0) -> bytes:
    return MESSAGE.pack(0, index, 0, parent, 0)


def disciplines(data: bytes, index: int) -> Iterator[Discipline]:
    """Those of one link: the kernel tells of all, whichever link is asked for."""
    for _, start, end in messages(data):
        _, found, handle, parent, _ = MESSAGE.unpack_from(data, start)
        if found == index:
            has = dict(attributes(data, start + MESSAGE.size, end))
            options, sizes = has.get(TCA_OPTIONS, b""), has.get(TCA_STAB, b"")
            yield Discipline(handle, parent, text(has.get(TCA_KIND, b"")), options, sizes)


def classes(data: bytes) -> Iterator[Class]:
    """Those of masu's tree: others hang theirs below."""
    for _, start, end in messages(data):
        _, _, handle, parent, queue = MESSAGE.unpack_from(data, start)
        if handle >> 16 == TREE_HANDLE >> 16:
            has = dict(attributes(data, start + MESSAGE.size, end))
            yield Class(handle, parent, queue, has.get(TCA_OPTIONS, b""))


def programs(data: bytes) -> Iterator[tuple[bytes, int]]:
    """masu's filter at a place, if it is there: its program, and the link that it redirects to, 0 for none."""
    for _, start, end in messages(data):
        _, _, handle, _, place = MESSAGE.unpack_from(data, start)
        if place >> 16 == FILTER_PLACE and handle == FILTER_HANDLE:
            has = dict(attributes(data, start + MESSAGE.size, end))
            options = has.get(TCA_OPTIONS, b"")
            if options and text(has.get(TCA_KIND, b"")) == "bpf":
                inner = _parts(options)
                yield inner.get(TCA_BPF_OPS, b""), _target(inner.get(TCA_BPF_ACT, b""))


def root(found: Discipline) -> Shaper | Foreign | None:
    """A tree at the root is Foreign here: it takes more than one answer to say what it is."""
    if not found.handle:
        return None
    known = _shaper(found.options, found.sizes) if _is_shaper(found) else None
    return known or Foreign(found.kind, found.handle)


def is_tree(found: Discipline) -> bool:
    return found.kind == "htb" and found.handle == TREE_HANDLE


def is_ours(found: Discipline, node: Shaper | HtbTree) -> bool:
    """Whether masu has put it there, as a node of that sort, whatever has become of its numbers."""
    return _is_shaper(found) if isinstance(node, Shaper) else is_tree(found)


def tree(top: Discipline, below: Iterator[Class], queues: Iterator[Discipline]) -> HtbTree:
    """`queues`: all disciplines of the link."""
    limits = {each.parent: _limit(each.options) for each in queues if each.kind == "bfifo"}
    default = TREE.unpack_from(_parts(top.options).get(TCA_HTB_INIT, bytes(TREE.size)))[2]
    found = sorted(
        _class(each.handle, each.parent, each.options, limits.get(each.handle, 0)) for each in below
    )
    return HtbTree(default, tuple(found), _overhead(top.sizes))


@lru_cache(256)
def classifier(program: bytes) -> Classifier:
    return Classifier.of(program)


def _is_shaper(found: Discipline) -> bool:
    return found.kind == "tbf" and found.handle == SHAPER_HANDLE


@lru_cache(2048)
def _shaper(options: bytes, sizes: bytes) -> Shaper | None:
    """None for what a Shaper cannot say: a peak rate, or another way of counting."""
    has = _parts(options)
    rate, peak, limit, burst, _ = BUCKET.unpack_from(has[TCA_TBF_PARMS])
    bits = _rate(rate, has.get(TCA_TBF_RATE64))
    if any(peak) or not bits:
        return None
    return Shaper(bits, burst * TICK_NS, limit, _overhead(sizes))


@lru_cache(8192)
def _class(handle: int, parent: int, options: bytes, limit: int) -> HtbClass:
    has = _parts(options)
    rate, ceiling, burst, ceil_burst, quantum, _, priority = CLASS.unpack_from(has[TCA_HTB_PARMS])
    return HtbClass(
        minor=handle & 0xFFFF,
        parent=0 if parent == ROOT else parent & 0xFFFF,
        rate_bits=_rate(rate, has.get(TCA_HTB_RATE64)),
        ceil_bits=_rate(ceiling, has.get(TCA_HTB_CEIL64)),
        burst_ns=burst * TICK_NS,
        ceil_burst_ns=ceil_burst * TICK_NS,
        quantum=quantum,
        priority=priority,
        limit_bytes=limit,
    )


def _rate(written: bytes, wide: bytes | None) -> int:
    """Bits per second; 0, which nobody asks for, where the kernel is told to count in a way of its own."""
    _, layer, overhead, _, smallest, rate = RATE.unpack(written)
    if layer & 0x0F != ETHERNET or overhead or smallest:
        return 0
    return 8 * int(WIDE.unpack(wide)[0] if wide else rate)


@lru_cache(64)
def _overhead(sizes: bytes) -> int:
    """0 where nothing is added; a table of sizes is none of masu's."""
    base = _parts(sizes).get(TCA_STAB_BASE, b"")
    return int(SIZES.unpack_from(base)[3]) if base else 0


@lru_cache(256)
def _limit(options: bytes) -> int:
    return int(NUMBER.unpack_from(options)[0]) if len(options) >= NUMBER.size else 0


def _target(actions: bytes) -> int:
    """The link that the one action redirects to; 0 where it does something else, or more."""
    found = list(_parts(actions).values())
    has = _parts(found[0]) if len(found) == 1 else {}
    if text(has.get(TCA_ACT_KIND, b"")) != "mirred":
        return 0
    written = _parts(has.get(TCA_ACT_OPTIONS, b"")).get(TCA_MIRRED_PARMS)
    if written is None:
        return 0
    *_, kind, target = MIRRED.unpack_from(written)
    return int(target) if kind == MIRRED_REDIRECT else 0


def _parts(payload: bytes) -> dict[int, bytes]:
    return dict(attributes(payload, 0, len(payload)))
