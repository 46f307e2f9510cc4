"""What a benchmark says: rows with measured value, baseline and budget. Pure values and their printing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

HEADINGS = ("benchmark", "measured", "baseline", "ratio", "budget", "verdict")


@dataclass(frozen=True, slots=True)
class Row:
    """`budget` bounds the ratio to the baseline when there is one, else the value; None: for information only."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    budget: float | None = None
    at_least: bool = False
    samples: Sequence[float] = field(default=())

    @property
    def ratio(self) -> float | None:
        return self.value / self.baseline if self.baseline else None

    @property
    def kept(self) -> bool | None:
        """Whether the budget is kept; None without one."""
        if self.budget is None:
            return None
        judged = self.value if self.ratio is None else self.ratio
        return judged >= self.budget if self.at_least else judged <= self.budget

    @property
    def verdict(self) -> str:
        return {True: "ok", False: "MISSED", None: "-"}[self.kept]

    def cells(self) -> tuple[str, ...]:
        sign, of = ("≥" if self.at_least else "≤"), (" ×" if self.ratio else f" {self.unit}")  # noqa: RUF001
        return (
            self.name,
            f"{_number(self.value)} {self.unit}",
            f"{_number(self.baseline)} {self.unit}" if self.baseline else "",
            f"{self.ratio:.2f}" if self.ratio else "",
            f"{sign} {self.budget:g}{of}" if self.budget is not None else "",
            self.verdict,
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "kept": self.kept}


def table(rows: Sequence[Row]) -> str:
    """Columns padded to the widest cell; numbers to the right."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(_line(line, widths) for line in lines)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least `percent` % of all do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]


def median(samples: Sequence[float]) -> float:
    return percentile(samples, 50)


def spread(name: str, samples: Sequence[float], unit: str, **more: Any) -> tuple[Row, Row]:
    """p50 and p99 of the same samples; `p50` and `p99` give (baseline, budget) of each."""
    rows = []
    for percent in (50, 99):
        baseline, budget = more.get(f"p{percent}", (None, None))
        value = percentile(samples, percent)
        rows.append(Row(f"{name}, p{percent}", value, unit, baseline, budget, samples=tuple(samples)))
    return rows[0], rows[1]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    return "  ".join((first, *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))))


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.1f}"
