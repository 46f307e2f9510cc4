"""Cgroup files of many values, one of which is meant. Pure.

Shapes (Documentation/admin-guide/cgroup-v2.rst, "Format"): flat keyed, `254:0 1048576`, and nested keyed,
`254:0 rbps=max wbps=1048576`. A value that is at its default is mostly not shown, nor is a line of such values.
"""

from __future__ import annotations

from controller.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """One value: the line that begins with `entry`, and in it the word `field=`, "" for all that follows.

    `unset`: what it means when it is not shown.
    """

    entry: str
    field: str = ""
    unset: str = "max"

    def find(self, text: str) -> str:
        """The value in a file's text."""
        for line in text.splitlines():
            entry, _, values = line.partition(" ")
            if entry == self.entry:
                return self._among(values)
        return self.unset

    def line(self, value: str) -> str:
        """What to write, so that nothing but this value changes."""
        return f"{self.entry} {self.field}={value}" if self.field else f"{self.entry} {value}"

    def _among(self, values: str) -> str:
        if not self.field:
            return values.strip()
        named = (word.partition("=") for word in values.split())
        return next((value for name, _, value in named if name == self.field), self.unset)
