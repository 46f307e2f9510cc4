"""Timers that CRIU keeps but would not start again: put right in its images before a restore.

A timerfd that repeats shows no time left from when it has run out until it is read (fs/timerfd.c). CRIU sets it to
just that, which turns it off: what ran out while everything stood still never comes again. And an itimer without an
interval, such as alarm(2) sets, counts as none. Such a timerfd is made to run out at once, and such an itimer to
repeat after a lifetime.
Sources: criu/pie/restorer.c (timerfd_arm, itimer_armed) and criu/timer.c of CRIU 4.2, its issues 3162 and 2559;
images/{fdinfo,timerfd,core,timer}.proto.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping
from typing import Final

from controller.host.criu_images import rewrite
from controller.host.criu_rpc import Fields, decode, encode, number, part

_IS_TIMERFD: Final = encode([(1, 17)])
_TIMERFD, _TICKS, _LEFT_S, _LEFT_NS, _EVERY_S, _EVERY_NS = 12, 5, 7, 8, 9, 10
_TASK, _TIMERS, _ITIMERS, _PERIOD_S, _PERIOD_US, _REST_S, _REST_US = 3, 7, (1, 2, 3), 1, 2, 3, 4
A_LIFETIME_S: Final = 1 << 31


def mend(directory: str) -> None:
    """Raises StepFailed. What is damaged is left for CRIU to say so."""
    rewrite(f"{directory}/files.img", mended_file)
    for path in glob.glob(f"{glob.escape(directory)}/core-*.img"):
        rewrite(path, mended_core)


def mended_file(entry: bytes) -> bytes:
    """Pure. Of files.img."""
    if not entry.startswith(_IS_TIMERFD):
        return entry
    whole = decode(entry)
    timer = decode(part(whole, _TIMERFD))
    is_left, repeats = (
        number(timer, seconds) or number(timer, nanoseconds)
        for seconds, nanoseconds in ((_LEFT_S, _LEFT_NS), (_EVERY_S, _EVERY_NS))
    )
    if is_left or not repeats or not number(timer, _TICKS):
        return entry
    return _with(whole, {_TIMERFD: _with(timer, {_LEFT_NS: 1})})


def mended_core(entry: bytes) -> bytes:
    """Pure. Of core-PID.img, which threads have, too, without timers."""
    whole = decode(entry)
    task = decode(part(whole, _TASK))
    timers = decode(part(task, _TIMERS))
    mended = {
        each: _with(timer, {_PERIOD_S: A_LIFETIME_S})
        for each in _ITIMERS
        if _comes_once(timer := decode(part(timers, each)))
    }
    if not mended:
        return entry
    return _with(whole, {_TASK: _with(task, {_TIMERS: _with(timers, mended)})})


def _comes_once(timer: Fields) -> bool:
    repeats = number(timer, _PERIOD_S) or number(timer, _PERIOD_US)
    return not repeats and bool(number(timer, _REST_S) or number(timer, _REST_US))


def _with(fields: Fields, changed: Mapping[int, int | bytes]) -> bytes:
    """Pure. Encoded again, with these instead."""
    values = {**fields, **{field: (value,) for field, value in changed.items()}}
    return encode((field, value) for field, each in values.items() for value in each)
