"""Archives that masu has not made: taken in only where the host's owner says so, and harmless to whoever runs.

They are made here as podman makes them, by runc and CRIU, of a container that masu knows nothing of.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from blake3 import blake3

from controller.host.facts import find
from tests.e2e.harness import ROOTFS, Masu, container, until

COUNT = "exec 3>/tmp/count; i=0; while :; do i=$((i+1)); echo $i >&3; sleep 0.02; done"
NAMESPACES = ("pid", "ipc", "uts", "mount")
BUSYBOX = {"path": ROOTFS, "writable": "overlay"}


class Theirs:
    """A container of somebody else's, its checkpoint, and a layer with one file, in podman's layout."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.marker = directory, directory / "hooked"
        self.name = "theirs-" + secrets.token_hex(4)
        self.spec: dict[str, Any] = {
            "ociVersion": "1.0.2",
            "process": {
                "args": ["/bin/sh", "-c", COUNT],
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "env": ["PATH=/bin"],
            },
            "root": {"path": ROOTFS, "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},  # else nodes are made in ROOTFS
            ],
            "linux": {"namespaces": [{"type": each} for each in NAMESPACES]},
        }

    def images(self) -> Path:
        """As CRIU wrote them; the container has ended with it."""
        bundle, images = self.directory / "bundle", self.directory / "checkpoint"
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(self.spec))
        self._runc("run", "--detach", "--bundle", str(bundle), self.name)
        try:
            self._runc(
                "checkpoint", "--manage-cgroups-mode", "ignore", "--image-path", str(images), "--work-path",
                str(bundle), self.name,
            )  # fmt: skip
        finally:
            self._runc("delete", "--force", self.name)
        return images

    def _runc(self, *arguments: str) -> None:
        runc, criu = find("runc"), find("criu")
        assert runc
        assert criu
        path, log = f"{Path(criu).parent}:{os.environ['PATH']}", self.directory / "runc.log"
        done = subprocess.run(
            [runc, "--root", str(self.directory / "runc"), "--log", str(log), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # the container has it, and CRIU takes no file of the host's
            env={**os.environ, "PATH": path},
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, log.read_text()

    def members(self) -> dict[str, bytes]:
        """What podman 5.8 writes, in its order: an empty /dev/shm, too."""
        hook = {"path": "/bin/touch", "args": ["touch", str(self.marker)]}
        kept = {
            **self.spec,
            "hooks": {each: [hook] for each in ("createRuntime", "poststart", "prestart", "poststop")},
            "annotations": {"run.oci.handler": "krun", "org.criu.config": str(self.directory / "criu.conf")},
            "mounts": [*self.spec["mounts"], {"destination": "/host", "type": "bind", "source": "/"}],
        }
        config = {
            "id": "0" * 64,
            "name": "theirs",
            "rootfsImageName": "localhost/theirs:1",
            "runtime": "runc",
        }
        images = self.images()
        return {
            "devshm-checkpoint.tar": tarball({"./": None}),
            "config.dump": json.dumps(config).encode(),
            "spec.dump": json.dumps(kept).encode(),
            "network.status": b"null",
            "ctr.log": b"",
            "checkpoint": b"",
            **{
                f"checkpoint/{each.name}": each.read_bytes()
                for each in sorted(images.iterdir())
                if each.is_file()
            },
            "rootfs-diff.tar": tarball({"theirs": b"of their layer"}),
            "deleted.files": b'["/etc/passwd"]',
        }


def tarball(members: Mapping[str, bytes | tarfile.TarInfo | None]) -> bytes:
    """Files by their content, directories as None, whatever else as its header."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as found:
        for name, each in members.items():
            info = each if isinstance(each, tarfile.TarInfo) else tarfile.TarInfo(name)
            if each is None or name == "checkpoint":
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            content = each if isinstance(each, bytes) and info.isreg() else b""
            info.size = info.size if isinstance(each, tarfile.TarInfo) else len(content)
            found.addfile(info, io.BytesIO(content) if content else None)
    return file.getvalue()


def odd(name: str, kind: bytes, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    info.devmajor, info.devminor = 8, 0
    return info


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Theirs, dict[str, bytes]]]:
    one = Theirs(tmp_path_factory.mktemp("theirs"))
    yield one, one.members()
    shutil.rmtree(one.directory)


class Rules:
    """The host's policy, which says of archives what a test wants it to say."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.path = directory / "policy.yaml"

    def allowing(self, *sorts: str) -> tuple[str, str]:
        spec = {
            "rootfs": [{"path": ROOTFS}],
            "namespaces": ["user"],
            "checkpoints": list(sorts),
        }
        self.path.write_text(yaml.safe_dump({"apiVersion": "masu/v1", "kind": "HostPolicy", "spec": spec}))
        return "--policy", str(self.path)


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    return Rules(tmp_path / "etc")


def said(masu: Masu, *arguments: str, code: int) -> str:
    found = masu.run(*arguments)
    assert found.returncode == code, f"{arguments}: {found.returncode}: {found.stdout}{found.stderr}"
    return found.stdout if code == 0 else found.stderr


def test_theirs_need_the_owners_word_and_whoever_runs_is_not_touched(
    masu: Masu, theirs: tuple[Theirs, dict[str, bytes]], rules: Rules, tmp_path: Path
) -> None:
    one, members = theirs
    path = tmp_path / "theirs.tar"
    path.write_bytes(tarball(members))
    again = {"policy": "always", "backoff": {"initial": "0s"}}
    masu.write(container(restart=again, checkpoint={"onFailure": "restore", "onReboot": "restore"}))
    masu.start()
    pid = masu.running()
    taking = ("checkpoint", "--as", "web", "import", str(path))
    assert "only a host whose policy lists foreign" in said(masu, *taking, code=4)
    assert "it does not list import" in said(masu, *taking, *rules.allowing(), code=4)
    assert "policy lists foreign" in said(masu, *taking, *rules.allowing("import"), code=4)
    assert masu.checkpoints() == []
    allowed = rules.allowing("foreign")
    assert "--as NAME" in said(masu, "checkpoint", "import", str(path), *allowed, code=4)
    identity = said(masu, *taking, *allowed, code=0).split(":")[0]
    assert [(each["id"], each["how"]) for each in masu.checkpoints()] == [(identity, "imported")]
    said(masu, "checkpoints", "--verify", code=0)

    assert "name the one that you trust" in said(masu, "restore", "web", code=1), "never by itself"
    why = said(masu, "restore", "web", "--from", identity, code=4)
    assert "was made by another program" in why
    assert f"masu checkpoint export {identity} FILE" in why
    assert "made by another program" in said(masu, "restore", "web", "--import", str(path), *allowed, code=4)
    assert [each["id"] for each in masu.checkpoints()] == [identity], "what cannot be restored leaves nothing"
    assert masu.pid() == pid
    os.kill(pid, 9)
    masu.restarted(pid)
    assert masu.record()["restored"] == "", "a crash begins anew, not in memory of somebody else's"
    assert masu.halfway() == []
    until(lambda: masu.status()["converged"], "it is what the spec says")
    assert not one.marker.exists()
    assert not Path(f"/proc/{masu.pid()}/root/theirs").exists()


def test_theirs_go_out_as_they_came_and_stay_theirs(
    masu: Masu, theirs: tuple[Theirs, dict[str, bytes]], rules: Rules, tmp_path: Path
) -> None:
    """So podman takes back what it wrote; and masu's own name on the archive makes it nobody's but theirs."""
    _, members = theirs
    path, back = tmp_path / "theirs.tar", tmp_path / "back.tar"
    path.write_bytes(tarball(members))
    masu.write(container())
    assert masu.apply().returncode == 0
    taking = ("checkpoint", "--as", "web", "import")
    identity = said(masu, *taking, str(path), *rules.allowing("foreign"), code=0).split(":")[0]
    said(masu, "checkpoint", "export", identity, str(back), code=0)
    with tarfile.open(back) as found:
        came = {
            each.name: (found.extractfile(each) or io.BytesIO()).read() for each in found if each.isfile()
        }
    kept = {"config.dump", "spec.dump", "network.status", *(each for each in members if "/" in each)}
    assert {name: came.get(name) for name in kept} == {name: members[name] for name in kept}
    with tarfile.open(fileobj=io.BytesIO(came["rootfs-diff.tar"])) as layer:
        file = layer.extractfile("theirs")
        assert file
        assert file.read() == b"of their layer"
    assert json.loads(came["deleted.files"]) == ["/etc/passwd"]
    assert "policy lists foreign" in said(masu, *taking, str(back), *rules.allowing("import"), code=4)
    said(masu, *taking, str(back), *rules.allowing("foreign"), code=0)


def hostile(mark: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """What is wrong → (what is said of it, the members that are other ones); `mark`: a file of the host's."""
    image, shm = "checkpoint/pages-9.img", "devshm-checkpoint.tar"
    at, plain = str(mark), "not a plain relative"
    through = {"a": odd("a", tarfile.SYMTYPE, str(mark.parent)), f"a/{mark.name}": b"x"}
    return {
        "an image elsewhere": (plain, {f"checkpoint/../../../../../..{at}": b"x"}),
        "an absolute name": (plain, {at: b"x"}),
        "a link for an image": ("a symlink", {image: odd(image, tarfile.SYMTYPE, at)}),
        "a hard link for an image": ("a link", {image: odd(image, tarfile.LNKTYPE, at)}),
        "an older dump": (
            "a symlink",
            {"checkpoint/parent": odd("checkpoint/parent", tarfile.SYMTYPE, "..")},
        ),
        "its images": ("no such file", {"pre-checkpoint/pages-1.img": b"x"}),
        "a disk": ("a block device", {"checkpoint/sda": odd("checkpoint/sda", tarfile.BLKTYPE)}),
        "a layer through a link": ("not in a directory of", {"rootfs-diff.tar": tarball(through)}),
        "a layer elsewhere": (plain, {"rootfs-diff.tar": tarball({f"../../../../../..{at}": b"x"})}),
        "a layer with a disk": (
            "a block device",
            {"rootfs-diff.tar": tarball({"sda": odd("sda", tarfile.BLKTYPE)})},
        ),
        "deleted elsewhere": (plain, {"deleted.files": json.dumps([f"/../../../../../..{at}"]).encode()}),
        "files of /dev/shm": ('"./lost" in /dev/shm', {shm: tarball({"./lost": b"x"})}),
        "more than there is room for": (
            "than there is room",
            {image: odd(image, tarfile.REGTYPE, size=1 << 42)},
        ),
        "a spec without end": ("5242880 bytes, at most", {"spec.dump": b" " * (5 << 20)}),
    }


def test_hostile_ones_are_refused_whole(
    masu: Masu, theirs: tuple[Theirs, dict[str, bytes]], rules: Rules, tmp_path: Path
) -> None:
    _, members = theirs
    masu.write(container())
    assert masu.apply().returncode == 0
    pid, mark = masu.pid(), tmp_path / "mark"
    mark.write_text("whole")
    policy = rules.allowing("foreign")
    store = Path(f"/var/lib/masu/{masu.instance}/checkpoints")
    for what, (why, changed) in hostile(mark).items():
        path = tmp_path / "bad.tar"
        path.write_bytes(tarball({**members, **changed}))
        assert why in said(masu, "checkpoint", "--as", "web", "import", str(path), *policy, code=4), what
        assert mark.read_text() == "whole", what
        assert not (store / "importing").exists(), what
    assert masu.checkpoints() == []
    assert masu.pid() == pid


def test_what_a_spec_in_an_archive_asks_for_is_not_done(masu: Masu, tmp_path: Path) -> None:
    """One of masu's own, in which somebody has changed the spec and the sums: its memory goes on, and no more."""
    path, marker = tmp_path / "web.tar", tmp_path / "hooked"
    masu.write(container(rootfs=BUSYBOX))
    assert masu.apply().returncode == 0
    said(masu, "checkpoint", "web", "--export", str(path), code=0)
    with tarfile.open(path) as found:
        members: dict[str, Any] = {
            each.name: found.extractfile(each).read() if each.isfile() else None  # type: ignore[union-attr]
            for each in found
        }
    spec = json.loads(members["spec.dump"])
    spec["hooks"] = {"poststart": [{"path": "/bin/touch", "args": ["touch", str(marker)]}]}
    spec["annotations"] = {"evil": "yes"}
    spec["mounts"].append({"destination": "/host", "type": "bind", "source": "/", "options": ["rbind"]})
    spec["linux"]["devices"] = [{"path": "/dev/mem", "type": "c", "major": 1, "minor": 1}]
    spec["process"]["capabilities"] = {"effective": ["CAP_SYS_ADMIN"]}
    members["spec.dump"] = json.dumps(spec).encode()
    sums = {**json.loads(members["masu.sums"]), "spec.dump": blake3(members["spec.dump"]).hexdigest()}
    members["masu.sums"] = json.dumps(sums).encode()
    path.write_bytes(tarball(members))
    before, had = masu.pid(), rights(masu.pid())
    identity = said(masu, "checkpoint", "import", str(path), code=0).split(":")[0]
    said(masu, "restore", "web", "--from", identity, code=0)
    pid = masu.pid()
    assert pid not in {0, before}
    assert masu.record()["restored"] == identity
    assert rights(pid) == had
    root = Path(f"/proc/{pid}/root")
    assert not (root / "host").exists()
    assert not (root / "dev" / "mem").exists()
    assert not marker.exists()
    bundle = Path(f"/run/masu/{masu.instance}/bundles/web/config.json").read_text()
    assert "evil" not in bundle
    assert "touch" not in bundle
    assert masu.plan()["changes"] == []


def rights(pid: int) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(each for each in lines if each.startswith("CapEff"))
