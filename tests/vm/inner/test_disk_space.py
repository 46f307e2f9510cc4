"""Project quotas of ext4, and images that grow in use: what development machines lack, kernel or right.

The machine's own root is mounted without quotas, so that everything else in here is done with images.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.host.spaces.quotas import ProjectQuotas
from controller.model.space import Space, SpaceChange
from tests.e2e.harness import Masu, container, until, volume
from tests.spaces import (
    MI,
    check_that_it_grows_in_use,
    check_that_it_holds_what_it_may,
    check_that_what_is_half_made_goes,
    made,
    seen,
    spaces,
    touch,
)

pytestmark = pytest.mark.on_v2
STATE = Path("/var/lib/masu")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 with project quotas, enforced."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(256 * MI)
    _run("mkfs.ext4", "-q", "-F", "-O", "quota,project", str(image))
    _run("mount", "-o", "loop,prjquota", str(image), str(place))
    try:
        yield place
    finally:
        _run("umount", str(place))


@pytest.fixture
def state(disk: Path) -> Iterator[Path]:
    """The same in the place where masu keeps what it has to keep."""
    STATE.mkdir(parents=True, exist_ok=True)
    _run("mount", "--bind", str(disk), str(STATE))
    try:
        yield STATE
    finally:
        _run("umount", str(STATE))


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, timeout=60)


def test_a_project_holds_what_it_may(disk: Path) -> None:
    check_that_it_holds_what_it_may(disk, "projectQuota", errno.EDQUOT)


def test_a_project_grows_in_use(disk: Path) -> None:
    check_that_it_grows_in_use(disk)


def test_a_half_made_project_goes(disk: Path) -> None:
    check_that_what_is_half_made_goes(disk)


def test_an_image_grows_in_use() -> None:
    """Takes CAP_SYS_RESOURCE."""
    directory = Path("/var/tmp/spaces")
    directory.mkdir()
    check_that_it_grows_in_use(directory)


def test_two_spaces_have_two_projects_and_listed_ones_are_passed_over(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = disk / "projid"
    listed.write_text(f"theirs:{0x4D000000}\n# no project\n")
    monkeypatch.setattr("controller.host.spaces.quotas.LISTED", str(listed))
    other = Space("volume", "other")
    with made(disk, 16 * MI) as (one, content), made(disk, 16 * MI, other) as (_, beside):
        said = subprocess.run(
            ["lsattr", "-p", "-d", str(content), str(beside)],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        projects = {int(line.split()[0]) for line in said.stdout.splitlines()}
        assert projects == {0x4D000001, 0x4D000002}
        files, number = touch(content, 16 * MI // 4096 + 1)
        assert (files > 4000, number) == (True, errno.EDQUOT), "files are counted, not only bytes"
        (beside / "x").touch()
        one.change(other, SpaceChange(size=64 * MI))
        assert seen(one, other).limit == 64 * MI
        assert seen(one).limit == 16 * MI


def test_where_projects_are_only_counted_an_image_serves(tmp_path: Path) -> None:
    assert ProjectQuotas("test", str(tmp_path / "ids")).lack("/var/lib") != ""
    (tmp_path / "state").mkdir()
    assert spaces(Path("/root")).offer().mechanism == "loopImage"


def test_a_container_and_its_volume_within_quotas(state: Path, masu: Masu) -> None:
    """Full, grown while it runs, set back behind masu's back and repaired, and gone."""
    mounts = [{"volume": "data", "target": "/data"}]
    user = {"user": "auto"}
    masu.write(
        volume("data", size="32Mi"), container(rootfs={"size": "32Mi"}, mounts=mounts, namespaces=user)
    )
    masu.start("--resync", "2s")
    pid = masu.running()
    script = "for each in /root/big /data/big; do dd if=/dev/zero of=$each bs=1M count=64; done"
    said = masu.run("exec", "web", "--", "sh", "-c", script, timeout=200).stderr
    assert said.count("quota exceeded") + said.count("No space left") == 2, said
    assert masu.status()["disk"]["mechanism"] == "projectQuota"
    assert not masu.in_space(), "nothing is mounted"
    masu.write(
        volume("data", size="48Mi"), container(rootfs={"size": "48Mi"}, mounts=mounts, namespaces=user)
    )
    until(lambda: "48.0M" in masu.run("exec", "web", "--", "df", "-h", "/data").stdout, "it has grown")
    assert masu.pid() == pid
    place = Path(masu.volumes()["data"]["path"])
    project = subprocess.run(
        ["lsattr", "-p", "-d", str(place)], capture_output=True, text=True, timeout=10, check=True
    ).stdout.split()[0]
    assert os.stat(place).st_dev == os.stat(state).st_dev
    ProjectQuotas(masu.instance, str(state / "project-ids.json")).grow(str(place.parent.parent), 40 * MI)
    until(lambda: masu.volumes()["data"]["converged"], "the quota is set back")
    assert "48.0M" in masu.run("exec", "web", "--", "df", "-h", "/data").stdout, project
    masu.stop()
    assert masu.run("down", "--all", "--volumes").returncode == 0
    assert masu.traces() == []
    assert (state / "project-ids.json").read_text() == "{}"
