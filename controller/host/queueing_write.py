"""From what is wanted of traffic control to rtnetlink's requests. Pure.

By hand: pyroute2 can say neither classic BPF, nor bfifo, nor rates beyond 34 Gbit/s, and would work out bursts with
the host's clock where numbers are to be read back as they are here. Sources: those of queueing_read.py.
"""

from __future__ import annotations

import struct
from typing import Final

from controller.host.links_write import Request
from controller.host.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE
from controller.host.queueing_read import (
    BUCKET,
    CLASS,
    ETHERNET,
    FILTER_HANDLE,
    FILTER_PLACE,
    HOOK,
    HOOKS,
    MESSAGE,
    MIRRED,
    MIRRED_REDIRECT,
    NUMBER,
    RATE,
    REDIRECTING,
    ROOT,
    SHAPER_HANDLE,
    SIZES,
    TCA_ACT_KIND,
    TCA_ACT_OPTIONS,
    TCA_BPF_ACT,
    TCA_BPF_OPS,
    TCA_BPF_OPS_LEN,
    TCA_HTB_CEIL64,
    TCA_HTB_INIT,
    TCA_HTB_PARMS,
    TCA_HTB_RATE64,
    TCA_KIND,
    TCA_MIRRED_PARMS,
    TCA_OPTIONS,
    TCA_STAB,
    TCA_STAB_BASE,
    TCA_TBF_PARMS,
    TCA_TBF_RATE64,
    TREE,
    WIDE,
)
from controller.model.queueing import TICK_NS, TREE_HANDLE, Classifier, HtbClass, HtbTree, Redirect, Shaper

RTM_NEWQDISC, RTM_DELQDISC, RTM_NEWTCLASS, RTM_DELTCLASS, RTM_NEWTFILTER, RTM_DELTFILTER = (
    36,
    37,
    40,
    41,
    44,
    45,
)

_CLSACT_HANDLE: Final = 0xFFFF_0000
_HTB_VERSION, _RATE_TO_QUANTUM = 3, 10
_ALL_PROTOCOLS: Final = 0x0300  # ETH_P_ALL as the network writes it
_TC_ACT_STOLEN: Final = 4
_WIDE_FROM: Final = 1 << 32
_INSTRUCTION_BYTES: Final = 8
_NO_RATE: Final = bytes(RATE.size)
_HEAD: Final = struct.Struct("=HH")
_COUNT: Final = struct.Struct("=H")


def shaper(index: int, wanted: Shaper) -> Request:
    """Makes it, or changes one of masu's in place; what waits in it goes on waiting."""
    rate = wanted.rate_bits // 8
    parms = BUCKET.pack(_rate(rate), _NO_RATE, wanted.limit_bytes, wanted.burst_ns // TICK_NS, 0)
    options = _attribute(TCA_TBF_PARMS, parms) + _wide(TCA_TBF_RATE64, rate)
    return _discipline(index, SHAPER_HANDLE, ROOT, "tbf", options, wanted.overhead)


def tree(index: int, wanted: HtbTree) -> Request:
    """The tree without its classes; there must be none yet, since the kernel changes none."""
    start = TREE.pack(_HTB_VERSION, _RATE_TO_QUANTUM, wanted.default, 0, 0)
    return _discipline(index, TREE_HANDLE, ROOT, "htb", _attribute(TCA_HTB_INIT, start), wanted.overhead)


def tree_class(index: int, wanted: HtbClass) -> Request:
    """Makes it, or changes it in place."""
    rate, ceiling = wanted.rate_bits // 8, wanted.ceil_bits // 8
    bursts = wanted.burst_ns // TICK_NS, wanted.ceil_burst_ns // TICK_NS
    parms = CLASS.pack(_rate(rate), _rate(ceiling), *bursts, wanted.quantum, 0, wanted.priority)
    options = _attribute(TCA_HTB_PARMS, parms) + _wide(TCA_HTB_RATE64, rate) + _wide(TCA_HTB_CEIL64, ceiling)
    parent = TREE_HANDLE | wanted.parent if wanted.parent else ROOT
    body = _message(index, TREE_HANDLE | wanted.minor, parent, 0, _named("htb", options))
    return Request(RTM_NEWTCLASS, NLM_F_CREATE, body)


def queue(index: int, wanted: HtbClass) -> Request:
    """The queue of a class that has no classes below it."""
    return _discipline(
        index, wanted.minor << 16, TREE_HANDLE | wanted.minor, "bfifo", NUMBER.pack(wanted.limit_bytes), 0
    )


def without_class(index: int, gone: HtbClass) -> Request:
    return Request(RTM_DELTCLASS, 0, MESSAGE.pack(0, index, TREE_HANDLE | gone.minor, 0, 0))


def without_root(index: int) -> Request:
    return Request(RTM_DELQDISC, 0, MESSAGE.pack(0, index, 0, ROOT, 0))


def hooks(index: int) -> Request:
    """The place of filters at a link's two hooks (clsact)."""
    body = _message(index, _CLSACT_HANDLE, HOOKS, 0, _named("clsact", b""))
    return Request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body)


