"""A git repository as a source: what is read of it, what is refused, and what stays when it is silent."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.errors import SourceUnreadable
from controller.model.snapshot import Snapshot
from controller.sources import git_tree, git_trust
from controller.sources.git import FIRST_S, GitSource, PassingGitSource
from controller.sources.git_process import Git, GitFailed, GitOptions, Unavailable
from controller.sources.git_repository import MOST_PACKS
from controller.sources.git_trust import distrusted
from controller.sources.git_url import parse
from tests.repositories import Remote, allow, git, signed_by, ssh_key


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote")


@pytest.fixture
def below(tmp_path: Path) -> Path:
    return tmp_path / "state" / "git"


def source(remote: Remote, below: Path, which: str = "#main", signers: Path | str = "") -> GitSource:
    return GitSource(parse(remote.url(which)), GitOptions(str(signers)), str(below))


def texts(snapshot: Snapshot) -> dict[str, str]:
    return {each.path: each.text.decode() for each in snapshot.files}


def wrong(snapshot: Snapshot) -> dict[str, str]:
    return {each.file: each.message for each in snapshot.unreadable}


def copies(below: Path) -> list[Path]:
    return sorted(below.iterdir())


# --- what is read ---


def test_the_files_of_a_revision_with_what_it_says_of_itself(remote: Remote, below: Path) -> None:
    remote.write(".hidden/x.yaml", "x")
    remote.write("nodes/edge/.y.yaml", "x")
    remote.write("nodes/edge/notes.txt", "x")
    remote.write("nodes/edge/db/db.yml", "db")
    commit = remote.push("limit web", web="a")
    found = source(remote, below).snapshot()
    assert texts(found) == {"nodes/edge/db/db.yml": "db", "web.yaml": "a"}
    assert found.unreadable == ()
    assert found.revision == commit
    assert found.commit
    assert (found.commit.id, found.commit.subject) == (commit, "limit web")
    assert abs(found.commit.at / 1000 - time.time()) < 60
    assert found.stale == ""


def test_a_directory_a_file_a_tag_a_commit_and_the_usual_branch(remote: Remote, below: Path) -> None:
    remote.write("nodes/edge/web.yaml", "a")
    first = remote.push("one", other="o")
    git(remote.work, "tag", "-a", "v1", "-m", "one")
    git(remote.work, "push", "-q", "origin", "v1")
    remote.write("nodes/edge/web.yaml", "b")
    remote.push("two")
    for which, expected in {
        "#main:nodes/edge": {"nodes/edge/web.yaml": "b"},
        "#main:nodes/edge/web.yaml": {"nodes/edge/web.yaml": "b"},
        "#v1": {"nodes/edge/web.yaml": "a", "other.yaml": "o"},
        f"#{first}:nodes": {"nodes/edge/web.yaml": "a"},
        "#:nodes": {"nodes/edge/web.yaml": "b"},
        "": {"nodes/edge/web.yaml": "b", "other.yaml": "o"},
    }.items():
        assert texts(source(remote, below, which).snapshot()) == expected, which
    assert len(copies(below)) == 1, "what was the source before is forgotten"


def test_a_directory_with_a_name_that_git_could_misread(remote: Remote, below: Path) -> None:
    remote.write("a b/*/:(top)x/web.yaml", "a")
    remote.push()
    found = source(remote, below, "#main:a b/*/:(top)x").snapshot()
    assert texts(found) == {"a b/*/:(top)x/web.yaml": "a"}


def test_only_the_newest_commit_is_fetched_and_nothing_is_checked_out(remote: Remote, below: Path) -> None:
    for index in range(5):
        remote.push(f"number {index}", web=str(index))
    one = source(remote, below)
    one.snapshot()
    (copy,) = copies(below)
    assert git(copy, "rev-list", "--count", "refs/masu/current") == "1"
    assert git(copy, "config", "core.bare") == "true"
    assert not (copy / "hooks").exists()
    assert not list(copy.rglob("web.yaml"))
    assert stat.S_IMODE(below.stat().st_mode) == 0o700


def test_a_push_is_seen_and_a_push_back_too(remote: Remote, below: Path) -> None:
    first = remote.push("one", web="a")
    one = source(remote, below)
    assert one.snapshot().revision == first
    remote.push("two", web="b", db="c")
    assert texts(one.snapshot()) == {"web.yaml": "b", "db.yaml": "c"}
    git(remote.work, "reset", "-q", "--hard", first)
    git(remote.work, "push", "-q", "--force", "origin", "HEAD:main")
    found = one.snapshot()
    assert (texts(found), found.revision) == ({"web.yaml": "a"}, first)


def test_a_history_that_was_written_anew_is_followed(remote: Remote, below: Path) -> None:
    remote.push("one", web="a")
    one = source(remote, below)
    one.snapshot()
    git(remote.work, "checkout", "-q", "--orphan", "other")
    commit = remote.push("unrelated", web="z")
    assert one.snapshot().revision == commit


def test_many_fetches_do_not_pile_up(remote: Remote, below: Path) -> None:
    one = source(remote, below)
    for index in range(MOST_PACKS + 3):
        remote.push(f"number {index}", web=f"{index}")
        assert texts(one.snapshot()) == {"web.yaml": f"{index}"}
    (copy,) = copies(below)
    assert len(list(copy.glob("objects/pack/*.pack"))) <= 4
    assert len((copy / "shallow").read_text().splitlines()) <= 4


def test_a_look_in_passing_leaves_nothing(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.push("one", web="a")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    assert texts(PassingGitSource(parse(remote.url()), GitOptions()).snapshot()) == {"web.yaml": "a"}
    assert list((tmp_path / "tmp").iterdir()) == []


# --- what is refused ---


def test_links_submodules_and_large_files_are_refused_one_by_one(remote: Remote, below: Path) -> None:
    remote.push("one", web="a", huge="small", passwd="p", sub="s")
    one = source(remote, below)
    one.snapshot()
    remote.write("huge.yaml", os.urandom(100 << 20))
    for name in ("passwd.yaml", "sub.yaml"):
        (remote.work / name).unlink()
    (remote.work / "passwd.yaml").symlink_to("/etc/shadow")
    (remote.work / "inside.yaml").symlink_to("web.yaml")
    git(remote.work, "add", "--all")
    head = git(remote.work, "rev-parse", "HEAD")
    git(remote.work, "update-index", "--add", "--cacheinfo", f"160000,{head},sub.yaml")
    git(remote.work, "update-index", "--add", "--cacheinfo", f"160000,{head},module")
    remote.commit("two")
    found = one.snapshot()
    assert texts(found) == {"web.yaml": "a"}
    assert wrong(found) == {
        "huge.yaml": "is larger than 1 MiB",
        "inside.yaml": "is a symbolic link: not followed in a git source",
        "module": "is a submodule: not entered",
        "passwd.yaml": "is a symbolic link: not followed in a git source",
        "sub.yaml": "is a submodule: not entered",
    }


def test_names_that_are_not_text(remote: Remote, below: Path) -> None:
    blob = remote.blob("a")
    git(remote.work, "config", "core.quotePath", "false")
    tree = b"".join(
        b"100644 blob %s\t%s\0" % (blob.encode(), name)
        for name in (b"b\xffd.yaml", b"new\nline.yaml", b"web.yaml")
    )
    made = git(remote.work, "mktree", "-z", said=tree)
    commit = git(remote.work, "commit-tree", made, "-m", "names")
    git(remote.work, "push", "-q", "--force", "origin", f"{commit}:refs/heads/main")
    found = source(remote, below).snapshot()
    assert texts(found) == {"web.yaml": "a"}
    assert wrong(found) == dict.fromkeys(
        ("b\\xffd.yaml", "new\\nline.yaml"), "the name is not printable text"
    )


@pytest.mark.parametrize("name", ["..", ".git", "."])
def test_a_tree_that_leads_out_is_refused_and_the_last_stays(remote: Remote, below: Path, name: str) -> None:
    remote.push("one", web="a")
    one = source(remote, below)
    one.snapshot()
    inner = git(remote.work, "mktree", said=f"100644 blob {remote.blob('evil')}\tevil.yaml\n")
    remote.push_tree(f"040000 tree {inner}\t{name}")
    found = one.snapshot()
    assert texts(found) == {"web.yaml": "a"}
    assert "cannot be fetched" in found.stale
    assert "tree" in found.stale


def test_too_many_files_are_refused_and_the_last_stays(remote: Remote, below: Path) -> None:
    first = remote.push("one", web="a")
    one = source(remote, below)
    one.snapshot()
    blob = remote.blob("x")
    second = remote.push_tree(*(f"100644 blob {blob}\tf{index:05}.yaml" for index in range(10_001)))
    found = one.snapshot()
    assert texts(found) == {"web.yaml": "a"}
    ((where, why),) = wrong(found).items()
    assert where == remote.url("#main")
    assert why == (
        f'{second[:10]} "made by hand" is refused: it holds more than 10000 spec files;'
        f' {first[:10]} "one" stays in force'
    )


def test_too_much_text_is_refused(remote: Remote, below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_tree, "MAX_TOTAL", 3 << 20)
    remote.push("one", **{f"f{index}": "x" * (1 << 20) for index in range(4)})
    with pytest.raises(SourceUnreadable, match="hold more than 3 MiB"):
        source(remote, below).snapshot()


def test_more_than_may_be_fetched_is_not(remote: Remote, tmp_path: Path) -> None:
    remote.write("huge.bin", os.urandom(3 << 20))
    remote.push("one", web="a")
    url = parse(remote.url("#main"))
    (tmp_path / "copy").mkdir()
    one = Git(str(tmp_path / "copy"), url, GitOptions(), max_fetched=1 << 20)
    one.run("init", "--quiet", "--bare", "--template=", str(tmp_path / "copy"))
    with pytest.raises(GitFailed, match="more than 1 MiB"):
        one.run("fetch", "--quiet", "--depth=1", "--", url.url, "+main:refs/masu/next")


def test_hooks_filters_and_attributes_of_a_repository_run_nothing(
    remote: Remote, below: Path, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    remote.write(".gitattributes", "*.yaml filter=evil diff=evil export-subst\n")
    remote.push("one", web="$Format:%H$")
    one = source(remote, below)
    one.snapshot()
    (copy,) = copies(below)
    (copy / "hooks").mkdir()
    for name in ("reference-transaction", "post-checkout", "post-merge", "pre-auto-gc", "fsmonitor-watchman"):
        (copy / "hooks" / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (copy / "hooks" / name).chmod(0o755)
    for key in (
        "filter.evil.smudge",
        "filter.evil.clean",
        "core.sshCommand",
        "core.fsmonitor",
        "gpg.program",
    ):
        git(copy, "config", key, f"touch {ran}")
    remote.push("two", db="b")
    assert texts(one.snapshot()) == {"web.yaml": "$Format:%H$", "db.yaml": "b"}
    assert not ran.exists()


def test_protocols_that_nobody_asked_for_are_not_spoken(remote: Remote, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    one = Git(str(remote.path), parse(remote.url()), GitOptions())
    for url in (f"ext::touch {ran}", "git://127.0.0.1:1/x", "http://127.0.0.1:1/x", "https://127.0.0.1:1/x"):
        with pytest.raises(GitFailed, match=r"not allowed"):
            one.run("ls-remote", "--", url)
    assert not ran.exists()


def test_another_users_repository_is_refused_in_words(remote: Remote, below: Path) -> None:
    remote.push("one", web="a")
    os.chown(remote.path, 65534, 65534)
    with pytest.raises(SourceUnreadable, match="belongs to another user"):
        source(remote, below).snapshot()


# --- silence is not deletion ---


def test_a_repository_that_is_gone_freezes_what_is_known(remote: Remote, below: Path) -> None:
    remote.push("one", web="a")
    one = source(remote, below)
    one.snapshot()
    remote.path.rename(remote.path.with_suffix(".away"))
    found = one.snapshot()
    assert texts(found) == {"web.yaml": "a"}
    assert found.unreadable == ()
    assert found.stale.startswith(f"source {remote.url('#main')}: cannot be fetched: ")
    again = source(remote, below).snapshot()
    assert (texts(again), bool(again.stale)) == ({"web.yaml": "a"}, True), "also for another masu"
    remote.path.with_suffix(".away").rename(remote.path)
    assert one.snapshot().stale == ""


def test_nothing_known_and_nothing_to_be_had(remote: Remote, below: Path) -> None:
    with pytest.raises(SourceUnreadable, match="cannot be fetched"):
        source(remote, below, "#nowhere").snapshot()
    remote.push("one", web="a")
    with pytest.raises(SourceUnreadable, match="the repository has no branch or tag nowhere"):
        source(remote, below, "#nowhere").snapshot()
    with pytest.raises(SourceUnreadable, match="it has no nodes/edge"):
        source(remote, below, "#main:nodes/edge").snapshot()


def test_a_directory_that_vanishes_is_silence(remote: Remote, below: Path) -> None:
    remote.write("nodes/edge/web.yaml", "a")
    first = remote.push("one")
    one = source(remote, below, "#main:nodes/edge")
    one.snapshot()
    (remote.work / "nodes/edge/web.yaml").unlink()
    second = remote.push("two", other="o")
    found = one.snapshot()
    assert (texts(found), found.revision) == ({"nodes/edge/web.yaml": "a"}, first)
    assert f'{second[:10]} "two": it has no nodes/edge' in found.stale


def test_an_emptied_repository_is_empty_and_the_last_good_is_kept_on_disk(
    remote: Remote, below: Path
) -> None:
    remote.push("one", web="a")
    one = source(remote, below)
    one.snapshot()
    (remote.work / "web.yaml").unlink()
    remote.push("nothing")
    assert one.snapshot().files == ()
    remote.path.rename(remote.path.with_suffix(".away"))
    assert texts(source(remote, below).snapshot()) == {"web.yaml": "a"}


# --- a copy that is damaged ---


def test_a_copy_that_is_damaged_is_thrown_away_and_fetched_anew(remote: Remote, below: Path) -> None:
    remote.push("one", web="a" * 5000)
    source(remote, below).snapshot()
    (copy,) = copies(below)
    for damage in (_flip_packs, _remove_packs, _garble_head, _remove_objects, _garble_refs, _leave_locks):
        damage(copy)
        found = source(remote, below).snapshot()
        assert texts(found) == {"web.yaml": "a" * 5000}, damage.__name__
        assert found.stale == "", damage.__name__


def test_damage_while_the_repository_is_away_is_no_deletion(remote: Remote, below: Path) -> None:
    remote.push("one", web="a")
    one = source(remote, below)
    one.snapshot()
    _flip_packs(copies(below)[0])
    remote.path.rename(remote.path.with_suffix(".away"))
    found = one.snapshot()
    assert (texts(found), bool(found.stale)) == ({"web.yaml": "a"}, True)
    with pytest.raises(SourceUnreadable):
        source(remote, below).snapshot()
    remote.path.with_suffix(".away").rename(remote.path)
    assert one.snapshot().stale == ""


def test_damage_at_the_other_end_is_no_deletion(remote: Remote, below: Path) -> None:
    remote.push("one", web="a")
    one = source(remote, below)
    one.snapshot()
    remote.push("two", web="b" * 3000)
    for path in (*remote.path.glob("objects/??/*"), *remote.path.glob("objects/pack/*.pack")):
        _flip(path)
    found = one.snapshot()
    assert texts(found) == {"web.yaml": "a"}
    assert found.stale


def _flip(path: Path) -> None:
    path.chmod(0o600)
    text = bytearray(path.read_bytes())
    for index in range(len(text) // 3, len(text)):
        text[index] ^= 0xFF
    path.write_bytes(text)


def _flip_packs(copy: Path) -> None:
    for path in copy.glob("objects/pack/*.pack"):
        _flip(path)


def _remove_packs(copy: Path) -> None:
    for path in copy.glob("objects/pack/*"):
        path.unlink()


def _garble_head(copy: Path) -> None:
    (copy / "HEAD").write_text("nonsense")


def _remove_objects(copy: Path) -> None:
    shutil.rmtree(copy / "objects")


def _garble_refs(copy: Path) -> None:
    (copy / "refs/masu/current").write_text("0" * 40)


def _leave_locks(copy: Path) -> None:
    for name in ("shallow.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "refs/masu/next.lock"):
        (copy / name).touch()
    (copy / "objects/pack/tmp_pack_abc").write_bytes(b"half")
    (copy / "objects/tmp_objdir-incoming-x").mkdir()


def test_git_that_is_killed_half_way_is_no_harm(remote: Remote, below: Path) -> None:
    """At any moment: the copy is whole afterwards, or is made anew."""
    remote.push("one", web="a")
    one = source(remote, below)
    one.snapshot()
    (copy,) = copies(below)
    for index in range(12):
        remote.write("blob.bin", os.urandom(1 << 20))
        remote.push(f"number {index}", web=f"{index}")
        argv = [
            "git",
            "--git-dir",
            str(copy),
            "fetch",
            "-q",
            "--depth=1",
            str(remote.path),
            "+main:refs/masu/next",
        ]
        process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(index * 0.004)
        os.killpg(process.pid, 9)
        process.wait()
        found = one.snapshot()
        assert (texts(found), found.stale) == ({"web.yaml": f"{index}"}, ""), index
    assert not list(copy.rglob("*.lock"))
    assert not list(copy.rglob("tmp_*"))


# --- an end to everything ---


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An ssh that never answers, and says which it is."""
    directory = tmp_path / "bin"
    directory.mkdir()
    pids = tmp_path / "pids"
    ssh = directory / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/words\necho $$ >{pids}\nexec sleep 1000\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    yield pids
    if pids.exists():
        _until(lambda: not _runs(pids.read_text().strip()))


