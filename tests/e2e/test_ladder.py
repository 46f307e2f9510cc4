"""Checkpoints by themselves: made when they are due, and gone on from after a crash or a reboot."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from controller.host.checkpoints.store import LocalStore
from controller.model.checkpoint import ENDED
from tests.e2e.harness import Masu, until, volume
from tests.e2e.test_checkpoints import counting, done, from_checkpoint, goes_on, lines, runs_on


def told(masu: Masu, *kinds: str) -> list[dict[str, Any]]:
    return [each for each in masu.events() if each["type"] in kinds]


def crash(masu: Masu) -> int:
    """The pid of the process that comes next."""
    pid = masu.pid()
    os.kill(pid, signal.SIGKILL)
    return masu.restarted(pid)


def test_what_has_crashed_goes_on_from_the_newest_and_then_from_an_older_one(masu: Masu) -> None:
    """And when none is left, it is started anew; each with its reason."""
    policy = {"schedule": {"every": "1d"}, "keep": {"last": 5}}
    masu.write(counting(checkpoint=policy))
    masu.start()
    masu.running()
    made = []
    for _ in range(2):
        goes_on(masu, len(lines(masu)) + 10)
        made.append(done(masu, "checkpoint", "web").split(":")[0])
    far = goes_on(masu, len(lines(masu)) + 10)
    crash(masu)
    from_checkpoint(masu, made[1], 20)
    crash(masu)
    from_checkpoint(masu, made[0], 10)
    crash(masu)
    assert masu.record()["restored"] == ""
    until(lambda: lines(masu), "it counts")
    assert lines(masu)[0] == 1
    assert len(lines(masu)) < far
    until(lambda: masu.status()["converged"], "converged")
    ends = told(masu, "Restored", "RestoreFailed", "StartsAnew", "Exited", "Started")
    assert [each["type"] for each in ends if each["type"] == "Restored"] == ["Restored"] * 2
    assert masu.halfway() == []


def test_one_that_cannot_be_restored_is_passed_over_and_told(masu: Masu) -> None:
    masu.write(counting(checkpoint={"onFailure": "restore", "keep": {"last": 5}}))
    masu.start()
    masu.running()
    goes_on(masu, 10)
    older = done(masu, "checkpoint", "web").split(":")[0]
    goes_on(masu, 30)
    newer = done(masu, "checkpoint", "web").split(":")[0]
    packs = Path(f"/var/lib/masu/{masu.instance}/checkpoints/packs")
    for pack in packs.glob(f"{newer}*.pack"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.write_bytes(data)
    crash(masu)
    from_checkpoint(masu, older, 10)
    assert [each["message"].split(":")[0] for each in told(masu, "RestoreFailed")] == [newer]
    masu.write(counting(checkpoint={"onFailure": "restart"}))
    until(lambda: masu.plan()["changes"] == [], "the new rule is known")
    crash(masu)
    assert masu.record()["restored"] == ""


def test_a_reboot_ends_nothing_that_has_a_checkpoint(masu: Masu) -> None:
    """As far as masu can tell: other boot ids in its record and in the checkpoint, and no process."""
    masu.write(counting(checkpoint={"onReboot": "restore"}))
    assert masu.apply().returncode == 0
    goes_on(masu, 20)
    identity = done(masu, "checkpoint", "web").split(":")[0]
    store = LocalStore(f"/var/lib/masu/{masu.instance}/checkpoints", "")
    depot = store._depot(key=False)
    found = depot.manifest(identity)
    assert found.checkpoint.origin
    earlier = replace(found.checkpoint, origin=replace(found.checkpoint.origin, boot_id="another"))
    depot.publish(earlier, list(found.chunks), found.body, lambda _: None)
    record = Path(f"/run/masu/{masu.instance}/records/web.json")
    pid = masu.pid()
    record.write_text(json.dumps({**json.loads(record.read_text()), "boot_id": "another"}))
    os.kill(pid, signal.SIGKILL)
    assert masu.apply().returncode == 0
    from_checkpoint(masu, identity, 20)
    assert masu.plan()["changes"] == []
    os.kill(masu.pid(), signal.SIGKILL)
    assert masu.apply().returncode == 0
    assert masu.record()["restored"] == "", "onFailure is to restart"


def test_checkpoints_are_made_when_they_are_due(masu: Masu) -> None:
    """Also by a masu that was started anew, not of what is frozen, and what cannot be done is told once."""
    policy = {"schedule": {"every": "1s"}, "keep": {"last": 2}}
    masu.write(counting(checkpoint=policy))
    masu.start()
    masu.running()
    until(lambda: len(masu.checkpoints()) == 2, "two are kept")
    first = masu.checkpoints()[0]["id"]
    assert masu.checkpoints()[0]["how"] == "schedule"
    until(lambda: masu.checkpoints()[0]["id"] != first, "older ones go")
    seen = masu.status()["checkpoint"]
    assert seen["verdict"] == "ready"
    assert seen["next"] > seen["last"]["time"]
    pid = masu.pid()
    masu.stop()
    left = [each["id"] for each in masu.checkpoints()]
    masu.start()
    until(lambda: masu.checkpoints()[-1]["id"] not in left, "it goes on with that")
    assert masu.pid() == pid
    masu.write(counting(checkpoint=policy, state="frozen"))
    until(lambda: masu.status()["state"] == "frozen", "frozen")
    until(lambda: told(masu, "CheckpointFailed"), "it is told")
    assert "frozen" in masu.status()["checkpoint"]["verdict"]
    assert "no checkpoints: container web is frozen" in masu.run("status").stdout
    masu.write(counting(checkpoint=policy))
    until(lambda: masu.status()["state"] == "running", "running")
    newest = masu.checkpoints()[-1]["id"]
    until(lambda: masu.checkpoints()[-1]["id"] != newest, "and on it goes")
    assert len(told(masu, "CheckpointFailed")) == 1
    runs_on(masu, pid)
    assert masu.halfway() == []


@contextmanager
def store_held(masu: Masu) -> Iterator[None]:
    """Nobody can write to the store meanwhile: what is to be stored waits."""
    with Path(f"/var/lib/masu/{masu.instance}/checkpoints/lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def stored_while(masu: Masu) -> subprocess.Popen[str]:
    """A `masu checkpoint` that has dumped, and waits for the store."""
    asked = masu.spawn("checkpoint", "web")
    note = Path(f"/run/masu/{masu.instance}/scratch/web/cost")
    until(note.exists, "it has been dumped")
    return asked


def checkpointed(masu: Masu) -> None:
    """It runs, and would be restored."""
    masu.write(counting(checkpoint={"onFailure": "restore"}))
    masu.start()
    masu.running()
    goes_on(masu, 5)
    done(masu, "checkpoint", "web")


def test_who_crashes_while_its_checkpoint_is_stored_goes_on_from_that(masu: Masu) -> None:
    """Not from an older one, with whose images it would be mixed up."""
    checkpointed(masu)
    goes_on(masu, 40)
    with store_held(masu):
        asked = stored_while(masu)
        pid = masu.pid()
        os.kill(pid, signal.SIGKILL)
        until(lambda: "still being stored" in json.dumps(masu.status()["conditions"]), "it waits")
        assert masu.pid() == 0
    assert asked.wait(30) == 0
    newest = masu.checkpoints()[-1]["id"]
    masu.restarted(pid)
    from_checkpoint(masu, newest, 40)
    done(masu, "checkpoints", "--verify")
    assert masu.halfway() == []


def test_who_is_removed_while_its_checkpoint_is_stored_leaves_nothing(masu: Masu) -> None:
    checkpointed(masu)
    with store_held(masu):
        asked = stored_while(masu)
        (masu.source / "web.yaml").unlink()
        masu.write(volume("other", size="16Mi"))
        until(lambda: "other" in masu.volumes(), "the source was read")
    assert asked.wait(30) == 0
    until(lambda: told(masu, "Removed"), "it is gone")
    assert masu.checkpoints() == []
    assert masu.halfway() == []


def test_what_somebody_has_ended_on_purpose_does_not_come_back(masu: Masu) -> None:
    """Neither after a crash of the run that comes next, nor after a reboot."""
    policy = {"onFailure": "restore", "onReboot": "restore"}
    masu.write(counting(checkpoint=policy))
    masu.start()
    masu.running()
    goes_on(masu, 20)
    done(masu, "checkpoint", "web")
    note = Path(f"/var/lib/masu/{masu.instance}/checkpoints/lineages/web")
    until(lambda: note.is_symlink() and os.readlink(note) == masu.record()["lineage"], "it is noted")
    masu.write(counting(checkpoint=policy, state="stopped"))
    until(lambda: masu.pid() == 0 and os.readlink(note) == ENDED, "it has ended")
    masu.write(counting(checkpoint=policy))
    pid = masu.restarted(0)
    until(lambda: lines(masu), "it counts")
    assert lines(masu)[0] == 1
    Path(f"/proc/{pid}/root/new").touch()
    crash(masu)
    assert masu.record()["restored"] == ""
    assert Path(f"/proc/{masu.pid()}/root/new").exists()
    until(lambda: os.readlink(note) == masu.record()["lineage"], "the run of now is noted")


def test_a_restore_waits_for_whatever_a_start_would_wait_for(masu: Masu, tmp_path: Path) -> None:
    """A device that is not there, and the pause after a second crash."""
    device = tmp_path / "device"
    os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    spec = counting(
        checkpoint={"onFailure": "restore"},
        devices=[{"path": str(device)}],
        restart={"backoff": {"initial": "3s"}},
    )
    masu.write(spec)
    masu.start()
    masu.running()
    goes_on(masu, 20)
    done(masu, "checkpoint", "web")
    identity = done(masu, "checkpoint", "web").split(":")[0]
    pid = masu.pid()
    device.unlink()
    os.kill(pid, signal.SIGKILL)
    until(lambda: "NoDevice" in json.dumps(masu.status()["conditions"]), "it waits for the device")
    os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    pid = masu.restarted(pid)
    from_checkpoint(masu, identity, 20)
    os.kill(pid, signal.SIGKILL)
    until(lambda: "BackOff" in json.dumps(masu.status()["conditions"]), "it waits for a while")
    masu.restarted(pid)
    assert masu.record()["restored"] < identity
    assert told(masu, "RestoreFailed", "StartsAnew") == []


def test_a_restore_that_masu_did_not_live_to_see_is_done_again(masu: Masu) -> None:
    """It was killed after it had written that down, and before anything was born."""
    masu.write(counting(checkpoint={"onFailure": "restore"}))
    masu.start()
    masu.running()
    goes_on(masu, 20)
    identity = done(masu, "checkpoint", "web").split(":")[0]
    masu.stop()
    os.kill(masu.pid(), signal.SIGKILL)
    killed = masu.run("apply", str(masu.source), env={"MASU_FAIL_AT": "RestoreContainer:1"})
    assert killed.returncode == -signal.SIGKILL
    path = Path(f"/run/masu/{masu.instance}/records/web.json")
    half = {"phase": "launching", "pid": 0, "start_time": 0, "launched_at": 0, "exit": None}
    path.write_text(json.dumps({**json.loads(path.read_text()), **half, "restored": identity, "tries": 1}))
    masu.start()
    masu.restarted(0)
    from_checkpoint(masu, identity, 20)
    assert masu.record()["tries"] == 2
    until(lambda: not masu.halfway(), "what was before has gone")


def test_who_was_ended_with_a_checkpoint_goes_on_from_it(masu: Masu) -> None:
    """If its spec asks for that; it did not crash."""
    masu.write(counting(checkpoint={"onReboot": "restore"}))
    assert masu.apply().returncode == 0
    goes_on(masu, 20)
    identity = done(masu, "checkpoint", "web", "--stop").split(":")[0]
    assert masu.pid() == 0
    assert masu.apply().returncode == 0
    from_checkpoint(masu, identity, 20)
    assert masu.status()["restarts"] == 0
    masu.write(counting(checkpoint={"onReboot": "start"}))
    done(masu, "checkpoint", "web", "--stop")
    assert masu.apply().returncode == 0
    assert masu.record()["restored"] == ""


def test_a_last_checkpoint_is_made_when_masu_ends(masu: Masu) -> None:
    """The container runs on, as it does whenever masu ends."""
    policy = {"onShutdown": "checkpoint", "onReboot": "restore"}
    masu.write(counting(checkpoint=policy))
    masu.start()
    pid = masu.running()
    goes_on(masu, 5)
    masu.stop()
    assert [each["how"] for each in masu.checkpoints()] == ["shutdown"]
    runs_on(masu, pid)
    masu.start()
    until(lambda: len(told(masu, "Ready")) == 2, "it is ready")
    assert masu.pid() == pid
    with store_held(masu):
        assert masu.daemon
        masu.daemon.send_signal(signal.SIGTERM)
        until(lambda: Path(f"/run/masu/{masu.instance}/scratch/web/cost").exists(), "it has been dumped")
        masu.daemon.send_signal(signal.SIGTERM)
        assert masu.daemon.wait(15) == 0
    assert "did not want to wait" in told(masu, "CheckpointSkipped")[-1]["message"]
    assert len(masu.checkpoints()) == 1
    runs_on(masu, pid)


def test_when_the_host_stops_the_container_ends_with_its_last_checkpoint(masu: Masu, tmp_path: Path) -> None:
    """As far as systemctl says so, in whose place there is a word of ours: no test can stop this host."""
    systemctl = tmp_path / "systemctl"
    systemctl.write_text("#!/bin/sh\necho stopping\n")
    systemctl.chmod(0o755)
    masu.write(counting(checkpoint={"onShutdown": "checkpoint", "onReboot": "restore"}))
    masu.start(env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    masu.running()
    goes_on(masu, 20)
    masu.stop()
    assert masu.pid() == 0
    assert masu.processes() == []
    last = masu.checkpoints()[-1]["id"]
    masu.start()
    masu.restarted(0)
    from_checkpoint(masu, last, 20)
    assert told(masu, "Exited", "RestoreFailed") == []


def test_a_checkpoint_that_is_listed_has_been_restored_where_the_spec_asks_for_that(masu: Masu) -> None:
    masu.write(counting(checkpoint={"mode": "stop"}))
    masu.start()
    before = masu.running()
    goes_on(masu, 20)
    identity = done(masu, "checkpoint", "web").split(":")[0]
    pid = from_checkpoint(masu, identity, 20)
    assert pid != before
    until(lambda: masu.status()["converged"], "converged")
    assert masu.pid() == pid
    assert masu.halfway() == []
    assert masu.status()["restarts"] == 0


def test_what_may_pass_is_waited_for_and_not_tried_without_a_pause(masu: Masu, tmp_path: Path) -> None:
    """A key that is not there: each try takes a worker, and all that is fetched."""
    key, steps = tmp_path / "key", tmp_path / "steps"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    masu.write(counting(checkpoint={"onFailure": "restore", "encryption": {"keyFile": str(key)}}))
    masu.start(env={"MASU_TRACE_STEPS": str(steps)})
    pid = masu.running()
    goes_on(masu, 20)
    identity = done(masu, "checkpoint", "web").split(":")[0]
    key.rename(tmp_path / "elsewhere")
    os.kill(pid, signal.SIGKILL)
    until(lambda: steps.read_text().split().count("FetchCheckpoint") >= 4, "it is tried again")
    assert len(told(masu, "RestoreFailed")) == 1
    begun = time.monotonic()
    until(lambda: steps.read_text().split().count("FetchCheckpoint") >= 5, "and again")
    assert time.monotonic() - begun > 1, "after 0.2, 0.4, 0.8 s and then 1.6 s"
    (tmp_path / "elsewhere").rename(key)
    masu.restarted(pid)
    from_checkpoint(masu, identity, 20)
