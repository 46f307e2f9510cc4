"""The driver of `Links`: links, addresses and routes of the host and of the namespaces that masu keeps."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from controller.errors import StepFailed
from controller.host import links_read, links_write
from controller.host.namespaces import KeptNamespaces
from controller.host.netlink import Netlink, Refused
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

_GONE: Final = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT})
_WORDS: Final = {errno.EOPNOTSUPP: "this kernel cannot do that"}


class Rtnetlink:
    """Stateless apart from the sockets; every method may be called from any thread."""

    def __init__(self, namespaces: KeptNamespaces) -> None:
        self._namespaces = namespaces

    def links(self, where: str) -> tuple[LinkSeen, ...] | None:
        data = self._dump(where, links_read.RTM_GETLINK, links_read.LINKS_QUESTION)
        return None if data is None else links_read.links(data)

    def addresses(self, where: str) -> tuple[AddressSeen, ...]:
        data = self._dump(where, links_read.RTM_GETADDR, links_read.ADDRESSES_QUESTION)
        return links_read.addresses(data or b"")

    def routes(self, where: str) -> tuple[RouteSeen, ...]:
        data = self._dump(where, links_read.RTM_GETROUTE, links_read.ROUTES_QUESTION)
        return links_read.routes(data or b"")

    def change(self, where: str, changes: Sequence[LinkChange]) -> None:
        """In order, up to the first that fails. To take away what is gone is fine."""
        socket = self._socket(where)
        with ExitStack() as stack:
            others = {name for each in changes for name in _others(each)}
            try:
                descriptors = {name: stack.enter_context(self._namespaces.opened(name)) for name in others}
            except OSError as error:
                raise StepFailed(f"the network namespace of {error.filename} is gone") from error
            for each in changes:
                _change(socket, where, each, descriptors)

    def _socket(self, where: str) -> Netlink:
        found = self._namespaces.socket(where)
        if found is None:
            raise StepFailed(f"{where} has no network namespace")
        return found

    def _dump(self, where: str, kind: int, question: bytes) -> bytes | None:
        socket = self._namespaces.socket(where)
        if socket is None:
            return None
        try:
            return socket.dump(kind, question)
        except OSError as error:
            raise StepFailed(f"reading {_place(where)}: {error.strerror} (errno {error.errno})") from error


def _change(socket: Netlink, where: str, wanted: LinkChange, descriptors: Mapping[str, int]) -> None:
    try:
        for each in links_write.requests(wanted, descriptors):
            socket.request(each.kind, each.flags, each.body)
    except Refused as error:
        number = error.errno or 0
        if number in _GONE and isinstance(wanted, (DeleteLink, DeleteAddress, DeleteRoute)):
            return
        said = _WORDS.get(number, error.strerror) if not error.said else error.said
        raise StepFailed(
            f"{_doing(wanted)} in {_place(where)}: {said} (errno {number})", errno=number
        ) from error
    except OSError as error:
        raise StepFailed(f"{_doing(wanted)} in {_place(where)}: the kernel does not answer") from error


def _others(wanted: LinkChange) -> tuple[str, ...]:
    match wanted:
        case NewLink(peer_where=name) if name:
            return (name,)
        case SetLink(where=name) if name is not None:
            return (name,)
    return ()


def _place(where: str) -> str:
    return f"the network namespace of {where}" if where else "the host's network namespace"


def _doing(wanted: LinkChange) -> str:
    match wanted:
        case NewLink():
            return f"making {wanted.kind} {wanted.name}"
        case SetLink():
            return f"changing link {wanted.name or wanted.index}"
        case DeleteLink():
            return f"deleting link {wanted.index}"
        case NewAddress():
            return f"adding address {wanted.address}"
        case DeleteAddress():
            return f"deleting address {wanted.address}"
        case NewRoute() | DeleteRoute():
            via = f" via {wanted.via}" if wanted.via else ""
            return (
                f"{'adding' if isinstance(wanted, NewRoute) else 'deleting'} route {wanted.destination}{via}"
            )
