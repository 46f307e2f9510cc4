"""Whether a container runs, by what masu remembers of it. Read-only; for steps and for those who plan them."""

from __future__ import annotations

from controller.host.ports import Host
from controller.model.record import Record


def live_pid(record: Record | None, host: Host) -> int:
    """Read-only. The recorded init; 0 unless it has the same start time, in the same boot, and has not ended."""
    known = record.in_boot(host.facts.boot_id) if record else None
    if known is None or not known.pid:
        return 0
    stat = host.processes.stat(known.pid)
    alive = stat is not None and not stat.ended and stat.start_time == known.start_time
    return known.pid if alive else 0
