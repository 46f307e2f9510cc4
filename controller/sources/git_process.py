"""git as a tool that is told everything: no configuration but this one, no prompt, no hook, and an end.

Every git is bounded in memory, in the size of what it writes, and in time.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping

from controller.frozen import dataclass
from controller.host.tool_runs import (
    MOST_SAID,
    CannotRun,
    Ended,
    Halted,
    SaidTooMuch,
    TookTooLong,
    ToolRuns,
)
from controller.model.names import printable
from controller.model.process import CANNOT_RUN
from controller.sources.git_url import GitUrl

LOCAL_S = 60.0
FETCH_S = 300.0
MEMORY = 2 << 30
"""Address space of each process: libraries and threads' stacks count, so it is far more than is used."""
MAX_FETCHED = 256 << 20
"""One pack: what comes is written as one file."""
MOST_SHOWN = 400
CUT_OFF = "fatal: fetch-pack: invalid index-pack output"
"""All that is said when whoever writes a pack was ended by SIGXFSZ."""
BESIDE_THE_POINT = ("hint:", "warning:", "Please make sure", "and the repository exists")
KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"

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
    """One repository's git. Thread-safe."""

    def __init__(
        self, repository: str, url: GitUrl, options: GitOptions, *, max_fetched: int = MAX_FETCHED
    ) -> None:
        settings = {**SETTINGS, f"protocol.{url.protocol}.allow": "always", **_trust(options)}
        self._argv = [
            *("prlimit", f"--as={MEMORY}", f"--fsize={max_fetched}", "--core=0"),
            *("git", "--git-dir", repository, "--no-pager", "--literal-pathspecs"),
            *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
        ]
        self._environment, self._max_fetched = _environment(url, options), max_fetched
        self._runs = ToolRuns()

    def run(self, *words: str, timeout_s: float = LOCAL_S, said: bytes = b"", most: int = MOST_SAID) -> bytes:
        """→ what it wrote to standard output, at most `most` bytes. Raises GitFailed and Unavailable."""
        ended = self._ended(words, timeout_s, said, most)
        if ended.status == CANNOT_RUN:
            raise Unavailable("git is not installed: apt install git")
        if ended.status:
            raise GitFailed(_complaint(words[0], ended.status, ended.complained, self._max_fetched))
        return ended.said

    def kill(self) -> None:
        """Whatever runs, and whatever is asked for from now on, fails."""
        self._runs.halt()

    def _ended(self, words: tuple[str, ...], timeout_s: float, said: bytes, most: int) -> Ended:
        argv = [*self._argv, *words]
        try:
            return self._runs.run(argv, timeout_s, environment=self._environment, given=said, most=most)
        except TookTooLong:
            raise GitFailed(f"git {words[0]}: not done within {timeout_s:g} s") from None
        except SaidTooMuch:
            raise GitFailed(f"git {words[0]}: it says too much") from None
        except Halted:
            raise Unavailable("broken off: masu ends") from None
        except CannotRun as error:
            raise Unavailable(str(error)) from error


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
    shown = printable("; ".join(told))[:MOST_SHOWN]
    return shown or f"git {verb} ended with {code}"
