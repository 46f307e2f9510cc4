"""Promise of `onReboot: restore`, with a real power cut: what counted goes on from its last checkpoint."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.vm.machine import Image, Machine
from tests.vm.project import UNPACK, make_disk

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(900)]

PROGRAMS = Path("/opt/masu")
"""With CRIU and crun that bring their own libraries, where `make test` has put them."""
SPEC = """
apiVersion: masu/v1
kind: Container
metadata: {name: counter}
spec:
  rootfs: {path: /opt/masu/rootfs/busybox}
  process:
    args: [/bin/sh, -c, 'exec 3>/count; i=0; while :; do i=$((i+1)); echo $i >&3; sleep 0.2; done']
  checkpoint:
    schedule: {every: 3s}
"""
PREPARE = f"""
{UNPACK}
tar -xf /dev/vdc -C /opt/masu
mkdir /specs
cat >/specs/counter.yaml <<'END'
{SPEC}
END
masu doctor
"""
START = """
setsid masu run /specs >>/var/log/masu.log 2>&1 </dev/null &
"""
PID = """
pid=$(masu status -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["containers"][0]["pid"])')
"""
UNTIL_MADE = f"""
for each in $(seq 300); do
    [ "$(masu checkpoints counter | grep -c whole)" -ge 2 ] && break
    sleep 1
done
masu checkpoints counter
{PID}
tail -n 1 "/proc/$pid/root/count"
"""
UNTIL_RESTORED = f"""
for each in $(seq 40); do
    masu events counter | grep -q Restored && break
    sleep 1
done
{PID}
sleep 2
masu events counter >&2
cat /var/log/masu.log >&2
cat "/proc/$pid/root/count"
"""


def _programs(directory: Path) -> Path:
    """As a raw disk, whose size is a multiple of 512."""
    disk = directory / "programs.tar"
    with tarfile.open(disk, "w") as archive:
        archive.add(PROGRAMS / "bin", "bin", recursive=False)
        archive.add((PROGRAMS / "bin").resolve().parent, (PROGRAMS / "bin").resolve().parent.name)
    return disk


def test_a_power_cut_ends_nothing_that_has_a_checkpoint(image: Image, tmp_path: Path) -> None:
    """No number is missing and none is there twice, up to the one that it has come to; nobody was asked."""
    assert (PROGRAMS / "bin" / "criu").exists(), "make test installs it"
    with Machine(image, tmp_path, (make_disk(tmp_path), _programs(tmp_path))) as machine:
        machine.boot()
        prepared = machine.run(PREPARE, 300)
        assert "criu" in prepared.output, prepared.output
        machine.run(START, 30)
        made = machine.run(UNTIL_MADE, 400)
        assert made.status == 0, made.output
        before = int(made.output.split()[-1])
        machine.cut_power()
        machine.boot()
        machine.run(START, 30)
        after = machine.run(UNTIL_RESTORED, 400)
    assert after.status == 0, after.output
    numbers = [int(each) for each in after.output.split("\n") if each.strip().isdecimal()]
    assert numbers == list(range(1, len(numbers) + 1)), after.output
    assert len(numbers) > before / 2, after.output
    assert "goes on from checkpoint" in after.output
