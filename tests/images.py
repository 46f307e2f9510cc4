"""CRIU image directories made by hand: page maps in CRIU's own format, and pages that differ and compress."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from pathlib import Path

from controller.checkpoints.pagemap import COMMON_MAGIC, PAGEMAP_MAGIC, PRESENT

PAGE = 4096
Runs = Sequence[tuple[int, int]]
"""(address, pages) …"""


def page_map(runs: Runs, pages_id: int = 1, flags: int = PRESENT) -> bytes:
    image = struct.pack("<II", COMMON_MAGIC, PAGEMAP_MAGIC) + _message(b"\x08" + varint(pages_id))
    for address, pages in runs:
        image += _message(
            b"\x08" + varint(address) + b"\x10\x00\x20" + varint(flags) + b"\x28" + varint(pages)
        )
    return image


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def pages(count: int, seed: int) -> list[bytes]:
    """Half of each is noise, so that it compresses as memory does, and no two are the same."""
    dice = random.Random(seed)
    return [dice.randbytes(PAGE // 2) + b"masu" * (PAGE // 8) for _ in range(count)]


def write_images(directory: Path, runs: Runs, memory: Sequence[bytes]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pagemap-1.img").write_bytes(page_map(runs))
    (directory / "pages-1.img").write_bytes(b"".join(memory))
    (directory / "core-1.img").write_bytes(b"registers" * 50)
    (directory / "inventory.img").write_bytes(b"what there is")
    return directory


def read_all(directory: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in directory.iterdir()}


def _message(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content