def test_a_daemon_with_many_open_files_hears_git_all_the_same(remote: Remote) -> None:
    remote.push("one", web="a")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        assert Git(str(remote.path), parse(remote.url()), GitOptions()).run("rev-parse", "main")
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _runs(pid: str) -> bool:
    """A zombie does not: whoever has to bury it may take his time."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_whoever_does_not_answer_is_killed_with_all_it_started(tmp_path: Path, slow: Path) -> None:
    one = Git(
        str(tmp_path), parse("git+ssh://git@127.0.0.1/x"), GitOptions(known_hosts="/k h", ssh_key="/key")
    )
    started = time.monotonic()
    with pytest.raises(GitFailed, match="not done within 1 s"):
        one.run("ls-remote", "--", "ssh://git@127.0.0.1/x", timeout_s=1)
    assert time.monotonic() - started < 5
    words = (tmp_path / "words").read_text()
    for expected in (
        "-F /dev/null",
        "StrictHostKeyChecking=yes",
        'UserKnownHostsFile="/k h"',
        "BatchMode=yes",
        "-i /key",
    ):
        assert expected in words


def test_closing_breaks_a_fetch_off_and_keeps_the_copy(remote: Remote, below: Path, slow: Path) -> None:
    url = parse("git+ssh://git@127.0.0.1/x")
    one = GitSource(url, GitOptions(), str(below))
    nudged = threading.Event()
    watch = one.watch(nudged.set)
    deadline = time.monotonic() + 10
    while not slow.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    started = time.monotonic()
    watch.close()
    assert time.monotonic() - started < 3
    assert len(copies(below)) == 1
    with pytest.raises(Unavailable):
        one._git.run("version")


def test_nobody_waits_for_a_first_fetch_that_is_not_wanted_any_more(below: Path, slow: Path) -> None:
    one = GitSource(parse("git+ssh://git@127.0.0.1/x"), GitOptions(), str(below))
    watch = one.watch(lambda: None)
    for end in (watch.wait_no_more, one.kill):
        timer = threading.Timer(0.2, end)
        timer.start()
        started = time.monotonic()
        with pytest.raises(SourceUnreadable):
            one.snapshot()
        assert time.monotonic() - started < FIRST_S / 2
        timer.join()
    watch.close()


def test_a_sync_that_is_killed_ends_and_so_does_the_next(below: Path, slow: Path) -> None:
    one = GitSource(parse("git+ssh://git@127.0.0.1/x"), GitOptions(), str(below))
    said: list[str] = []

    def sync() -> None:
        try:
            one.sync()
        except SourceUnreadable as error:
            said.append(str(error))

    threads = [threading.Thread(target=sync) for _ in range(3)]
    for thread in threads:
        thread.start()
    _until(slow.exists)
    one.kill()
    for thread in threads:
        thread.join(3)
    assert len([each for each in said if "masu ends" in each]) == 3, said


class Ended(BaseException):
    """What a signal's handler raises."""


