"""Checkpoints by hand, with the installed program: what is in memory and what is in files go back together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from controller.host.facts import find
from controller.steps import checkpointing
from controller.steps._base import Step
from tests.e2e.harness import CHECKOUT, Masu, container, until, volume

COUNT = "exec 3>/count; i=0; echo up; while :; do i=$((i+1)); echo $i >&3; sleep 0.02; done"
"""Counts in memory and into a file of its layer that it holds open; a new start begins with an empty file."""


def counting(**spec: Any) -> dict[str, Any]:
    return container(process={"args": ["/bin/sh", "-c", COUNT]}, **spec)


def lines(masu: Masu) -> list[int]:
    """What is in the file, but for a line that is just being written."""
    try:
        text = Path(f"/proc/{masu.pid()}/root/count").read_text()
    except FileNotFoundError:  # it has not come so far
        return []
    return [int(each) for each in text.splitlines()]


def goes_on(masu: Masu, after: int = 0) -> int:
    """It counts, and memory and file are of one moment: no number is missing, and none is there twice."""
    until(lambda: len(lines(masu)) > after, "it counts")
    found = lines(masu)
    assert found == list(range(1, len(found) + 1))
    return len(found)


def from_checkpoint(masu: Masu, identity: str, after: int) -> int:
    """Init's pid, when it goes on from there, and with the count of then at once."""
    assert masu.record()["restored"] == identity
    assert len(lines(masu)) > after
    goes_on(masu, len(lines(masu)))
    return masu.pid()


def done(masu: Masu, *arguments: str, code: int = 0, env: dict[str, str] | None = None) -> str:
    """What it says."""
    found = masu.run(*arguments, env=env)
    assert found.returncode == code, f"{arguments}: {found.returncode}: {found.stdout}{found.stderr}"
    return found.stdout if code == 0 else found.stderr


def test_a_counter_goes_on_from_where_it_was(either: Masu, tmp_path: Path) -> None:
    """With a daemon, a volume, a device, users and a size of its own; twice from one, once after a kill -9."""
    masu = either
    mounts = [{"volume": "data", "target": "/data"}]
    spec = counting(namespaces={"user": "auto"}, mounts=mounts, devices=[{"path": "/dev/fuse"}])
    spec["spec"]["rootfs"]["size"] = "32Mi"
    masu.write(volume("data", size="16Mi"), spec)
    masu.start()
    masu.running()
    goes_on(masu, 20)
    done(masu, "exec", "web", "--", "/bin/sh", "-c", "echo kept >/data/file")
    identity = done(masu, "checkpoint", "web").split(":")[0]
    assert masu.status()["checkpoint"]["last"]["id"] == identity
    assert [each["id"] for each in masu.checkpoints()] == [identity]
    first = masu.pid()
    goes_on(masu, len(lines(masu)))
    Path(f"/proc/{first}/root/later").touch()
    done(masu, "exec", "web", "--", "/bin/sh", "-c", "echo lost >/data/file; echo lost >/data/later")
    done(masu, "restore", "web")
    second = from_checkpoint(masu, identity, 20)
    assert second != first
    assert not Path(f"/proc/{second}/root/later").exists()
    said = done(masu, "exec", "web", "--", "/bin/sh", "-c", "cat /data/*; ls -l /dev/fuse")
    assert said.startswith("kept\nc"), "the data of the volume is of the same moment"
    os.kill(second, signal.SIGKILL)
    third = masu.restarted(second)
    done(masu, "restore", "web", "--from", identity)
    fourth = from_checkpoint(masu, identity, 20)
    assert fourth not in {second, third}
    assert masu.status()["converged"], masu.status()
    assert masu.pid() == fourth, "the daemon takes it for what it is"
    assert masu.plan()["changes"] == []
    assert masu.halfway() == []
    assert [each["type"] for each in masu.events() if each["type"] in {"Checkpointed", "Restored"}] == [
        "Checkpointed", "Restored", "Restored"
    ]  # fmt: skip


