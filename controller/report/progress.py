"""What is being done, on a terminal, for whoever waits: one line that is written over and goes in the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

LOOK_S = 0.2
_CLEAR = "\r\x1b[K"


@contextmanager
def shown(stream: TextIO, said: Callable[[], str]) -> Iterator[None]:
    """`said` is asked every so often, in a thread of its own; empty: nothing to tell. Only on a terminal."""
    if not stream.isatty():
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_show, args=(stream, said, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _show(stream: TextIO, said: Callable[[], str], ended: threading.Event) -> None:
    last = ""
    while not ended.wait(LOOK_S):
        text = said()
        if text != last:
            last = text
            stream.write(_CLEAR + text)
            stream.flush()
    if last:
        stream.write(_CLEAR)
        stream.flush()
