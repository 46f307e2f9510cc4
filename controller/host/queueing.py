"""The driver of traffic control: rates of links of the host and of the namespaces that masu keeps.

It touches a link's root, a tree's classes, and one place among the filters of a hook. The root is masu's from the
first limit on: whatever else stands there is replaced. Other filters, and links without a limit, are left alone.
"""

from __future__ import annotations

import errno
from typing import Final

from controller.errors import StepFailed
from controller.host import queueing_read, queueing_write
from controller.host.links_write import Request
from controller.host.netlink import Netlink, Refused, Sockets
from controller.host.queueing_read import HOOK, HOOKS, ROOT, RTM_GETQDISC, RTM_GETTCLASS, RTM_GETTFILTER
from controller.model.quantity import format_rate
from controller.model.queueing import (
    TREE_HANDLE,
    Classifier,
    Direction,
    HtbTree,
    Node,
    QueueingSeen,
    Redirect,
    Shaper,
    changes,
)

_GONE: Final = frozenset({errno.ENODEV, errno.ENOENT})
_WORDS: Final = {errno.EOPNOTSUPP: "this kernel cannot do that", errno.ENODEV: "there is no such link"}
_DIRECTIONS: Final[tuple[Direction, ...]] = ("ingress", "egress")


class TrafficControl:
    """Stateless; every method may be called from any thread. Links are named by their numbers in `where`."""

    def __init__(self, namespaces: Sockets) -> None:
        self._namespaces = namespaces

    def look(self, where: str, index: int) -> QueueingSeen | None:
        """None when there is no such namespace, or no such link in it."""
        socket = self._namespaces.socket(where)
        if socket is None:
            return None
        try:
            return _Link(socket, index).look()
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            doing = f"reading the traffic control of link {index} in {_place(where)}"
            raise _failed(doing, error) from error

    def put(self, where: str, index: int, node: Node) -> None:
        """Nothing where it is so already; in place where the kernel can, so that what waits is not lost."""
        socket = self._namespaces.socket(where)
        if socket is None:
            raise StepFailed(f"{where} has no network namespace")
        try:
            _put(_Link(socket, index), node)
        except OSError as error:
            raise _failed(_doing(node, index, where), error) from error

    def take(self, where: str, index: int, node: Node) -> None:
        """Whatever masu has at the node's place, in whichever form. To take away what is gone is fine."""
        socket = self._namespaces.socket(where)
        if socket is None:
            return
        try:
            _take(_Link(socket, index), node)
        except OSError as error:
            if error.errno not in _GONE:
                raise _failed(f"no longer {_doing(node, index, where)}", error) from error


class _Link:
    """One link, seen through a socket of its namespace. Raises OSError, ENODEV when it is gone."""

    def __init__(self, socket: Netlink, index: int) -> None:
        self.index, self._socket = index, socket

    def look(self) -> QueueingSeen:
        top = self.discipline(ROOT)
        tree = self.tree(top)
        return QueueingSeen(
            root=tree or (queueing_read.root(top) if top else None),
            redirects=self.redirects() if self.has_hooks() else (),
            classifier=self.classifier() if tree else None,
        )

    def discipline(self, parent: int) -> queueing_read.Discipline | None:
        """At the root or at the hooks. Not by a dump, which is one of all links of the namespace."""
        try:
            data = self._socket.echo(RTM_GETQDISC, queueing_read.question(self.index, parent))
        except Refused as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return next(queueing_read.disciplines(data, self.index), None)

    def tree(self, top: queueing_read.Discipline | None) -> HtbTree | None:
        """None when what is at the root is something else."""
        if not top or not queueing_read.is_tree(top):
            return None
        below = self._socket.dump(RTM_GETTCLASS, queueing_read.question(self.index))
        queues = self._socket.dump(RTM_GETQDISC, queueing_read.question(self.index))
        return queueing_read.tree(
            top, queueing_read.classes(below), queueing_read.disciplines(queues, self.index)
        )

    def has_hooks(self) -> bool:
        found = self.discipline(HOOKS)
        return found is not None and found.kind == "clsact"

    def redirects(self) -> tuple[Redirect, ...]:
        return tuple(
            Redirect(direction, target)
            for direction in _DIRECTIONS
            for program, target in queueing_read.programs(self.filters(HOOK[direction]))
            if target and program == queueing_read.REDIRECTING
        )

    def classifier(self) -> Classifier | None:
        found = next(queueing_read.programs(self.filters(TREE_HANDLE)), None)
        return queueing_read.classifier(found[0]) if found and not found[1] else None

    def filters(self, parent: int) -> bytes:
        """Everybody's at that place; empty when there are none."""
        return self._socket.dump(RTM_GETTFILTER, queueing_read.question(self.index, parent))

    def request(self, *requests: Request) -> None:
        for each in requests:
            self._socket.request(each.kind, each.flags, each.body)

    def remove(self, request: Request) -> None:
        try:
            self.request(request)
        except Refused as error:
            if error.errno != errno.ENOENT:
                raise


