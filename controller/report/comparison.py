"""What a change of the files would do, for whoever reviews it: text, JSON, and Markdown for a comment. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from controller.errors import GuardRefused, Problem
from controller.frozen import dataclass
from controller.model.names import quote
from controller.reconcile.compare import ABSENT, Change, Edit
from controller.report.text import MARKS, TO_DO, paint, problem_json
from controller.steps._base import Effect

LONGEST = 120
MOST_ROWS = 200
"""A comment has a limit, and nobody reads more."""
INDIRECT = "because of what it uses"


@dataclass(frozen=True, slots=True)
class Comparison:
    """`rejected`: what is wrong with the newer of the two; `frozen`: why that would not be followed at all;
    `elsewhere`: how many documents count on other hosts alone."""

    changes: tuple[Change, ...]
    rejected: tuple[Problem, ...] = ()
    frozen: str = ""
    refused: GuardRefused | None = None
    elsewhere: int = 0


def comparison_json(found: Comparison) -> dict[str, Any]:
    """As `plan_json`: more keys may come, none will go."""
    return {
        "changes": [
            {
                "container": each.key,
                "action": each.effect.value,
                "steps": [_edit_json(edit) for edit in each.edits],
            }
            for each in found.changes
        ],
        "rejected": [problem_json(each) for each in found.rejected],
        "refused": [str(found.refused)] if found.refused else [],
        "frozen": found.frozen,
        "elsewhere": found.elsewhere,
    }


def _edit_json(edit: Edit) -> dict[str, Any]:
    """Without `old` or `new` where nothing is written."""
    values = {key: value for key, value in (("old", edit.old), ("new", edit.new)) if value is not ABSENT}
    return {"kind": "Edit", "text": _edit_text(edit), "path": edit.path, **values}


def comparison_text(found: Comparison, *, colours: bool) -> str:
    lines = []
    for each in found.changes:
        mark, colour = MARKS[each.effect]
        lines.append(paint(f"{mark} {each.key}: {each.effect.value}", colour, colours=colours))
        lines += [f"    {text}" for text in _texts(each)]
    lines += [f"invalid: {each}" for each in found.rejected]
    lines += [f"refused: {found.refused}"] if found.refused else []
    lines += [f"source frozen: {found.frozen}"] if found.frozen else []
    lines += [_elsewhere(found)] if found.elsewhere else []
    return "\n".join([*lines, _summary(found)]) + "\n"


def _elsewhere(found: Comparison) -> str:
    return f"not looked at: {found.elsewhere} that count on other hosts alone (--node NAME)"


def comparison_markdown(found: Comparison) -> str:
    """For a comment on a change. Values stand as code, so that none of them is read as anything else."""
    lines = [f"### masu {_summary(found)}"]
    if found.changes:
        lines += ["", "| | what | change |", "|---|---|---|"]
        lines += [_row(each) for each in found.changes[:MOST_ROWS]]
    if len(found.changes) > MOST_ROWS:
        lines += ["", f"and {len(found.changes) - MOST_ROWS} more."]
    wrong = [str(each) for each in found.rejected[:MOST_ROWS]]
    for title, said in (("Invalid", wrong), ("Refused", [str(found.refused)] if found.refused else [])):
        lines += ["", f"**{title}**", "", *(f"- {_code(each)}" for each in said)] if said else []
    lines += ["", f"**Not followed**: {_code(found.frozen)}"] if found.frozen else []
    lines += ["", _elsewhere(found)] if found.elsewhere else []
    return "\n".join(lines) + "\n"


def _row(each: Change) -> str:
    mark, _ = MARKS[each.effect]
    texts = "<br>".join(_code(edit.path) + ": " + _values(edit) for edit in each.edits)
    indirect = INDIRECT if each.effect in {Effect.RESTART, Effect.RECREATE} else ""
    return f"| {mark} {each.effect.value} | {_code(each.key)} | {texts or indirect} |"


def _values(edit: Edit) -> str:
    return " → ".join("nothing" if each is ABSENT else _code(_shown(each)) for each in (edit.old, edit.new))


def _code(text: str) -> str:
    """Markdown: in a table cell, whatever is in it."""
    plain = text.replace("\n", " ").replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    return f"{fence} {plain} {fence}" if "`" in plain else f"{fence}{plain}{fence}"


def _texts(each: Change) -> Iterable[str]:
    if each.edits or each.effect in {Effect.CREATE, Effect.DELETE}:
        return [_edit_text(edit) for edit in each.edits]
    return [INDIRECT]


def _edit_text(edit: Edit) -> str:
    old, new = ("nothing" if each is ABSENT else _shown(each) for each in (edit.old, edit.new))
    return f"{edit.path}: {old} → {new}"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return quote(text, LONGEST)[1:-1]


def _summary(found: Comparison) -> str:
    if not found.changes:
        return "plan: nothing changes"
    counts = {effect: sum(each.effect is effect for each in found.changes) for effect in Effect}
    return "plan: " + ", ".join(f"{count} {TO_DO[effect]}" for effect, count in counts.items() if count)
