"""The own `dataclass` against the standard one: whatever that does, it does."""

from __future__ import annotations

import copy
import dataclasses
import json
import operator
import pickle
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from itertools import product
from typing import Any, ClassVar

import pytest

from controller import frozen
from controller.frozen import as_dict
from controller.model.event import Event
from controller.model.launch import BindMount, LaunchRecipe
from controller.model.record import Exit, Record


class Point:
    """Where."""

    kind: ClassVar[str] = "point"
    x: int
    y: int = 0
    more: Mapping[str, int] = dataclasses.field(default_factory=dict, compare=False)
    note: str = dataclasses.field(default="", repr=False, compare=False)

    @property
    def far(self) -> bool:
        return self.x > 10


class One:
    only: Any


class Empty:
    pass


class Told:
    x: int

    def __repr__(self) -> str:
        return "told"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 7


def _twins(cls: type, *, order: bool = False) -> tuple[Any, Any]:
    """(the standard's, masu's)"""
    return tuple(  # type: ignore[return-value]
        make(frozen=True, slots=True, order=order)(type(cls.__name__, (), dict(cls.__dict__)))
        for make in (dataclasses.dataclass, frozen.dataclass)
    )


def _outcome(work: Any) -> Any:
    try:
        return work()
    except Exception as error:  # noqa: BLE001
        return type(error)


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    ((1, 2), {}),
    ((), {"x": 3, "note": "n"}),
    ((1, 2, {"a": 1}, "n"), {}),
    ((11,), {"more": {"b": 2}}),
    ((), {}),
    ((1, 2, {}, "", 5), {}),
    ((1,), {"unknown": 1}),
]


def _seen(cls: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    found = cls(*arguments, **keywords)
    return (
        repr(found),
        dataclasses.asdict(found),
        dataclasses.astuple(found),
        found.far,
        found.kind,
        hash(found),
    )


@pytest.mark.parametrize("call", CALLS)
def test_they_are_made_shown_and_taken_apart_alike(call: tuple[Any, Any]) -> None:
    standard, own = _twins(Point)
    assert _outcome(partial(_seen, own, *call)) == _outcome(partial(_seen, standard, *call))


def _result(cls: Any, operation: Any, left: tuple[Any, Any], right: tuple[Any, Any]) -> Any:
    return operation(cls(*left[0], **left[1]), cls(*right[0], **right[1]))


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
@pytest.mark.parametrize("order", [True, False])
def test_they_compare_alike(name: str, order: bool) -> None:
    both, operation = _twins(Point, order=order), getattr(operator, name)
    for pair in product(CALLS[:5], repeat=2):
        standard, own = (_outcome(partial(_result, each, operation, *pair)) for each in both)
        assert own == standard
    standard, own = (_outcome(partial(operation, each(1), (1, 0))) for each in both)
    assert own == standard


def _alone(cls: Any, arguments: tuple[Any, ...]) -> Any:
    found = cls(*arguments)
    return repr(found), found == found, hash(found)  # noqa: PLR0124


@pytest.mark.parametrize("cls", [One, Empty, Told])
@pytest.mark.parametrize("arguments", [(), (1,), (float("nan"),), ([],)])
def test_few_fields_and_methods_of_its_own(cls: type, arguments: tuple[Any, ...]) -> None:
    standard, own = (_outcome(partial(_alone, each, arguments)) for each in _twins(cls))
    assert own == standard


def test_nothing_is_changed_and_nothing_added() -> None:
    found = _twins(Point)[1](1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="'x'"):
        found.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="'x'"):
        del found.x
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.other = 2
    assert not hasattr(found, "__dict__")
    assert dataclasses.replace(found, x=5) == type(found)(5)
    assert type(found).__match_args__ == ("x", "y", "more", "note")


def test_a_class_below_has_the_fields_of_the_one_above_whichever_is_made_first() -> None:
    for first in (0, 1):

        @frozen.dataclass(frozen=True, slots=True)
        class Above:
            x: int
            y: int = 1

        @frozen.dataclass(frozen=True, slots=True)
        class Below(Above):
            z: int = 2

        class Plain(Below):
            __slots__ = ()

        classes: list[Any] = [Above, Below]
        classes[first](5)
        assert repr(Below(1, z=3)).endswith("Below(x=1, y=1, z=3)")
        assert repr(Above(1)).endswith("Above(x=1, y=1)")
        assert repr(Plain(4)).endswith("Plain(x=4, y=1, z=2)")
        assert Below(1) != Above(1)
        assert Below(1) != Plain(1)


@frozen.dataclass(frozen=True, slots=True)
class Kept:
    x: int
    y: tuple[int, ...] = ()


def test_they_are_copied_and_pickled() -> None:
    found = Kept(1, (2,))
    assert copy.deepcopy(found) == copy.copy(found) == pickle.loads(pickle.dumps(found)) == found


def test_what_is_not_frozen_is_not_for_it() -> None:
    with pytest.raises(TypeError):
        frozen.dataclass(frozen=False, slots=True)


def test_the_program_starts_without_making_one_method() -> None:
    """Or a class has come in by the standard's way, and every start pays for it. `rest[5]`: frozen."""
    script = (
        "import dataclasses, sys; made = []; real = dataclasses._process_class\n"
        "def note(cls, *rest): made.append(cls.__module__) if rest[5] else None; return real(cls, *rest)\n"
        "dataclasses._process_class = note\n"
        "import importlib, pkgutil, controller.app, controller.cli\n"
        "for each in pkgutil.iter_modules(controller.app.__path__): "
        "importlib.import_module(f'controller.app.{each.name}')\n"
        "print(*sorted({each for each in made if each.startswith('controller.')}))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.split() == []


RACED = """
import sys, threading
from controller.frozen import as_dict, dataclass
from controller.model.event import Event
from controller.model.launch import BindMount, LaunchRecipe
from controller.model.record import Exit, Record
sys.setswitchinterval(1e-6)
wrong = []
for _ in range(300):
    @dataclass(frozen=True, slots=True)
    class Base:
        a: int
    @dataclass(frozen=True, slots=True)
    class More(Base):
        b: int
    ready = threading.Barrier(4)
    def first(cls=More):
        ready.wait()
        try:
            assert (cls(1, 2).a, cls(3, 4).b) == (1, 4)
        except BaseException as error:
            wrong.append(error)
    threads = [threading.Thread(target=first) for _ in range(4)]
    [each.start() for each in threads]
    [each.join() for each in threads]
print(wrong)
"""


def test_several_threads_may_be_the_first() -> None:
    argv = [sys.executable, "-c", RACED]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_as_dict_is_the_standards_as_json_has_it() -> None:
    records = (
        Record("web", "1", "2", "exited", "boot", exit=Exit(7, 0, "Error", 5)),
        Event(1, "web", "Started", "pid 7"),
        LaunchRecipe(
            "web", ("crun",), {"PATH": "/bin"}, "/", ("a",), (BindMount("/a", "/b"),), "pid", "m", 1
        ),
    )
    for each in records:
        assert json.dumps(as_dict(each)) == json.dumps(dataclasses.asdict(each))
