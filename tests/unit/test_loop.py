"""The queue, the back-off, and the judge of fights."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from controller.loop.backoff import FIGHT_REPAIRS, Fight, after_repairs, retry_delay
from controller.loop.queue import WorkQueue


def test_ten_nudges_are_one_look() -> None:
    queue = WorkQueue()
    for _ in range(10):
        queue.add("a")
    assert queue.get() == "a"
    queue.done("a")
    assert queue.idle()


def test_a_key_being_worked_on_is_not_handed_out_twice_and_not_lost() -> None:
    queue = WorkQueue()
    queue.add("a")
    assert queue.get() == "a"
    queue.add("a")
    queue.add("b")
    assert queue.get() == "b"
    queue.done("a")
    assert queue.get() == "a"


def test_later_comes_later_and_close_wakes_everybody() -> None:
    queue = WorkQueue()
    queue.add_at("a", time.monotonic() + 0.05)
    assert queue.idle()
    assert queue.get() == "a"
    got: list[str | None] = []
    thread = threading.Thread(target=lambda: got.append(queue.get()))
    thread.start()
    queue.close()
    thread.join(5)
    assert got == [None]


def test_many_workers_look_at_every_key_and_never_at_one_together() -> None:
    queue = WorkQueue()
    busy: set[str] = set()
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def work() -> None:
        while (key := queue.get()) is not None:
            with lock:
                assert key not in busy
                busy.add(key)
                seen[key] = seen.get(key, 0) + 1
            time.sleep(0.0005)
            with lock:
                busy.discard(key)
            queue.done(key)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(400):
        queue.add(f"k{number % 20}")
    deadline = time.monotonic() + 10
    while not queue.idle() and time.monotonic() < deadline:
        time.sleep(0.01)
    queue.close()
    for thread in threads:
        thread.join(5)
    assert set(seen) == {f"k{number}" for number in range(20)}


@given(st.integers(1, 10_000))
def test_retry_delay_grows_to_a_minute(failures: int) -> None:
    assert 0.2 <= retry_delay(failures) <= retry_delay(failures + 1) <= 60


def test_a_few_repairs_are_no_fight() -> None:
    fight = Fight()
    for number in range(FIGHT_REPAIRS - 1):
        fight = after_repairs(fight, ["memory.max"], now=number * 0.1)
    assert fight.level == 0
    assert fight.contested(1.0) == ()


def test_a_fight_is_named_and_slowed_more_and_more_until_peace() -> None:
    fight, now, delays = Fight(), 0.0, []
    for _ in range(FIGHT_REPAIRS + 6):
        fight = after_repairs(fight, ["memory.max"], now)
        delays.append(fight.delay)
        now = max(now + 0.02, fight.until)
    assert delays[FIGHT_REPAIRS - 1] == 1.0
    assert delays == sorted(delays)
    assert delays[-1] == 30.0
    assert fight.contested(now) == ("memory.max",)
    peace = after_repairs(fight, [], now + 1000)
    assert peace.level == 0
    assert peace.contested(now + 1000) == ()


def test_slow_repairs_of_many_keys_are_no_fight() -> None:
    fight = Fight()
    for number in range(100):
        fight = after_repairs(fight, [f"key{number % 50}"], now=float(number))
    assert fight.level == 0


def test_what_is_borrowed_is_handed_to_nobody_and_looked_at_afterwards() -> None:
    queue = WorkQueue()
    queue.add("a")
    with queue.borrow("a") as ours:
        assert ours
        queue.add("a")
        assert not queue.idle()
        queue.add("b")
        assert queue.get() == "b"
        queue.done("b")
    assert queue.get() == "a"
    queue.done("a")
    assert queue.idle()


def test_whoever_borrows_waits_for_whoever_works() -> None:
    queue, order = WorkQueue(), list[str]()
    queue.add("a")
    assert queue.get() == "a"

    def borrow() -> None:
        with queue.borrow("a") as ours:
            order.append(f"borrowed {ours}")

    thread = threading.Thread(target=borrow)
    thread.start()
    time.sleep(0.02)
    order.append("done")
    queue.done("a")
    thread.join(5)
    assert order == ["done", "borrowed True"]
    queue.close()
    with queue.borrow("a") as ours:
        assert not ours


def test_whoever_waits_to_borrow_takes_no_nudge_from_whoever_waits_for_a_key() -> None:
    queue, taken = WorkQueue(), list[str | None]()
    queue.add("busy")
    assert queue.get() == "busy"

    def borrow() -> None:
        with queue.borrow("busy"):
            pass

    threads = [threading.Thread(target=borrow), threading.Thread(target=lambda: taken.append(queue.get()))]
    for thread in threads:  # whoever came first would be the one that is woken
        thread.start()
        time.sleep(0.02)
    queue.add("new")
    threads[1].join(5)
    queue.close()
    for thread in threads:
        thread.join(5)
    assert taken == ["new"]
