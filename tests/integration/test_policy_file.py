"""Whose files are trusted, and when the policy of the host is read again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.errors import MasuError, NotPermitted, SourceUnreadable, SpecInvalid, StepFailed
from controller.host.policy_file import PolicyFile
from controller.host.trust import distrust
from controller.sources.directory import DirectorySource
from controller.spec.host_policy import parse_policy

pytestmark = pytest.mark.root

SOMEBODY = 65534
TEXT = "apiVersion: masu/v1\nkind: HostPolicy\nspec: {}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "etc" / "policy.yaml"
    file.parent.mkdir()
    file.write_text(TEXT)
    return file


def reader(file: Path, *, needed: bool = True) -> PolicyFile:
    return PolicyFile(str(file), parse_policy, needed=needed)


def test_roots_own_file_below_tmp_is_trusted(file: Path) -> None:
    assert distrust(str(file)) == ""
    found = reader(file).read()
    assert found
    assert found.file == str(file)


@pytest.mark.parametrize("what", ["file", "directory"])
@pytest.mark.parametrize("way", ["owner", "others", "group"])
def test_what_others_may_change_is_refused(file: Path, what: str, way: str) -> None:
    it = file if what == "file" else file.parent
    if way == "owner":
        os.chown(it, SOMEBODY, 0)
    else:
        it.chmod(it.stat().st_mode | (0o002 if way == "others" else 0o020))
    with pytest.raises(NotPermitted, match="not root's alone") as raised:
        reader(file).read()
    assert f": {it} " in str(raised.value)


def test_a_link_is_looked_at_and_what_it_leads_to(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    assert distrust(str(link)) == ""
    os.chown(link, SOMEBODY, 0, follow_symlinks=False)
    assert distrust(str(link)).startswith(f"{link} belongs to user {SOMEBODY}")
    os.chown(link, 0, 0, follow_symlinks=False)
    file.parent.chmod(0o777)
    assert distrust(str(link)).startswith(f"{file.parent} may be written by others")


def test_it_is_parsed_again_only_when_it_has_changed(file: Path) -> None:
    read = reader(file)
    first = read.read()
    assert read.read() is first
    file.write_text(TEXT.replace("{}", "{privileged: [seccomp]}"))
    second = read.read()
    assert second
    assert second.privileged == {"seccomp"}
    file.write_text("kind: HostPolicy")
    with pytest.raises(SpecInvalid):
        read.read()
    with pytest.raises(SpecInvalid):
        read.read()


def test_silence_permits_nothing(file: Path, tmp_path: Path) -> None:
    assert reader(tmp_path / "none.yaml", needed=False).read() is None
    with pytest.raises(StepFailed, match="No such file"):
        reader(tmp_path / "none.yaml").read()
    read = reader(file, needed=False)
    assert read.read()
    file.unlink()
    with pytest.raises(MasuError, match="No such file"):
        read.read()


def test_a_source_of_somebody_else_is_not_followed(tmp_path: Path) -> None:
    source = tmp_path / "specs"
    (source / "theirs").mkdir(parents=True)
    for path in (source / "a.yaml", source / "b.yaml", source / "theirs" / "c.yaml"):
        path.write_text("x")
    os.chown(source / "b.yaml", SOMEBODY, 0)
    (source / "theirs").chmod(0o775)
    found = DirectorySource(str(source), root_only=True).snapshot()
    assert [each.path for each in found.files] == [f"{source}/a.yaml"]
    assert [str(each) for each in found.unreadable] == [
        f"{source}/theirs: may be written by others than root (mode 0775): not entered",
        f"{source}/b.yaml: belongs to user {SOMEBODY}, not to root: not followed",
    ]
    assert len(DirectorySource(str(source)).snapshot().files) == 3
    source.chmod(0o777)
    with pytest.raises(SourceUnreadable, match="--allow-unsafe-source"):
        DirectorySource(str(source), root_only=True).snapshot()
