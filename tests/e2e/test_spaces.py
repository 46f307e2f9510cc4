"""Layers and volumes with a hard size: full inside and not outside, grown live, kept, shared, repaired, gone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Masu, container, until, volume

MI = 1 << 20
DATA = {"volume": "data", "target": "/data"}
GROWS_LIVE = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16) >> 24 & 1
"""CAP_SYS_RESOURCE, without which the kernel grows no ext4 in use."""


def _inside(masu: Masu, script: str, name: str = "web") -> str:
    done = masu.run("exec", name, "--", "/bin/sh", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _size_inside(masu: Masu, target: str) -> int:
    return int(_inside(masu, f"df -k {target} | tail -n 1 | awk '{{print $2}}'")) << 10


def _apply(masu: Masu) -> None:
    done = masu.apply()
    assert done.returncode == 0, done.stderr


def _images(masu: Masu) -> int:
    return sum(
        each.stat().st_blocks * 512
        for each in Path(f"/var/lib/masu/{masu.instance}").glob("spaces/*/*/image")
    )


@pytest.mark.on_v2_long
def test_full_inside_is_not_full_outside(either: Masu) -> None:
    """Two containers, one in a user namespace, share a volume and see the same owners in it."""
    either.write(
        volume("data", size="32Mi", owner="0:7"),
        container(rootfs={"size": "32Mi"}, mounts=[DATA], namespaces={"user": "auto"}),
        container("reader", mounts=[{**DATA, "readOnly": True}]),
    )
    _apply(either)
    assert _inside(either, "ls -A /data") == "", "lost+found is not seen"
    said = _inside(
        either, "for each in /big /data/big; do dd if=/dev/zero of=$each bs=1M; done 2>&1; sync; ls /data"
    )
    assert said.count("No space left on device") == 2, said
    assert 32 * MI < _images(either) <= 64 * MI
    assert _inside(either, "stat -c %u:%g /data /data/big", "reader") == "0:7\n0:0"
    assert either.run("exec", "reader", "--", "touch", "/data/x").returncode != 0
    disk = either.status()["disk"]
    assert (disk["size"], disk["mechanism"]) == (32 * MI, "loopImage")
    assert disk["used"] > 20 * MI
    (data,) = either.volumes().values()
    assert data["containers"] == ["reader", "web"]
    assert (Path(data["path"]) / "big").stat().st_uid == 0, "for whoever makes a backup"
    assert either.plan()["changes"] == []


@pytest.mark.on_v2_long
def test_grown_while_it_is_used_and_never_shrunk(masu: Masu) -> None:
    def spec(size: str, **more: Any) -> list[dict[str, Any]]:
        return [volume("data", size=size), container(rootfs={"size": size}, mounts=[DATA], **more)]

    masu.write(*spec("32Mi"))
    masu.start()
    pid = masu.running()
    before = _size_inside(masu, "/data")
    masu.write(*spec("96Mi", limits={"pids": {"max": 50}}))
    if GROWS_LIVE:
        until(lambda: _size_inside(masu, "/data") > before + 50 * MI, "the volume has grown")
        until(lambda: _size_inside(masu, "/") > before + 50 * MI, "the layer has grown")
        assert masu.pid() == pid, "without a restart"
    else:
        until(lambda: "NoLiveGrowth" in str(masu.status()["conditions"]), "it is said that it cannot")
        assert masu.pid() == pid
        os.kill(pid, 9)
        masu.restarted(pid)
        until(lambda: masu.status()["converged"], lambda: str(masu.status()))
        assert _size_inside(masu, "/") > before + 50 * MI
        masu.write(*spec("96Mi", state="stopped"))
        until(lambda: masu.volumes()["data"]["converged"], lambda: str(masu.volumes()))
        assert masu.volumes()["data"]["size"] == 96 * MI
    masu.write(*spec("48Mi", hostname="smaller"))
    until(lambda: masu.pid() and _inside(masu, "hostname") == "smaller", "the rest converges")
    until(lambda: masu.status()["drift"], "it is said that it cannot shrink")
    drift = [{"aspect": "rootfs", "key": "rootfs.size", "desired": "48Mi", "live": "96Mi"}]
    assert masu.status()["drift"] == drift
    assert masu.volumes()["data"]["drift"][0]["live"] == "96Mi"
    assert len([each for each in masu.plan()["waits"] if "CannotShrink" in each["message"]]) == 2
    assert _size_inside(masu, "/") > before + 50 * MI


def test_a_volume_outlives_its_containers_and_its_file(masu: Masu) -> None:
    masu.write(volume("data", size="16Mi"), file="volume.yaml")
    masu.write(container("other"), file="other.yaml")
    file = masu.write(container(mounts=[DATA]))
    masu.start()
    masu.running()
    _inside(masu, "echo precious > /data/x")
    (masu.source / "volume.yaml").unlink()
    until(lambda: "uses volume" in masu.log(), "a volume in use is not taken away")
    file.unlink()
    until(lambda: masu.volumes()["data"]["state"] == "kept", "its file is gone, its data is not")
    until(lambda: not masu.in_space(), "neither mounted nor attached")
    assert masu.space("volume", "data").exists()
    masu.write(volume("data", size="16Mi"), container(mounts=[DATA]))
    masu.running()
    assert _inside(masu, "cat /data/x") == "precious"
    masu.write(volume("data", size="16Mi", onDelete="remove"), container(mounts=[DATA]))
    until(lambda: os.readlink(masu.space("volume", "data") / "rule") == "remove", "noted")
    masu.write(container("other2"))
    until(lambda: not masu.traces("data"), lambda: str(masu.traces("data")))


def test_volumes_go_by_an_explicit_word_alone(masu: Masu) -> None:
    masu.write(
        volume("data", size="16Mi", onDelete="remove"), volume("more", size="16Mi"), container(mounts=[DATA])
    )
    _apply(masu)
    _inside(masu, "echo precious > /data/x")
    refused = masu.run("down", "volume/data")
    assert (refused.returncode, "is used by" in refused.stderr) == (4, True)
    down = masu.run("down", "--all")
    assert down.returncode == 0, down.stderr
    assert "kept volume/data, volume/more" in down.stdout
    assert masu.in_space() == []
    assert masu.traces("web") == []
    _apply(masu)
    assert _inside(masu, "cat /data/x") == "precious"
    assert masu.run("down", "web", "volume/data").stdout == "removed volume/data, web\n"
    assert masu.traces("data") == []
    assert masu.run("down", "volume/none").returncode == 1
    assert masu.run("down", "--all", "--volumes").returncode == 0
    assert masu.traces() == []


def test_unmounted_behind_masus_back(masu: Masu) -> None:
    """The container does not notice; the host sees a volume again at once, a layer with the next look."""
    masu.write(volume("data", size="16Mi"), container(rootfs={"size": "16Mi"}, mounts=[DATA]))
    masu.start("--resync", "1h")
    pid = masu.running()
    _inside(masu, "echo a > /data/x; echo b > /root/y")
    data, layer = masu.space("volume", "data") / "fs", masu.space("rootfs", "web") / "fs"
    for each in (data, layer):
        subprocess.run(["umount", str(each)], check=True, timeout=10)
    until(lambda: os.path.ismount(data), "the volume is mounted again")
    masu.stop()
    _apply(masu)
    assert os.path.ismount(layer)
    assert _inside(masu, "cat /data/x /root/y") == "a\nb"
    assert masu.pid() == pid
    assert (masu.space("volume", "data") / "fs/data/x").read_text() == "a\n"
    assert len(masu.in_space("data", "volume")) == 2, "one mount, one device"


def test_a_mount_inside_is_put_back_with_its_owners(masu: Masu) -> None:
    masu.write(volume("data", size="16Mi"), container(mounts=[DATA], namespaces={"user": "auto"}))
    _apply(masu)
    pid = masu.pid()
    argv = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "--", "/bin/busybox", "umount", "/data"]
    subprocess.run(argv, check=True, timeout=10)
    _apply(masu)
    assert _inside(masu, "touch /data/x; stat -c %u /data/x") == "0"
    assert masu.pid() == pid


def test_a_size_that_comes_or_goes_makes_a_new_layer(masu: Masu) -> None:
    masu.write(container())
    _apply(masu)
    _inside(masu, "touch /root/x")
    masu.write(container(rootfs={"size": "16Mi"}))
    (change,) = masu.plan()["changes"]
    assert change["action"] == "recreate"
    _apply(masu)
    assert _inside(masu, "ls /root; touch /root/y") == ""
    assert not (Path("/var/lib/masu") / masu.instance / "layers/web").exists()
    masu.write(container(rootfs={"size": "16Mi", "path": "/opt/masu/rootfs/busybox/"}))
    _apply(masu)
    assert _inside(masu, "ls /root") == "", "another root file system begins with an empty layer"
    masu.write(container())
    _apply(masu)
    assert _inside(masu, "ls /root") == ""
    assert not masu.space("rootfs", "web").exists()
    assert masu.in_space() == []


def test_what_makes_no_sense_is_a_bad_file(masu: Masu) -> None:
    masu.write(
        volume("data", size="1Mi"),
        container(rootfs={"writable": "readOnly", "size": "1Gi"}),
        container("lost", mounts=[{"volume": "nowhere", "target": "/x"}]),
    )
    said = masu.run("validate", str(masu.source)).stdout
    assert "1Mi is too small: a file system of its own takes at least 16Mi" in said
    assert "size is for a layer of the container's own" in said
    masu.write(container("lost", mounts=[{"volume": "nowhere", "target": "/x"}]))
    assert (
        'mounts volume "nowhere", which no valid file defines'
        in masu.run("validate", str(masu.source)).stdout
    )
