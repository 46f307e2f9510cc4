"""A FUSE server that never answers what it is asked, but for how to begin: `with silent(pid, "/mnt"):`.

Source: fuse(4); include/uapi/linux/fuse.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[1]
INIT, OPENDIR = 26, 27
_ASKED: Final = struct.Struct("=IIQ")
_ANSWERED: Final = struct.Struct("=IiQ")
_BEGUN: Final = struct.pack("=IIIIHHIIHHI28x", 7, 31, 0, 0, 12, 10, 1 << 16, 1, 0, 0, 0)
_OPENED: Final = struct.pack("=QII", 0, 0, 0)


@contextlib.contextmanager
def silent(pid: int, target: str) -> Iterator[subprocess.Popen[str]]:
    """Mounted in the mount namespace of that process, as if somebody in there had done it."""
    argv = [sys.executable, "-m", "tests.silent", str(pid), target]
    with subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
            yield server
        finally:
            server.kill()


def _serve(pid: int, target: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    space = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    assert libc.setns(space, 0) == 0
    settings = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    assert libc.mount(b"silent", target.encode(), b"fuse", ctypes.c_ulong(0), settings.encode()) == 0
    print("ready", flush=True)
    answers = {INIT: _BEGUN, OPENDIR: _OPENED}
    while True:
        _, code, number = _ASKED.unpack_from(os.read(device, 1 << 20))
        body = answers.get(code)
        if body is not None:
            os.write(device, _ANSWERED.pack(_ANSWERED.size + len(body), 0, number) + body)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2])
