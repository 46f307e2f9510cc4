"""Whether containers are well: asked inside, told, and acted upon; and never beside a dump. On the real kernel."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Masu, container, until
from tests.e2e.test_checkpoints import counting, done, from_checkpoint, goes_on, lines
from tests.e2e.test_notify import _runs as runs_with
from tests.e2e.test_notify import events, told

ILL = ["/bin/sh", "-c", "test -e /ill || exit 0; echo ill; exit 3"]
"""Whether a file of the layer says so."""
LONG_S = 60.0


def asked(**health: Any) -> dict[str, Any]:
    return {"exec": ILL, "interval": "100ms", "timeout": "20s", "failures": 2, **health}


def healthy(masu: Masu) -> tuple[str, str]:
    """(reason, message), as `masu status` says."""
    found = [each for each in masu.status()["conditions"] if each["type"] == "Healthy"]
    assert [each["status"] == "True" for each in found] == [found[0]["reason"] == "HealthCheckPassed"]
    return found[0]["reason"], found[0]["message"]


def becomes(masu: Masu, reason: str) -> None:
    """As its record says, which costs no process."""

    def noted() -> bool:
        return bool(((masu.record() if masu.pid() else {}).get("health") or {}).get("reason") == reason)

    until(noted, lambda: f"{reason}: {masu.log()[-1500:]}", LONG_S)


def inside(masu: Masu, path: str) -> Path:
    return Path(f"/proc/{masu.pid()}/root{path}")


def test_who_is_not_well_is_restarted_with_the_reason(either: Masu) -> None:
    """And reported alone, live, where the spec says so; and asked by nobody without a daemon."""
    either.write(container(health=asked()))
    assert either.apply().returncode == 0
    assert healthy(either)[0] == "HealthUnknown"
    assert either.status()["converged"]
    either.start()
    pid = either.running()
    becomes(either, "HealthCheckPassed")
    inside(either, "/ill").touch()
    until(lambda: either.pid() not in {0, pid}, lambda: f"restarted: {either.log()[-1500:]}", LONG_S)
    assert told(either, "Stopping")["message"] == "health check failed 2 times: exit 3: ill"
    assert told(either, "Exited")["message"].startswith("Unhealthy: ")
    assert either.record()["restarts"] >= 1
    either.write(container(health=asked(onFailure="report")))
    becomes(either, "HealthCheckFailed")

    def reported() -> bool:
        """As its spec says, although it is ill: before the edit was read, whoever is ill had to be stopped."""
        status = either.status()
        return status["converged"] and any(
            each["reason"] == "HealthCheckFailed" for each in status["conditions"]
        )

    until(reported, lambda: f"reported: {either.status()} {either.log()[-1500:]}", LONG_S)
    assert healthy(either)[1] == "health check failed 2 times: exit 3: ill"
    pid, stops = either.pid(), len(events(either, "Stopping"))
    assert either.status()["converged"], "it is as its spec says"
    assert "HealthCheckFailed" in either.run("status").stdout
    inside(either, "/ill").unlink()
    becomes(either, "HealthCheckPassed")
    told(either, "Healthy")
    assert (either.pid(), len(events(either, "Stopping"))) == (pid, stops)
    either.stop()
    assert healthy(either)[0] == "HealthUnknown"


def test_a_probe_that_hangs_is_killed_with_all_it_has_started(masu: Masu) -> None:
    hang = ["/bin/sh", "-c", "echo waiting; sleep 77 & sleep 77"]
    check = {"exec": hang, "interval": "100ms", "timeout": "300ms", "failures": 1, "onFailure": "report"}
    masu.write(container(health=check))
    masu.start()
    pid = masu.running()
    message = told(masu, "Unhealthy")["message"]
    assert message.startswith("health check failed 1 time: no answer within 300ms"), message
    masu.write(container())
    until(lambda: masu.status()["conditions"] == [], "nobody asks any more")
    until(
        lambda: not [each for each in masu.processes() if runs_with(each, "77")],
        "nobody of it is left",
        LONG_S,
    )
    assert masu.pid() == pid


@pytest.mark.on_v2_long
def test_who_is_frozen_is_not_asked_and_does_not_fail_for_that(masu: Masu) -> None:
    """A check that writes down when it was asked, and that takes no second failure."""
    check = asked(exec=["/bin/sh", "-c", "echo x >>/asked"], failures=1, timeout="1s")
    masu.write(container(health=check))
    masu.start()
    pid = masu.running()
    becomes(masu, "HealthCheckPassed")
    path = inside(masu, "/asked")
    for _ in range(3):
        masu.write(container(health=check, state="frozen"))
        until(lambda: masu.status()["state"] == "frozen", "frozen")
        before = path.stat().st_size
        assert healthy(masu)[0] == "HealthCheckPassed"
        assert path.stat().st_size == before
        masu.write(container(health=check))
        until(lambda b=before: path.stat().st_size > b, "asked again", LONG_S)  # type: ignore[misc]
    assert masu.pid() == pid
    assert events(masu, "Unhealthy") == []


@pytest.mark.timeout(180)
def test_checkpoints_are_made_while_it_is_asked_all_the_time(masu: Masu) -> None:
    """No probe is beside a dump; one that is stored is shown; and what was restored says so."""
    slow = ["/bin/sh", "-c", "sleep 0.05; echo x >>/asked"]
    masu.write(counting(health=asked(exec=slow)))
    masu.start()
    masu.running()
    becomes(masu, "HealthCheckPassed")
    for _ in range(5):
        before = inside(masu, "/asked").stat().st_size
        identity = done(masu, "checkpoint", "web").split(":")[0]
        until(lambda b=before: inside(masu, "/asked").stat().st_size > b, "asked again", LONG_S)  # type: ignore[misc]
    assert events(masu, "CheckpointFailed", "Unhealthy") == []
    done(masu, "restore", "web")
    from_checkpoint(masu, identity, 1)
    (said,) = [each for each in masu.status()["conditions"] if each["type"] == "Restored"]
    assert identity in said["message"]
    becomes(masu, "HealthCheckPassed")
    assert masu.status()["converged"]
    assert masu.halfway() == []


def test_a_checkpoint_under_way_is_a_state(masu: Masu) -> None:
    """What is written down of it is there, and somebody holds the instance."""
    masu.write(counting())
    masu.start()
    masu.running()
    scratch = Path(f"/run/masu/{masu.instance}/scratch/web")
    scratch.mkdir(parents=True)
    (scratch / "dumping").write_text("manual")
    assert masu.status()["state"] == "checkpointing"
    masu.stop()
    assert masu.status()["state"] == "running", "of one that was interrupted nothing goes on"


@pytest.mark.timeout(180)
def test_a_restore_counts_when_it_answers_and_else_its_files_are_put_back(masu: Masu) -> None:
    """After a crash the checkpoint before is taken then; by hand it is started anew."""
    policy = {"onFailure": "restore", "keep": {"last": 5}}
    masu.write(counting(health=asked(), checkpoint=policy))
    assert masu.apply().returncode == 0
    goes_on(masu, 10)
    older = done(masu, "checkpoint", "web").split(":")[0]
    goes_on(masu, len(lines(masu)) + 10)
    newer = made_ill(masu)
    masu.start()
    until(lambda: "Ready" in masu.log(), "somebody looks after it")
    os.kill(masu.pid(), signal.SIGKILL)
    until(lambda: events(masu, "Restored"), lambda: f"restored: {masu.log()[-1500:]}", LONG_S)
    from_checkpoint(masu, older, 10)
    (failed,) = events(masu, "RestoreFailed")
    assert failed["message"].startswith(
        f"{newer}: {newer} could not be restored: health check failed 2 times"
    )
    assert not inside(masu, "/later").exists()
    until(lambda: masu.status()["converged"], "converged")
    masu.stop()
    before = masu.pid()
    inside(masu, "/later").touch()
    said = done(masu, "restore", "web", "--from", newer, code=1)
    assert f"{newer} could not be restored: health check failed 2 times: exit 3: ill" in said
    assert masu.pid() not in {0, before}
    assert masu.record()["restored"] == ""
    assert inside(masu, "/later").exists(), "the files are those from before the restore"
    assert not inside(masu, "/ill").exists()
    assert masu.plan()["changes"] == []
    assert masu.halfway() == []


def made_ill(masu: Masu) -> str:
    """The id of a checkpoint in which it is not well; it is, and its files are others, after it."""
    inside(masu, "/ill").touch()
    identity = done(masu, "checkpoint", "web").split(":")[0]
    inside(masu, "/ill").unlink()
    inside(masu, "/later").touch()
    return identity


def test_who_is_not_well_goes_on_from_a_checkpoint(masu: Masu) -> None:
    masu.write(counting(health=asked(), checkpoint={"onFailure": "restore"}))
    masu.start()
    masu.running()
    goes_on(masu, 10)
    identity = done(masu, "checkpoint", "web").split(":")[0]
    inside(masu, "/ill").touch()
    until(lambda: events(masu, "Restored"), lambda: f"restored: {masu.log()[-1500:]}", LONG_S)
    from_checkpoint(masu, identity, 10)
    assert not inside(masu, "/ill").exists(), "its files are of then, too"
    becomes(masu, "HealthCheckPassed")
    record = json.loads(Path(f"/run/masu/{masu.instance}/records/web.json").read_text())
    assert record["last_exit"]["reason"] == "Unhealthy"
