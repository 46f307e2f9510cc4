"""CRIU's page maps: which addresses the pages of a pages-N.img belong to, and where to cut it. Pure.

Only what is needed of the image format: two magic numbers, then each message after its length (32 bits, little
endian). criu/images/pagemap.proto; criu/criu/include/magic.h; criu.org/Images.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from controller.errors import CheckpointDamaged
from controller.frozen import dataclass

COMMON_MAGIC = 0x54564319
PAGEMAP_MAGIC = 0x56084025
PARENT, PRESENT = 1, 4
"""Flags of an entry: pages are in the parent's images; pages are in this pages-N.img."""
LARGEST_MESSAGE = 1 << 16
PAGE_SIZES = (4096, 16384, 65536)


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring pages. `present`: they are in the pages file, in the order of the runs."""

    address: int
    pages: int
    flags: int

    @property
    def present(self) -> bool:
        return bool(self.flags & PRESENT)


@dataclass(frozen=True, slots=True)
class PageMap:
    pages_id: int
    runs: tuple[Run, ...]

    @property
    def pages_file(self) -> str:
        return f"pages-{self.pages_id}.img"

    @property
    def present(self) -> int:
        return sum(run.pages for run in self.runs if run.present)


@dataclass(frozen=True, slots=True, order=True)
class Cut:
    """`size` bytes of a file that belong together; `address` is the same for the same memory in any dump."""

    address: int
    size: int


def decode(image: bytes) -> PageMap:
    """A pagemap-*.img. Raises CheckpointDamaged for anything else."""
    pages_id, runs = read(image)
    return PageMap(pages_id, tuple(runs))


def read(image: bytes) -> tuple[int, Iterator[Run]]:
    """The same, (pages_id, runs) one by one. Raises CheckpointDamaged, and so does the next run."""
    if image[:8] != struct.pack("<II", COMMON_MAGIC, PAGEMAP_MAGIC):
        raise CheckpointDamaged("no page map: wrong magic numbers")
    messages = _messages(image)
    head = dict(_fields(next(messages, b"")))
    if 1 not in head:
        raise CheckpointDamaged("a page map without a head")
    return head[1], (_run(dict(_fields(each))) for each in messages)


def encode(pages_id: int, runs: Iterable[Run]) -> Iterator[bytes]:
    """The page map with these runs, piece by piece. CRIU before 4.1 finds the number of pages, too."""
    yield struct.pack("<II", COMMON_MAGIC, PAGEMAP_MAGIC) + _message([(1, pages_id)])
    for run in runs:
        yield _message([(1, run.address), (2, run.pages), (4, run.flags), (5, run.pages)])


def cuts(runs: Sequence[Run], page_size: int, window: int) -> list[Cut]:
    """Of the pages file, in its order: pages are kept together when they are in the same window of addresses.

    Whatever moves in the file, the pages of one window stay one piece. `window`: a multiple of the page size.
    """
    found: list[Cut] = []
    for run in runs:
        if run.present:
            for part in _by_window(run, page_size, window):
                if found and found[-1].address == part.address and found[-1].size + part.size <= window:
                    found[-1] = Cut(part.address, found[-1].size + part.size)
                else:
                    found.append(part)
    return found


def page_size_of(page_map: PageMap, size: int) -> int:
    """Bytes per page of a pages file of `size` bytes; 0 when they do not belong together as we know it."""
    pages = page_map.present
    each, rest = divmod(size, pages) if pages else (0, 1)
    return each if not rest and each in PAGE_SIZES else 0


def page_cuts(page_map: PageMap, size: int, window: int) -> list[Cut]:
    """Of a pages file of `size` bytes; empty when they do not belong together as we know it."""
    page_size = page_size_of(page_map, size)
    return cuts(page_map.runs, page_size, window) if page_size else []


def even_cuts(size: int, window: int) -> list[Cut]:
    """Of any other file."""
    return [Cut(at, min(window, size - at)) for at in range(0, size, window)]


def _by_window(run: Run, page_size: int, window: int) -> Iterator[Cut]:
    at, end = run.address, run.address + run.pages * page_size
    while at < end:
        start = at - at % window
        upto = min(end, start + window)
        yield Cut(start, upto - at)
        at = upto


def _run(fields: dict[int, int]) -> Run:
    """Since CRIU 4.1 the number of pages is field 5, and field 2 stays for old readers."""
    address, pages = fields.get(1), fields.get(5) or fields.get(2)
    if address is None or pages is None:
        raise CheckpointDamaged("a page map entry without an address or a number of pages")
    flags = fields.get(4)
    if flags is None:
        flags = PARENT if fields.get(3) else PRESENT
    return Run(address, pages, flags)


def _messages(image: bytes) -> Iterator[bytes]:
    at = 8
    while at < len(image):
        if at + 4 > len(image):
            raise CheckpointDamaged("a page map that ends in the middle of a length")
        (size,) = struct.unpack_from("<I", image, at)
        at += 4
        if size > LARGEST_MESSAGE or at + size > len(image):
            raise CheckpointDamaged("a page map that ends in the middle of an entry")
        yield image[at : at + size]
        at += size


def _fields(message: bytes) -> Iterator[tuple[int, int]]:
    """Numbers alone are of interest: protobuf.dev/programming-guides/encoding."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
        elif kind == 2:
            size, at = _varint(message, at)
            at += size
        elif kind in {1, 5}:
            at += 8 if kind == 1 else 4
        else:
            raise CheckpointDamaged(f"a page map entry with a field of kind {kind}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for each in message[at : at + 10]:
        at += 1
        value |= (each & 127) << shift
        if each < 128:
            return value, at
        shift += 7
    raise CheckpointDamaged("a page map that ends in the middle of a number")


def _message(numbers: Sequence[tuple[int, int]]) -> bytes:
    content = b"".join(_written(field << 3) + _written(value) for field, value in numbers)
    return struct.pack("<I", len(content)) + content


def _written(value: int) -> bytes:
    raw = bytearray()
    while value > 127:
        raw.append(value & 127 | 128)
        value >>= 7
    return bytes((*raw, value))
