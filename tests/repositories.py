"""Bare repositories on disk, pushed to as people do; and objects that no git would write by itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

USER = {
    "GIT_AUTHOR_NAME": "somebody",
    "GIT_AUTHOR_EMAIL": "somebody@example.org",
    "GIT_COMMITTER_NAME": "somebody",
    "GIT_COMMITTER_EMAIL": "somebody@example.org",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


class Remote:
    """A bare repository with a checkout beside it that pushes to it."""

    def __init__(self, directory: Path) -> None:
        self.path, self.work = directory / "specs.git", directory / "work"
        directory.mkdir(parents=True, exist_ok=True)
        git(directory, "init", "-q", "--bare", "-b", "main", str(self.path))
        git(directory, "init", "-q", "-b", "main", str(self.work))
        git(self.work, "remote", "add", "origin", str(self.path))

    def url(self, which: str = "") -> str:
        return f"git+file://{self.path}{which}"

    def write(self, name: str, text: str | bytes) -> None:
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def push(self, message: str = "change", *options: str, **files: str) -> str:
        """Commit everything, and what is given: `web="…"` is web.yaml. → the commit."""
        for name, text in files.items():
            self.write(f"{name}.yaml", text)
        git(self.work, "add", "--all")
        return self.commit(message, *options)

    def commit(self, message: str, *options: str) -> str:
        """Of what is in the index."""
        git(self.work, *options, "commit", "-q", "--allow-empty", "-m", message)
        git(self.work, "push", "-q", "--force", "origin", "HEAD:main")
        return git(self.work, "rev-parse", "HEAD")

    def push_tree(self, *entries: str) -> str:
        """Lines of `ls-tree`, taken as they are, unlike git's own index does. → the commit."""
        tree = git(self.work, "mktree", "--missing", said="".join(f"{each}\n" for each in entries))
        commit = git(self.work, "commit-tree", tree, "-m", "made by hand")
        git(self.work, "push", "-q", "--force", "origin", f"{commit}:refs/heads/main")
        return commit

    def blob(self, text: str | bytes) -> str:
        return git(self.work, "hash-object", "-w", "--stdin", said=text)


def git(directory: Path, *words: str, said: str | bytes = b"") -> str:
    given = said if isinstance(said, bytes) else said.encode()
    environment = {**os.environ, **USER}
    done = subprocess.run(
        ["git", *words],
        cwd=directory,
        input=given,
        capture_output=True,
        check=False,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr.decode(errors='replace')}"
    return done.stdout.decode(errors="surrogateescape").strip()


def ssh_key(directory: Path, name: str) -> Path:
    """Its public half is beside it."""
    path = directory / name
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
    subprocess.run(argv, check=True, timeout=30)
    return path


def signed_by(key: Path) -> tuple[str, ...]:
    """Options of git."""
    return ("-c", "gpg.format=ssh", "-c", f"user.signingkey={key}", "-c", "commit.gpgSign=true")


def allow(file: Path, *keys: Path) -> Path:
    lines = [f"somebody@example.org {key.with_suffix('.pub').read_text()}" for key in keys]
    file.write_text("".join(lines))
    return file
