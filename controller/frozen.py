"""`dataclass(frozen=True, slots=True)` that costs a start nothing but its names.

The standard one compiles six methods for every class when that is defined, and most classes are of no use to most
commands. Here a class gets its `__init__` when it is first called, and the other methods are the same ones for all.
What they do is held to the standard's by tests/unit/test_frozen.py; what it is worth is in docs/adr.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414
else:

    def dataclass(*, frozen: bool, slots: bool, order: bool = False) -> Callable[[type], type]:
        """As that of `dataclasses`, for classes without `__post_init__`, `InitVar` and keywords alone."""
        if not (frozen and slots):
            raise TypeError("for records that are frozen and have slots; else it is `dataclasses.dataclass`")

        def decorate(cls: type) -> type:
            made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(cls)
            methods = {"__init__": _lazy_init(made), **_METHODS, **(_ORDER if order else {})}
            for name, method in methods.items():
                if name not in cls.__dict__:
                    setattr(made, name, method)
            return made

        return decorate


def as_dict(record: Any) -> dict[str, Any]:
    """As `dataclasses.asdict`, for JSON: what is in it cannot change, so that nothing has to be copied."""
    cls = record.__class__
    names = _names.get(cls) or _names.setdefault(cls, tuple(each.name for each in dataclasses.fields(cls)))
    return {name: _as_plain(getattr(record, name)) for name in names}


def _as_plain(value: Any) -> Any:
    if value.__class__ in _PLAIN:
        return value
    if dataclasses.is_dataclass(value):
        return as_dict(value)
    if isinstance(value, (tuple, list)):
        return [_as_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _as_plain(each) for key, each in value.items()}
    return value


_names: dict[type, tuple[str, ...]] = {}
_PLAIN: Final = frozenset({str, int, bool, float, type(None)})


def _lazy_init(cls: Any) -> Callable[..., None]:
    """Makes way for the class's own. It knows its class: another thread may have made way while one is in here."""

    def first(self: Any, *args: Any, **kwargs: Any) -> None:
        init = _init_of(cls)
        cls.__init__ = init
        init(self, *args, **kwargs)

    return first


def _init_of(cls: Any) -> Callable[..., None]:
    parameters, lines, names = ["self"], [], dict[str, Any]()
    for field in dataclasses.fields(cls):
        name = value = field.name
        names[f"_set_{name}"] = getattr(cls, name).__set__
        if field.default is not dataclasses.MISSING:
            names[f"_default_{name}"] = field.default
            parameters.append(f"{name}=_default_{name}")
        elif field.default_factory is not dataclasses.MISSING:
            names[f"_make_{name}"] = field.default_factory
            parameters.append(f"{name}=_UNSAID")
            value = f"_make_{name}() if {name} is _UNSAID else {name}"
        else:
            parameters.append(name)
        lines.append(f" _set_{name}(self, {value})")
    names["_UNSAID"] = object()
    text = f"def __init__({', '.join(parameters)}):\n" + ("\n".join(lines) or " pass")
    found: dict[str, Any] = {}
    exec(text, names, found)  # noqa: S102  as the standard does it, of names that are those of fields
    init: Callable[..., None] = found["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


_Key = Callable[[Any], tuple[Any, ...]]
_keys: dict[type, _Key] = {}


def _key(record: Any) -> tuple[Any, ...]:
    """What of it is compared."""
    cls = record.__class__
    return (_keys.get(cls) or _key_of(cls))(record)


def _key_of(cls: Any) -> _Key:
    names = [each.name for each in dataclasses.fields(cls) if each.compare]
    get: Any = attrgetter(*names) if names else None
    found: _Key = get if len(names) > 1 else (lambda record: (get(record),) if names else ())
    _keys[cls] = found
    return found


def _compared(operation: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def compare(self: Any, other: Any) -> Any:
        return operation(_key(self), _key(other)) if other.__class__ is self.__class__ else NotImplemented

    return compare


def _hash(self: Any) -> int:
    return hash(_key(self))


def _repr(self: Any) -> str:
    shown = [f"{each.name}={getattr(self, each.name)!r}" for each in dataclasses.fields(self) if each.repr]
    return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _set(self: Any, name: str, value: Any) -> None:
    del self, value
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(self: Any, name: str) -> None:
    del self
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in dataclasses.fields(self)]


def _restore(self: Any, state: list[Any]) -> None:
    for each, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)


_METHODS: Final[dict[str, Any]] = {
    "__eq__": _compared(operator.eq),
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _set,
    "__delattr__": _delete,
    "__getstate__": _state,
    "__setstate__": _restore,
}
_ORDER: Final[dict[str, Any]] = {
    "__lt__": _compared(operator.lt),
    "__le__": _compared(operator.le),
    "__gt__": _compared(operator.gt),
    "__ge__": _compared(operator.ge),
}
