"""What is fetched when, and what is said of it: `Pulls` on images that are no more than names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from controller.errors import StepFailed
from controller.loop.pulls import Pulls
from controller.model.audit import Entry
from controller.model.event import Event
from controller.model.image import Amount, Image, Pin, Pins, Source
from controller.model.resource import Resource
from controller.reconcile.reconciler import Result
from tests.unit.resources import by_key, container

ONE, TWO = (f"sha256:{each * 64}" for each in "12")
TAG = "docker://r.example/a:1"


class Images:
    """The Images port without a disk. `tags`: what each reference means. `made`: what it is made of."""

    def __init__(self) -> None:
        self.tags, self.here = {TAG: ONE}, dict[str, Image]()
        self.asked, self.fetched = 0, 0
        self.entrypoint: tuple[str, ...] = ("/run",)
        self.fails = ""
        self.halted = threading.Event()
        self.blocks = False

    def names(self) -> frozenset[str]:
        return frozenset(self.here)

    def look(self, digest: str) -> Image | None:
        return self.here.get(digest)

    def resolve(self, source: Source, timeout_s: float) -> str:
        del timeout_s
        self.asked += 1
        return self.tags[source.reference]

    def fetch(self, source: Source, digest: str, told: Callable[[Amount], None]) -> Image:
        del source, told
        self.fetched += 1
        if self.blocks:
            self.halted.wait(20)
            time.sleep(0.05)
        if self.fails or self.blocks:
            raise StepFailed(self.fails or "masu is being stopped")
        return self.put(digest)

    def put(self, digest: str) -> Image:
        self.here[digest] = Image(digest, f"/i/{digest}", entrypoint=self.entrypoint)
        return self.here[digest]

    def remove(self, digest: str) -> None:
        del self.here[digest]

    def halt(self) -> None:
        self.halted.set()


class Store:
    """The PinStore port without a disk. `damaged`, `full`: what is wrong with the file, or the disk."""

    def __init__(self, pins: Pins = {}) -> None:  # noqa: B006  nobody changes it
        self.pins, self.damaged, self.full = pins, "", ""

    def load(self) -> Pins:
        if self.damaged:
            raise StepFailed(self.damaged)
        return self.pins

    def save(self, pins: Pins) -> None:
        if self.full:
            raise StepFailed(self.full)
        self.pins = pins


class World:
    """One `Pulls`, and the host that it works on."""

    def __init__(self, *resources: Resource, pins: Pins = {}) -> None:  # noqa: B006
        self.resources = by_key(*resources)
        self.images, self.store = Images(), Store(pins)
        self.entries, self.events, self.records = list[Entry](), list[Event](), dict[str, Any]()
        self.host: Any = SimpleNamespace(
            images=self.images,
            records=SimpleNamespace(read=self.records.get, names=lambda: frozenset(self.records)),
            checkpoints=SimpleNamespace(checkpoints=lambda name: ()),
            clock=SimpleNamespace(now_ms=lambda: 1000, wall_ms=lambda: 7),
            audit=SimpleNamespace(append=self.entries.extend),
        )
        log = SimpleNamespace(event=self.events.append)
        self.pulls = Pulls(
            self.host, lambda _: None, log, self.store, self.expect, lambda name: None, once=False
        )

    def expect(self) -> Mapping[str, Any]:
        return self.pulls.expect(self.resources)

    def settle(self) -> None:
        until = time.monotonic() + 10
        while self.pulls.busy():
            assert time.monotonic() < until, "it does not come to an end"
            time.sleep(0.001)


@pytest.fixture
def worlds() -> Any:
    made = list[World]()

    def make(*resources: Resource, pins: Pins = {}) -> World:  # noqa: B006
        made.append(World(*resources, pins=pins))
        return made[-1]

    yield make
    for each in made:
        each.pulls.close()


def image(name: str = "web", reference: str = TAG, **rootfs: Any) -> Resource:
    return container(name, rootfs={"image": reference, **rootfs})


def test_every_write_is_in_the_audit_log(worlds: Any) -> None:
    world = worlds(image())
    world.images.fails = "no route to host"
    world.expect()
    world.settle()
    world.images.fails = ""
    until = time.monotonic() + 10
    while not world.expect()["web"].image and time.monotonic() < until:
        time.sleep(0.01)
    world.resources = {}
    world.expect()
    world.pulls.forget("web")
    while world.images.here and time.monotonic() < until:
        time.sleep(0.01)
    world.pulls.close()
    found = [(each.container, each.step, each.outcome, each.why) for each in world.entries]
    assert found == [
        ("web", "FetchImage", "failed", "no route to host"),
        ("web", "FetchImage", "done", ""),
        ("", "RemoveImage", "done", ""),
    ]


def test_what_does_not_fit_is_asked_for_once(worlds: Any) -> None:
    """It is here: to pull it again would change nothing."""
    world = worlds(image(pull="always"))
    world.images.entrypoint = ()
    world.expect()
    world.settle()
    assert (world.images.asked, world.images.fetched) == (1, 1)
    held = world.pulls.held("web")
    assert (held.reason, held.until) == ("ImageUnfit", 0)
    world.expect()
    world.settle()
    assert (world.images.asked, world.images.fetched) == (1, 1)


def test_whoever_closes_waits_for_all_that_fetch(worlds: Any) -> None:
    names = [f"docker://r{each}.example/a:1" for each in range(4)]
    world = worlds(*(image(f"c{row}", each) for row, each in enumerate(names)))
    world.images.tags = {each: f"sha256:{str(row) * 64}" for row, each in enumerate(names)}
    world.images.blocks = True
    world.expect()
    until = time.monotonic() + 10
    while world.images.fetched < len(names) and time.monotonic() < until:
        time.sleep(0.001)
    ours = [each for each in threading.enumerate() if each.name == "pull"]
    assert len(ours) == len(names)
    world.pulls.close()
    assert not any(each.is_alive() for each in ours)


def test_pins_that_nobody_needs_are_not_read(worlds: Any) -> None:
    world = worlds(container("web", rootfs={"path": "/r"}))
    world.store.damaged = "pins.json is damaged"
    assert world.expect() == {}
    world.pulls.forget("gone")
    world.pulls.tidy()


def doubts(world: World, name: str) -> bool:
    last: Any = None
    said = world.pulls.remark(Result(name, (), True, 0, None, (), last)).conditions
    return [each.reason for each in said] == ["ImageUnknown"]


def test_damaged_pins_concern_whoever_has_an_image(worlds: Any) -> None:
    """Who has run stays with what he ran from, who has not waits, and whose image is not a question goes on."""
    world = worlds(
        image(),
        image("new"),
        image("edited", "docker://r.example/other:2", pull="always"),
        image("sure", f"docker://r.example/a@{TWO}"),
        container("plain", rootfs={"path": "/r"}),
        pins={"web": Pin(TAG, ONE), "edited": Pin(TAG, ONE)},
    )
    world.images.put(ONE)
    world.images.put(TWO)
    world.records.update({name: SimpleNamespace(image=ONE) for name in ("web", "edited")})
    world.store.damaged = "pins.json is damaged"
    found = world.expect()
    world.settle()
    assert {name: each.digest for name, each in found.items()} == {
        "web": ONE,
        "edited": ONE,
        "sure": TWO,
        "new": "",
    }
    assert {name for name, each in found.items() if each.image} == {"web", "edited", "sure"}
    assert (world.images.asked, world.images.fetched) == (0, 0), "nobody is asked what a tag means now"
    held = world.pulls.held("new")
    assert (held.reason, held.message, held.until) == ("ImageUnknown", "pins.json is damaged", 0)
    assert {name for name in found if world.pulls.held(name)} == {"new"}
    assert {name for name in found if doubts(world, name)} == {"web", "edited", "new"}
    world.pulls.tidy()
    world.store.damaged = ""
    found = world.expect()
    world.settle()
    assert found["web"].digest == found["new"].digest == ONE
    assert not doubts(world, "web")
    assert set(world.images.here) == {ONE, TWO}, "nothing goes while nobody knows who has what"


def test_what_cannot_be_written_down_is_not_in_force(worlds: Any) -> None:
    """A full disk is the trouble of who would be born anew, is said, and is tried again."""
    world = worlds(image(), image("known"), pins={"known": Pin(TAG, ONE)})
    world.images.put(ONE)
    world.store.full = "writing pins.json: No space left on device"
    found = world.expect()
    assert found["known"].image
    world.settle()
    assert not world.expect()["web"].image
    held = world.pulls.held("web")
    assert held.reason == "PullFailed"
    assert "No space left on device" in held.message
    assert "tried again" in held.message
    world.store.full = ""
    until = time.monotonic() + 10
    while not world.expect()["web"].image and time.monotonic() < until:
        time.sleep(0.01)
    assert set(world.store.pins) == {"web", "known"}
    assert world.images.fetched == 0
    world.store.full = "no room"
    world.pulls.forget("known")
