"""The event file: nothing is lost when it is rotated, whoever writes and whoever follows."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from controller.host import journal
from controller.host.journal import Journal
from controller.model.event import Event


def _event(number: int) -> Event:
    return Event(number, "web", "Repaired", "x" * 50)


def test_followers_lose_nothing_across_rotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is rotated every 40 events or so; one generation is kept, so the reader may not fall far behind."""
    monkeypatch.setattr(journal, "MAX_BYTES", 4096)
    monkeypatch.setattr(journal, "POLL_S", 0.001)
    written, read = Journal(str(tmp_path / "events")), []
    more = threading.Semaphore(20)

    def follow() -> None:
        for event in Journal(str(tmp_path / "events")).read(follow=True):
            read.append(event.at)
            more.release()
            if event.at == 499:
                return

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    for number in range(500):
        assert more.acquire(timeout=5), f"the follower stands still after {read[-1:]}"
        written.append(_event(number))
    reader.join(5)
    assert read == list(range(500))
    assert written.lost == 0


def test_many_threads_rotate_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_BYTES", 4096)
    one = Journal(str(tmp_path / "events"))
    threads = [
        threading.Thread(target=lambda: [one.append(_event(number)) for number in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "events.1").stat().st_size > 4096, "a whole generation"
    assert len(list(one.read())) >= 40


def test_torn_lines_are_passed_over(tmp_path: Path) -> None:
    one = Journal(str(tmp_path / "events"))
    one.append(_event(1))
    with (tmp_path / "events").open("a") as file:
        file.write('{"at": 2, "cont\n')
    one.append(_event(3))
    with (tmp_path / "events").open("a") as file:
        file.write('{"at": 4')
    assert [event.at for event in one.read()] == [1, 3]


def test_the_last_of_one_container_are_the_last_of_its_own(tmp_path: Path) -> None:
    one = Journal(str(tmp_path / "events"))
    for number in range(20):
        one.append(replace(_event(number), container="quiet" if number % 10 == 0 else "web"))
    assert [event.at for event in one.read(container="quiet", tail=1)] == [10]
    assert [event.at for event in one.read(container="quiet", tail=5)] == [0, 10]
    assert [event.at for event in one.read(tail=2)] == [18, 19]
