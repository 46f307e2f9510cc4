"""Containers from images: what they run, where that comes from, what a tag that moves does, and when it goes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.harness import ROOTFS, WAIT_S, Masu, container, until
from tests.registries import Layout, Registry, serving
from tests.repositories import Remote

USERS = {"namespaces": {"user": "auto"}}
CONFIG = ("--config.entrypoint", "/bin/sleep", "--config.cmd", "4242", "--config.env", "COLOUR=red")
MORE = ("--config.user", "user", "--config.workingdir", "/home", "--config.stopsignal", "SIGUSR1")


def umoci(*arguments: str) -> None:
    done = subprocess.run(["umoci", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with the busybox of all tests as 1, and the same with another file as 2."""
    directory = tmp_path_factory.mktemp("images")
    path, extra = directory / "web", directory / "extra"
    extra.write_text("two\n")
    umoci("init", "--layout", str(path))
    umoci("new", "--image", f"{path}:1")
    umoci("insert", "--image", f"{path}:1", ROOTFS, "/")
    umoci("config", "--image", f"{path}:1", *CONFIG, *MORE)
    umoci("insert", "--image", f"{path}:1", "--tag", "2", str(extra), "/www/extra")
    return path


@pytest.fixture
def layout(made: Path, tmp_path: Path) -> Path:
    """One of the test's own."""
    return Path(shutil.copytree(made, tmp_path / "web"))


@pytest.fixture
def faulty(layout: Path) -> Iterator[Registry]:
    """A registry that can be told to stall."""
    with serving(Layout(layout)) as registry:
        yield registry


class Distribution:
    """Debian's docker-registry, on a loopback port of its own."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.name = f"127.0.0.1:{probe.getsockname()[1]}"
        config = directory / "registry.yml"
        config.write_text(
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {directory}/registry}}}}\n"
            f"http: {{addr: {self.name!r}}}\nlog: {{level: error}}\n"
        )
        argv = ["docker-registry", "serve", str(config)]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers, "the registry answers", WAIT_S * 2)

    def push(self, layout: Path, tag: str, as_tag: str) -> str:
        """→ the digest of what it is now."""
        where = f"docker://{self.name}/team/web:{as_tag}"
        argv = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:{tag}", where]
        subprocess.run(argv, check=True, timeout=60)
        argv = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", where]
        return subprocess.run(argv, check=True, timeout=60, capture_output=True, text=True).stdout.strip()

    def reference(self, which: str) -> str:
        return f"docker://{self.name}/team/web{which}"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answers(self) -> bool:
        host, port = self.name.split(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return True
        return False


@pytest.fixture
def distribution(tmp_path: Path) -> Iterator[Distribution]:
    one = Distribution(tmp_path)
    try:
        yield one
    finally:
        one.close()


def from_image(
    image: str, name: str = "web", *, rootfs: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    """`process` is as the image says, unless the spec says more."""
    document = container(name, **{**USERS, **spec})
    document["spec"]["rootfs"] = {"image": image, **(rootfs or {})}
    document["spec"]["process"] = {"stop": {"grace": "0s"}, **spec.get("process", {})}
    return document


def actions(masu: Masu) -> dict[str, str]:
    return {each["container"]: each["action"] for each in masu.plan()["changes"]}


def reasons(masu: Masu, name: str = "web") -> list[str]:
    return [each["reason"] for each in masu.status(name).get("conditions", ())]


def pulling() -> list[int]:
    """Pids of whoever fetches images now, on the whole host."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (each / "comm").read_text().strip() in {"skopeo", "umoci"}:
                found.append(int(each.name))
    return found


