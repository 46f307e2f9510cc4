"""Which container has which address where the spec leaves it open. Pure: from what was given to what is given.

Whoever has an address keeps it, across restarts and edits, until it is removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from controller.model.addresses import Address, Subnet, parse_address, parse_interface
from controller.model.attachment import FIRST_SLOT, LAST_SLOT, Lease, Leases
from controller.model.network import Network, interfaces_of
from controller.model.resource import Resource

SEARCHED = 1 << 20
"""So many addresses of a subnet are tried: more containers than that are not on one host."""


@dataclass(slots=True)
class _Book:
    """What is taken on one network. Nothing is given back here: who looks for what is free goes on where the last
    one has found some, or a thousand containers would take a second.
    """

    network: Network
    addresses: set[Address] = field(default_factory=set)
    slots: set[int] = field(default_factory=set)
    leases: dict[str, Lease] = field(default_factory=dict)
    free: dict[Subnet, Iterator[Address]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(FIRST_SLOT))


def lease(
    containers: Mapping[str, Resource],
    networks: Mapping[str, Network],
    before: Leases,
    leaving: Collection[str],
) -> dict[str, dict[str, Lease]]:
    """Pure. `leaving`: containers that are being removed; theirs stay theirs until they are gone.

    An address that cannot be given, because none is free, is missing in the lease. What somebody has, nobody else
    gets by writing it down.
    """
    books = {name: _Book(each) for name, each in networks.items()}
    wanted = {
        (entry["network"], name): _written(entry)
        for name, each in sorted(containers.items())
        for _, entry in interfaces_of(each)
        if entry["network"] in books
    }
    for book in books.values():
        book.addresses.update(each for each in book.network.gateways if each)
    _keep(books, wanted, before, leaving)
    for (network, name), written in wanted.items():
        if written is not None:
            _write_down(books[network], name, written)
    for (network, name), written in wanted.items():
        _give(books[network], name, automatic=written is None)
    return {name: dict(sorted(book.leases.items())) for name, book in books.items() if book.leases}


def without(leases: Leases, container: str) -> dict[str, dict[str, Lease]]:
    """Pure. What is left when a container has given back what it had."""
    left = {
        network: {name: each for name, each in found.items() if name != container}
        for network, found in leases.items()
    }
    return {network: found for network, found in left.items() if found}


def _written(entry: Mapping[str, Any]) -> tuple[Address, ...] | None:
    """None where masu chooses."""
    return tuple(parse_interface(each).ip for each in entry["addresses"]) if "addresses" in entry else None


def _keep(
    books: Mapping[str, _Book],
    wanted: Mapping[tuple[str, str], tuple[Address, ...] | None],
    before: Leases,
    leaving: Collection[str],
) -> None:
    for network, leases in before.items():
        book = books.get(network)
        for name, known in leases.items() if book else ():
            if book is None or ((network, name) not in wanted and name not in leaving):
                continue
            had, written = map(parse_address, known.addresses), wanted.get((network, name))
            kept = [each for each in had if _is_good(book, each) and (written is None or each in written)]
            book.addresses.update(kept)
            slot = known.slot if known.slot not in book.slots else 0
            book.slots.add(slot)
            book.leases[name] = Lease(tuple(map(str, kept)), slot)


def _write_down(book: _Book, name: str, written: Collection[Address]) -> None:
    """What a spec says is its own, unless somebody else has it."""
    known = book.leases.get(name, Lease())
    have = [each for each in written if str(each) in known.addresses or _is_good(book, each)]
    book.addresses.update(have)
    book.leases[name] = Lease(tuple(map(str, have)), known.slot)


def _is_good(book: _Book, address: Address) -> bool:
    return bool(book.network.subnets) and book.network.is_for_hosts(address) and address not in book.addresses


def _give(book: _Book, name: str, *, automatic: bool) -> None:
    known = book.leases.get(name, Lease())
    have = [parse_address(each) for each in known.addresses]
    for subnet in book.network.subnets if automatic else ():
        if not any(each in subnet for each in have):
            free = next(book.free.setdefault(subnet, _free(book, subnet)), None)
            if free is not None:
                have.append(free)
                book.addresses.add(free)
    slot = known.slot or next(each for each in book.numbers if each not in book.slots)
    book.slots.add(slot)
    book.leases[name] = Lease(tuple(map(str, have)), slot if slot <= LAST_SLOT else 0)


def _free(book: _Book, subnet: Subnet) -> Iterator[Address]:
    last = min(subnet.num_addresses - (subnet.version == 4), SEARCHED)
    for offset in range(1, last):
        address = subnet.network_address + offset
        if address not in book.addresses:
            yield address
