"""CRIU's images, entry by entry: https://criu.org/Images."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from typing import Final

from controller.host.criu_features import read_bytes
from controller.host.text import failed

_HEAD: Final = 8
"""Two magic numbers."""
_SIZE: Final = struct.Struct("<I")


def rewrite(path: str, mended: Callable[[bytes], bytes]) -> None:
    """Each entry as `mended` gives it back. What is damaged is left for CRIU to say so. Raises StepFailed."""
    before = read_bytes(path)
    with contextlib.suppress(ValueError, struct.error):
        after = b"".join(
            (before[:_HEAD], *(_SIZE.pack(len(each)) + each for each in map(mended, _entries(before))))
        )
        if after != before:
            _write(path, after)


def _entries(image: bytes) -> Iterator[bytes]:
    """Pure. Raises ValueError, struct.error."""
    at = _HEAD
    while at < len(image):
        start = at + _SIZE.size
        at = start + _SIZE.unpack_from(image, at)[0]
        if at > len(image):
            raise ValueError("an image ends too early")
        yield image[start:at]


def _write(path: str, data: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise failed(error, "writing", path) from error
