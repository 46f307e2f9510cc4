"""Whether a container runs, as far as its record and /proc say: asked in many places, answered in one."""

from __future__ import annotations

from controller.host.ports import Host
from controller.model.record import Record


def live_pid(host: Host, record: Record | None) -> int:
    """Read-only. 0: none runs. The recorded init counts only in the same boot, with the same start time, not ended.

    Start times count from the boot, and pids begin anew: where /run outlives a reboot, both may fit somebody else.
    """
    if record is None or not record.pid or record.boot_id != host.facts.boot_id:
        return 0
    stat = host.processes.stat(record.pid)
    return record.pid if stat and not stat.ended and stat.start_time == record.start_time else 0
