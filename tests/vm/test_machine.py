"""The machine itself: its disk outlives a reboot and a power cut, and what goes wrong inside is told outside."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.vm.machine import Image, Machine, MachineFailed

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(600)]


def test_the_disk_outlives_reboot_and_power_cut(image: Image, tmp_path: Path) -> None:
    """What was synced is there after both; the boot id tells three boots apart; the image stays as it was."""
    before = image.root.stat().st_mtime_ns
    with Machine(image, tmp_path, ()) as machine:
        boots = [machine.boot()]
        ids = [machine.run("echo one >/kept; sync; cat /proc/sys/kernel/random/boot_id", 30).output]
        machine.power_off()
        boots.append(machine.boot())
        ids.append(
            machine.run("cat /kept /proc/sys/kernel/random/boot_id; echo two >>/kept; sync", 30).output
        )
        machine.cut_power()
        boots.append(machine.boot())
        ids.append(machine.run("cat /kept /proc/sys/kernel/random/boot_id", 30).output)
    assert [each.split()[:-1] for each in ids] == [[], ["one"], ["one", "two"]], ids
    assert len({each.split()[-1] for each in ids}) == 3
    assert image.root.stat().st_mtime_ns == before


def test_a_script_reports_status_and_both_streams(image: Image, tmp_path: Path) -> None:
    """Exit status, stdout and stderr arrive; a script without end is cut off in time, with its output."""
    with Machine(image, tmp_path, ()) as machine:
        machine.boot()
        finished = machine.run("echo out; echo err >&2; exit 7", 30)
        assert (finished.status, sorted(finished.output.split())) == (7, ["err", "out"])
        big = machine.run("head -c 2000000 /dev/zero | tr '\\0' x", 60)
        assert (big.status, len(big.output)) == (0, 2_000_000)
        began = time.monotonic()
        with pytest.raises(MachineFailed, match="did not answer in 3 s") as failed:
            machine.run("echo said; sleep 1000", 3)
        assert time.monotonic() - began < 10
        assert "said" in str(failed.value)
