"""Sources that are repositories: what is understood, and what is refused before anybody is asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import SpecInvalid
from controller.settings import Settings
from controller.sources.choice import passing_source_of, source_of
from controller.sources.git import GitSource, PassingGitSource
from controller.sources.git_tree import Entry, Unfit, choose, entries
from controller.sources.git_url import GitUrl, is_git, parse
from controller.sources.layers import LayeredDirectory

HTTPS = "git+https://example.org/ops/specs.git"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (HTTPS, GitUrl("https://example.org/ops/specs.git", "HEAD", "")),
        (f"{HTTPS}#main", GitUrl("https://example.org/ops/specs.git", "main", "")),
        (f"{HTTPS}#main:nodes/edge-7", GitUrl("https://example.org/ops/specs.git", "main", "nodes/edge-7")),
        (f"{HTTPS}#rel/v1.2:./nodes//x/", GitUrl("https://example.org/ops/specs.git", "rel/v1.2", "nodes/x")),
        (f"{HTTPS}#:nodes", GitUrl("https://example.org/ops/specs.git", "HEAD", "nodes")),
        ("git+ssh://git@example.org:2222/specs", GitUrl("ssh://git@example.org:2222/specs")),
        ("git+ssh://git@[fd00::1]/specs#main", GitUrl("ssh://git@[fd00::1]/specs", "main")),
        ("git+file:///srv/specs.git#main:a:b", GitUrl("file:///srv/specs.git", "main", "a:b")),
    ],
)  # fmt: skip
def test_understood(source: str, expected: GitUrl) -> None:
    assert is_git(source)
    assert parse(source) == expected
    assert parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("git+http://example.org/x", "git+https://"),
        ("git+git://example.org/x", "git+https://"),
        ("git+ext::sh -c true", "white space"),
        ("git+ext::touch%20x", "git+https://"),
        ("git+../specs", "git+https://"),
        ("git+file://host/specs", "absolute"),
        ("git+file://../specs", "absolute"),
        ("git+file:///", "absolute"),
        ("git+https://user:secret@example.org/x", "password"),
        ("git+https://example.org", "no repository"),
        ("git+https://example.org/", "no repository"),
        ("git+https:///x", "not a host"),
        ("git+ssh://-oProxyCommand=x/specs", "not a host"),
        ("git+ssh://-x@example.org/specs", "not a user"),
        ("git+ssh://git@example.org:99999/specs", "not a URL"),
        ("git+ssh://git@example.org/a b", "white space"),
        ("git+ssh://git@example.org/a\nb", "white space"),
        ("git+https://[x/y", "not a URL"),
        (f"{HTTPS}?ref=main", "#main"),
        (f"{HTTPS}#--upload-pack=x", "branch"),
        (f"{HTTPS}#a..b", "branch"),
        (f"{HTTPS}#a b", "branch"),
        (f"{HTTPS}#x.lock", "branch"),
        (f"{HTTPS}#main^2", "branch"),
        (f"{HTTPS}#main@{{1}}", "branch"),
        (f"{HTTPS}#main:../x", "without .."),
        (f"{HTTPS}#main:a/../b", "without .."),
        (f"{HTTPS}#main:/etc", "from its top"),
        (f"{HTTPS}#main:a\x00b", "printable"),
    ],
)
def test_refused(source: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse(source)


@given(st.text())
def test_whatever_is_parsed_is_a_plain_argument(text: str) -> None:
    try:
        found = parse("git+" + text)
    except ValueError:
        return
    assert found.protocol in {"https", "ssh", "file"}
    assert not found.ref.startswith("-")
    assert not any(name in {"", ".", ".."} for name in found.directory.split("/")) or found.directory == ""
    assert parse(str(found)) == found


def nobody() -> str:
    return ""


def test_which_kind_of_source_it_is() -> None:
    assert isinstance(source_of("specs/", Settings(), "/x", nobody), LayeredDirectory)
    assert isinstance(source_of(HTTPS, Settings(), "/x", nobody), GitSource)
    assert isinstance(passing_source_of(HTTPS, Settings()), PassingGitSource)
    for settings in (Settings(signers="/dev/null"), Settings(ssh_key="/dev/null")):
        with pytest.raises(SpecInvalid, match="is for a git source"):
            source_of("specs/", settings, "/x", nobody)
    with pytest.raises(SpecInvalid, match="--require-signature: there is no /nonexistent"):
        source_of(HTTPS, Settings(signers="/nonexistent"), "/x", nobody)
    with pytest.raises(SpecInvalid, match="SOURCE: "):
        source_of("git+http://x/y", Settings(), "/x", nobody)
    with pytest.raises(SpecInvalid, match=r"a repository is written git\+file:///x/y"):
        source_of("file:///x/y", Settings(), "/x", nobody)
    with pytest.raises(SpecInvalid, match="a repository is written"):
        source_of("https://[x", Settings(), "/x", nobody)
    assert isinstance(source_of("//[x", Settings(), "/x", nobody), LayeredDirectory), "a strange name"


def entry(path: str, mode: str = "100644", size: int = 10) -> Entry:
    return Entry(mode, "0" * 40, size, path.encode("utf-8", "surrogateescape"))


def test_a_listing_is_read() -> None:
    listing = b"100644 blob aaa      12\ta b.yaml\x00160000 commit bbb       -\tsub\x00"
    assert list(entries(listing)) == [
        Entry("100644", "aaa", 12, b"a b.yaml"),
        Entry("160000", "bbb", 0, b"sub"),
    ]
    with pytest.raises(Unfit):
        list(entries(b"nonsense\x00"))


def test_what_is_read_and_what_is_refused() -> None:
    found = choose(
        [
            entry("web.yaml"),
            entry("a/b.yml", "100755"),
            entry("a/.hidden/c.yaml"),
            entry("README.md", "120000"),
            entry("link.yaml", "120000"),
            entry("../up.yaml"),
            entry("big.yaml", size=(1 << 20) + 1),
            entry("/".join(["d"] * 40) + "/deep.yaml"),
            entry("sub", "160000"),
        ],
        "nodes/edge",
    )
    assert set(found.objects) == {"nodes/edge/web.yaml", "nodes/edge/a/b.yml"}
    told = {each.file.removeprefix("nodes/edge/")[:9]: each.message for each in found.problems}
    assert set(told) == {"link.yaml", "big.yaml", "d/d/d/d/d", "sub"}


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJyB2gzJ0Yk0vB1y8m1v0T9iZr0t0bJ1B3uRrC9b1Q2d"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"me@example.org {KEY} comment\n", ""),
        (f'# ours\n\na@b,*@c namespaces="git,file",valid-after="20260101" {KEY}\n', ""),
        (f"{KEY} me@host\n", "line 1 names no principal: write me@example.org ssh-ed25519 AAAA…"),
        ("# ours\nme@example.org ssh-ed25519 AAAA\n", "line 2 holds a key that is not whole: write "),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----\n", "line 1 holds no public key of ssh: write "),
        ("# nobody\n", "names nobody: write "),
    ],
)
def test_a_file_of_signers_is_looked_at_before_anything_is_fetched(
    tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / "signers"
    path.write_text(text)
    if not why:
        assert source_of(HTTPS, Settings(signers=str(path)), str(tmp_path), nobody)
        return
    with pytest.raises(SpecInvalid, match=re.escape(f"--require-signature: {path}: {why}")):
        source_of(HTTPS, Settings(signers=str(path)), str(tmp_path), nobody)
