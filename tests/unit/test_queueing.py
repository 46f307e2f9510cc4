"""Traffic control as numbers: canonical values, trees and what makes one the other, and the filter's program."""

from __future__ import annotations

import random
import struct

import pytest

from controller.model.queueing import (
    DEFAULT_MINOR,
    OVERHEAD,
    ROOT_MINOR,
    TICK_NS,
    TREE_HANDLE,
    Classifier,
    Foreign,
    Group,
    HtbClass,
    HtbTree,
    Member,
    QueueingSeen,
    Redirect,
    Shaper,
    changes,
    classes,
    classifier,
    shaper,
)

MBIT = 1_000_000
GSO_BYTES = 65_536
RATES = [8_000, 8_001, 999_999, MBIT, 9_999_999, 10 * MBIT, 100 * MBIT, 123_456_789, 10**9, 10**10, 10**12]


@pytest.mark.parametrize("bits", RATES)
@pytest.mark.parametrize("mtu", [1280, 1500, 9000, 65535])
def test_a_shaper_has_numbers_that_the_kernel_keeps(bits: int, mtu: int) -> None:
    found = shaper(bits, mtu)
    assert found.rate_bits % 8 == 0
    assert found.rate_bits <= bits < found.rate_bits + 8
    assert found.burst_ns % TICK_NS == 0
    assert found.burst_ns // TICK_NS < 1 << 32
    assert found.limit_bytes < 1 << 32
    assert found.overhead == OVERHEAD
    burst_bytes = found.burst_ns * found.rate_bits // 8 // 10**9
    assert burst_bytes >= mtu + 14, "a packet that is larger than the bucket is dropped"
    assert found.limit_bytes >= 2 * mtu


def test_a_shaper_takes_whole_packets_from_ten_megabits_on() -> None:
    for bits in (10 * MBIT, 50 * MBIT, 10**9):
        found = shaper(bits, 1500)
        assert found.burst_ns * found.rate_bits // 8 // 10**9 >= GSO_BYTES
        assert found.limit_bytes >= 2 * GSO_BYTES
        assert found.limit_bytes * 8 / bits <= 0.11, "seconds that the last in the queue waits"


def test_a_slow_shaper_has_a_short_queue() -> None:
    found = shaper(MBIT, 1500)
    assert found.burst_ns * found.rate_bits // 8 // 10**9 < 4000
    assert found.limit_bytes * 8 / MBIT < 0.25


def by_minor(tree: HtbTree) -> dict[int, HtbClass]:
    return {each.minor: each for each in tree.classes}


def test_a_tree_has_a_root_and_a_class_for_the_rest() -> None:
    found = by_minor(classes(100 * MBIT, 1500, [], []))
    assert set(found) == {ROOT_MINOR, DEFAULT_MINOR}
    root, rest = found[ROOT_MINOR], found[DEFAULT_MINOR]
    assert (root.parent, root.rate_bits, root.ceil_bits, root.limit_bytes) == (0, 100 * MBIT, 100 * MBIT, 0)
    assert (rest.parent, rest.rate_bits, rest.ceil_bits, rest.priority) == (ROOT_MINOR, MBIT, 100 * MBIT, 7)
    assert rest.limit_bytes


def test_members_have_their_guarantee_ceiling_and_priority() -> None:
    members = [
        Member(0x10, 80 * MBIT),
        Member(0x11, max_bits=30 * MBIT, priority=5),
        Member(0x12, 10 * MBIT, 20 * MBIT),
    ]
    found = by_minor(classes(100 * MBIT, 1500, [], members))
    assert [(found[m].rate_bits, found[m].ceil_bits, found[m].priority) for m in (0x10, 0x11, 0x12)] == [
        (80 * MBIT, 100 * MBIT, 0),
        (24_408, 30 * MBIT, 5),
        (10 * MBIT, 20 * MBIT, 0),
    ]
    assert {found[m].quantum for m in (0x10, 0x11, 0x12)} == {GSO_BYTES}, "equals have equal turns"