def test_an_end_by_a_checkpoint_and_a_way_to_another_instance(masu: Masu, tmp_path: Path) -> None:
    """Without a daemon, sealed: ended with its checkpoint, exported, imported elsewhere, where it goes on.

    With users of its own, which are other ones of the host there.
    """
    users = {"user": "auto"}
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    sealed = {"keep": {"last": 1}, "encryption": {"keyFile": str(key)}}
    masu.write(counting(checkpoint=sealed, namespaces=users))
    assert masu.apply().returncode == 0
    goes_on(masu, 20)
    done(masu, "exec", "web", "--", "/bin/sh", "-c", "touch /theirs && chown 1000:7 /theirs")
    done(masu, "checkpoint", "web")
    archive = tmp_path / "web.tar.zst"
    identity = done(masu, "checkpoint", "web", "--stop", "--export", str(archive)).split(":")[0]
    assert masu.pid() == 0
    (why,) = masu.status()["conditions"]
    assert why["reason"] == "EndedWithCheckpoint"
    assert why["message"].startswith("masu restore web goes on from it; masu apply")
    assert "EndedWithCheckpoint" in masu.run("status").stdout.splitlines()[1]
    assert [each["id"] for each in masu.checkpoints()] == [identity], "one is kept"
    assert masu.processes() == []
    layer = Path(f"/var/lib/masu/{masu.instance}/layers/web/upper")
    assert (layer / "count").exists()
    again = tmp_path / "again.tar.zst"
    done(masu, "checkpoint", "export", identity, str(again))
    assert again.stat().st_size == archive.stat().st_size
    last = int((layer / "count").read_text().splitlines()[-1])
    (tmp_path / "other").mkdir()
    other = Masu(tmp_path / "other")
    try:
        other.write(counting(namespaces=users))
        assert other.apply().returncode == 0
        done(other, "checkpoint", "import", str(archive))
        come = other.checkpoints()[-1]["id"]
        assert f"masu restore web {come}" in done(other, "restore", "web", code=1), (
            "it has to be trusted first"
        )
        done(other, "restore", "web", "--from", come)
        from_checkpoint(other, other.checkpoints()[-1]["id"], last - 1)
        done(other, "restore", "web", "--import", str(again))
        there = from_checkpoint(other, other.checkpoints()[-1]["id"], last - 1)
        assert other.plan()["changes"] == []
        first = int(Path(f"/proc/{there}/uid_map").read_text().split()[1])
        seen = Path(f"/proc/{there}/root/theirs").stat()
        assert (seen.st_uid, seen.st_gid) == (first + 1000, first + 7)
        assert Path(f"/proc/{there}").stat().st_uid == first
    finally:
        other.close()
    done(masu, "restore", "web")
    from_checkpoint(masu, identity, last - 1)
    done(masu, "down", "web")
    assert masu.traces() == []


