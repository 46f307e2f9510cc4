"""Traffic control: how fast links may send, as the kernel shows it and as it is asked for. Pure values.

Rates are bits per second and are counted from the network layer up: 14 bytes of Ethernet header are taken off every
packet (`OVERHEAD`). All numbers are those that the kernel reads back, so desired == seen means converged: rates are
whole bytes per second, bursts whole ticks of 64 ns (PSCHED_SHIFT), which no kernel rounds. Minors are the second
half of a class's number, "1:minor". Sources: tc(8), tc-tbf(8), tc-htb(8), tc-stab(8), linux/pkt_sched.h.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Final, Literal

from controller.frozen import dataclass
from controller.model.quantity import format_rate

TICK_NS: Final = 64
OVERHEAD: Final = -14
"""What is added to each packet's length: an Ethernet header is not counted."""

UNLIMITED_BITS: Final = 1_000_000_000_000
"""The rate of a tree whose network has no budget: only a group's classes in it hold anybody back."""

TREE_HANDLE: Final = 0x1_0000
"""The number of a tree, "1:"; that of one of its classes has the minor in its lower half."""

ROOT_MINOR: Final = 1
DEFAULT_MINOR: Final = 2
"""The class of whatever the classifier does not know: neighbour discovery, multicast, strangers."""

LOWEST_PRIORITY: Final = 7

_GSO_BYTES: Final = 65_536  # the largest packet that a link hands down whole, to be cut up later
_FRAME_BYTES: Final = 18  # an Ethernet header and a VLAN tag, which count where segments are cut
_WHOLE_PACKETS_BITS: Final = 10_000_000
_BURST_S: Final = 0.004
_TURNS: Final = 2
_SLOW_BURST_S: Final = 0.010
_QUEUE_S: Final = 0.05
_SLOW_QUEUE_PACKETS: Final = 16
_SMALLEST_SHARE_BITS: Final = 8_000
_SHARES: Final = 4096
_DEFAULT_SHARES: Final = 100
_U32: Final = 0xFFFF_FFFF

_INSTRUCTION: Final = struct.Struct("=HBBI")
_LOAD_WORD, _LOAD_HALF, _RETURN = 0x20, 0x28, 0x06
_IF_EQUAL, _IF_NOT_LESS, _JUMP = 0x15, 0x35, 0x05
_LONGEST_JUMP, _LONGEST_PROGRAM = 255, 4096

Instruction = tuple[int, int, int, int]
"""struct sock_filter: code, how many to skip if so and if not, operand."""

_NOTHING: Final[Instruction] = (_RETURN, 0, 0, 0)

End = Literal["source", "destination"]

Direction = Literal["ingress", "egress"]
"""Of a link's own hooks: ingress is what the link receives, egress what it sends."""


@dataclass(frozen=True, slots=True)
class Shaper:
    """A token bucket (tbf) at a link's root: what the link sends waits, up to `limit_bytes`, then is dropped."""

    rate_bits: int
    burst_ns: int
    limit_bytes: int
    overhead: int = OVERHEAD

    @property
    def words(self) -> str:
        return format_rate(self.rate_bits)


@dataclass(frozen=True, slots=True, order=True)
class HtbClass:
    """`parent`: a minor, 0 for the root. `limit_bytes`: of its own queue; 0 for a class with classes below it.

    `priority`: 0 is offered first what others leave; `quantum`: bytes per turn among equals.
    """

    minor: int
    parent: int
    rate_bits: int
    ceil_bits: int
    burst_ns: int
    ceil_burst_ns: int
    quantum: int
    priority: int = 0
    limit_bytes: int = 0


@dataclass(frozen=True, slots=True)
class HtbTree:
    """A whole tree at a link's root, classes by minor; `default`: the minor of what nobody classifies."""

    default: int
    classes: tuple[HtbClass, ...]
    overhead: int = OVERHEAD

    @property
    def words(self) -> str:
        total = next((each.ceil_bits for each in self.classes if not each.parent), UNLIMITED_BITS)
        what = "no limit" if total >= UNLIMITED_BITS else format_rate(total)
        return f"{what} among {sum(each.limit_bytes > 0 for each in self.classes)}"


@dataclass(frozen=True, slots=True)
class Redirect:
    """Whatever passes this hook of the link goes through link number `target` first: an ifb, and back from there.

    While the target is down, or after it is gone, all of that is dropped.
    """

    direction: Direction
    target: int


