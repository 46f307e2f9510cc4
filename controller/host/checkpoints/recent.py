"""Chunks that were read a moment ago: changed pages of neighbouring windows lie in the same few."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

MOST: Final = 64
"""8 MiB."""


class Recent:
    """Safe for threads; two that miss at once both read."""

    def __init__(self, read: Callable[[bytes], bytes]) -> None:
        self._read = read
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, name: bytes) -> bytes:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        data = self._read(name)
        with self._lock:
            self._kept[name] = data
            if len(self._kept) > MOST:
                self._kept.popitem(last=False)
        return data