def _put(link: _Link, node: Node) -> None:
    match node:
        case Shaper():
            _put_shaper(link, node)
        case HtbTree():
            _put_tree(link, node)
        case Redirect():
            _put_redirect(link, node)
        case Classifier():
            if link.classifier() != node:
                _put_filter(link, TREE_HANDLE, queueing_write.classifier(link.index, node))


def _put_shaper(link: _Link, wanted: Shaper) -> None:
    top = link.discipline(ROOT)
    found = queueing_read.root(top) if top else None
    if found == wanted:
        return
    if found and not isinstance(found, Shaper):
        link.remove(queueing_write.without_root(link.index))
    link.request(queueing_write.shaper(link.index, wanted))


def _put_tree(link: _Link, wanted: HtbTree) -> None:
    top = link.discipline(ROOT)
    found = link.tree(top)
    if found is None or (found.default, found.overhead) != (wanted.default, wanted.overhead):
        if top and top.handle:
            link.remove(queueing_write.without_root(link.index))
        link.request(queueing_write.tree(link.index, wanted))
        found = HtbTree(wanted.default, (), wanted.overhead)
    todo = changes(found, wanted)
    for each in todo.delete:
        link.remove(queueing_write.without_class(link.index, each))
    link.request(
        *(queueing_write.tree_class(link.index, each) for each in todo.put),
        *(queueing_write.queue(link.index, each) for each in todo.queues),
    )


def _put_redirect(link: _Link, wanted: Redirect) -> None:
    hooks = link.discipline(HOOKS)
    if hooks and hooks.kind != "clsact":  # an `ingress` discipline: it has one hook where two are needed
        link.remove(queueing_write.without_hooks(link.index))
        hooks = None
    if not hooks:
        link.request(queueing_write.hooks(link.index))
    if wanted not in link.redirects():
        place = HOOK[wanted.direction]
        _put_filter(link, place, queueing_write.redirect(link.index, wanted))


def _put_filter(link: _Link, parent: int, wanted: Request) -> None:
    """A filter of another kind or protocol at that priority has to go first; one of masu's is replaced at once."""
    try:
        link.request(wanted)
    except Refused as error:
        if error.errno == errno.ENODEV:  # there is no such target: what is there may be better than nothing
            raise
        link.remove(queueing_write.without_filter(link.index, parent))
        link.request(wanted)


def _take(link: _Link, node: Node) -> None:
    match node:
        case Shaper() | HtbTree():
            top = link.discipline(ROOT)
            if top and queueing_read.is_ours(top, node):
                link.request(queueing_write.without_root(link.index))
        case Redirect():
            _take_redirect(link, node)
        case Classifier():
            top = link.discipline(ROOT)
            if top and queueing_read.is_tree(top):
                link.request(queueing_write.without_filter(link.index, TREE_HANDLE))


def _take_redirect(link: _Link, gone: Redirect) -> None:
    """With the last filter go the hooks, which otherwise cost every packet a little."""
    if link.has_hooks():
        link.remove(queueing_write.without_filter(link.index, HOOK[gone.direction]))
        if not any(link.filters(HOOK[direction]) for direction in _DIRECTIONS):
            link.remove(queueing_write.without_hooks(link.index))


def _failed(doing: str, error: OSError) -> StepFailed:
    if not isinstance(error, Refused):
        return StepFailed(f"{doing}: the kernel does not answer")
    number = error.errno or 0
    said = error.said or _WORDS.get(number, error.strerror)
    return StepFailed(f"{doing}: {said} (errno {number})", errno=number)


def _place(where: str) -> str:
    return f"the network namespace of {where}" if where else "the host's network namespace"


def _doing(node: Node, index: int, where: str) -> str:
    link = f"link {index} in {_place(where)}"
    match node:
        case Shaper():
            return f"limiting {link} to {format_rate(node.rate_bits)}"
        case HtbTree():
            return f"sharing {link} out among {len(node.classes)} classes"
        case Redirect():
            return f"redirecting the {node.direction} of {link}"
        case Classifier():
            return f"classifying at {link} by program {node.digest}"