@dataclass(frozen=True, slots=True)
class Classifier:
    """The filter of a tree, as classic BPF that returns a class's number or 0; equal when the programs are.

    `program`: struct sock_filter, one after the other, in the host's byte order.
    """

    digest: str
    program: bytes = field(repr=False, compare=False)

    @classmethod
    def of(cls, program: bytes) -> Classifier:
        return cls(hashlib.sha256(program).hexdigest()[:16], program)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A discipline at a link's root that is not masu's, or that no node here can express."""

    kind: str
    handle: int

    @property
    def words(self) -> str:
        return f"{self.kind} {self.handle >> 16:x}:"


Node = Shaper | HtbTree | Redirect | Classifier


def said(live: Shaper | HtbTree | Foreign | None, wanted: Shaper | HtbTree) -> str:
    """Pure. What is there in words, which are not those for what is wanted."""
    words = live.words if live else "none"
    return f"{words}, altered" if words == wanted.words else words


@dataclass(frozen=True, slots=True)
class QueueingSeen:
    """Everything about one link that a node may be; `root` is None for the kernel's own choice."""

    root: Shaper | HtbTree | Foreign | None = None
    redirects: tuple[Redirect, ...] = ()
    classifier: Classifier | None = None

    def holds(self, node: Node) -> bool:
        """Pure. Whether the link is as the node asks."""
        match node:
            case Redirect():
                return node in self.redirects
            case Classifier():
                return node == self.classifier
        return node == self.root


@dataclass(frozen=True, slots=True)
class Group:
    """Members that share one budget."""

    minor: int
    budget_bits: int


@dataclass(frozen=True, slots=True)
class Member:
    """One attachment; 0 bits: nothing guaranteed, no ceiling of its own. `group`: a minor, 0 for none."""

    minor: int
    min_bits: int = 0
    max_bits: int = 0
    priority: int = 0
    group: int = 0


def classifier(minors_of: Mapping[str, int], end: End) -> Classifier:
    """Pure. The filter that finds the class of a packet by one of its two MAC addresses; `minors_of`: MAC → minor.

    A search tree over the first two bytes and one over the other four below each, so that 200 addresses cost about
    eight comparisons. Raises ValueError when there are more addresses than a program can hold: about 680 at
    random, 1000 that begin alike.
    """
    offset = 0 if end == "destination" else 6
    groups: dict[int, dict[int, int]] = {}
    for mac, minor in minors_of.items():
        raw = bytes.fromhex(mac.replace(":", ""))
        high, low = int.from_bytes(raw[:2], "big"), int.from_bytes(raw[2:], "big")
        groups.setdefault(high, {})[low] = minor
    below = {
        high: [
            (_LOAD_WORD, 0, 0, offset + 2),
            *_search({low: [_give(minor)] for low, minor in group.items()}),
        ]
        for high, group in groups.items()
    }
    found = [(_LOAD_HALF, 0, 0, offset), *_search(below)]
    if len(found) > _LONGEST_PROGRAM:
        raise ValueError(f"{len(minors_of)} addresses are more than one filter can tell apart")
    return Classifier.of(b"".join(_INSTRUCTION.pack(*each) for each in found))


def _search(branches: Mapping[int, list[Instruction]]) -> list[Instruction]:
    """What to do for each value of the accumulator, and nothing for others, in as few comparisons as can be."""
    if len(branches) <= 1:
        return [
            each for key, then in branches.items() for each in ((_IF_EQUAL, 1, 0, key), _NOTHING, *then)
        ] or [_NOTHING]
    keys = sorted(branches)
    middle = len(keys) // 2
    less, more = (_search({key: branches[key] for key in half}) for half in (keys[:middle], keys[middle:]))
    if len(less) <= _LONGEST_JUMP:
        return [(_IF_NOT_LESS, len(less), 0, keys[middle]), *less, *more]
    return [(_IF_NOT_LESS, 0, 1, keys[middle]), (_JUMP, 0, 0, len(less)), *less, *more]


def _give(minor: int) -> Instruction:
    return _RETURN, 0, 0, TREE_HANDLE | minor


@dataclass(frozen=True, slots=True)
class TreeChanges:
    """To be done in this order: `delete` has leaves first, `put` (make or change) parents first.

    `queues`: the classes whose own queue is to be made, or made another length.
    """

    delete: tuple[HtbClass, ...]
    put: tuple[HtbClass, ...]
    queues: tuple[HtbClass, ...]


def shaper(max_bits: int, mtu: int) -> Shaper:
    """Pure. The bucket for a rate on a link of that MTU (bytes).

    From 10 Mbit/s on a burst is at least one unsegmented packet, 64 KiB, and four milliseconds, which evens out a
    busy processor's late timers. Below, such packets would make a light flow wait for long: there the bucket is
    small, and the kernel cuts them up. The queue is 50 ms long, but never shorter than two unsegmented packets,
    or 16 of a slow link.
    """
    rate = _whole_bytes(max_bits)
    packet = mtu + _FRAME_BYTES
    if rate >= _WHOLE_PACKETS_BITS:
        burst, least = max(packet, _GSO_BYTES, _bytes_in(rate, _BURST_S)), 2 * max(packet, _GSO_BYTES)
    else:
        burst, least = max(2 * packet, _bytes_in(rate, _SLOW_BURST_S)), _SLOW_QUEUE_PACKETS * packet
    return Shaper(rate, _burst_ns(burst, rate), min(max(least, _bytes_in(rate, _QUEUE_S)), _U32))


