"""The audit log on a real file system: nothing is lost in silence, and nothing stops for it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.host import audit
from controller.host.audit import AuditFile
from controller.model.audit import Entry, Peer


def entry(number: int, **fields: Any) -> Entry:
    return Entry(number, "web", "done", "SetKnob", key="memory.max", old="1", new="2", **fields)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def test_lines_have_what_was_done_and_only_root_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "log" / "default.audit.jsonl"
    one = AuditFile(str(path))
    one.revise("r1")
    one.append((entry(1), entry(2, why="it is so")))
    one.append(())
    one.append((Entry(3, "web", "refused", request="restore", peer=Peer(7, 0, 1000)),))
    one.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert lines(path) == [
        {
            "at": 1,
            "revision": "r1",
            "container": "web",
            "outcome": "done",
            "step": "SetKnob",
            "key": "memory.max",
            "old": "1",
            "new": "2",
        },
        {
            "at": 2,
            "revision": "r1",
            "container": "web",
            "outcome": "done",
            "step": "SetKnob",
            "key": "memory.max",
            "old": "1",
            "new": "2",
            "why": "it is so",
        },
        {
            "at": 3,
            "revision": "r1",
            "container": "web",
            "outcome": "refused",
            "request": "restore",
            "pid": 7,
            "uid": 0,
            "login": 1000,
        },
    ]


def test_it_is_bounded_and_many_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_BYTES", 8192)
    one = AuditFile(str(tmp_path / "a"))
    threads = [
        threading.Thread(target=lambda base=base: [one.append((entry(base + each),)) for each in range(100)])
        for base in (0, 1000, 2000, 3000)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.close()
    files = sorted(tmp_path.iterdir())
    assert [each.name for each in files][-audit.KEPT :] == [f"a.{n}" for n in range(1, audit.KEPT + 1)]
    assert all(each.stat().st_size < 8192 + 500 for each in files)
    found = [each["at"] for file in files for each in lines(file)]
    assert len(found) == len(set(found))
    assert one.lost == 0


def test_who_has_put_the_file_aside_gets_a_new_one(tmp_path: Path) -> None:
    one = AuditFile(str(tmp_path / "a"))
    one.append((entry(1),))
    (tmp_path / "a").rename(tmp_path / "b")
    one.append((entry(2),))
    one.close()
    assert [each["at"] for each in lines(tmp_path / "a")] == [2]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of two pages."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
def test_a_full_disk_is_counted_and_told_once(small: Path) -> None:
    one, said = AuditFile(str(small / "a")), list[str]()
    one.told = said.append
    (small / "fill").write_bytes(b"x" * 4096)
    for number in range(200):
        one.append((entry(number),))
    assert one.lost > 100
    (message,) = said
    assert "No space left" in message
    (small / "fill").unlink()
    one.append((entry(999),))
    one.close()
    text = (small / "a").read_text().splitlines()
    whole = [json.loads(line) for line in text if line.endswith("}")]
    kept = [each["at"] for each in whole if "container" in each]
    assert kept[-1] == 999
    assert [each["lost"] for each in whole if "lost" in each] == [one.lost]
    assert len(kept) == 201 - one.lost


def test_a_place_that_cannot_be_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    one, said = AuditFile(str(tmp_path / "file" / "a")), list[str]()
    one.told = said.append
    one.append((entry(1),))
    one.close()
    assert (one.lost, len(said)) == (1, 1)
    assert os.listdir(tmp_path) == ["file"]