def test_a_look_in_passing_that_is_ended_leaves_nothing(
    tmp_path: Path, slow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))

    def end(*_: object) -> None:
        raise Ended

    before = signal.signal(signal.SIGUSR1, end)

    def tell() -> None:
        _until(slow.exists)
        os.kill(os.getpid(), signal.SIGUSR1)

    threading.Thread(target=tell).start()
    try:
        with pytest.raises(Ended):
            PassingGitSource(parse("git+ssh://git@127.0.0.1/x"), GitOptions()).snapshot()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not _runs(slow.read_text().strip())


def test_a_watch_fetches_by_itself_and_when_it_is_told(remote: Remote, below: Path) -> None:
    remote.push("one", web="a")
    one = GitSource(parse(remote.url("#main")), GitOptions(), str(below), 1.0)
    nudges: list[float] = []
    watch = one.watch(lambda: nudges.append(time.monotonic()))
    try:
        assert texts(one.snapshot()) == {"web.yaml": "a"}
        remote.push("two", web="b")
        _until(lambda: texts(one.snapshot()) == {"web.yaml": "b"})
        count = len(nudges)
        time.sleep(2.5)
        assert len(nudges) == count, "nothing new is no nudge"
        slow_one = GitSource(parse(remote.url("#main")), GitOptions(), str(below), 1000.0)
        told = threading.Event()
        slow_watch = slow_one.watch(told.set)
        try:
            assert texts(slow_one.snapshot()) == {"web.yaml": "b"}
            remote.push("three", web="c")
            slow_watch.hurry()
            assert told.wait(10)
            assert texts(slow_one.snapshot()) == {"web.yaml": "c"}
        finally:
            slow_watch.close()
    finally:
        watch.close()


