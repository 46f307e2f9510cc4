"""Dumps of what has changed since a pre-dump, which takes a kernel that tracks what is written to memory."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Masu, container, knob, until
from tests.e2e.test_checkpoints import done

pytestmark = pytest.mark.on_v2

WHO = ("parent", "child")
PROGRAM = """
import mmap, os, random, signal, sys, threading, time
from array import array

PAGE = 4096
TAIL = random.Random(7).randbytes(PAGE - 8)

class Memory:
    # Each page begins with how often it was written to, which is also known elsewhere.
    def __init__(self, mib, flags=mmap.MAP_PRIVATE):
        self.pages = mib << 8
        self.map = mmap.mmap(-1, mib << 20, flags=flags | mmap.MAP_ANONYMOUS)
        block = (bytes(8) + TAIL) * 256
        for at in range(0, mib << 20, len(block)):
            self.map[at : at + len(block)] = block
        self.counts = array("Q", bytes(8 * self.pages))
        self.lock = threading.Lock()

    def touch(self, page):
        with self.lock:
            self.counts[page] += 1
            self.map[page * PAGE : page * PAGE + 8] = self.counts[page].to_bytes(8, sys.byteorder)

    def wrong(self):
        with self.lock:
            for page, count in enumerate(self.counts):
                if self.map[page * PAGE : (page + 1) * PAGE] != count.to_bytes(8, sys.byteorder) + TAIL:
                    return f"page {page} "
        return ""

class Emptied:
    # Huge pages that are now full, now given back and read again.
    def __init__(self):
        self.map, self.full = mmap.mmap(-1, 6 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), False

    def turn(self):
        if self.full:
            self.map.madvise(mmap.MADV_DONTNEED)
        else:
            self.map[:] = b"x" * len(self.map)
        self.full = not self.full
        return self.map[3 << 20]

    def wrong(self):
        wanted = b"x" if self.full else bytes(1)
        return "" if self.map[:] == wanted * len(self.map) else "what was emptied "

def serve(name, memory, others, turns):
    asked = []
    signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
    dice = random.Random(name)
    rounds = 0
    file = open(f"/{name}", "a")
    print("up", file=file, flush=True)
    while True:
        time.sleep(0.02)
        rounds += 1
        memory.touch(dice.randrange(200))
        for each in others:
            each.touch(dice.randrange(each.pages))
        if rounds % 20 == 0:
            turns.turn()
        if asked:
            asked.clear()
            wrong = "".join(each.wrong() for each in (memory, *others, turns))
            print("wrong: " + wrong if wrong else f"whole after {rounds}", file=file, flush=True)

shared = Memory(4, mmap.MAP_SHARED)
if os.fork() == 0:
    serve("child", Memory(8), [], Emptied())

def write(memory):
    while True:
        time.sleep(0.01)
        memory.touch(17)

own, threaded = Memory(int(sys.argv[1])), Memory(4)
threading.Thread(target=write, args=(threaded,), daemon=True).start()
serve("parent", own, [shared, threaded], Emptied())
"""


def python(mib: int, **spec: Any) -> dict[str, Any]:
    """The machine's own, in a container, with so much memory."""
    places = {"/usr": "/usr", "/usr/lib": "/lib", "/usr/lib64": "/lib64"}
    mounts = [{"source": source, "target": target, "readOnly": True} for source, target in places.items()]
    args = ["/usr/bin/python3", "-S", "-c", PROGRAM, str(mib)]
    return container(process={"args": args}, mounts=mounts, **spec)


def said(masu: Masu, name: str) -> list[str]:
    """Line by line, in a file of its own: a command of masu's takes seconds in here."""
    found = Path(f"/proc/{masu.pid()}/root/{name}")
    return found.read_text().splitlines() if found.exists() else []


def is_up(masu: Masu) -> None:
    assert masu.apply().returncode == 0
    until(lambda: all("up" in said(masu, name) for name in WHO), "they are up")


def is_whole(masu: Masu) -> None:
    """Each says itself that its memory is what it should be, and that it goes on."""
    for pid in knob(masu, "web", "memory/", "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGUSR1)
    for name in WHO:
        until(lambda name=name: said(masu, name)[1:], "it answers")  # type: ignore[misc]
        assert said(masu, name)[-1].startswith("whole after")


def amounts(text: str) -> tuple[float, float]:
    """(dumped while frozen, taken from the pre-dump) in MiB."""
    units = {"Ki": 1 / 1024, "Mi": 1.0, "Gi": 1024.0}
    found = re.search(r"of its memory ([\d.]+)([KMG]i) dumped then, ([\d.]+)([KMG]i) ahead", text)
    assert found, text
    return float(found[1]) * units[found[2]], float(found[3]) * units[found[4]]


def test_what_has_not_changed_is_not_dumped_while_it_stands_still(masu: Masu) -> None:
    """Threads, a child and shared memory are of one moment; and after a kill -9 amid it, it is done again."""
    masu.write(python(80, namespaces={"user": "auto"}))
    is_up(masu)
    killed = masu.run("checkpoint", "web", env={"MASU_FAIL_AT": "PreDump+:1"})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    is_up(masu)
    assert masu.halfway() == [], "what it had made ahead is cleared"
    text = done(masu, "checkpoint", "web")
    written, ahead = amounts(text)
    assert written < 40, text
    assert ahead > 80, text
    done(masu, "restore", "web")
    is_whole(masu)