def classes(budget_bits: int, mtu: int, groups: Sequence[Group], members: Sequence[Member]) -> HtbTree:
    """Pure. The tree of one direction of a network; `budget_bits` is 0 where only groups have budgets.

    A member without a guarantee still gets a 4096th of what it shares, at least 8 kbit/s, so that no priority can
    silence it; the guarantees' sum is for the caller to check. Groups of which there is no member have no class.
    """
    budget = _whole_bytes(budget_bits or UNLIMITED_BITS)
    ceilings = {each.minor: min(_whole_bytes(each.budget_bits), budget) for each in groups}
    leaves = [_leaf(each, ceilings.get(each.group, budget), mtu) for each in members]
    rates = dict.fromkeys((each.parent for each in leaves), 0)
    for each in leaves:
        rates[each.parent] += each.rate_bits
    inner = [
        _class((minor, ROOT_MINOR), min(rates[minor], ceiling), ceiling, budget, mtu)
        for minor, ceiling in ceilings.items()
        if minor in rates
    ]
    root = _class((ROOT_MINOR, 0), budget, budget, budget, mtu)
    little = _share(budget, _DEFAULT_SHARES)
    rest = _class((DEFAULT_MINOR, ROOT_MINOR), little, budget, budget, mtu, LOWEST_PRIORITY)
    return HtbTree(DEFAULT_MINOR, tuple(sorted([root, rest, *inner, *leaves])))


def changes(seen: HtbTree, wanted: HtbTree) -> TreeChanges:
    """Pure. What makes one tree the other; a class that is to hang elsewhere is made anew, with all below it."""
    old, new = ({each.minor: each for each in tree.classes} for tree in (seen, wanted))
    gone = {minor for minor in old if minor not in new or new[minor].parent != old[minor].parent}
    while below := {minor for minor in old if old[minor].parent in gone} - gone:
        gone |= below
    kept = {minor: each for minor, each in old.items() if minor not in gone}
    return TreeChanges(
        delete=tuple(sorted((old[minor] for minor in gone), key=lambda each: -_depth(each, old))),
        put=tuple(
            sorted(
                (each for each in wanted.classes if not _alike(kept.get(each.minor), each)),
                key=lambda each: _depth(each, new),
            )
        ),
        queues=tuple(
            each
            for each in wanted.classes
            if each.limit_bytes
            and (each.minor not in kept or kept[each.minor].limit_bytes != each.limit_bytes)
        ),
    )


def _alike(seen: HtbClass | None, wanted: HtbClass) -> bool:
    return seen is not None and replace(seen, limit_bytes=wanted.limit_bytes) == wanted


def _depth(each: HtbClass, tree: Mapping[int, HtbClass]) -> int:
    return 0 if each.parent not in tree else 1 + _depth(tree[each.parent], tree)


def _leaf(member: Member, above_bits: int, mtu: int) -> HtbClass:
    """`above_bits`: the ceiling of what it is in."""
    ceiling = min(_whole_bytes(member.max_bits), above_bits) if member.max_bits else above_bits
    rate = min(max(_whole_bytes(member.min_bits), _share(above_bits, _SHARES)), ceiling)
    place = member.minor, member.group or ROOT_MINOR
    return _class(place, rate, ceiling, above_bits, mtu, member.priority)


def _class(
    place: tuple[int, int], rate: int, ceiling: int, above_bits: int, mtu: int, priority: int | None = None
) -> HtbClass:
    """`place`: minor and parent; `above_bits`: the ceiling of the parent; a priority makes it a leaf with a queue.

    A turn is as long as the largest packet, or whoever sends small ones would get less. While others have their
    turns a class must not lose what it may send: its bursts last for two turns at the rate that it shares in. They
    may be smaller than a packet, unlike a Shaper's, since a class is allowed to be in debt.
    """
    packet = mtu + _FRAME_BYTES
    turn = max(packet, _GSO_BYTES)
    lasts_s = max(_BURST_S, _TURNS * turn * 8 / above_bits) if place[1] else _BURST_S
    burst, ceil_burst = (_burst_ns(max(packet, _bytes_in(each, lasts_s)), each) for each in (rate, ceiling))
    limit = 0 if priority is None else min(max(2 * turn, _bytes_in(ceiling, _QUEUE_S)), _U32)
    return HtbClass(*place, rate, ceiling, burst, ceil_burst, turn, priority or 0, limit)


def _share(bits: int, parts: int) -> int:
    return min(max(_whole_bytes(bits // parts), _SMALLEST_SHARE_BITS), bits)


def _whole_bytes(bits: int) -> int:
    return max(bits // 8, 1) * 8


def _bytes_in(rate_bits: int, seconds: float) -> int:
    return int(rate_bits * seconds / 8)


def _burst_ns(size: int, rate_bits: int) -> int:
    """The time that so many bytes take, rounded up to a tick, so that they do fit."""
    return min(-(-size * 8 * 1_000_000_000 // (rate_bits * TICK_NS)), _U32) * TICK_NS