def _until(condition: object, wait_s: float = 10) -> None:
    deadline = time.monotonic() + wait_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- whose it is ---


THEIRS = (
    "HEAD",
    "config",
    "packed-refs",
    "refs",
    "refs/heads",
    "refs/heads/main",
    "info",
    "objects",
    "objects/pack",
    "objects/info",
    "objects/info/alternates",
    ".",
    "..",
)


@pytest.mark.parametrize("name", THEIRS)
def test_what_others_may_write_of_a_repository_counts(remote: Remote, tmp_path: Path, name: str) -> None:
    remote.push("one", web="a")
    (tmp_path / "lent" / "objects").mkdir(parents=True)
    (remote.path / "objects/info/alternates").write_text(f"# lent\n{tmp_path}/lent/objects\n")
    (remote.path / "packed-refs").touch()
    assert distrusted(str(remote.path)) == ""
    place = remote.path / name
    place.chmod(place.stat().st_mode | 0o022)
    assert "may be written by others than root" in distrusted(f"{remote.path}/")
    place.chmod(place.stat().st_mode & ~0o022)
    os.lchown(place, 65534, -1)
    assert "belongs to user 65534" in distrusted(str(remote.path))


def test_objects_themselves_are_what_their_names_say(remote: Remote) -> None:
    remote.push("one", web="a")
    for path in remote.path.glob("objects/??/*"):
        path.chmod(0o666)
    assert distrusted(str(remote.path)) == ""
    next(remote.path.glob("objects/??")).chmod(0o777)
    assert "(mode 0777)" in distrusted(str(remote.path))


