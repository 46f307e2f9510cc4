"""The checkpoint store: throughput beside zstd by hand, restoring, and ten checkpoints with 2 % dirtied between."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import zstandard

from controller.host.checkpoints.store import LocalStore
from controller.model.checkpoint import Checkpoint, Draft, Origin
from tests.bench.options import Options
from tests.bench.rows import Row, median
from tests.dumped import dumped

MEMORY = "/dev/shm"
ROUNDS = 3
TEN = 10
SIZE_BUDGET = 1.5
TIME_BUDGET = 0.8
"""Of the throughput of zstd with as many threads, from memory to the same disk, an fsync included."""


def measure(options: Options) -> list[Row]:
    """On the disk below /var/tmp, dumps in memory."""
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as disk,
        tempfile.TemporaryDirectory(dir=MEMORY) as memory,
    ):
        return _measure(options.checkpoint_mib, Path(disk), Path(memory))


def _measure(mib: int, disk: Path, memory: Path) -> list[Row]:
    rows = []
    with dumped(mib) as process:
        images = process.dump(memory / "first")
        rows += _throughput(images, disk, memory)
        for scattered in (False, True):
            sizes = [_save(LocalStore(str(disk / "ten"), ""), images).stored]
            for _ in range(TEN - 1):
                process.dirty(2, scattered=scattered)
                shutil.rmtree(memory / "next", ignore_errors=True)
                sizes.append(_save(LocalStore(str(disk / "ten"), ""), process.dump(memory / "next")).stored)
            stored = _on_disk(disk / "ten")
            shutil.rmtree(disk / "ten")
            how = "anywhere" if scattered else "in one place"
            name = f"{TEN} checkpoints of {mib} MiB, 2 % dirtied {how}"
            rows.append(Row(name, stored / 2**20, "MiB", sizes[0] / 2**20, SIZE_BUDGET))
    return rows


def _throughput(images: Path, disk: Path, memory: Path) -> list[Row]:
    size = sum(each.stat().st_size for each in images.iterdir()) / 2**20
    pages = images / "pages-1.img"
    packing, unpacking = _alone(pages)
    by_hand = median([_took(lambda: _by_hand(pages, disk / "pages.zst")) for _ in range(ROUNDS)])
    key = disk / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    rows = []
    for name, key_file in (("", ""), (", sealed", str(key))):
        store = LocalStore(str(disk / "one"), key_file)
        took = [_round(store, images, memory / "back", disk / "one") for _ in range(ROUNDS)]
        first, again, back = (size / median([each[at] for each in took]) for at in range(3))
        budget = None if name else TIME_BUDGET
        rows += [
            _speed(f"store{name}: against zstd -1 -T0 to the disk", first, size / by_hand, budget),
            _speed(f"store{name}: against zstd -1 in memory alone", first, size / packing),
            _speed(f"store what is known{name}", again),
            _speed(f"restore to tmpfs{name}: against unzstd", back, size / unpacking, budget),
        ]
    return [*rows, _memory(images, disk)]


def _speed(name: str, value: float, baseline: float | None = None, budget: float | None = None) -> Row:
    return Row(name, value, "MiB/s", baseline, budget, at_least=True)


def _by_hand(pages: Path, archive: Path) -> None:
    """What somebody without masu would type."""
    subprocess.run(["zstd", "-q", "-f", "-1", "-T0", pages, "-o", archive], check=True)
    subprocess.run(["sync", archive], check=True)
    archive.unlink()


def _alone(pages: Path) -> tuple[float, float]:
    """Seconds that zstd takes for all of it at once, in memory, with as many threads as it likes, and back."""
    memory = pages.read_bytes()
    packing = [
        _took(lambda: zstandard.ZstdCompressor(level=1, threads=-1).compress(memory)) for _ in range(ROUNDS)
    ]
    packed = zstandard.ZstdCompressor(level=1).compress(memory)
    unpacking = [_took(lambda: zstandard.ZstdDecompressor().decompress(packed)) for _ in range(ROUNDS)]
    return median(packing), median(unpacking)


def _round(store: LocalStore, images: Path, back: Path, root: Path) -> tuple[float, float, float]:
    """Seconds to store, to store again, and to restore."""
    first, again = _took(lambda: _save(store, images)), _took(lambda: _save(store, images))
    newest = store.checkpoints("")[-1].id
    restored = _took(lambda: store.restore(newest, str(back), {}, _quiet))
    shutil.rmtree(back)
    shutil.rmtree(root)
    return first, again, restored


MEMORY_OF = """
import sys
from controller.host.checkpoints.store import LocalStore
from controller.model.checkpoint import Draft, Origin
def most():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = most()
LocalStore(sys.argv[1], "").save(Draft(Origin("web", 1, "manual"), sys.argv[2]), 0, lambda *_: None)
print(most() - before)
"""


def _memory(images: Path, disk: Path) -> Row:
    """Of a process that does nothing else."""
    argv = [sys.executable, "-c", MEMORY_OF, str(disk / "memory"), str(images)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    shutil.rmtree(disk / "memory")
    return Row("memory taken by storing", int(said) / 1024, "MiB")


def _save(store: LocalStore, images: Path) -> Checkpoint:
    now = time.time_ns() // 1_000_000
    return store.save(Draft(Origin("bench", now, "manual"), str(images)), 0, _quiet)


def _took(act: Callable[[], object]) -> float:
    at = time.monotonic()
    act()
    return time.monotonic() - at


def _on_disk(directory: Path) -> int:
    return sum(each.stat().st_size for each in directory.rglob("*") if each.is_file())


def _quiet(_what: str, _amount: int) -> None:
    return
