"""What people and programs read on standard output. Pure: values in, text or JSON out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from controller.model.desired import DesiredSet
from controller.model.event import Event
from controller.model.finding import Finding
from controller.model.names import printable
from controller.model.node import NodeStatus
from controller.model.quantity import BINARY, format_bytes
from controller.model.status import (
    READY,
    Condition,
    ContainerStatus,
    Disk,
    GroupStatus,
    ImageStatus,
    LastCheckpoint,
    NetworkStatus,
    VolumeStatus,
)
from controller.reconcile.plan import Plan
from controller.report.checkpoints import when
from controller.report.preview import Overview, Preview
from controller.report.table import table
from controller.steps._base import Effect

Status = ContainerStatus | NetworkStatus | GroupStatus | VolumeStatus

COLOURS = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1"}
MARKS = {
    Effect.CREATE: ("+", "green"),
    Effect.DELETE: ("-", "red"),
    Effect.LIVE: ("~", "yellow"),
    Effect.RESTART: ("↻", "yellow"),
    Effect.RECREATE: ("±", "red"),
    Effect.NONE: (" ", "dim"),
}

TO_DO = {
    Effect.NONE: "waiting",
    Effect.LIVE: "to change live",
    Effect.RESTART: "to restart",
    Effect.RECREATE: "to make anew",
    Effect.CREATE: "to create",
    Effect.DELETE: "to delete",
}


def paint(text: str, colour: str, *, colours: bool) -> str:
    text = printable(text)
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if colours else text


def plan_json(found: Preview) -> dict[str, Any]:
    """The stable shape; more keys may come, none will go."""
    return {
        "changes": [
            {
                "container": each.container,
                "action": each.effect.value,
                "steps": [{"kind": step.kind, "text": step.text} for step in each.steps],
            }
            for each in found.plans
        ],
        "rejected": [problem_json(each) for each in found.rejected],
        "refused": _refusals(found),
        "lacks": [{"container": name, "message": lack.message} for name, lack in found.lacks],
        "waits": [{"container": name, "message": why} for name, why in found.waits],
        "limited": [{"container": name, "message": said.message} for name, said in found.limited],
        "node": found.node.to_json() if found.node else None,
        "frozen": found.frozen,
    }


def _refusals(found: Preview) -> list[str]:
    risks = [f"{each.container}: {step.risk}" for each in found.plans for step in each.steps if step.risk]
    return [*([str(found.refused)] if found.refused else []), *risks]


def plan_text(found: Preview, *, colours: bool) -> str:
    lines = [line for each in found.plans for line in _plan_lines(each, colours=colours)]
    lines += [f"invalid: {each}" for each in found.rejected]
    lines += [f"refused: {each}" for each in _refusals(found)]
    lines += [printable(f"host lacks: {name}: {lack.message}") for name, lack in found.lacks]
    lines += [printable(f"waits: {name}: {why}") for name, why in found.waits]
    lines += [printable(f"limited: {name}: {said.message}") for name, said in found.limited]
    lines += [f"source frozen: {found.frozen}"] if found.frozen else []
    lines.append(_plan_summary(found))
    return "\n".join(lines) + "\n"


def _plan_lines(plan: Plan, *, colours: bool) -> list[str]:
    mark, colour = MARKS[plan.effect]
    head = paint(f"{mark} {plan.container}: {plan.effect.value}", colour, colours=colours)
    return [head, *(f"    {step.text}" for step in plan.steps)]


def _plan_summary(found: Preview) -> str:
    if not found.plans and (found.rejected or found.frozen):
        return "nothing to do with what could be read"
    if not found.plans:
        stays = found.waits or found.lacks or found.refused
        return "nothing to do" if stays else "in sync: nothing to do"
    counts = {effect: sum(each.effect is effect for each in found.plans) for effect in Effect}
    return "plan: " + ", ".join(f"{count} {TO_DO[effect]}" for effect, count in counts.items() if count)


def status_json(instance: str, found: Overview) -> dict[str, Any]:
    """The stable shape; more keys may come, none will go."""
    return {
        "instance": instance,
        "daemon": found.daemon or None,
        "revision": found.desired.revision,
        "containers": [each.to_json() for each in found.containers],
        "networks": [each.to_json() for each in found.networks],
        "groups": [each.to_json() for each in found.groups],
        "node": found.node.to_json() if found.node else None,
        "volumes": [each.to_json() for each in found.volumes],
        "rejected": [problem_json(each) for each in found.desired.rejected],
        "frozen": found.desired.silence,
        "source": _source_json(found.desired),
    }


def _source_json(desired: DesiredSet) -> dict[str, Any] | None:
    """The commit in force; None where the source is no repository. Times in milliseconds since 1970."""
    commit = desired.commit
    if commit is None:
        return None
    return {"commit": commit.id, "subject": commit.subject, "committedAt": commit.at, "since": desired.since}


def problem_json(problem: Any) -> dict[str, Any]:
    return {"file": problem.file, "line": problem.line, "column": problem.column, "message": problem.message}


def status_text(found: Overview, *, wide: bool, colours: bool) -> str:
    rows: list[tuple[str, ...]] = [("NAME", "STATE", "PID", "CONVERGED", "RESTARTS", "EXIT", "REASON")]
    rows += [_status_row(each) for each in found.containers]
    alone = (found.networks or found.groups or found.volumes) and not found.containers
    lines = [] if alone else table(rows)
    for each in found.containers:
        if each.verdict not in {"", READY}:
            lines.append(paint(f"  {each.name}: no checkpoints: {each.verdict}", "yellow", colours=colours))
    for each in found.containers if wide else ():
        lines += [f"  {each.name}: addresses: {', '.join(each.addresses)}"] if each.addresses else []
        lines += [f"  {each.name}: ports: {', '.join(each.ports)}"] if each.ports else []
        lines += [f"  {each.name}: counters: {each.counters.text}"] if each.counters.any else []
        lines += [f"  {each.name}: disk: {_disk_text(each.disk)}"] if each.disk else []
        lines += [f"  {each.name}: image: {_image_text(each.image)}"] if each.image else []
        lines += [f"  {each.name}: checkpoint: {_last(each.checkpoint)}"] if each.checkpoint else []
        lines += (
            [f"  {each.name}: next checkpoint: {when(each.next_checkpoint)}"] if each.next_checkpoint else []
        )
        lines += _details(each, colours=colours)
    for part in (
        _network_lines(found.networks, wide=wide, colours=colours),
        _group_lines(found.groups, wide=wide, colours=colours),
        _volume_lines(found.volumes, wide=wide, colours=colours),
        _node_lines(found.node, wide=wide, colours=colours),
    ):
        lines += ["", *part] if lines and part else part
    if found.desired.commit:
        lines.append(f"revision: {found.desired.commit.title} since {when(found.desired.since)}")
    lines += [paint(f"rejected: {each}", "red", colours=colours) for each in found.desired.rejected]
    if found.containers and not found.daemon:
        said = "no daemon runs: nothing is repaired, and nobody is told (masu run SOURCE)"
        lines.append(paint(said, "yellow", colours=colours))
    if found.desired.silence:
        lines.append(paint(f"source frozen: {found.desired.silence}", "yellow", colours=colours))
    return "\n".join(lines) + "\n"


def _network_lines(found: Sequence[NetworkStatus], *, wide: bool, colours: bool) -> list[str]:
    if not found:
        return []
    rows: list[tuple[str, ...]] = [("NETWORK", "TYPE", "LINK", "CONVERGED", "CONTAINERS", "REASON")]
    for each in found:
        converged = "yes" if each.converged else "no"
        rows.append(
            (each.name, each.type, each.link or "-", converged, str(len(each.containers)), _reason(each))
        )
    lines = table(rows)
    for each in found if wide else ():
        lines += [f"  {each.name}: {name}: {', '.join(has)}" for name, has in each.containers.items()]
        lines += [
            f"  {each.name}: rule {name}: {packets} packets, {octets} bytes"
            + (
                "; it is about nobody: no container of that name or label is there"
                if name in each.idle
                else ""
            )
            for name, (packets, octets) in each.rules.items()
        ]
        lines += _details(each, colours=colours)
    return lines


def _group_lines(found: Sequence[GroupStatus], *, wide: bool, colours: bool) -> list[str]:
    if not found:
        return []
    rows: list[tuple[str, ...]] = [("GROUP", "SHARES", "CONVERGED", "MEMBERS", "REASON")]
    for each in found:
        converged, shares = "yes" if each.converged else "no", ",".join(each.shares)
        rows.append((each.name, shares, converged, str(len(each.members)), _reason(each)))
    lines = table(rows)
    for each in found if wide else ():
        lines += [f"  {each.name}: {name}: {', '.join(sorts)}" for name, sorts in each.members.items()]
        lines += _details(each, colours=colours)
    return lines


def _volume_lines(found: Sequence[VolumeStatus], *, wide: bool, colours: bool) -> list[str]:
    if not found:
        return []
    rows: list[tuple[str, ...]] = [
        ("VOLUME", "STATE", "SIZE", "USED", "MECHANISM", "CONVERGED", "CONTAINERS", "REASON")
    ]
    for each in found:
        disk, converged = each.disk, "yes" if each.converged else "no"
        amounts = (format_bytes(disk.size), _rounded(disk.used), disk.mechanism or "-")
        rows.append((each.name, each.state, *amounts, converged, str(len(each.containers)), _reason(each)))
    lines = table(rows)
    for each in found if wide else ():
        lines += [f"  {each.name}: path: {each.path}"]
        lines += [f"  {each.name}: containers: {', '.join(each.containers)}"] if each.containers else []
        lines += _details(each, colours=colours)
    return lines


def _node_lines(node: NodeStatus | None, *, wide: bool, colours: bool) -> list[str]:
    """What is promised of the host: when it is asked for, or when a file describes the host."""
    if node is None or not (wide or node.name):
        return []
    rows: list[tuple[str, ...]] = [
        ("NODE", "TOTAL", "RESERVED", "PROMISED", "CONTAINERS", "UNLIMITED", "OVERCOMMIT")
    ]
    for each in node.promises:
        total, reserved, promised = each.shown
        amount = f"{promised} (over)" if each.is_over else promised
        counts = (str(each.containers), str(each.unlimited or "-"))
        rows.append((each.key, total, reserved, amount, *counts, each.policy))
    lines = table(rows)
    waits = f"no room for: {', '.join(node.waiting)}"
    return [*lines, *([paint(waits, "yellow", colours=colours)] if node.waiting else [])]


def _disk_text(disk: Disk) -> str:
    return f"{_rounded(disk.used)} of {format_bytes(disk.size)} ({disk.mechanism})"


def _image_text(image: ImageStatus) -> str:
    """Both digests while it runs from another one than it is to."""
    moves = image.running and image.digest and image.running != image.digest
    wanted = image.digest or "not known yet"
    return f"{image.reference}: {f'{image.running} → {wanted}' if moves else wanted}"


def _last(last: LastCheckpoint) -> str:
    return f"{last.id} of {when(last.at)} ({_rounded(last.size)})"


def _rounded(amount: int) -> str:
    """1288490188 → "1.2Gi": good enough for people."""
    size, suffix = next(((size, suffix) for suffix, size in BINARY.items() if amount >= size), (1, ""))
    return f"{amount / size:.1f}".removesuffix(".0") + suffix


def _status_row(each: ContainerStatus) -> tuple[str, ...]:
    code = "-" if each.exit_code is None else str(each.exit_code)
    converged = "yes" if each.converged else "no"
    return (each.name, each.state, str(each.pid or "-"), converged, str(each.restarts), code, _reason(each))


def _reason(each: Status) -> str:
    told = [said.reason for said in each.conditions if not said.good]
    return told[-1] if told else ("Drift" if each.drift else "")


def _details(each: Status, *, colours: bool) -> list[str]:
    lines = [
        printable(f"  {each.name}: {drift.key}: desired {drift.desired}, live {drift.live}")
        for drift in each.drift
    ]
    lines += [_condition(each.name, said) for said in each.conditions if not said.good]
    good = [_condition(each.name, said) for said in each.conditions if said.good]
    return [*good, *(paint(line, "yellow", colours=colours) for line in lines)]


def _condition(name: str, said: Condition) -> str:
    words = said.type if said.type == said.reason else f"{said.type}: {said.reason}"
    return printable(f"  {name}: {words}: {said.message}")


def event_text(event: Event) -> str:
    at = datetime.fromtimestamp(event.at / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    change = f"  [{event.key}: {event.old} → {event.new}]" if event.new else ""
    return f"{at}  " + printable(f"{event.container or '-':<20}  {event.type:<14}  {event.message}{change}")


def doctor_text(findings: Iterable[Finding], *, colours: bool) -> str:
    marks = {"ok": ("ok     ", "green"), "limited": ("limited", "yellow"), "missing": ("missing", "red")}
    lines = []
    for each in findings:
        word, colour = marks[each.level]
        lines.append(f"{paint(word, colour, colours=colours)}  {each.subject:<22}  {each.found}")
        if each.fix:
            lines.append(f"         {'':<22}  → {each.fix}")
    return "\n".join(lines) + "\n"