def test_where_a_repository_leads_is_looked_at_too(remote: Remote, tmp_path: Path) -> None:
    """A checkout, one of its worktrees, a link, and objects that are lent."""
    remote.push("one", web="a")
    git(remote.work, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    lent = tmp_path / "lent"
    git(tmp_path, "clone", "-q", "--bare", "--shared", str(remote.path), str(lent))
    linked = tmp_path / "linked"
    git(tmp_path, "clone", "-q", "--bare", str(remote.path), str(linked))
    shutil.move(linked / "refs", tmp_path / "elsewhere")
    (linked / "refs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(lent)
    (tmp_path / "file").mkdir()
    (tmp_path / "file/.git").write_text(f"gitdir: {remote.work}/.git\n")
    for where, theirs in {
        remote.work: remote.work / ".git/refs/heads",
        tmp_path / "tree": remote.work / ".git/HEAD",
        tmp_path / "file": remote.work / ".git/refs",
        lent: remote.path / "objects/pack",
        tmp_path / "link": tmp_path / "link/HEAD",
        linked: linked / "refs/heads",
    }.items():
        assert distrusted(str(where)) == "", where
        mode = theirs.stat().st_mode
        theirs.chmod(mode | 0o002)
        assert f"{theirs} may be written" in distrusted(str(where)), where
        theirs.chmod(mode)
    assert distrusted(str(tmp_path / "none")) == ""
    (linked / "packed-refs").unlink()
    (linked / "packed-refs").symlink_to(tmp_path / "none")
    assert distrusted(str(linked)) == f"{tmp_path}/none: No such file or directory"


def test_a_repository_of_many_names_is_looked_at_in_bounded_time(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = remote.push("one", web="a")
    for index in range(200):
        (remote.path / f"refs/heads/b{index}").write_text(f"{commit}\n")
    assert distrusted(str(remote.path)) == ""
    monkeypatch.setattr(git_trust, "MOST", 100)
    assert "more than 100 names" in distrusted(str(remote.path))
    git(remote.path, "pack-refs", "--all")
    assert distrusted(str(remote.path)) == ""


def test_a_repository_that_has_become_unsafe_is_silent(remote: Remote, below: Path) -> None:
    """As one that cannot be asked: the last good revision stays, until root alone writes it again."""
    first = remote.push("one", web="a")
    url = parse(remote.url("#main"))
    one = GitSource(url, GitOptions(), str(below), doubt=lambda: distrusted(str(remote.path)))
    assert one.snapshot().revision == first
    (remote.path / "refs").chmod(0o777)
    second = remote.push("two", web="b")
    found = one.snapshot()
    assert (found.revision, texts(found)) == (first, {"web.yaml": "a"})
    assert f"{remote.path}/refs may be written by others than root (mode 0777)" in found.stale
    with pytest.raises(SourceUnreadable, match="mode 0777"):
        one.sync()
    fresh = GitSource(url, GitOptions(), f"{below}2", doubt=lambda: distrusted(str(remote.path)))
    with pytest.raises(SourceUnreadable, match="mode 0777"):
        fresh.snapshot()
    (remote.path / "refs").chmod(0o755)
    assert (one.snapshot().revision, one.snapshot().stale) == (second, "")


# --- signatures ---


def test_only_signed_revisions_are_taken(remote: Remote, below: Path, tmp_path: Path) -> None:
    ours, theirs = ssh_key(tmp_path, "ours"), ssh_key(tmp_path, "theirs")
    signers = allow(tmp_path / "signers", ours)
    first = remote.push("one", *signed_by(ours), web="a")
    one = source(remote, below, signers=signers)
    assert one.snapshot().revision == first
    for title, options, why in (
        ("plain", (), "it is not signed"),
        ("theirs", signed_by(theirs), f"it is signed by a key that is not in {signers}"),
    ):
        remote.push(title, *options, web=title)
        for each in (one, source(remote, below, signers=signers)):
            found = each.snapshot()
            assert (texts(found), found.revision) == ({"web.yaml": "a"}, first)
            assert f'"{title}" is refused: {why}' in wrong(found)[remote.url("#main")]
    last = remote.push("good again", *signed_by(ours), web="b")
    assert (one.snapshot().revision, one.snapshot().unreadable) == (last, ())


def test_a_repository_whose_head_names_no_branch_is_told(remote: Remote, below: Path) -> None:
    remote.push("one", web="a")
    git(remote.path, "symbolic-ref", "HEAD", "refs/heads/trunk")
    with pytest.raises(SourceUnreadable, match="which branch is its usual one, or has none yet: add #BRANCH"):
        GitSource(parse(remote.url()), GitOptions(), str(below)).snapshot()
    with pytest.raises(SourceUnreadable, match="the repository has no branch or tag mian"):
        source(remote, below, "#mian").snapshot()


def test_an_unsigned_first_revision_is_nothing(remote: Remote, below: Path, tmp_path: Path) -> None:
    remote.push("plain", web="a")
    signers = allow(tmp_path / "signers", ssh_key(tmp_path, "ours"))
    source(remote, below).snapshot()
    with pytest.raises(SourceUnreadable, match="it is not signed"):
        source(remote, below, signers=signers).snapshot()


def test_a_signature_that_was_altered_is_none(remote: Remote, below: Path, tmp_path: Path) -> None:
    key = ssh_key(tmp_path, "ours")
    signers = allow(tmp_path / "signers", key)
    remote.push("one", *signed_by(key), web="a")
    text = git(remote.work, "cat-file", "commit", "HEAD").replace("\none", "\nother") + "\n"
    commit = git(remote.work, "hash-object", "-t", "commit", "-w", "--stdin", said=text)
    git(remote.work, "push", "-q", "--force", "origin", f"{commit}:refs/heads/main")
    with pytest.raises(SourceUnreadable, match="is refused: its signature"):
        source(remote, below, signers=signers).snapshot()


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
def test_a_keyring_says_whose_signature_counts(remote: Remote, below: Path, tmp_path: Path) -> None:
    rings = {}
    for name in ("ours", "theirs"):
        ring = rings[name] = tmp_path / name
        ring.mkdir(mode=0o700)
        argv = ["gpg", "--homedir", str(ring), "--batch", "--quiet", "--passphrase", ""]
        subprocess.run(
            [*argv, "--quick-generate-key", f"{name}@example.org", "ed25519", "sign"], check=True, timeout=60
        )
    try:
        for name, good in (("ours", True), ("theirs", False)):
            program = tmp_path / f"gpg-{name}"
            program.write_text(f'#!/bin/sh\nexec gpg --homedir {rings[name]} "$@"\n')
            program.chmod(0o755)
            options = ("-c", f"gpg.program={program}", "-c", f"user.signingkey={name}@example.org")
            commit = remote.push(name, *options, "-c", "commit.gpgSign=true", web=name)
            found = source(remote, below, signers=rings["ours"]).snapshot()
            assert (found.revision == commit) is good
            assert (found.unreadable == ()) is good
    finally:
        for ring in rings.values():
            subprocess.run(["gpgconf", "--homedir", str(ring), "--kill", "all"], check=False, timeout=30)


def test_a_directory_that_is_laid_over_another(remote: Remote, below: Path) -> None:
    remote.write("base/web.yaml", "a")
    remote.write("nodes/edge/masu.yaml", "base: ../../base\natomic: true\n")
    remote.write("nodes/edge/patch.yaml", "b")
    first = remote.push("one")
    one = source(remote, below, "#main:nodes/edge")
    found = one.snapshot()
    assert [(each.path, each.layer) for each in found.files] == [
        ("base/web.yaml", 0),
        ("nodes/edge/patch.yaml", 1),
    ]
    assert found.atomic
    remote.write("nodes/edge/masu.yaml", "base: ../../../etc\n")
    remote.push("out")
    found = one.snapshot()
    assert found.revision == first
    assert "nodes/edge/masu.yaml:1:1: base: ../etc leads out of the repository" in wrong(found)[str(one._url)]
    remote.write("nodes/edge/masu.yaml", "base: ../../gone\n")
    remote.push("gone")
    assert "it has no gone" in one.snapshot().stale
    (remote.work / "nodes/edge/masu.yaml").unlink()
    (remote.work / "nodes/edge/masu.yaml").symlink_to("/etc/shadow")
    remote.push("link")
    assert "masu.yaml: is a symbolic link" in wrong(one.snapshot())[str(one._url)]