def fetching(masu: Masu) -> list[int]:
    """Those of this instance."""
    found = []
    for pid in pulling():
        with contextlib.suppress(OSError):
            if masu.instance.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_runs_as_its_image_says_unless_the_spec_says_more(either: Masu, layout: Path) -> None:
    """Entrypoint, cmd, env, user, directory, stop signal; with users of its own. The image stays as it was."""
    image = f"oci:{layout}:1"
    either.write(
        from_image(image),
        from_image(
            image,
            "more",
            process={
                "args": ["7777"],
                "env": {"COLOUR": "blue"},
                "user": 0,
                "stop": {"signal": "INT", "grace": "0s"},
            },
        ),
        from_image(image, "other", process={"command": ["/bin/sh", "-c", "sleep 5555"]}),
    )
    before = either.run("plan", str(either.source))
    assert before.returncode == 2
    assert f"pull {image} (sha256:" in before.stdout or f"pull {image}\n" in before.stdout
    done = either.apply()
    assert done.returncode == 0, done.stderr
    assert either.run("plan", str(either.source)).returncode == 0
    (digest,) = either.images()
    status = either.status()
    assert status["image"] == {"reference": image, "digest": digest, "running": digest}
    assert (either.record()["image"], either.record()["stop"]["signal"]) == (digest, signal.SIGUSR1)
    for name, said in (("web", "4242"), ("more", "7777")):
        assert Path(f"/proc/{either.pid(name)}/cmdline").read_bytes() == f"/bin/sleep\0{said}\0".encode()
    assert b"5555" in Path(f"/proc/{either.pid('other')}/cmdline").read_bytes()
    environment = Path(f"/proc/{either.pid()}/environ").read_bytes().split(b"\0")
    assert b"COLOUR=red" in environment
    assert b"COLOUR=blue" in Path(f"/proc/{either.pid('more')}/environ").read_bytes().split(b"\0")
    assert os.readlink(f"/proc/{either.pid()}/cwd") == "/home"
    assert os.stat(f"/proc/{either.pid()}").st_uid == _base(either.pid()) + 1000
    assert os.stat(f"/proc/{either.pid('more')}").st_uid == _base(either.pid("more"))
    assert either.record("more")["stop"]["signal"] == signal.SIGINT
    written = either.run(
        "exec", "more", "--", "/bin/sh", "-c", "echo mine >/www/index.html && cat /www/index.html"
    )
    assert written.stdout == "mine\n"
    shared = Path(f"/var/lib/masu/{either.instance}/images/{digest.removeprefix('sha256:')}/rootfs")
    assert (shared / "www/index.html").read_text() == "<h1>masu</h1>\n"
    assert either.run("down", "web").returncode == 0
    assert either.images() == {digest}, "others have it"
    assert either.run("down", "--all").returncode == 0
    assert either.traces() == []


def _base(pid: int) -> int:
    return int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])


def test_two_images_share_files_and_their_containers_do_not(masu: Masu, layout: Path) -> None:
    for each in "12":
        masu.write(
            from_image(f"oci:{layout}:{each}", f"web{each}", process={"user": "0:0"}), file=f"{each}.yaml"
        )
    assert masu.apply().returncode == 0
    files = {each: _root(masu, f"web{each}") / "bin/busybox" for each in "12"}
    assert files["1"].stat().st_ino == files["2"].stat().st_ino
    mode = files["1"].stat().st_mode
    assert masu.run("exec", "web1", "--", "/bin/chmod", "700", "/bin/busybox").returncode == 0
    assert files["2"].stat().st_mode == mode
    seen = masu.run("exec", "web2", "--", "/bin/stat", "-c%f", "/bin/busybox")
    assert seen.stdout.strip() == f"{mode:x}", "who writes, writes into a layer of its own"
    assert masu.run("down", "web1").returncode == 0
    assert not files["1"].exists()
    assert masu.run("exec", "web2", "--", "/bin/true").returncode == 0, "who stays has it still"


