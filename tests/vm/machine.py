"""A throw-away Debian machine under qemu: boot, run scripts, power off or cut the power, boot again.

Emulated by TCG on purpose: it works where /dev/kvm is absent or broken. The image is never written to.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

QEMU = "qemu-system-x86_64"
MEMORY_MIB = 1024
CPUS = 2
ACCELERATOR = "tcg,thread=single"
"""Both cpus in one thread: in two, one cpu may still run code that the other has patched (kernel: "Oops: int3")."""
CPU = "max,-cx16,-la57"
"""qemu 7.2 puts garbage into EFLAGS after CMPXCHG16B, with which the kernel allocates memory: trap and direction
flags come on at random, and every third boot dies where nothing is wrong."""
BOOT_S = 300
"""Far above the 8 s that it takes: other work may keep the host busy."""
NICE = ("nice", "-n", "5")
"""Whoever measures time on the host comes first."""


class MachineFailed(AssertionError):
    """The machine died, did not boot, or did not answer in time; carries the end of its console."""


@dataclass(frozen=True, slots=True)
class Image:
    """What `.setup/vm-image.sh` made; shared by all machines, never written."""

    directory: Path

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd"

    @property
    def root(self) -> Path:
        return self.directory / "root.ext4"


@dataclass(frozen=True, slots=True)
class Finished:
    """A script that ran in the machine: exit status, stdout and stderr as they came, wall time."""

    status: int
    output: str
    took_s: float


class Machine:
    """One machine whose disk lives in `directory` and survives `power_off` and `cut_power` until that is removed.

    `disks` are files given as further read-only disks, /dev/vdb on. As a context manager, leaving it kills qemu.
    `console.log` holds the serial console and `output.log` what the scripts printed, of all boots.
    """

    def __init__(self, image: Image, directory: Path, disks: tuple[Path, ...]) -> None:
        self._image = image
        self._disks = disks
        self._disk = directory / "root.qcow2"
        self._qemu: subprocess.Popen[bytes] | None = None
        self._agent: socket.socket | None = None
        self._pending = b""
        self.console_log = directory / "console.log"
        self.output_log = directory / "output.log"
        make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b"]
        subprocess.run([*make, str(image.root), str(self._disk)], check=True, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut_power()

    def boot(self) -> float:
        """Start with the disk as it was left; seconds until the machine takes scripts."""
        assert self._qemu is None, "the machine is on"
        began = time.monotonic()
        ours, theirs = socket.socketpair()
        with theirs:
            command = self._command(theirs.fileno())
            self._qemu = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), start_new_session=True
            )
        self._agent, self._pending = ours, b""
        self._read_until(re.compile(rb"^ready\n", re.MULTILINE), BOOT_S)
        return time.monotonic() - began

    def run(self, script: str, timeout_s: float) -> Finished:
        """Run a shell script as root in the machine; a machine that takes longer than `timeout_s` is cut off."""
        began = time.monotonic()
        nonce = secrets.token_hex(8).encode()
        self._send(nonce, script, timeout_s)
        output, last = self._read_until(re.compile(rb"^" + nonce + rb" (\d+)\n", re.MULTILINE), timeout_s)
        text = output.decode(errors="replace").removesuffix("\n")
        return Finished(int(last[1]), text, time.monotonic() - began)

    def power_off(self) -> None:
        """As a person would: written back and switched off."""
        assert self._qemu is not None, "the machine is off"
        self._send(b"off", "sync; busybox poweroff -f", 60)
        try:
            self._qemu.wait(60)
        except subprocess.TimeoutExpired as error:
            raise self._failure("did not power off in 60 s") from error
        finally:
            self.cut_power()

    def cut_power(self) -> None:
        """As a black-out would: nothing more is written. Nothing to do when the machine is off."""
        if self._qemu is not None:
            _kill_group(self._qemu)
            self._qemu = None
        if self._agent is not None:
            self._agent.close()
            self._agent = None

    def _command(self, agent_fd: int) -> list[str]:
        drives = [f"file={self._disk},format=qcow2,if=virtio,cache=writeback"]
        drives += [f"file={each},format=raw,if=virtio,readonly=on" for each in self._disks]
        return [
            *NICE,
            *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"),
            *("-machine", "q35", "-accel", ACCELERATOR, "-cpu", CPU),
            *("-smp", str(CPUS), "-m", str(MEMORY_MIB)),
            *("-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd)),
            *("-append", "console=ttyS0 quiet loglevel=5 mitigations=off panic=-1"),
            *("-chardev", f"file,id=console,path={self.console_log},append=on", "-serial", "chardev:console"),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=agent,fd={agent_fd}"),
            *("-device", "virtserialport,chardev=agent,name=masu.agent"),
            *(word for drive in drives for word in ("-drive", drive)),
        ]

    def _send(self, nonce: bytes, script: str, timeout_s: float) -> None:
        assert self._agent is not None, "the machine is off"
        self._agent.settimeout(timeout_s)
        try:
            self._agent.sendall(nonce + b" " + base64.b64encode(script.encode()) + b"\n")
        except OSError as error:
            raise self._failure(f"took no script: {error}") from error

    def _read_until(self, end: re.Pattern[bytes], timeout_s: float) -> tuple[bytes, re.Match[bytes]]:
        """What came before the first match of `end`, and the match; the rest is kept for the next call."""
        assert self._agent is not None
        deadline = time.monotonic() + timeout_s
        with self.output_log.open("ab", buffering=0) as log:
            while not (found := end.search(self._pending)):
                fresh = self._receive(deadline, timeout_s)
                log.write(fresh)
                self._pending += fresh
        before, self._pending = self._pending[: found.start()], self._pending[found.end() :]
        return before, found

    def _receive(self, deadline: float, timeout_s: float) -> bytes:
        assert self._agent is not None
        try:
            self._agent.settimeout(max(deadline - time.monotonic(), 0.001))
            fresh = self._agent.recv(1 << 16)
        except TimeoutError as error:
            raise self._failure(f"did not answer in {timeout_s:.0f} s") from error
        except ConnectionError as error:
            raise self._failure("died") from error
        if not fresh:
            raise self._failure("died")
        return fresh

    def _failure(self, what: str) -> MachineFailed:
        """Switches off: a machine that failed once is not asked again."""
        said = self._pending.decode(errors="replace")
        self.cut_power()
        console = self.console_log.read_text(errors="replace") if self.console_log.exists() else ""
        ends = f"--- printed\n{said[-6000:]}\n--- console\n{console[-3000:]}"
        return MachineFailed(f"the machine {what}\n{ends}")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