def test_a_group_holds_its_members_and_guarantees_what_they_have() -> None:
    groups = [Group(0x10, 40 * MBIT), Group(0x11, 50 * MBIT)]
    members = [
        Member(0x20, 10 * MBIT, group=0x10),
        Member(0x21, max_bits=90 * MBIT, group=0x10),
        Member(0x22),
    ]
    found = by_minor(classes(100 * MBIT, 1500, groups, members))
    assert 0x11 not in found, "nobody is in it"
    group = found[0x10]
    assert (group.parent, group.ceil_bits, group.limit_bytes) == (ROOT_MINOR, 40 * MBIT, 0)
    assert group.rate_bits == found[0x20].rate_bits + found[0x21].rate_bits
    assert [found[m].parent for m in (0x20, 0x21, 0x22)] == [0x10, 0x10, ROOT_MINOR]
    assert [found[m].ceil_bits for m in (0x20, 0x21, 0x22)] == [40 * MBIT, 40 * MBIT, 100 * MBIT]


def test_only_groups_hold_back_where_the_network_has_no_budget() -> None:
    found = by_minor(classes(0, 1500, [Group(0x10, 40 * MBIT)], [Member(0x20, group=0x10), Member(0x21)]))
    assert found[ROOT_MINOR].ceil_bits == found[0x21].ceil_bits == 10**12
    assert found[0x20].ceil_bits == 40 * MBIT
    assert found[0x20].rate_bits < MBIT, "the share of what it is in, not of the whole"


@pytest.mark.parametrize("budget", RATES)
def test_no_rate_is_above_its_ceiling_and_all_can_be_said(budget: int) -> None:
    members = [
        Member(0x20, budget),
        Member(0x21, budget // 2, budget // 3, group=0x10),
        Member(0x22, max_bits=8),
    ]
    for each in classes(budget, 1500, [Group(0x10, budget * 2)], members).classes:
        assert 0 < each.rate_bits <= each.ceil_bits <= budget
        assert not each.rate_bits % 8
        assert not each.ceil_bits % 8
        for burst in (each.burst_ns, each.ceil_burst_ns):
            assert not burst % TICK_NS
            assert 0 < burst // TICK_NS < 1 << 32


def test_the_order_of_members_does_not_matter() -> None:
    groups, members = (
        [Group(0x10, MBIT), Group(0x11, MBIT)],
        [Member(0x30 + n, group=0x10 + n % 2) for n in range(9)],
    )
    assert classes(0, 1500, groups, members) == classes(0, 1500, groups[::-1], members[::-1])


def test_changes_make_one_tree_the_other_step_by_step() -> None:
    """Played in order on random trees: no parent is missing, and nothing goes that has classes below it."""
    chance = random.Random(1)  # a fixed seed
    for _ in range(500):
        seen, wanted = arbitrary(chance), arbitrary(chance)
        todo, now = changes(seen, wanted), by_minor(seen)
        for each in todo.delete:
            assert not any(other.parent == each.minor for other in now.values())
            del now[each.minor]
        for each in todo.put:
            assert not each.parent or each.parent in now
            assert each.minor not in now or now[each.minor].parent == each.parent, "the kernel moves no class"
            now[each.minor] = each
        for each in todo.queues:
            now[each.minor] = each
        assert now == by_minor(wanted)
        assert (
            changes(wanted, wanted).put
            == changes(wanted, wanted).queues
            == changes(wanted, wanted).delete
            == ()
        )


def arbitrary(chance: random.Random) -> HtbTree:
    groups = [Group(0x10 + n, chance.choice(RATES)) for n in range(3)]
    members = [
        Member(
            0x20 + n,
            chance.choice([0, MBIT]),
            chance.choice([0, 5 * MBIT]),
            n,
            chance.choice([0, 0x10, 0x11, 0x12]),
        )
        for n in chance.sample(range(8), 5)
    ]
    return classes(chance.choice([0, 100 * MBIT]), chance.choice([1500, 9000]), groups, members)


def test_a_change_of_rate_touches_one_class_and_no_queue() -> None:
    before, after = (
        classes(100 * MBIT, 1500, [], [Member(0x20, bits), Member(0x21)]) for bits in (MBIT, 2 * MBIT)
    )
    todo = changes(before, after)
    assert [each.minor for each in todo.put] == [0x20]
    assert not todo.delete
    assert not todo.queues


def run(program: bytes, packet: bytes) -> tuple[int, int]:
    """Interpret classic BPF as the kernel does: what it returns, and in how many steps."""
    code = list(struct.iter_unpack("=HBBI", program))
    here = accumulator = steps = 0
    while True:
        kind, then, otherwise, operand = code[here]
        here, steps = here + 1, steps + 1
        match kind:
            case 0x20 | 0x28:
                size = 4 if kind == 0x20 else 2
                if operand + size > len(packet):
                    return 0, steps
                accumulator = int.from_bytes(packet[operand : operand + size], "big")
            case 0x15:
                here += then if accumulator == operand else otherwise
            case 0x35:
                here += then if accumulator >= operand else otherwise
            case 0x05:
                here += operand
            case 0x06:
                return operand, steps
            case _:
                raise AssertionError(kind)


def frame(destination: str, source: str) -> bytes:
    return bytes.fromhex((destination + source).replace(":", "")) + b"\x08\x00" + bytes(46)


def some_macs(chance: random.Random, count: int, *, alike: bool) -> list[str]:
    """Half of them neighbours of others, which differ in one byte."""
    found: set[bytes] = set()
    while len(found) < count:
        mac = bytearray(chance.randbytes(6))
        if alike:
            mac[:2] = b"\x02\x00"
        found.add(bytes(mac))
        mac[chance.randrange(2 if alike else 0, 6)] ^= 1
        found.add(bytes(mac))
    return [each.hex(":") for each in sorted(found)[:count]]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 50, 200, 600])
