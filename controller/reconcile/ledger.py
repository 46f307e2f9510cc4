"""The sum of what is promised of one dimension, kept while containers come and go. No input or output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Pool:
    """The members of one group. `unlimited`: how many have no limit of their own, and so may take all of it."""

    budget: int
    sum: int = 0
    unlimited: int = 0

    @property
    def counted(self) -> int:
        return self.budget if self.unlimited else min(self.budget, self.sum)


@dataclass(slots=True)
class Ledger:
    """`budgets`: group → its budget. `groups`: container → its group.

    Members of a group that has a budget count together, as no more than that. None is an amount without limit: of
    a container in no such group it counts as nothing, for nobody knows how much it is.
    """

    budgets: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    total: int = 0
    amounts: dict[str, int | None] = field(default_factory=dict)
    _pools: dict[str, _Pool] = field(default_factory=dict)

    def put(self, name: str, amount: int | None) -> None:
        """In place of what it had before."""
        self.drop(name)
        if amount is not None or self._pool(name):
            self.amounts[name] = amount
            self._count(name, amount, 1)

    def drop(self, name: str) -> None:
        if name in self.amounts:
            self._count(name, self.amounts.pop(name), -1)

    def total_with(self, name: str, amount: int | None) -> int:
        """What the sum would be."""
        known, before = name in self.amounts, self.amounts.get(name)
        self.put(name, amount)
        total = self.total
        if known:
            self.put(name, before)
        else:
            self.drop(name)
        return total

    @property
    def shares(self) -> dict[str, int]:
        """Who holds how much of the sum: containers, and groups for all of their members."""
        alone = {name: each for name, each in self.amounts.items() if each and not self._pool(name)}
        return {
            **alone,
            **{f"group {name}": each.counted for name, each in self._pools.items() if each.counted},
        }

    def _count(self, name: str, amount: int | None, sign: int) -> None:
        pool = self._pool(name)
        if pool is None:
            self.total += sign * (amount or 0)
            return
        self.total -= pool.counted
        pool.sum += sign * (amount or 0)
        pool.unlimited += sign * (amount is None)
        self.total += pool.counted

    def _pool(self, name: str) -> _Pool | None:
        group = self.groups.get(name, "") if self.budgets else ""
        if group not in self.budgets:
            return None
        return self._pools.setdefault(group, _Pool(self.budgets[group]))
