"""Files of masu's own that are torn, flipped, or somebody else's: absent or told of, as each reader says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.checkpoints.request import Request
from controller.errors import LaunchFailed, MasuError, Problem, StepFailed
from controller.frozen import as_dict
from controller.host import criu, logs
from controller.host.criu_features import read_json
from controller.host.devices import DeviceFiles
from controller.host.grants import GrantFile
from controller.host.images import ImageStore
from controller.host.journal import Journal
from controller.host.keeping import KeeperClient
from controller.host.leases import LeaseFile
from controller.host.nftables import _read_published
from controller.host.number_file import NumberFile
from controller.host.pins import PinFile
from controller.host.places import Places
from controller.host.records import RecordFiles
from controller.host.secrets import SecretFiles
from controller.host.store import ConditionFiles, DesiredFile
from controller.host.tallies import TallyFiles
from controller.model.counters import Tally
from controller.model.desired import DesiredSet, FileState
from controller.model.dump import Layout
from controller.model.event import Event
from controller.model.health import Verdict
from controller.model.image import Image
from controller.model.launch import Init
from controller.model.record import Exit, Record
from controller.model.resource import Resource
from controller.model.snapshot import Commit
from controller.model.status import Condition
from tests.fuzz.bounds import bounded, printable, soon
from tests.fuzz.strategies import json_texts

DIGEST = "sha256:" + "a" * 64
RECORD = Record(
    "web",
    "d",
    "f",
    "running",
    "boot",
    12,
    34,
    exit=Exit(1, 0, "", 5),
    health=Verdict("Healthy", "", Init(1, 2)),
)
DESIRED = DesiredSet(
    "r",
    {"a.yaml": FileState("d", (Resource("web", "a.yaml", {"a": "b"}, {"rootfs": {"path": "/"}}),),
    (Problem("a.yaml", 1, 2, "x", "y"),))},
    (Problem("b.yaml", 0, 0, "", "y"),),
    commit=Commit("f" * 40, "why", 5),
)  # fmt: skip
EVENT = Event(5, "web", "Started", "it runs", "key", "old", "new")
IMAGE = Image(DIGEST, "/x", ("/a",), ("b",), (("A", "1"),), "/", "1:2")


@dataclass
class Kept:
    """`path` below the directory; `told`: the errors that the reader raises for what it does not understand."""

    path: str
    good: Any
    read: Callable[[Path], Any]
    told: tuple[type[MasuError], ...] = ()


def places(root: Path) -> Places:
    return Places("i", str(root / "run"), str(root / "state"), str(root / "log"))


def _look(root: Path) -> Any:
    (root / DIGEST.removeprefix("sha256:") / "rootfs").mkdir(exist_ok=True)
    return ImageStore(str(root), "x86_64").look(DIGEST)


FILES = {
    "record": Kept("web.json", RECORD.to_json(), lambda root: RecordFiles(str(root)).read("web")),
    "desired": Kept(
        "state/i/desired.json",
        {"version": "1", "desired": DESIRED.to_json()},
        lambda root: DesiredFile(places(root), "1").load(),
    ),
    "conditions": Kept(
        "web.json",
        [Condition("Healthy", True, "Why", "message").to_json()],
        lambda root: ConditionFiles(str(root)).read("web"),
    ),
    "events": Kept("events", as_dict(EVENT), lambda root: list(Journal(str(root / "events")).read())),
    "grants": Kept(
        "grants",
        {"boot": "b", "grants": {"web": {"sections": {"a": 1}, "amounts": {"b": 2}}}},
        lambda root: GrantFile(str(root / "grants"), "b").load(),
    ),
    "devices": Kept(
        "web.json", {"mark": {"mac": "00:00:00:00:00:01", "mtu": 1500}},
        lambda root: DeviceFiles(str(root)).lent("web")
    ),
    "tally": Kept("web.json", Tally().to_json(), lambda root: TallyFiles(None, str(root)).read("web")),
     # type: ignore[arg-type]
    "numbers": Kept("numbers", {"i/web": 5}, lambda root: NumberFile(str(root / "numbers")).of("i/web"),
    (StepFailed,)),
    "pins": Kept(
        "pins",
        {"web": {"reference": "docker://docker.io/library/x:1", "digest": DIGEST, "spec": "s"}},
        lambda root: PinFile(str(root / "pins")).load(),
        (StepFailed,),
    ),
    "leases": Kept(
        "leases",
        {"front": {"web": {"addresses": ["10.0.0.2"], "slot": 1}}},
        lambda root: LeaseFile(str(root / "leases")).load(),
        (StepFailed,),
    ),
    "exit": Kept(
        "exits/web.json",
        {"pid": 1, "start_time": 2, "boot_id": "b", "code": 0, "signal": 0, "at": 5},
        lambda root: KeeperClient(str(root), str(root), 1024).exit_of("web"),
    ),
    "image": Kept(f"{DIGEST.removeprefix('sha256:')}/image.json", as_dict(IMAGE), _look),
    "layout": Kept(
        criu.LAYOUT_FILE, Layout((), ()).to_json(), lambda root: criu._layout(str(root)), (LaunchFailed,)
    ),
    "config": Kept(
        "run/i/bundles/web/config.json",
        {"process": {"env": ["A=1"]}},
        lambda root: SecretFiles(places(root), str(root), "").given("web", {"A": "a"}),
    ),
    "published": Kept(
        "published", {"published": [["tcp", "", 80, "10.0.0.2", 80, "web", "front"]]},
        lambda root: _read_published(str(root / "published"))
    ),
    "abilities": Kept("abilities", {"key": "x"}, lambda root: read_json(str(root / "abilities"))),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_what_is_whole_is_read(name: str, tmp_path: Path) -> None:
    """Or the others would prove nothing."""
    kept = FILES[name]
    _write(tmp_path / kept.path, json.dumps(kept.good).encode() + b"\n")
    assert kept.read(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_what_is_not_understood_is_absent_or_told_of(name: str, tmp_path: Path) -> None:
    kept = FILES[name]

    @bounded(60)
    @given(json_texts(kept.good), st.sampled_from((b"", b"\n")))
    def check(text: bytes, end: bytes) -> None:
        _write(tmp_path / kept.path, text + end)
        try:
            with soon():
                kept.read(tmp_path)
        except kept.told as error:
            printable(error)

    check()


REQUEST = Request("restore", "web", "20261125-201523-042-1f9a3c07").to_json()


@bounded(200)
@given(json_texts(REQUEST))
def test_a_request_is_one_or_is_none(text: bytes) -> None:
    try:
        found = Request.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    assert Request.from_json(found.to_json()) == found


@bounded(100)
@given(
    st.lists(
        st.sampled_from(
            [b"2026-11-25T20:15:23Z", b"stdout", b"stderr", b"F", b"P", b" ", b"\n", b"\0", b"\xff", b"\r"]
        )
    ).map(b"".join)
)
def test_a_log_of_any_bytes_is_read(tmp_path: Path, text: bytes) -> None:
    _write(tmp_path / "web" / "current.log", text)
    with soon():
        for tail in (-1, 1):
            list(logs.lines(str(tmp_path), "web", tail=tail, follow=False))


def _write(path: Path, text: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
