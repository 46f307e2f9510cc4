"""The host's zone with its rules, wherever it is written."""

from __future__ import annotations

import struct
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.host import clock
from controller.host.clock import SystemClock

SUMMER, WINTER = datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
BLOCK = (
    b"TZif2" + bytes(15) + struct.pack(">6I", 0, 0, 0, 0, 1, 4) + struct.pack(">iBB", 3600, 0, 0) + b"CET\0"
)
FILE = BLOCK * 2 + b"\nCET-1CEST,M3.5.0,M10.5.0/3\n"
"""tzfile(5)"""


@pytest.fixture
def berlin(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "Europe" / "Berlin"
    path.parent.mkdir()
    path.write_bytes(FILE)
    zoneinfo.reset_tzpath(to=[str(tmp_path)])
    zoneinfo.ZoneInfo.clear_cache()
    yield path
    zoneinfo.reset_tzpath()
    zoneinfo.ZoneInfo.clear_cache()


def offsets() -> list[int]:
    zone = SystemClock().zone()
    return [int(each.astimezone(zone).strftime("%z")) for each in (SUMMER, WINTER)]


def test_the_environment_says_it(monkeypatch: pytest.MonkeyPatch, berlin: Path) -> None:
    for text in ("Europe/Berlin", ":Europe/Berlin", str(berlin), f":{berlin}"):
        monkeypatch.setenv("TZ", text)
        assert offsets() == [200, 100], text


@pytest.mark.parametrize("name", ["Nowhere/At_all", "/etc/passwd", "../../etc/passwd", "/not/there"])
def test_what_is_none_is_utc(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TZ", name)
    assert offsets() == [0, 0]


def test_a_file_of_the_host_says_it(monkeypatch: pytest.MonkeyPatch, berlin: Path) -> None:
    monkeypatch.delenv("TZ", raising=False)
    monkeypatch.setattr(clock, "LOCALTIME", str(berlin))
    assert offsets() == [200, 100]
