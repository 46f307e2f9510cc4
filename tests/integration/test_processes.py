"""Processes as /proc has them, and moving oneself to where one is."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from controller.host import facts as host_facts
from controller.host.cgroups.homes import Homes
from controller.host.processes import ProcDirectory

pytestmark = pytest.mark.root


def test_the_way_into_cgroups_is_made_ready_and_nobody_is_moved() -> None:
    """At once, however often it is asked for, and also where this process's group has no file to write to."""
    found = ProcDirectory(Homes(host_facts.look(None)))
    before = Path("/proc/self/cgroup").read_text()
    began = time.monotonic()
    for _ in range(100):
        found.hasten()
    assert time.monotonic() - began < 1
    deadline = began + 5
    while any(each.name == "haste" for each in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert Path("/proc/self/cgroup").read_text() == before


def test_where_it_cannot_be_done_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = ProcDirectory(Homes(host_facts.look(None)))
    for groups in ({}, {"/nowhere": "/"}):
        monkeypatch.setattr(found, "groups", lambda _, groups=groups: groups)
        found.hasten()
        while any(each.name == "haste" for each in threading.enumerate()):
            time.sleep(0.001)
    assert capfd.readouterr().err == ""


def test_one_namespace_is_the_same_as_among_all() -> None:
    found = ProcDirectory(Homes(host_facts.look(None)))
    pid = os.getpid()
    assert {kind: found.namespace(pid, kind) for kind in found.namespaces(pid)} == found.namespaces(pid)
    assert found.namespace(1 << 22, "net") == 0