@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("end", ["source", "destination"])
def test_the_program_finds_everybody_and_nobody_else(count: int, alike: bool, end: str) -> None:
    chance = random.Random(count)
    macs = some_macs(chance, 2 * count, alike=alike)
    chance.shuffle(macs)
    known, strangers = macs[:count], macs[count:]
    program = classifier({mac: 0x10 + n for n, mac in enumerate(known)}, end).program  # type: ignore[arg-type]
    other = "02:00:00:00:00:00"

    def classify(mac: str) -> int:
        return run(program, frame(mac, other) if end == "destination" else frame(other, mac))[0]

    assert [classify(mac) for mac in known] == [TREE_HANDLE | 0x10 + n for n in range(count)]
    for mac in (*strangers, "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", "00:00:00:00:00:00"):
        assert classify(mac) == 0
    assert run(program, b"\x02")[0] == 0


def test_two_hundred_addresses_cost_about_as_much_as_eight_comparisons() -> None:
    for alike, most in ((True, 16), (False, 20)):
        macs = some_macs(random.Random(7), 200, alike=alike)
        program = classifier({mac: 0x10 + n for n, mac in enumerate(macs)}, "source").program
        assert max(run(program, frame("ff:ff:ff:ff:ff:ff", mac))[1] for mac in macs) <= most


def test_a_program_stays_within_what_the_kernel_takes() -> None:
    alike = classifier({f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}": 0x10 for n in range(1000)}, "source")
    assert len(alike.program) <= 4096 * 8
    with pytest.raises(ValueError, match="1500 addresses are more than one filter can tell apart"):
        classifier({f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}": 0x10 for n in range(1500)}, "source")


def test_equal_members_give_equal_programs() -> None:
    macs = {f"02:00:00:00:00:{n:02x}": n + 16 for n in range(9)}
    assert classifier(macs, "source") == classifier(dict(reversed(macs.items())), "source")
    assert classifier(macs, "source") != classifier(macs, "destination")
    assert classifier(macs, "source") != classifier(macs | {"02:00:00:00:00:00": 99}, "source")
    assert "program" not in repr(classifier(macs, "source"))


def test_a_link_holds_what_is_there() -> None:
    limit, redirect, program = shaper(MBIT, 1500), Redirect("egress", 7), Classifier.of(b"x" * 8)
    seen = QueueingSeen(limit, (redirect,), program)
    assert all(seen.holds(node) for node in (limit, redirect, program))
    others = (
        Shaper(8, 64, 1),
        Redirect("ingress", 7),
        Redirect("egress", 8),
        Classifier.of(b"y" * 8),
        HtbTree(2, ()),
    )
    assert not any(seen.holds(node) for node in others)
    assert not QueueingSeen(Foreign("tbf", 1)).holds(limit)
