"""A process whose memory is dirtied at will, and CRIU's dump of it."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CRIU = "/opt/masu/bin/criu"
PROGRAM = """
import mmap, random, sys
size = int(sys.argv[1]) << 20
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
words = [random.Random(7).randbytes(5) for _ in range(4000)]
def page(seed):
    dice = random.Random(seed)
    return dice.randbytes(1024) + b"".join(dice.choices(words, k=615))[:3072].ljust(3072)
for at in range(0, size, 4096):
    memory[at : at + 4096] = page(at)
print("ready", flush=True)
for line in sys.stdin:
    for number in line.split():
        at = int(number) * 4096
        memory[at : at + 4096] = page(random.random())
    print("done", flush=True)
"""


class Dumped:
    """`dirty` pages by number, `dump` into an empty directory; it runs on."""

    def __init__(self, process: subprocess.Popen[str], mib: int) -> None:
        self._process, self._pages = process, mib * 256
        self._dice = random.Random(1)
        self.heard()

    def heard(self) -> None:
        assert self._process.stdout
        assert self._process.stdout.readline().strip() in {"ready", "done"}

    def dirty(self, percent: int, *, scattered: bool) -> None:
        count = self._pages * percent // 100
        first = self._dice.randrange(self._pages - count)
        chosen = self._dice.sample(range(self._pages), count) if scattered else range(first, first + count)
        assert self._process.stdin
        self._process.stdin.write(" ".join(map(str, chosen)) + "\n")
        self._process.stdin.flush()
        self.heard()

    def dump(self, directory: Path) -> Path:
        directory.mkdir(parents=True)
        argv = [CRIU, "dump", "-t", str(self._process.pid), "-D", str(directory), "--leave-running", "-v1"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f"criu: {done.stdout}{done.stderr}")
        return directory


@contextlib.contextmanager
def dumped(mib: int) -> Iterator[Dumped]:
    """Its files are pipes, and it is the leader of a session: nothing that CRIU would have to ask about."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(mib)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield Dumped(process, mib)
    finally:
        process.kill()
        process.wait()