def test_what_cannot_be_done_is_said_and_nothing_happens(masu: Masu) -> None:
    masu.write(counting())
    assert masu.apply().returncode == 0
    goes_on(masu, 5)
    pid = masu.pid()
    assert "no checkpoint" in done(masu, "restore", "web", code=1)
    assert done(masu, "checkpoints", "web").splitlines()[1:] == []
    for asked in (("checkpoint", "nothere"), ("checkpoints", "nothere"), ("restore", "nothere")):
        assert done(masu, *asked, code=1) == "masu: there is no container nothere\n"
    assert "nothere" not in {each["container"] for each in masu.events()}
    said = done(masu, "checkpoint", "web")
    told = [each["message"] for each in masu.events() if each["type"] == "Checkpointed"]
    assert told == [said.removesuffix("\n")]
    identity = said.split(":")[0]
    for pack in Path(f"/var/lib/masu/{masu.instance}/checkpoints/packs").glob("*.pack"):
        flip(pack)
    assert "damaged: " in masu.run("checkpoints", "--verify").stdout
    assert f"{identity} is damaged: chunk" in done(masu, "restore", "web", code=1)
    runs_on(masu, pid)
    masu.write(counting(checkpoint={"minFree": "1Pi"}))
    assert masu.apply().returncode == 0
    assert "shall stay free" in done(masu, "checkpoint", "web", code=1)
    assert "shall stay free" in done(masu, "checkpoint", "web", "--stop", code=1)
    runs_on(masu, pid)
    masu.write(counting(checkpoint={"never": True}))
    assert masu.apply().returncode == 0
    assert "never" in done(masu, "checkpoint", "web", code=4)
    masu.write(counting(state="frozen"))
    assert masu.apply().returncode == 0
    assert "frozen" in done(masu, "checkpoint", "web", code=1)
    masu.write(counting(mounts=[{"tmpfs": "/tmp", "size": "1Mi"}]))
    assert masu.apply().returncode == 0
    said = done(masu, "restore", "web", "--from", identity, code=4)
    way_out = "take that back in the spec to restore, or make a new checkpoint"
    assert said.endswith(f"with other mounts, than the spec has now: mounts: /tmp is new; {way_out}\n")
    assert "not installed" in without_criu(masu, "checkpoint", "web")
    runs_on(masu, masu.pid())
    secret = {"A": "shown-to-nobody"}
    masu.write(container(process={"args": ["/bin/sleep", "99"], "env": secret}, namespaces={"ipc": "host"}))
    assert masu.apply().returncode == 0
    said = done(masu, "restore", "web", "--from", identity, code=4)
    assert ' → ["/bin/sleep", "99"]; process.env: A is new; namespaces.ipc: private → host; ' in said
    assert said.endswith(f"; {way_out}\n")
    assert "shown-to-nobody" not in said


def test_archives_take_no_place_of_checkpoints_and_those_that_do_not_fit_none_at_all(
    masu: Masu, tmp_path: Path
) -> None:
    rules = {"keep": {"last": 1}}
    masu.write(counting(checkpoint=rules))
    assert masu.apply().returncode == 0
    goes_on(masu, 5)
    archive = str(tmp_path / "web.tar.zst")
    first = done(masu, "checkpoint", "web", "--export", archive).split(":")[0]
    imported = [done(masu, "checkpoint", "import", archive).split(":")[0] for _ in range(3)]
    assert [each["id"] for each in masu.checkpoints()] == [first, *imported]
    second = done(masu, "checkpoint", "web").split(":")[0]
    assert [each["id"] for each in masu.checkpoints()] == [imported[-1], second]
    masu.write(counting(checkpoint=rules, mounts=[{"tmpfs": "/tmp", "size": "1Mi"}]))
    assert masu.apply().returncode == 0
    masu.start()
    until(lambda: "Ready" in {each["type"] for each in masu.events()}, "it can be asked")
    pid = masu.running()
    for _ in range(2):
        assert "other mounts" in done(masu, "restore", "web", "--import", archive, code=4)
    masu.stop()
    assert "other mounts" in done(masu, "restore", "web", "--import", archive, code=4)
    assert "no container other" in done(masu, "restore", "other", "--import", archive, code=1)
    assert [each["id"] for each in masu.checkpoints()] == [imported[-1], second]
    runs_on(masu, pid)


