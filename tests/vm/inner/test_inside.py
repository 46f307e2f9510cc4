"""Is the machine what the tests that run in it believe: pure cgroup v2, a runtime that works, masu installed?"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from pathlib import Path

import pytest

import controller
from tests.e2e.harness import Masu, container

ROOTFS = Path("/opt/masu/rootfs/busybox")

pytestmark = pytest.mark.on_v2


def test_cgroups_are_v2_alone() -> None:
    """One cgroup2 mount with every subsystem that masu knows, and no v1 mount."""
    kinds = [line.split()[2] for line in Path("/proc/self/mounts").read_text().splitlines()]
    assert kinds.count("cgroup2") == 1
    assert "cgroup" not in kinds
    subsystems = set(Path("/sys/fs/cgroup/cgroup.controllers").read_text().split())
    assert subsystems >= {"cpu", "cpuset", "hugetlb", "io", "memory", "pids"}


def test_masu_is_installed() -> None:
    """The package under test is the installed one, with its schemas and its console script."""
    assert "dist-packages" in controller.__file__
    done = subprocess.run(
        ["masu", "schema", "Container"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "$schema" in json.loads(done.stdout)


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_runtime_runs_a_container_with_a_limit(runtime: str, tmp_path: Path) -> None:
    """The limit is read by the container itself, in its own cgroup."""
    name = f"t-{secrets.token_hex(4)}"
    subprocess.run([runtime, "spec"], cwd=tmp_path, check=True, timeout=30)
    bundle = json.loads((tmp_path / "config.json").read_text())
    bundle["root"] = {"path": str(ROOTFS), "readonly": True}
    bundle["process"] |= {"terminal": False, "args": ["cat", "/sys/fs/cgroup/memory.max"]}
    bundle["linux"] |= {"cgroupsPath": f"/{name}", "resources": {"memory": {"limit": 64 << 20}}}
    (tmp_path / "config.json").write_text(json.dumps(bundle))
    try:
        done = subprocess.run(
            [runtime, "run", name], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        subprocess.run([runtime, "delete", "-f", name], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(64 << 20)), done.stderr
    assert not os.path.isdir(f"/sys/fs/cgroup/{name}")


def test_criu_finds_what_it_needs() -> None:
    """Checkpointing itself is tested elsewhere; here the kernel says that it can."""
    done = subprocess.run(["criu", "check"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_protects_masu_from_the_oom_killer_does_not_protect_containers(masu: Masu) -> None:
    """docs/masu.service lowers masu's own score, which is inherited."""
    own = Path("/proc/self/oom_score_adj")
    before = own.read_text()
    own.write_text("-900")
    try:
        masu.write(container())
        assert masu.apply().returncode == 0
    finally:
        own.write_text(before)
    assert Path(f"/proc/{masu.pid()}/oom_score_adj").read_text().strip() == "0"