def without_hooks(index: int) -> Request:
    return Request(RTM_DELQDISC, 0, MESSAGE.pack(0, index, 0, HOOKS, 0))


def redirect(index: int, wanted: Redirect) -> Request:
    parms = MIRRED.pack(0, 0, _TC_ACT_STOLEN, 0, 0, MIRRED_REDIRECT, wanted.target)
    action = _attribute(TCA_ACT_KIND, b"mirred\0") + _attribute(
        TCA_ACT_OPTIONS, _attribute(TCA_MIRRED_PARMS, parms)
    )
    options = _attribute(TCA_BPF_ACT, _attribute(1, action)) + _program(REDIRECTING)
    return _filter(index, HOOK[wanted.direction], options)


def classifier(index: int, wanted: Classifier) -> Request:
    """Takes the place of the one before from one packet to the next."""
    return _filter(index, TREE_HANDLE, _program(wanted.program))


def without_filter(index: int, parent: int) -> Request:
    """Whatever is at masu's priority there, of whichever kind and protocol."""
    return Request(RTM_DELTFILTER, 0, MESSAGE.pack(0, index, 0, parent, FILTER_PLACE << 16))


def _filter(index: int, parent: int, options: bytes) -> Request:
    place = FILTER_PLACE << 16 | _ALL_PROTOCOLS
    body = _message(index, FILTER_HANDLE, parent, place, _named("bpf", options))
    return Request(RTM_NEWTFILTER, NLM_F_CREATE, body)


def _discipline(index: int, handle: int, parent: int, kind: str, options: bytes, overhead: int) -> Request:
    sizes = SIZES.pack(0, 0, 0, overhead, ETHERNET, 0, 0, 0)
    counted = _attribute(TCA_STAB, _attribute(TCA_STAB_BASE, sizes)) if overhead else b""
    body = _message(index, handle, parent, 0, _named(kind, options) + counted)
    return Request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body)


def _message(index: int, handle: int, parent: int, more: int, attributes: bytes) -> bytes:
    return MESSAGE.pack(0, index, handle, parent, more) + attributes


def _named(kind: str, options: bytes) -> bytes:
    return _attribute(TCA_KIND, kind.encode() + b"\0") + (
        _attribute(TCA_OPTIONS, options) if options else b""
    )


def _program(instructions: bytes) -> bytes:
    count = len(instructions) // _INSTRUCTION_BYTES
    return _attribute(TCA_BPF_OPS_LEN, _COUNT.pack(count)) + _attribute(TCA_BPF_OPS, instructions)


def _rate(rate_bytes: int) -> bytes:
    return RATE.pack(0, ETHERNET, 0, 0, 0, min(rate_bytes, _WIDE_FROM - 1))


def _wide(kind: int, rate_bytes: int) -> bytes:
    return _attribute(kind, WIDE.pack(rate_bytes)) if rate_bytes >= _WIDE_FROM else b""


def _attribute(kind: int, payload: bytes) -> bytes:
    return _HEAD.pack(_HEAD.size + len(payload), kind) + payload + bytes(-len(payload) % 4)
