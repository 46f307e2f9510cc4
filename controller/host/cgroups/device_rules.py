"""The DeviceRules port: the devices subsystem where v1 has it mounted, else a BPF program of the cgroup on v2.

Everything in a container's cgroup is masu's: a program that somebody else has put there is taken away.
Sources: Documentation/admin-guide/cgroup-v1/devices.rst; bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import Final

from controller.errors import HostLacks, KnobRefused
from controller.host.cgroups import bpf
from controller.host.cgroups.device_loader import Loader
from controller.host.cgroups.device_program import PREFIX, program_name
from controller.host.cgroups.homes import Homes
from controller.host.text import failed, read_text
from controller.model.device import DEFAULT, EVERYTHING, Rules, difference, lines_of, parse_rules, words
from controller.model.facts import CORE

_LACKING: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_NO_PROGRAMS: Final = "devices: cgroup v2 refuses device programs here: the kernel needs CONFIG_CGROUP_BPF"
_NO_PLACE: Final = (
    "devices: nothing here can say who may open what: there is no devices subsystem and no cgroup2"
)


class DeviceRules:
    """Every method may be called from any thread."""

    def __init__(self, homes: Homes) -> None:
        self._homes = homes
        self._loader = Loader()

    def state(self, group: str, rules: Rules) -> str | None:
        """Empty: exactly these are in force; else what is, in words; None: there is no such group."""
        found = self._homes.facts.hierarchy("devices")
        if found is None:
            return _attached(self._unified(group), rules, self._loader)
        listed = _listed(self._homes.path(found, group), rules)
        return _listed(self._homes.locate(found, group), rules) if listed is None else listed

    def put(self, group: str, rules: Rules) -> None:
        found = self._homes.facts.hierarchy("devices")
        if found:
            _write_difference(self._homes.locate(found, group), rules)
        else:
            _replace(self._unified(group), rules, self._loader)

    def _unified(self, group: str) -> str:
        found = self._homes.facts.hierarchy(CORE)
        if found is None:
            raise HostLacks(_NO_PLACE)
        return self._homes.locate(found, group)


def lacking() -> str:
    """Why device programs cannot be loaded here, in the kernel's words; empty when they can."""
    try:
        os.close(Loader().load(DEFAULT))
    except OSError as error:
        return os.strerror(error.errno or 0)
    return ""


def _listed(directory: str, rules: Rules) -> str | None:
    text = read_text(f"{directory}/devices.list")
    if text is None:
        return None
    if frozenset(text.splitlines()) == lines_of(rules):
        return ""
    live = parse_rules(text)
    return EVERYTHING if live is None else words(live)


def _write_difference(directory: str, rules: Rules) -> None:
    """More is allowed before less is. From `everything` there is no way but through `nothing`: that is so at a
    birth, where no process is there yet, and when somebody else has allowed everything.
    """
    live = parse_rules(_read(f"{directory}/devices.list"))
    if live is None:
        _write(f"{directory}/devices.deny", "a")
    allowed, denied = difference(live or (), rules)
    _write(f"{directory}/devices.allow", allowed)
    _write(f"{directory}/devices.deny", denied)


def _read(path: str) -> str:
    text = read_text(path)
    if text is None:
        raise failed(OSError(errno.ENOENT, ""), "reading", path)
    return text


def _write(path: str, rules: Sequence[object]) -> None:
    """The kernel takes one rule with each write."""
    for each in rules[:1]:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KnobRefused(path, str(each), error.errno or 0) from error
        try:
            _write_each(descriptor, path, rules)
        finally:
            os.close(descriptor)


def _write_each(descriptor: int, path: str, rules: Sequence[object]) -> None:
    for each in rules:
        try:
            os.write(descriptor, str(each).encode())
        except OSError as error:
            raise KnobRefused(path, str(each), error.errno or 0) from error


def _attached(directory: str, rules: Rules, loader: Loader) -> str | None:
    """Anybody may give a program the name of masu's own: it must have its instructions, too."""
    with _opened(directory, "reading the device rules of") as cgroup, contextlib.ExitStack() as stack:
        if cgroup is None:
            return None
        found = [each for each, _ in _programs(cgroup, stack)]
        names = [each.name for each in found]
        if names == [program_name(rules)]:
            return "" if loader.is_of(found[0], rules) else f"those of another program named {names[0]}"
    if not names:
        return EVERYTHING
    foreign = [each or "without a name" for each in names if not each.startswith(PREFIX)]
    return f"those of a program {', '.join(foreign)}" if foreign else "other rules of masu"


def _replace(directory: str, rules: Rules, loader: Loader) -> None:
    """The new one first: for a moment both must agree, so that what both allow is never refused."""
    doing = "setting the device rules of"
    with _opened(directory, doing) as cgroup, contextlib.ExitStack() as stack:
        if cgroup is None:
            raise failed(OSError(errno.ENOENT, ""), doing, directory)
        there = _programs(cgroup, stack)
        kept = next((program for other, program in there if loader.is_of(other, rules)), -1)
        if kept < 0:
            loaded = loader.load(rules)
            stack.callback(os.close, loaded)
            bpf.attach(cgroup, loaded)
        for _, each in there:
            if each != kept:
                bpf.detach(cgroup, each)


def _programs(cgroup: int, stack: contextlib.ExitStack) -> list[tuple[bpf.Identity, int]]:
    """(identity, descriptor) of each that is attached; the stack closes them."""
    found = []
    for number in bpf.attached(cgroup):
        descriptor = bpf.opened(number)
        if descriptor is not None:
            stack.callback(os.close, descriptor)
            found.append((bpf.identity_of(descriptor), descriptor))
    return found


@contextlib.contextmanager
def _opened(directory: str, doing: str) -> Iterator[int | None]:
    """The one translation of what bpf(2) raises. None: there is no such group."""
    try:
        cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield cgroup
    except OSError as error:
        if error.errno in _LACKING:
            raise HostLacks(_NO_PROGRAMS) from error
        raise failed(error, doing, directory) from error
    finally:
        os.close(cgroup)
