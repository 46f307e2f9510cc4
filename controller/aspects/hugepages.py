"""limits.hugepages: how much memory in huge pages of each size, used and reserved, on cgroup v1 and v2.

Sources: Documentation/admin-guide/cgroup-v1/hugetlb.rst, cgroup-v2.rst (HugeTLB); mm/hugetlb_cgroup.c, which names
the files after the size of a page and rounds down to whole pages. Reservations (kernel 5.7) have a limit of their
own: mmap(2) reserves what is faulted in later, and who is only stopped then is killed by SIGBUS.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controller.aspects._base import Subject
from controller.aspects._knobs import Desired, Knob, KnobAspect, Live, each_alone, live_keys, mapping
from controller.errors import HostLacks
from controller.model.facts import Facts
from controller.model.quantity import format_bytes, parse_bytes
from controller.steps._base import Step
from controller.steps.cgroups import HandDown

LONG_MAX = 2**63 - 1
SUBSYSTEM = "hugetlb"
UNITS = (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10))


class HugePages(KnobAspect):
    name = "hugepages"
    section = "limits.hugepages"
    keys = live_keys("hugepages", ("SIZE",))

    def parse(self, section: Any, facts: Facts) -> Desired | None:
        """Pure. Raises HostLacks where there is no hugetlb subsystem."""
        written = mapping(section)
        if not written:
            return None
        version = facts.version(SUBSYSTEM)
        if version is None:
            raise HostLacks("limits.hugepages: the kernel or the cgroup layout has no hugetlb subsystem")
        return each_alone(
            written, lambda size: _both(size, str(written[size]), version, facts), "hugepages.{}".format
        )

    def diff(self, subject: Subject, desired: Desired, observed: Live) -> list[Step]:
        """Pure. On v2 the files are there once somebody has switched the subsystem on."""
        steps = super().diff(subject, desired, observed)
        on_v2 = any(isinstance(each, Knob) and each.file.endswith(".max") for each in desired)
        if on_v2 and any(text is None for text in observed.values()):
            return [HandDown(subject.name, subject.group, SUBSYSTEM), *steps]
        return steps


def _both(size: str, amount: str, version: int, facts: Facts) -> Iterable[Knob]:
    page = parse_bytes(size)
    if page not in facts.huge_pages:
        there = ", ".join(format_bytes(each) for each in sorted(facts.huge_pages)) or "none"
        raise HostLacks(f"limits.hugepages.{size}: this kernel has no pages of that size; it has {there}")
    value, accepted = _amount(amount, page, version)
    last = "max" if version == 2 else "limit_in_bytes"
    for kind in ("", "rsvd."):
        file = f"{SUBSYSTEM}.{kernel_size(page)}.{kind}{last}"
        yield Knob(f"hugepages.{size}{'.rsvd' if kind else ''}", SUBSYSTEM, file, value, accepted)


def _amount(text: str, page: int, version: int) -> tuple[str, str]:
    """What is written, and how it is read back."""
    if text == "max":
        return ("max", "max") if version == 2 else ("-1", str(LONG_MAX // page * page))
    value = str(parse_bytes(text) // page * page)
    return value, value


def kernel_size(page: int) -> str:
    """2097152 → "2MB", as mem_fmt in mm/hugetlb_cgroup.c has it."""
    unit, size = next(each for each in UNITS if page >= each[1] or each[0] == "KB")
    return f"{page // size}{unit}"