def test_what_was_imported_for_nobody_can_be_removed(masu: Masu, tmp_path: Path) -> None:
    """One by its id, all of a name by that, and everything with `--all`; each is told, and written down."""
    masu.write(counting())
    assert masu.apply().returncode == 0
    goes_on(masu, 5)
    archive = str(tmp_path / "web.tar.zst")
    first = done(masu, "checkpoint", "web", "--export", archive).split(":")[0]

    def take_in(name: str) -> str:
        return done(masu, "checkpoint", "--as", name, "import", archive).split(":")[0]

    one, other, third = take_in("gone"), take_in("gone"), take_in("lost")
    masu.write(counting(checkpoint={"pins": [first]}))
    assert masu.apply().returncode == 0
    said = done(masu, "checkpoint", "remove", first, code=4)
    assert f"{first} is pinned in the spec of web (checkpoint.pins)" in said
    killed = masu.run("checkpoint", "remove", one, env={"MASU_FAIL_AT": "RemoveCheckpoint:1"})
    assert killed.returncode == -signal.SIGKILL
    assert done(masu, "checkpoint", "remove", one) == f"removed {one} of container gone\n"
    assert "there is no checkpoint" in done(masu, "checkpoint", "remove", one, code=1)
    assert 'there is no checkpoint "../web"' in done(masu, "checkpoint", "remove", "../web", code=1)
    assert [each["id"] for each in masu.checkpoints()] == [first, other, third]
    told = [each for each in masu.events() if each["type"] == "CheckpointRemoved"]
    assert [(each["container"], each["message"]) for each in told] == [("gone", f"{one}, by hand")]
    asked = [each for each in masu.audit() if each.get("request") == "checkpoint remove"]
    assert [each["outcome"] for each in asked] == ["refused", "done", "failed", "failed"]
    assert [each["what"] for each in masu.audit() if each.get("step") == "RemoveCheckpoint"] == [
        f"remove checkpoint {one}"
    ]
    assert done(masu, "down", "gone") == "removed gone\n"
    assert [each["id"] for each in masu.checkpoints()] == [first, third]
    masu.start()
    until(lambda: "Ready" in {each["type"] for each in masu.events()}, "it runs")
    masu.stop()
    assert [each["id"] for each in masu.checkpoints()] == [first, third], "its spec may be yet to come"
    manifests = Path(f"/var/lib/masu/{masu.instance}/checkpoints/manifests")
    next(manifests.glob(f"{first}*")).write_bytes(b"damaged")
    assert done(masu, "down", "--all") == "removed lost, web\n"
    assert masu.traces() == []
    assert not manifests.parent.exists()


def test_nobody_is_ended_for_an_archive_that_cannot_be_written(masu: Masu, tmp_path: Path) -> None:
    masu.write(counting())
    assert masu.apply().returncode == 0
    goes_on(masu, 5)
    pid = masu.pid()
    (tmp_path / "small").mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=16k", "masu-test", tmp_path / "small"]
    subprocess.run(mounting, check=True)
    try:
        for path, why in (
            (tmp_path / "nowhere" / "x.tar", "No such file or directory"),
            (tmp_path, "Is a directory"),
            (tmp_path / "small" / "x.tar", "bytes are needed at least, and 16384 are free"),
        ):
            said = done(masu, "checkpoint", "web", "--stop", "--export", str(path), code=1)
            assert f"exporting to {path}: " in said
            assert why in said
            assert not Path(f"{path}.tmp").exists()
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=True)
    assert masu.checkpoints() == []
    runs_on(masu, pid)


def test_who_came_in_from_outside_is_waited_for(masu: Masu) -> None:
    """Its writes would be in the copy of the files, and it would not be in the checkpoint."""
    masu.write(counting())
    masu.start()
    masu.running()
    goes_on(masu, 5)
    guest = masu.spawn(
        "exec", "web", "--", "/bin/sh", "-c", "echo $$ >/guest; while [ -e /guest ]; do sleep 0.1; done"
    )
    try:
        inside = Path(f"/proc/{masu.pid()}/root/guest")
        until(inside.exists, "the guest is there")
        assert "as those of masu exec do" in done(masu, "checkpoint", "web", code=1)
        runs_on(masu, masu.pid())
        inside.unlink()
        assert guest.wait(10) == 0
    finally:
        guest.kill()
    done(masu, "checkpoint", "web")
    assert masu.halfway() == []


