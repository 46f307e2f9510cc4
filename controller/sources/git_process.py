"""git as a tool that is told everything: no configuration but this one, no prompt, no hook, and an end.

Every git runs in a process group of its own, is bounded in memory and in the size of what it writes, is killed with
all that it started when its time is over, and goes with masu.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping

from controller.frozen import dataclass
from controller.model.process import CANNOT_RUN
from controller.sources.git_url import GitUrl
from controller.sources.walk import escaped

LOCAL_S = 60.0
FETCH_S = 300.0
MEMORY = 2 << 30
"""Address space of each process: libraries and threads' stacks count, so it is far more than is used."""
MAX_FETCHED = 256 << 20
"""One pack: what comes is written as one file."""
MOST_OUTPUT = 32 << 20
MOST_SAID = 400
CUT_OFF = "fatal: fetch-pack: invalid index-pack output"
"""All that is said when whoever writes a pack was ended by SIGXFSZ."""
BESIDE_THE_POINT = ("hint:", "warning:", "Please make sure", "and the repository exists")
KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"

PASSED_ON = (
    "PATH",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
)
"""Of the environment; the rest is masu's own business."""

SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.bigFileThreshold": "1m",
    "core.packedGitWindowSize": "1m",
    "core.packedGitLimit": "64m",
    "core.logAllRefUpdates": "false",
    "credential.helper": "",
    "protocol.allow": "never",
    "http.sslVerify": "true",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "30",
    "fetch.fsckObjects": "true",
    "transfer.fsckObjects": "true",
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    "fetch.writeCommitGraph": "false",
    "fetch.unpackLimit": "1",
    "transfer.unpackLimit": "1",
    "pack.threads": "1",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
}


class GitFailed(Exception):
    """What git had to say, on one line that can be printed."""


class Unavailable(Exception):
    """git could not work, and nothing follows from that for the repository: masu ends, or git is not there."""


@dataclass(frozen=True, slots=True)
class GitOptions:
    """`signers`: an ssh allowed-signers file, or a directory of GPG's; "": no signature is asked for.
    `ssh_key`: "": those that ssh takes by itself."""

    signers: str = ""
    known_hosts: str = KNOWN_HOSTS
    ssh_key: str = ""


