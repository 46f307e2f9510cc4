"""The driver of `Links`: links, addresses and routes of the host and of the namespaces that masu keeps."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from controller.errors import StepFailed
from controller.host import links_read, links_write
from controller.host.netlink import Netlink, Refused, Sockets
from controller.model.links import (
    AddressSeen,
    DeleteAddress,
    DeleteLink,
    DeleteRoute,
    LinkChange,
    LinkSeen,
    NewAddress,
    NewLink,
    NewRoute,
    RouteSeen,
    SetLink,
)

T = TypeVar("T")

_GONE: Final = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT})
_WORDS: Final = {errno.EOPNOTSUPP: "this kernel cannot do that"}


class Rtnetlink:
    """Every method may be called from any thread. Most answers are those of the last time: they are kept with what
    they were made of, one of each kind, for as long as their socket."""

    def __init__(self, namespaces: Sockets) -> None:
        self._namespaces = namespaces
        self._read: WeakKeyDictionary[Netlink, dict[int, tuple[bytes, Any]]] = WeakKeyDictionary()

    def links(self, where: str) -> tuple[LinkSeen, ...] | None:
        return self._dump(where, links_read.RTM_GETLINK, links_read.LINKS_QUESTION, links_read.links)

    def link(self, where: str, name: str) -> LinkSeen | None:
        socket = self._namespaces.socket(where)
        if socket is None:
            return None
        try:
            data = socket.get(links_read.RTM_GETLINK, links_read.link_question(name))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise _unreadable(where, error) from error
        return next(iter(links_read.links(data)), None)

    def addresses(self, where: str) -> tuple[AddressSeen, ...]:
        question = links_read.ADDRESSES_QUESTION
        return self._dump(where, links_read.RTM_GETADDR, question, links_read.addresses) or ()

    def routes_over(self, where: str, link: int) -> tuple[RouteSeen, ...]:
        socket = self._namespaces.socket(where)
        if socket is None:
            return ()
        try:
            found = links_read.routes(socket.dump(links_read.RTM_GETROUTE, links_read.routes_question(link)))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return ()
            raise _unreadable(where, error) from error
        return tuple(each for each in found if each.index == link)

    def routes(self, where: str) -> tuple[RouteSeen, ...]:
        return self._dump(where, links_read.RTM_GETROUTE, links_read.ROUTES_QUESTION, links_read.routes) or ()

    def change(self, where: str, changes: Sequence[LinkChange]) -> None:
        """In order, up to the first that fails. To take away what is gone is fine."""
        socket = self._socket(where)
        with ExitStack() as stack:
            namespaces = {
                name: stack.enter_context(self._opened(name)) for each in changes for name in _elsewhere(each)
            }
            for each in changes:
                links = {name: link.index for name in _names(each) if (link := self.link(where, name))}
                _change(socket, where, each, links_write.Places(links, namespaces))

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        try:
            with self._namespaces.opened(name) as descriptor:
                yield descriptor
        except FileNotFoundError as error:
            raise StepFailed(f"{name} has no network namespace") from error

    def _socket(self, where: str) -> Netlink:
        found = self._namespaces.socket(where)
        if found is None:
            raise StepFailed(f"{where} has no network namespace")
        return found

    def _dump(self, where: str, kind: int, question: bytes, read: Callable[[bytes], T]) -> T | None:
        socket = self._namespaces.socket(where)
        if socket is None:
            return None
        try:
            data = socket.dump(kind, question)
        except OSError as error:
            raise _unreadable(where, error) from error
        of_socket = self._read.setdefault(socket, {})
        last = of_socket.get(kind)
        if last is None or last[0] != data:
            last = of_socket[kind] = (data, read(data))
        found: T = last[1]
        return found


def _change(socket: Netlink, where: str, wanted: LinkChange, at: links_write.Places) -> None:
    removes = isinstance(wanted, (DeleteLink, DeleteAddress, DeleteRoute))
    try:
        for each in links_write.requests(wanted, at):
            socket.request(each.kind, each.flags, each.body)
    except KeyError as error:
        if not removes:
            why = f"there is no link {error.args[0]}"
            raise StepFailed(f"{_doing(wanted)} in {_place(where)}: {why}", errno=errno.ENODEV) from error
    except Refused as error:
        number = error.errno or 0
        if not (removes and number in _GONE):
            said = error.said or _WORDS.get(number, error.strerror)
            text = f"{_doing(wanted)} in {_place(where)}: {said} (errno {number})"
            raise StepFailed(text, errno=number) from error
    except OSError as error:
        raise StepFailed(f"{_doing(wanted)} in {_place(where)}: the kernel does not answer") from error


def _elsewhere(wanted: LinkChange) -> tuple[str, ...]:
    """The namespaces that a change needs besides the one that it is made in."""
    match wanted:
        case NewLink(where=name) if name:
            return (name,)
        case SetLink(where=name) if name is not None:
            return (name,)
    return ()


def _names(wanted: LinkChange) -> set[str]:
    """Of the links that a change needs the numbers of."""
    found: set[int | str | None]
    match wanted:
        case NewLink():
            found = {wanted.master, wanted.parent}
        case SetLink():
            found = {wanted.link, wanted.master}
        case _:
            found = {wanted.link}
    return {each for each in found if isinstance(each, str) and each}


def _unreadable(where: str, error: OSError) -> StepFailed:
    return StepFailed(
        f"reading {_place(where)}: {error.strerror} (errno {error.errno})", errno=error.errno or 0
    )


def _place(where: str) -> str:
    return f"the network namespace of {where}" if where else "the host's network namespace"


def _doing(wanted: LinkChange) -> str:
    match wanted:
        case NewLink():
            return f"making {wanted.kind} {wanted.name}"
        case SetLink():
            return f"changing link {wanted.name or wanted.link}"
        case DeleteLink():
            return f"deleting link {wanted.link}"
        case NewAddress():
            return f"adding address {wanted.address}"
        case DeleteAddress():
            return f"deleting address {wanted.address}"
        case NewRoute() | DeleteRoute():
            via = f" via {wanted.via}" if wanted.via else ""
            return (
                f"{'adding' if isinstance(wanted, NewRoute) else 'deleting'} route {wanted.destination}{via}"
            )