def test_a_restore_that_fails_gives_the_files_back_and_starts_anew(masu: Masu, tmp_path: Path) -> None:
    """A file of the host that it has open has another size by now, which only CRIU finds out."""
    (tmp_path / "srv").mkdir()
    held = tmp_path / "srv" / "held"
    held.write_text("then")
    args = ["/bin/sh", "-c", f"exec 4</srv/held; {COUNT}"]
    mounts = [{"source": str(tmp_path / "srv"), "target": "/srv"}]
    masu.write(container(process={"args": args}, mounts=mounts))
    assert masu.apply().returncode == 0
    goes_on(masu, 5)
    identity = done(masu, "checkpoint", "web").split(":")[0]
    before = masu.pid()
    later(masu)
    held.write_text("of another size")
    assert "bad size" in done(masu, "restore", "web", code=1)
    pid = masu.pid()
    assert pid not in {0, before}
    assert masu.record()["restored"] == ""
    assert Path(f"/proc/{pid}/root/later").exists(), "the files are those from before the restore"
    runs_on(masu, pid)
    assert masu.plan()["changes"] == []
    held.write_text("then")
    done(masu, "restore", "web")
    pid = from_checkpoint(masu, identity, 4)
    assert not Path(f"/proc/{pid}/root/later").exists()