class Git:
    """One repository's git. Thread-safe for one call at a time, and `kill` from anywhere."""

    def __init__(
        self, repository: str, url: GitUrl, options: GitOptions, *, max_fetched: int = MAX_FETCHED
    ) -> None:
        self._repository, self._max_fetched = repository, max_fetched
        self._settings = {**SETTINGS, f"protocol.{url.protocol}.allow": "always", **_trust(options)}
        self._environment = _environment(url, options)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def run(
        self, *words: str, timeout_s: float = LOCAL_S, said: bytes = b"", most: int = MOST_OUTPUT
    ) -> bytes:
        """→ what it wrote to standard output, at most `most` bytes. Raises GitFailed and Unavailable."""
        with _memory(said) as given, _memory() as complaints:
            process = self._start(words, given, complaints)
            try:
                answer = _read(process, time.monotonic() + timeout_s, most)
                code = process.wait(max(0.1, timeout_s))
            except (_TooMuch, subprocess.TimeoutExpired) as error:
                raise GitFailed(f"git {words[0]}: {_too_much(error, timeout_s)}") from None
            finally:
                _end(process)
                self._process = None
            if code and self._killed:
                raise Unavailable("broken off: masu ends")
            if code == CANNOT_RUN:
                raise Unavailable("git is not installed: apt install git")
            if code:
                raise GitFailed(
                    _complaint(words[0], code, os.pread(complaints, 1 << 16, 0), self._max_fetched)
                )
            return answer

    def kill(self) -> None:
        """Whatever runs, and whatever is asked for from now on, fails."""
        with self._lock:
            self._killed = True
            if self._process:
                _kill(self._process)

    def _start(self, words: tuple[str, ...], given: int, complaints: int) -> subprocess.Popen[bytes]:
        settings = [word for key, value in self._settings.items() for word in ("-c", f"{key}={value}")]
        argv = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "prlimit",
            f"--as={MEMORY}",
            f"--fsize={self._max_fetched}",
            "--core=0",
        ]
        argv += ["git", "--git-dir", self._repository, "--no-pager", "--literal-pathspecs", *settings, *words]
        with self._lock:
            if self._killed:
                raise Unavailable("broken off: masu ends")
            try:
                self._process = subprocess.Popen(
                    argv,
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=complaints,
                    env=self._environment,
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                raise Unavailable(f"{argv[0]} cannot be run: {os.strerror(error.errno or 0)}") from error
            return self._process


class _TooMuch(Exception):
    pass


def _too_much(error: Exception, timeout_s: float) -> str:
    return "it says too much" if isinstance(error, _TooMuch) else f"not done within {timeout_s:g} s"


def _read(process: subprocess.Popen[bytes], until: float, most: int) -> bytes:
    """Raises _TooMuch, or TimeoutExpired."""
    pipe = process.stdout
    assert pipe is not None  # noqa: S101  it was asked for
    parts: list[bytes] = []
    left = most
    waiting = select.poll()  # select(2) takes no descriptor above 1023
    waiting.register(pipe, select.POLLIN)
    while True:
        pause = until - time.monotonic()
        if pause <= 0 or not waiting.poll(pause * 1000):
            raise subprocess.TimeoutExpired(process.args, 0)
        part = os.read(pipe.fileno(), 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
        left -= len(part)
        if left < 0:
            raise _TooMuch


def _end(process: subprocess.Popen[bytes]) -> None:
    """It, and whatever of its group is left."""
    _kill(process)
    process.wait()
    if process.stdout:
        process.stdout.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _memory(content: bytes = b"") -> Iterator[int]:
    """A file without a name: whoever reads or writes it never waits for masu."""
    descriptor = os.memfd_create("masu-git")
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _trust(options: GitOptions) -> Mapping[str, str]:
    """Whose signatures count: nobody's but those asked for, whatever kind a commit is signed with."""
    if options.signers and not os.path.isdir(options.signers):
        signers, trust = os.path.abspath(options.signers), "fully"
    else:
        signers, trust = "/dev/null", "undefined"  # a key in a keyring of masu's is trusted by being there
    return {
        "gpg.ssh.allowedSignersFile": signers,
        "gpg.ssh.revocationFile": "",
        "gpg.ssh.program": "ssh-keygen",
        "gpg.program": "gpg",
        "gpg.x509.program": "false",
        "gpg.minTrustLevel": trust,
    }


def _environment(url: GitUrl, options: GitOptions) -> dict[str, str]:
    keyring = os.path.abspath(options.signers) if os.path.isdir(options.signers) else "/nonexistent"
    return {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        "HOME": "/nonexistent",
        "XDG_CONFIG_HOME": "/nonexistent",
        "LC_ALL": "C",
        "GNUPGHOME": keyring,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": url.protocol,
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_SSH_VARIANT": "ssh",
        "GIT_SSH_COMMAND": _ssh(options),
    }


def _ssh(options: GitOptions) -> str:
    """Only hosts whose key is known already; nothing of the user's own configuration."""
    settings = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f'"{os.path.abspath(options.known_hosts)}"',
        "GlobalKnownHostsFile": "/dev/null",
        "UpdateHostKeys": "no",
        "ConnectTimeout": "15",
        "ServerAliveInterval": "15",
        "IdentityAgent": "none",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "ControlPath": "none",
    }
    argv = ["ssh", "-F", "/dev/null"]
    argv += [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    if options.ssh_key:
        argv += ["-o", "IdentitiesOnly=yes", "-i", os.path.abspath(options.ssh_key)]
    return shlex.join(argv)


def _complaint(verb: str, code: int, said: bytes, max_fetched: int) -> str:
    """What counts of it; the other side may have had a hand in the text."""
    text = said.decode("utf-8", "replace")
    if "dubious ownership" in text:
        return "the repository belongs to another user, and is not read for that: chown it, or use git+ssh://"
    lines = [line.strip() for line in text.splitlines()]
    told = [line for line in lines if line and not line.startswith(BESIDE_THE_POINT)]
    if told == [CUT_OFF]:
        return f"there are more than {max_fetched // 1024 // 1024} MiB to be fetched"
    shown = escaped("; ".join(told))[:MOST_SAID]
    return shown or f"git {verb} ended with {code}"