def test_a_tag_that_moves_changes_nobody_who_has_not_asked(
    masu: Masu, made: Path, distribution: Distribution
) -> None:
    one = distribution.push(made, "1", "latest")
    tag = distribution.reference(":latest")
    masu.write(
        from_image(tag, "stays"),
        from_image(tag, "follows", rootfs={"pull": "always"}),
        from_image(distribution.reference(f"@{one}"), "pinned"),
    )
    done = masu.apply()
    assert done.returncode == 0, done.stderr
    assert masu.images() == {one}
    pids = {name: masu.pid(name) for name in ("stays", "follows", "pinned")}
    assert masu.run("plan", str(masu.source)).returncode == 0

    two = distribution.push(made, "2", "latest")
    assert two != one
    plan = masu.run("plan", str(masu.source))
    assert plan.returncode == 2
    assert actions(masu) == {"follows": "recreate"}
    assert f"({two[:19]})" in plan.stdout
    assert masu.pid("follows") == pids["follows"], "a plan changes nothing"
    done = masu.apply()
    assert done.returncode == 0, done.stderr
    assert masu.status("follows")["image"]["running"] == two
    assert {name: masu.pid(name) for name in ("stays", "pinned")} == {k: pids[k] for k in ("stays", "pinned")}
    assert masu.images() == {one, two}
    moved = [each["message"] for each in masu.events() if each["type"] == "ImageMoved"]
    assert moved == [f"{tag} is {two[:19]} now, and was {one[:19]}"]

    distribution.close()
    masu.write(
        from_image(tag, "stays", process={"env": {"A": "1"}}),
        from_image(distribution.reference(f"@{two}"), "new"),
    )
    done = masu.apply("--allow-removals")
    assert done.returncode == 0, f"what is here needs no registry: {done.stderr}"
    assert masu.status("stays")["image"]["running"] == one
    assert masu.images() == {one, two}
    (masu.source / "web.yaml").unlink()
    masu.write(container("plain"))
    assert masu.apply("--allow-removals").returncode == 0
    assert masu.images() == set(), "nobody refers to them any more"


def test_a_reload_asks_for_tags_although_nothing_was_pushed(masu: Masu, layout: Path, tmp_path: Path) -> None:
    described = {
        each["annotations"]["org.opencontainers.image.ref.name"]: each
        for each in json.loads((layout / "index.json").read_text())["manifests"]
    }
    Layout(layout).tag("moves", described["1"])
    remote = Remote(tmp_path / "remote")
    document = from_image(f"oci:{layout}:moves", rootfs={"pull": "always"})
    remote.push("one", web=yaml.safe_dump(document))
    masu.source = remote.url("#main")  # type: ignore[assignment]
    masu.start("--fetch-every", "1h", "--resync", "1h")
    pid = masu.running()
    Layout(layout).tag("moves", described["2"])
    assert masu.daemon
    masu.daemon.send_signal(signal.SIGHUP)
    masu.restarted(pid)
    assert masu.status()["image"]["running"] == described["2"]["digest"]


def test_a_pull_holds_nobody_up_and_ends_with_masu(masu: Masu, layout: Path, faulty: Registry) -> None:
    """Whoever waits says for what; whoever runs goes on, is repaired, and is ended for a whole image alone."""
    two = Layout(layout)
    digest = _digest_of(layout, "2")
    faulty.stalls = two.layers(digest)[-1]
    slow = faulty.reference(":2")
    masu.write(from_image(f"oci:{layout}:1", limits={"pids": {"max": 50}}), file="web.yaml")
    masu.start()
    pid = masu.running()
    masu.write(from_image(slow, "first"), from_image(slow, "second"), file="slow.yaml")
    masu.write(from_image(slow, limits={"pids": {"max": 60}}), file="web.yaml")
    masu.write(container("beside"), file="beside.yaml")
    masu.running("beside")
    until(lambda: masu.status("first").get("state") == "pulling", "it says so")
    until(lambda: reasons(masu, "second") == ["Pulling"], "as a condition")
    until(lambda: _limit(masu) == 60, "limits change meanwhile")
    assert masu.pid() == pid, "it runs on"
    until(lambda: fetching(masu), "somebody fetches")

    assert masu.daemon
    masu.daemon.kill()
    masu.daemon.wait()
    until(lambda: not fetching(masu), "who fetches ends with masu, however that ends")
    assert masu.pid() == pid
    asked = faulty.fetched(faulty.stalls)
    masu.start()
    until(lambda: faulty.fetched(faulty.stalls) > asked, "it is tried again")
    faulty.stalls = ""
    masu.restarted(pid)
    masu.running("first")
    masu.running("second")
    assert faulty.fetched(two.layers(digest)[-1]) == asked + 1, "three that want one image fetch it once"
    assert not list(Path(f"/var/lib/masu/{masu.instance}/images").glob(".*.*"))
    until(lambda: masu.status("first")["converged"], "and all is well")


