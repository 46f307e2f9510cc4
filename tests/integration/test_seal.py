"""`masu seal`: what comes out can be opened by whom it is for, and by nobody else."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from controller.errors import StepFailed
from controller.host.sealed import unseal

pytestmark = pytest.mark.root


@pytest.fixture
def key() -> Iterator[Path]:
    """A path that is free, in a directory of root's."""
    path = Path("/run") / f"masu-test-{secrets.token_hex(6)}.key"
    yield path
    for each in (path, Path(f"{path}.pub")):
        each.unlink(missing_ok=True)


def seal(key: Path, *words: str, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-m", "controller", "seal", *words]
    environment = {**os.environ, "MASU_AGE_IDENTITY": str(key)}
    return subprocess.run(
        argv, input=content, env=environment, capture_output=True, timeout=60, check=False, umask=0o022
    )


def test_the_key_is_made_once_and_is_roots_alone(key: Path) -> None:
    first = seal(key, "--public-key")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith(b"age1")
    assert key.stat().st_mode & 0o777 == 0o600
    written = key.read_bytes()
    assert seal(key, "--public-key").stdout == first.stdout
    assert key.read_bytes() == written


@pytest.mark.parametrize("content", [b"hunter2", b"two\nlines\n", b"\x00\xff\n"])
def test_what_is_sealed_here_is_what_a_spec_may_have(key: Path, content: bytes) -> None:
    assert seal(key, "--public-key").returncode == 0
    done = seal(key, content=content)
    assert done.returncode == 0, done.stderr
    assert content not in done.stdout
    assert unseal(yaml.safe_load(done.stdout)["age"], key.read_bytes()) == content


def test_for_others_no_key_is_needed_here(key: Path, tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ssh], check=True)
    age = seal(key, "--public-key").stdout.decode().strip()
    own = key.read_bytes()
    key.unlink()
    done = seal(key, "--for", age, "--for", Path(f"{ssh}.pub").read_text(), content=b"both")
    assert done.returncode == 0, done.stderr
    text = yaml.safe_load(done.stdout)["age"]
    assert unseal(text, own) == unseal(text, ssh.read_bytes()) == b"both"
    stranger = seal(key, "--public-key")
    assert stranger.returncode == 0
    with pytest.raises(StepFailed, match="cannot be opened"):
        unseal(text, key.read_bytes())


def test_the_hosts_own_ssh_key_will_do(key: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    done = seal(key, content=b"by ssh")
    assert done.returncode == 0, done.stderr
    assert unseal(yaml.safe_load(done.stdout)["age"], key.read_bytes()) == b"by ssh"


@pytest.mark.parametrize(
    ("words", "content", "said"),
    [
        ((), b"x", "masu seal --public-key makes one"),
        (("--for", "age1nobody"), b"x", "key 1 is none that age can seal for"),
        (("--for", "ssh-ed25519 AAAA"), b"x", "is none that age can seal for"),
        (("--for", "age1nobody"), b"", "there is nothing to seal"),
    ],
)
def test_what_cannot_be_is_said(key: Path, words: tuple[str, ...], content: bytes, said: str) -> None:
    done = seal(key, *words, content=content)
    assert done.returncode == 1
    assert said in done.stderr.decode()
    assert done.stdout == b""


def test_a_file_without_a_key_is_no_key(key: Path) -> None:
    key.touch(0o600)
    for words in (["--public-key"], []):
        done = seal(key, *words, content=b"x")
        assert done.returncode == 1
        assert "there is no key in it" in done.stderr.decode()


def test_half_a_key_of_somebody_else_is_not_taken(key: Path, tmp_path: Path) -> None:
    for each in (key, tmp_path / "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", each], check=True)
    (tmp_path / "other.pub").replace(f"{key}.pub")
    done = seal(key, content=b"x")
    assert done.returncode == 1
    assert done.stdout == b""
    assert "cannot be opened" in done.stderr.decode()


def test_a_key_that_is_not_made_leaves_nothing(key: Path) -> None:
    key.symlink_to("/nowhere/at/all")
    assert seal(key, "--public-key").returncode == 1
    assert key.is_symlink()
    assert not list(key.parent.glob("tmp*"))


def test_a_key_that_others_may_read_is_no_key(key: Path) -> None:
    assert seal(key, "--public-key").returncode == 0
    key.chmod(0o644)
    done = seal(key, content=b"x")
    assert done.returncode == 1
    assert "the key of sealed secrets" in done.stderr.decode()
