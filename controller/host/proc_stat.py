"""One line of /proc that tells processes apart."""

from __future__ import annotations

from controller.host.text import read_text
from controller.model.process import ProcessStat

PF_EXITING = 0x4


def stat_of(pid: int) -> ProcessStat | None:
    text = read_text(f"/proc/{pid}/stat")
    return parse_stat(pid, text) if text else None


def parse_stat(pid: int, text: str) -> ProcessStat:
    """Pure. proc_pid_stat(5): the fields after the last parenthesis, because a name may contain anything."""
    fields = text[text.rindex(")") + 2 :].split()
    return ProcessStat(
        pid=pid,
        state=fields[0],
        parent=int(fields[1]),
        start_time=int(fields[19]),
        exiting=bool(int(fields[6]) & PF_EXITING),
        threads=int(fields[17]),
    )