def test_without_a_daemon_a_pull_is_tried_again_with_the_next_apply(masu: Masu, faulty: Registry) -> None:
    masu.write(from_image(faulty.reference(":later")))
    said = masu.run("apply", "--wait", "3s", str(masu.source))
    assert "; tried again with the next apply" in said.stderr
    found = masu.status()
    assert found["state"] == "waits"
    assert found["conditions"][0]["message"].endswith("; tried again with the next apply")


def _limit(masu: Masu) -> int:
    done = masu.run("exec", "web", "--", "/bin/sh", "-c", "true")
    assert done.returncode == 0, done.stderr
    for each in Path("/sys/fs/cgroup").glob(f"**/masu/{masu.instance}/web/pids.max"):
        return int(each.read_text())
    return 0


def _digest_of(layout: Path, tag: str) -> str:
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    return next(each["digest"] for each in entries if tag in each["annotations"].values())


def test_what_cannot_be_had_is_said_and_tried_again(masu: Masu, layout: Path, faulty: Registry) -> None:
    masu.write(
        from_image(faulty.reference(":later")),
        from_image(faulty.reference(":2"), "absent", rootfs={"pull": "never"}),
        container("beside"),
    )
    masu.start()
    masu.running("beside")
    until(lambda: reasons(masu) == ["PullFailed"], "it says so")
    said = masu.status()["conditions"][0]["message"]
    assert "manifest unknown" in said
    assert reasons(masu, "absent") == ["ImageAbsent"]
    assert masu.status("absent")["state"] == masu.status()["state"] == "waits", "nothing is being pulled"
    plan = masu.run("plan", str(masu.source)).stdout
    assert "waits: absent: ImageAbsent: " in plan
    assert "waits: web: ImageUnknown: " in plan
    digest = _digest_of(layout, "1")
    umoci("tag", "--image", f"{layout}:1", "later")
    masu.running(wait_s=WAIT_S * 2)
    assert masu.images() == {digest}
    assert masu.status()["image"]["running"] == digest
    kinds = [each["type"] for each in masu.events() if each["container"] == "web"]
    assert kinds.index("PullFailed") < kinds.index("Pulled") < kinds.index("Started")


@pytest.mark.parametrize("moment", ["FetchImage:1", "FetchImage+:1", "RemoveImage:1", "RemoveImage+:1"])
def test_killed_at_it_and_done_again(masu: Masu, layout: Path, moment: str) -> None:
    """Half an image is never used, and nothing of it is left."""
    masu.write(from_image(f"oci:{layout}:1"))
    if moment.startswith("Remove"):
        assert masu.apply().returncode == 0
        masu.write(from_image(f"oci:{layout}:2"))
    done = masu.apply(env={"MASU_FAIL_AT": moment})
    assert done.returncode == -signal.SIGKILL, done.stderr
    done = masu.apply()
    assert done.returncode == 0, done.stderr
    (digest,) = masu.images()
    assert masu.status()["image"]["running"] == digest
    assert masu.run("plan", str(masu.source)).returncode == 0
    assert not list(Path(f"/var/lib/masu/{masu.instance}/images").glob(".*.*"))


