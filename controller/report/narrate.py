"""From outcomes to what people are told: events and console lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from controller.model.event import Event
from controller.model.quantity import format_bytes
from controller.model.space import VOLUME_SORT
from controller.reconcile.reconciler import Result
from controller.steps._base import Step
from controller.steps.counting import ForgetCounters
from controller.steps.devices import PutNode, TakeNode
from controller.steps.network import MakeBridge, RemoveBridge
from controller.steps.runtime import LaunchContainer, RecordExit, RemoveRecord, StopContainer
from controller.steps.spaces import MakeSpace, RemoveSpace, UnmountSpace

SILENT = frozenset(
    {
        "Await",
        "AwaitImage",
        "WriteBundle",
        "PrepareLayer",
        "ClearRuntime",
        "ForgetContainer",
        "UpdateRecord",
        "WriteNames",
        "RemoveRuleset",
        "ClearScratch",
        "RemoveCheckpoints",
    }
)


def events(result: Result, *, edited: bool, at: int) -> Iterator[Event]:
    """Pure. One event per step that people care about; `edited`: the spec has changed since the last look.

    A key that was set before in the same look is set again only because somebody else changed it in between.
    """
    seen: set[str] = set()
    for outcome in result.outcomes:
        change = outcome.step.change
        key = change[0] if change else ""
        again = bool(key) and key in seen
        seen.add(key)
        if outcome.error:
            yield Event(
                at,
                result.container,
                outcome.error.reason,
                str(outcome.error),
                key=key,
                level="warning",
            )
        elif outcome.step.kind not in SILENT and not (
            outcome.wait and isinstance(outcome.step, LaunchContainer)
        ):
            yield _event(outcome.step, change, result, edited=edited and not again, at=at)


def _event(
    step: Step, change: tuple[str, str, str] | None, result: Result, *, edited: bool, at: int
) -> Event:
    name = result.container
    if isinstance(step, RecordExit):
        return _exited(step, at)
    said = _said(step, result)
    if said:
        return Event(at, name, *said)
    if change and result.last.lives and change[1] not in {"absent", "incomplete"}:
        key, old, new = change
        kind = "Changed" if edited else "Repaired"
        return Event(at, name, kind, step.text, key=key, old=old, new=new)
    return Event(at, name, step.kind, step.text, level="debug")


def _said(step: Step, result: Result) -> tuple[str, str] | None:
    """(type, message) of what has a name of its own."""
    match step:
        case LaunchContainer():
            return "Started", _born(step, result)
        case StopContainer():
            return "Stopping", step.why
        case RemoveRecord() | RemoveBridge():
            return "Removed", "every trace of it is gone"
        case MakeBridge():
            return "Created", f"bridge {step.wanted}"
        case MakeSpace() | RemoveSpace() | UnmountSpace():
            return _said_of_space(step)
    return _told(step)


def _told(step: Step) -> tuple[str, str] | None:
    match step:
        case PutNode():
            return "DeviceAdded", step.text
        case TakeNode():
            return "DeviceRemoved", step.text
        case ForgetCounters():
            return "Counted", step.total.text
    return None


def _said_of_space(step: MakeSpace | RemoveSpace | UnmountSpace) -> tuple[str, str] | None:
    """A layer's comes and goes with its container."""
    if step.space.sort != VOLUME_SORT:
        return None
    if isinstance(step, MakeSpace):
        return "Created", f"volume of {format_bytes(step.new.size)} ({step.mechanism})"
    if isinstance(step, RemoveSpace):
        return "Removed", "every trace of it is gone, with its data"
    return ("Kept", "unmounted; its data is kept") if step.after else None


def _born(step: LaunchContainer, result: Result) -> str:
    """With its pid, unless it has ended already."""
    pid, args = result.last.subject.pid, step.text.removeprefix("start ")
    return f"pid {pid}: {args}" if pid else args


def _exited(step: RecordExit, at: int) -> Event:
    ended = step.record.exit
    if ended is None:
        return Event(at, step.container, "Exiting", "its process is gone", level="debug")
    unexpected = ended.failed and ended.reason != "Stopped"
    message = f"{ended.reason}: {f'signal {ended.signal}' if ended.signal else f'code {ended.code}'}"
    return Event(at, step.container, "Exited", message, level="warning" if unexpected else "info")
