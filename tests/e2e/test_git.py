"""Containers from a git repository: what is pushed runs, and what is pushed wrong changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.harness import CHECKOUT, MASU, Masu, cgroup_mounts, container, until
from tests.repositories import Remote, allow, git, signed_by, ssh_key


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote")


@pytest.fixture
def masu(tmp_path: Path, remote: Remote) -> Iterator[Masu]:
    one = FromGit(tmp_path, remote)
    try:
        yield one
    finally:
        one.close()


class FromGit(Masu):
    """Its source is a directory of the repository."""

    def __init__(self, directory: Path, remote: Remote) -> None:
        super().__init__(directory)
        self.source = remote.url("#main:nodes/edge")  # type: ignore[assignment]


def text(*documents: dict[str, Any]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False)


def push(remote: Remote, message: str, *options: str, **documents: dict[str, Any] | str) -> str:
    for name, each in documents.items():
        remote.write(f"nodes/edge/{name}.yaml", each if isinstance(each, str) else text(each))
    return remote.push(message, *options)


def whole(masu: Masu) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(masu.run("status", "-o", "json").stdout)
    return found


def limit(masu: Masu, name: str = "web") -> str:
    for mount in cgroup_mounts():
        with contextlib.suppress(OSError):
            return Path(mount, "masu", masu.instance, name, "pids.max").read_text().strip()
    return ""


def limited(most: int, name: str = "web") -> dict[str, Any]:
    return container(name, limits={"pids": {"max": most}})


def test_push_and_push_back(masu: Masu, remote: Remote) -> None:
    first = push(remote, "ten", web=limited(10), other=limited(5, "other"))
    masu.start("--fetch-every", "1s")
    pid = masu.running()
    masu.running("other")
    assert limit(masu) == "10"
    (remote.work / "nodes/edge/other.yaml").unlink()
    second = push(remote, "twenty, and no other", web=limited(20), third=limited(5, "third"))
    until(lambda: limit(masu) == "20", "the push is in force")
    until(lambda: not masu.pid("other"), "who is gone from the repository goes")
    masu.running("third")
    until(lambda: masu.status()["converged"], "converged")
    found = whole(masu)
    assert found["revision"] == second
    assert found["source"]["commit"] == second
    assert found["source"]["subject"] == "twenty, and no other"
    assert found["source"]["since"] > 0
    assert f'revision: {second[:10]} "twenty, and no other" since ' in masu.run("status").stdout
    assert f'revision="{second}"' in masu.run("status", "-o", "metrics").stdout
    git(remote.work, "revert", "--no-edit", "HEAD")
    git(remote.work, "push", "-q", "origin", "HEAD:main")
    until(lambda: limit(masu) == "10", "the revert is in force")
    masu.running("other")
    assert masu.pid() == pid, "all of it live"
    told = [each for each in masu.events() if each["type"] == "Revision"]
    assert [(each.get("old", ""), each["new"]) for each in told[:2]] == [("", first), (first, second)]


def test_a_bad_push_keeps_the_last_good_and_is_told(masu: Masu, remote: Remote) -> None:
    push(remote, "good", web=limited(10), other=limited(5, "other"))
    masu.start("--fetch-every", "1s")
    masu.running()
    masu.running("other")
    push(remote, "half of it", web="kind: Container\nspec: nonsense\n", other=limited(6, "other"))
    until(lambda: limit(masu, "other") == "6", "the good half is in force")
    (told, *_) = whole(masu)["rejected"]
    assert told["file"] == "nodes/edge/web.yaml"
    assert told["line"] > 0
    assert limit(masu) == "10"
    (remote.work / "nodes/edge/web.yaml").unlink()
    (remote.work / "nodes/edge/web.yaml").symlink_to("/etc/shadow")
    push(remote, "a link", other=limited(7, "other"))
    until(lambda: limit(masu, "other") == "7", "and so on")
    assert "symbolic link" in masu.run("status").stdout
    assert masu.pid()


def test_all_or_nothing(masu: Masu, remote: Remote) -> None:
    first = push(remote, "good", web=limited(10), other=limited(5, "other"))
    masu.start("--fetch-every", "1s", "--atomic")
    masu.running()
    masu.running("other")
    second = push(remote, "half of it", web="kind: Container\n", other=limited(6, "other"))
    until(lambda: f"revision {second[:10]}" in whole(masu)["frozen"], "refused")
    found = whole(masu)
    assert (found["revision"], limit(masu, "other")) == (first, "5")
    assert {each["file"] for each in found["rejected"]} == {"nodes/edge/web.yaml"}
    push(remote, "mended", web=limited(11))
    until(lambda: (limit(masu), limit(masu, "other")) == ("11", "6"), "taken whole")


def test_only_what_is_signed(masu: Masu, remote: Remote, tmp_path: Path) -> None:
    key = ssh_key(tmp_path, "ours")
    signers = allow(tmp_path / "signers", key)
    first = push(remote, "signed", *signed_by(key), web=limited(10))
    masu.start("--fetch-every", "1s", "--require-signature", str(signers))
    masu.running()
    second = push(remote, "unsigned", web=limited(66))
    until(lambda: whole(masu)["rejected"], "told")
    (told,) = whole(masu)["rejected"]
    assert (
        f'{second[:10]} "unsigned" is refused: it is not signed; {first[:10]} "signed" stays'
        in told["message"]
    )
    assert (whole(masu)["revision"], limit(masu)) == (first, "10")
    assert masu.stop() == 0
    done = masu.apply("--require-signature", str(signers))
    assert done.returncode == 3, done.stderr
    assert "it is not signed" in done.stderr
    assert limit(masu) == "10"
    push(remote, "signed again", *signed_by(key), web=limited(12))
    assert masu.apply("--require-signature", str(signers)).returncode == 0
    assert limit(masu) == "12"


def test_a_repository_that_is_gone_deletes_nothing(masu: Masu, remote: Remote) -> None:
    push(remote, "one", web=limited(10))
    masu.start("--fetch-every", "1s")
    pid = masu.running()
    away = remote.path.with_suffix(".away")
    remote.path.rename(away)
    until(lambda: "cannot be fetched" in whole(masu)["frozen"], "told")
    assert masu.pid() == pid
    masu.stop(signal.SIGKILL)
    masu.start("--fetch-every", "1s")
    until(lambda: "Ready" in masu.log()[-2000:], "ready")
    assert masu.pid() == pid
    away.rename(remote.path)
    (remote.work / "nodes/edge/web.yaml").unlink()
    push(remote, "emptied")
    until(lambda: whole(masu)["frozen"].endswith("it has no nodes/edge"), "emptied is silence, too")
    push(remote, "back", web=limited(11))
    until(lambda: limit(masu) == "11", "followed again")
    assert masu.pid() == pid
    assert [each["type"] for each in masu.events()].count("SourceBack") >= 1


def test_what_is_applied_of_a_repository_that_is_gone_is_said(masu: Masu, remote: Remote) -> None:
    push(remote, "one", web=limited(10))
    assert masu.apply().returncode == 0
    os.kill(masu.pid(), signal.SIGKILL)
    until(lambda: not masu.pid(), "it has ended")
    remote.path.rename(remote.path.with_suffix(".away"))
    done = masu.apply()
    assert done.returncode == 1
    assert "cannot be fetched" in done.stderr
    assert done.stderr.endswith("; the last known revision was applied\n")
    assert masu.pid(), "it was started again"


@pytest.fixture
def mute(tmp_path: Path) -> tuple[str, dict[str, str]]:
    """A repository that never answers, and the environment in which it does not."""
    directory = tmp_path / "bin"
    directory.mkdir()
    ssh = directory / "ssh"
    ssh.write_text(f"#!/bin/sh\necho $$ >>{tmp_path}/asked\nexec sleep 1000\n")
    ssh.chmod(0o755)
    return "git+ssh://git@127.0.0.1/x", {"PATH": f"{directory}:{os.environ['PATH']}"}


def asked(tmp_path: Path) -> list[int]:
    """Who was started to ask it."""
    file = tmp_path / "asked"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_who_waits_for_a_repository_holds_nobody_up(
    masu: Masu, mute: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    masu.source, env = mute  # type: ignore[assignment]
    masu.start("--allow-unsafe-source", env=env)
    until(lambda: asked(tmp_path), "the first look waits for it")
    started = time.monotonic()
    assert masu.stop() == 0
    assert time.monotonic() - started < 4, "while it waits"
    masu.start("--allow-unsafe-source", env=env)
    until(lambda: masu.log().count("Ready") == 2, "ready", 20)
    syncs = [masu.spawn("sync") for _ in range(2)]
    time.sleep(0.5)
    started = time.monotonic()
    assert masu.stop() == 0
    assert time.monotonic() - started < 4, "although two have asked"
    assert [each.wait(10) for each in syncs] == [1, 1]
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in asked(tmp_path)), "nobody is left")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_look_in_passing_that_is_ended_leaves_nothing(
    masu: Masu, mute: tuple[str, dict[str, str]], tmp_path: Path, number: int
) -> None:
    source, env = mute
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    for verb in (
        ("plan", "--allow-unsafe-source", source),
        ("validate", source),
        ("plan", "--against", source, source),
    ):
        before = len(asked(tmp_path))
        argv = [*MASU, *verb]
        process = subprocess.Popen(argv, cwd=CHECKOUT, env={**os.environ, **env, "TMPDIR": str(temporary)})
        until(lambda count=before: len(asked(tmp_path)) > count, "it asks")  # type: ignore[misc]
        assert len(list(temporary.iterdir())) == 1
        process.send_signal(number)
        assert process.wait(10) == 128 + number, verb
        assert list(temporary.iterdir()) == [], verb
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in asked(tmp_path)), "nobody is left")


def test_sync_and_sighup_do_not_wait(masu: Masu, remote: Remote) -> None:
    push(remote, "one", web=limited(10))
    assert masu.run("sync").returncode == 1, "nobody is there"
    masu.start("--fetch-every", "1h")
    masu.running()
    second = push(remote, "two", web=limited(11))
    done = masu.run("sync")
    assert (done.returncode, done.stdout) == (0, f'{second} "two"\n'), done.stderr
    until(lambda: limit(masu) == "11", "at once")
    push(remote, "three", web=limited(12))
    assert masu.daemon
    masu.daemon.send_signal(signal.SIGHUP)
    until(lambda: limit(masu) == "12", "at once")
    remote.path.rename(remote.path.with_suffix(".away"))
    done = masu.run("sync")
    assert done.returncode == 1
    assert "cannot be fetched" in done.stderr
    remote.path.with_suffix(".away").rename(remote.path)


def test_plan_and_validate_of_a_repository_leave_nothing(masu: Masu, remote: Remote, tmp_path: Path) -> None:
    push(remote, "one", web=limited(10))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = {"TMPDIR": str(temporary)}
    done = masu.run("plan", str(masu.source), env=env)
    assert done.returncode == 2, done.stderr
    assert "+ web: create" in done.stdout
    assert masu.run("validate", str(masu.source), env=env).returncode == 0
    push(remote, "two", web="kind: Container\n")
    done = masu.run("validate", str(masu.source), env=env)
    assert done.returncode == 3
    assert done.stdout.startswith("nodes/edge/web.yaml:1:1: ")
    assert masu.run("plan", "git+http://127.0.0.1/x").returncode == 3
    assert list(temporary.iterdir()) == []
    assert not Path(f"/var/lib/masu/{masu.instance}/git").exists()


def test_down_takes_the_copy_away(masu: Masu, remote: Remote) -> None:
    push(remote, "one", web=limited(10))
    assert masu.apply().returncode == 0
    copy = Path(f"/var/lib/masu/{masu.instance}/git")
    assert copy.exists()
    assert masu.run("down", "--all").returncode == 0
    assert not copy.exists()


def test_what_a_change_under_review_would_do(masu: Masu, remote: Remote, tmp_path: Path) -> None:
    """Between two revisions, and between one and a checkout; no host is looked at."""
    push(remote, "one", web=limited(10), other=container("other"), third=container("third"))
    git(remote.work, "checkout", "-q", "-b", "change")
    remote.write("nodes/edge/web.yaml", text(limited(20)))
    remote.write("nodes/edge/other.yaml", text(container("other", process={"args": ["/bin/sleep", "5"]})))
    (remote.work / "nodes/edge/third.yaml").unlink()
    remote.write("nodes/edge/new.yaml", text(container("new", limits={"pids": {"max": 3}})))
    git(remote.work, "add", "--all")
    git(remote.work, "commit", "-q", "-m", "change")
    git(remote.work, "push", "-q", "origin", "change")
    for source in (remote.url("#change:nodes/edge"), str(remote.work / "nodes/edge")):
        done = masu.run("plan", "--against", str(masu.source), "-o", "json", source)
        assert done.returncode == 2, done.stderr
        found = {each["container"]: each["action"] for each in json.loads(done.stdout)["changes"]}
        assert found == {"new": "create", "other": "restart", "third": "delete", "web": "live"}
    said = masu.run("plan", "--against", str(masu.source), source).stdout
    assert "~ web: live\n    limits.pids.max: 10 → 20\n" in said
    said = masu.run("plan", "--against", str(masu.source), "-o", "markdown", source).stdout
    assert "| ~ live | `web` | `limits.pids.max`: `10` → `20` |" in said
    assert masu.run("plan", "--against", source, source).returncode == 0
    (remote.work / "nodes/edge/web.yaml").write_text("kind: Container\n")
    done = masu.run("plan", "--against", str(masu.source), source)
    assert done.returncode == 3
    assert f"invalid: {source}/web.yaml:1:1" in done.stdout
    assert "web: delete" not in done.stdout, "its last good version would stay"
    assert masu.run("plan", "-o", "markdown", source).returncode == 1


def test_one_schema_for_editors(masu: Masu) -> None:
    done = masu.run("schema", "-o", "bundle")
    assert done.returncode == 0
    assert "Container" in json.loads(done.stdout)["$defs"]


def test_one_repository_for_many_hosts(masu: Masu, remote: Remote) -> None:
    here, there = {"placement": {"nodes": ["edge-7"]}}, {"placement": {"nodes": ["edge-8"]}}
    push(remote, "one", web=text({**limited(7), **here}, {**limited(8), **there}), all=limited(5, "all"))
    assert masu.apply("--node", "edge-7").returncode == 0
    assert (limit(masu), limit(masu, "all")) == ("7", "5")
    assert masu.apply("--node", "edge-8").returncode == 0
    assert (limit(masu), limit(masu, "all")) == ("8", "5")
    assert masu.apply().returncode == 0, "this host is called neither"
    until(lambda: not masu.pid(), "it does not count here")
    assert masu.pid("all")
    said = masu.run("plan", "--against", str(masu.source), str(masu.source)).stdout
    assert "not looked at: 1 that count on other hosts alone" in said


def test_a_base_and_what_one_host_has_of_its_own(masu: Masu, remote: Remote) -> None:
    """The same files from a repository and from a checkout of it."""
    remote.write("base/web.yaml", text(limited(10)))
    remote.write("base/all.yaml", text(limited(5, "all")))
    remote.write("nodes/edge/masu.yaml", "base: ../../base\n")
    patch = {**container(), "spec": {"limits": {"pids": {"max": 20}}}}
    push(remote, "one", web=patch)
    masu.start("--fetch-every", "1s")
    pid = masu.running()
    until(lambda: (limit(masu), limit(masu, "all")) == ("20", "5"), "patched")
    remote.write("base/web.yaml", text(container(limits={"pids": {"max": 11}}, hostname="box")))
    push(remote, "two")
    until(lambda: masu.run("exec", "web", "--", "hostname").stdout == "box\n", "the base has changed")
    assert (limit(masu), masu.pid()) == ("20", pid)
    line = text({**patch, "spec": {"limits": {"pids": {"max": "lots"}}}})
    push(remote, "three", web=line)
    (told, *_) = until(lambda: whole(masu)["rejected"], "told")
    assert (told["file"], told["line"]) == (
        "nodes/edge/web.yaml",
        line.splitlines().index("      max: lots") + 1,
    )
    assert (limit(masu), masu.pid()) == ("20", pid)
    push(remote, "four", web=patch)
    until(lambda: not whole(masu)["rejected"], "mended")
    masu.stop()
    checkout = str(remote.work / "nodes/edge")
    assert masu.run("validate", checkout).returncode == 0
    assert masu.run("plan", "--against", str(masu.source), checkout).returncode == 0
    remote.write("base/web.yaml", text(container(limits={"pids": {"max": 11}}, hostname="other")))
    said = masu.run("plan", "--against", str(masu.source), checkout).stdout
    assert "~ web: live\n    hostname: box → other\n" in said
    masu.source = Path(checkout)
    masu.start()
    until(lambda: masu.run("exec", "web", "--", "hostname").stdout == "other\n", "from the checkout")
    (remote.work / "base/web.yaml").write_text(text(container(hostname="again")))
    until(lambda: masu.run("exec", "web", "--", "hostname").stdout == "again\n", "the base is watched, too")
    assert masu.pid() == pid