def test_a_checkpoint_knows_its_image_and_keeps_it(masu: Masu, layout: Path) -> None:
    """Files and memory go back above the image that they were of; it stays as long as that is listed."""
    count = {"args": ["/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 0.05; done"]}
    count["command"], count["args"] = count["args"][:2], count["args"][2:]
    masu.write(from_image(f"oci:{layout}:1", process={**count, "user": 0}))
    assert masu.apply().returncode == 0
    one = masu.status()["image"]["running"]
    pid = masu.pid()
    number = Path(f"/proc/{pid}/root/tmp/n")
    until(lambda: number.exists() and int(number.read_text() or 0) > 3, "it counts")
    done = masu.run("checkpoint", "web")
    assert done.returncode == 0, done.stderr
    (listed,) = masu.checkpoints()
    at = int(number.read_text() or 0)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not masu.pid(), "it is dead")
    done = masu.run("restore", "web")
    assert done.returncode == 0, done.stderr
    assert masu.record()["image"] == one
    number = Path(f"/proc/{masu.pid()}/root/tmp/n")
    until(lambda: int(number.read_text() or 0) > at, "it goes on counting")

    masu.write(from_image(f"oci:{layout}:2", process={**count, "user": 0}))
    assert actions(masu) == {"web": "recreate"}
    assert masu.apply().returncode == 0
    two = masu.status()["image"]["running"]
    assert masu.images() == {one, two}, "the first is that of a listed checkpoint"
    refused = masu.run("restore", "web")
    assert refused.returncode == 4, "its memory is of another root file system"
    exported = masu.source.parent / "web.tar"
    assert masu.run("checkpoint", "export", listed["id"], str(exported)).returncode == 0
    said = subprocess.run(
        ["tar", "-xOf", str(exported), "config.dump"], capture_output=True, text=True, check=False
    )
    assert one in said.stdout


def test_no_time_is_lost_where_all_is_here(masu: Masu, layout: Path) -> None:
    """A second start of the same image asks nobody, although its source is gone."""
    masu.write(from_image(f"oci:{layout}:1"), from_image(f"oci:{layout}:1", "again", state="stopped"))
    assert masu.apply().returncode == 0
    shutil.rmtree(layout)
    masu.write(from_image(f"oci:{layout}:1"), from_image(f"oci:{layout}:1", "again"))
    began = time.monotonic()
    assert masu.apply().returncode == 0
    assert time.monotonic() - began < WAIT_S
    assert masu.pid("again")


def test_damaged_files_end_nobody_and_stop_nobody_else(masu: Masu, layout: Path) -> None:
    """What lies beside a root is written anew; without the pins whoever has an image stays with what he has."""
    masu.write(from_image(f"oci:{layout}:1"))
    assert masu.apply().returncode == 0
    (digest,), pid = masu.images(), masu.pid()
    state = Path(f"/var/lib/masu/{masu.instance}")
    note = state / "images" / digest.removeprefix("sha256:") / "image.json"
    note.write_text("")
    assert masu.run("plan", str(masu.source)).returncode == 0
    assert masu.apply().returncode == 0
    assert masu.pid() == pid
    assert Path(f"/proc/{pid}/root/bin/sleep").exists()
    assert json.loads(note.read_text())["digest"] == digest

    pins = (state / "pins.json").read_text()
    (state / "pins.json").write_text("{")
    masu.write(from_image(f"oci:{layout}:1"), from_image(f"oci:{layout}:2", "new"), container("beside"))
    plan = masu.run("plan", str(masu.source)).stdout
    assert "waits: new: ImageUnknown: " in plan
    assert "waits: web: ImageUnknown: " in plan
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    assert masu.apply("--wait", "60s").returncode == 1
    assert time.monotonic() - began < 30, "somebody has to do something: time is no help"
    assert masu.pid("beside")
    assert masu.pid() not in {0, pid}, "it is started again from what it had"
    assert masu.status()["image"]["running"] == digest
    assert (reasons(masu), reasons(masu, "new")) == (["ImageUnknown"], ["ImageUnknown"])
    masu.write(from_image(f"oci:{layout}:1"), from_image(f"oci:{layout}:2", "new"))
    assert masu.run("down", "beside").returncode == 0
    assert masu.images() == {digest}

    (state / "pins.json").write_text(pins)
    assert masu.apply().returncode == 0
    assert masu.pid("new")
    assert reasons(masu) == []


def _root(masu: Masu, name: str) -> Path:
    digest = masu.status(name)["image"]["running"]
    return Path(f"/var/lib/masu/{masu.instance}/images/{digest.removeprefix('sha256:')}/rootfs")