def without_criu(masu: Masu, *arguments: str) -> str:
    """What it says where there is no CRIU, which the host lacks then."""
    criu = find("criu")
    assert criu
    hidden = ["unshare", "-m", "sh", "-c", f'mount --bind /dev/null {criu} && exec "$@"', "sh"]
    found = subprocess.run(
        [*hidden, *masu._argv(), *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 5, found
    return found.stderr


def flip(path: Path) -> None:
    """One byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)


def runs_on(masu: Masu, pid: int) -> None:
    assert masu.pid() == pid
    goes_on(masu, len(lines(masu)))
    assert masu.halfway() == []


CHECKPOINT_STEPS = (
    "CopyAhead",
    "DumpContainer",
    "MakeWhole",
    "StoreCheckpoint",
    "ClearScratch",
    "RetireCheckpoints",
)
RESTORE_STEPS = (
    "FetchCheckpoint",
    "StopContainer",
    "ClearRuntime",
    "SwapFiles",
    "WriteBundle",
    "RestoreContainer",
    "ProveHealth",
    "SettleFiles",
)


@pytest.mark.timeout(300)
def test_killed_at_any_step_of_a_checkpoint_the_next_one_is_whole(masu: Masu) -> None:
    masu.write(counting(checkpoint={"keep": {"last": 1}}))
    assert masu.apply().returncode == 0
    goes_on(masu, 5)
    pid = masu.pid()
    for step in (f"{each}{when}:1" for each in CHECKPOINT_STEPS for when in ("", "+")):
        killed = masu.run("checkpoint", "web", env={"MASU_FAIL_AT": step})
        assert killed.returncode == -signal.SIGKILL, f"{step} was never reached: {killed.stderr}"
        assert masu.apply().returncode == 0, step
        assert masu.halfway() == [], step
        runs_on(masu, pid)
    done(masu, "checkpoint", "web")
    assert len(masu.checkpoints()) == 1
    done(masu, "checkpoints", "--verify")
    runs_on(masu, pid)
    for step in ("RemoveCheckpoints:1", "RemoveCheckpoints+:1"):
        killed = masu.run("down", "web", env={"MASU_FAIL_AT": step})
        assert killed.returncode == -signal.SIGKILL, f"{step} was never reached: {killed.stderr}"
        if "+" not in step:
            assert masu.checkpoints() != []
    done(masu, "down", "web")
    assert masu.traces() == []


@pytest.mark.timeout(300)
def test_killed_at_any_step_of_a_restore_it_runs_with_files_that_fit(masu: Masu) -> None:
    """Either from the checkpoint, with its files, or anew, with those from before the restore; of a volume, too."""
    mounts, health = [{"volume": "data", "target": "/data"}], {"exec": ["/bin/true"], "timeout": "30s"}
    masu.write(volume("data", size="16Mi"), counting(mounts=mounts, health=health))
    assert masu.apply().returncode == 0
    goes_on(masu, 5)
    done(masu, "checkpoint", "web")
    trace = masu.source.parent / "steps"
    done(masu, "restore", "web", env={"MASU_TRACE_STEPS": str(trace)})
    assert set(trace.read_text().split()) >= set(RESTORE_STEPS)
    for step in (f"{each}{when}:1" for each in RESTORE_STEPS for when in ("", "+")):
        before = masu.pid()
        later(masu)
        killed = masu.run("restore", "web", env={"MASU_FAIL_AT": step})
        assert killed.returncode == -signal.SIGKILL, f"{step} was never reached: {killed.stderr}"
        assert masu.apply().returncode == 0, step
        fits(masu, step, before)
        assert len(masu.processes()) <= 2, step  # sleep, too
    for undoing in ("PutBackFiles:1", "PutBackFiles+:1"):
        before = masu.pid()
        later(masu)
        assert masu.run("restore", "web", env={"MASU_FAIL_AT": "SwapFiles+:1"}).returncode == -signal.SIGKILL
        assert masu.apply(env={"MASU_FAIL_AT": undoing}).returncode == -signal.SIGKILL
        assert masu.apply().returncode == 0, undoing
        fits(masu, undoing, before)
    assert masu.plan()["changes"] == []
    path = Path(f"/run/masu/{masu.instance}/records/web.json")
    value, pid = json.loads(path.read_text()), masu.pid()
    path.write_text(json.dumps({**value, "phase": "launching", "pid": 0, "start_time": 0}))
    done(masu, "apply", str(masu.source))
    assert masu.pid() == pid, "what was restored, and not written down, is adopted"
    assert masu.status()["converged"]


def test_every_step_of_checkpoints_is_interrupted_somewhere() -> None:
    kinds = {
        name
        for name, each in vars(checkpointing).items()
        if isinstance(each, type) and issubclass(each, Step) and each.__module__ == checkpointing.__name__
    }
    elsewhere = {
        "PreDump",  # which takes another kernel
        "PutBackFiles",
        "RemoveCheckpoint",
        "RemoveCheckpoints",
        "FinishRestore",
        "RecordPutBy",
        "NoteLineage",
    }
    assert kinds <= {*CHECKPOINT_STEPS, *RESTORE_STEPS, *elsewhere}


def later(masu: Masu) -> None:
    """Files that no checkpoint has, in its layer and in its volume."""
    root = Path(f"/proc/{masu.pid()}/root")
    (root / "later").touch()
    if (root / "data").is_dir():
        (root / "data" / "later").touch()


def fits(masu: Masu, step: str, before: int) -> None:
    pid = masu.pid()
    assert pid, step
    goes_on(masu, len(lines(masu)))
    assert masu.halfway() == [], step
    restored = pid != before and bool(masu.record()["restored"])
    for path in ("later", "data/later"):
        later = Path(f"/proc/{pid}/root/{path}").exists()
        assert later != restored, f"{step}: restored {restored}, {path} from after the checkpoint {later}"


def test_a_daemon_that_is_killed_leaves_nothing_half(masu: Masu) -> None:
    masu.write(counting())
    masu.start(env={"MASU_FAIL_AT": "StoreCheckpoint:1"})
    pid = masu.running()
    goes_on(masu, 5)
    assert "ended before it was done" in done(masu, "checkpoint", "web", code=1)
    assert masu.daemon
    assert masu.daemon.wait(10) == -signal.SIGKILL
    assert masu.halfway() != []
    masu.start()
    until(lambda: not masu.halfway(), "it is cleared")
    runs_on(masu, pid)
    done(masu, "checkpoint", "web")
    assert len(masu.checkpoints()) == 1
