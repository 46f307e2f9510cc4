"""A little internet of network namespaces: a host with bridges, containers on them, and somebody outside.

Nothing of it is in the test's own namespace, and all of it ends with the descriptors that hold it.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from controller.host import syscalls

T = TypeVar("T")

PATIENCE_S = 0.35
TCP, UDP = "tcp", "udp"


class Namespace:
    """A network namespace that is there as long as this object is open."""

    def __init__(self, name: str) -> None:
        self.name = name
        with ThreadPoolExecutor(1) as pool:
            self._descriptor = pool.submit(_new_namespace).result(10)
        self.call(self._check)
        self.call(lambda: ip("link set lo up"))

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def call(self, work: Callable[[], T]) -> T:
        """Do it in there, in a thread that ends: sockets and processes made by it stay there."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self._in_there, work).result(60)

    def sysctl(self, path: str, value: str) -> None:
        def write() -> None:
            with open(f"/proc/sys/net/{path}", "w", encoding="ascii") as file:
                file.write(value)

        self.call(write)

    def close(self) -> None:
        os.close(self._descriptor)

    def _in_there(self, work: Callable[[], T]) -> T:
        syscalls.setns(self._descriptor, syscalls.CLONE_NEWNET)
        return work()

    def _check(self) -> None:
        here, own = (os.stat(f"/proc/{each}/ns/net").st_ino for each in ("thread-self", os.getpid()))
        assert here != own, "this would change the host's network"


def _new_namespace() -> int:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def ip(*lines: str) -> None:
    """ip(8), all lines in one process, in the calling thread's namespace."""
    command = ["timeout", "10", "ip", "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines), text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def nft(words: str) -> str:
    """nft(8), in the calling thread's namespace."""
    command = ["timeout", "10", "nft", "-f", "-"]
    done = subprocess.run(command, input=words, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Try:
    """Somebody's attempt to be answered at that address and port. `source`: the address that it comes from."""

    who: str
    address: str
    port: int
    protocol: str = TCP
    source: str = ""
    size: int = 1


class Servers:
    """One thread that answers on all sockets given to it: the name of the place, and who it was asked by."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = os.pipe()
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._sockets: list[socket.socket] = []

    def listen(self, place: Namespace, port: int) -> None:
        """On every address of both families, TCP and UDP."""
        for protocol in (TCP, UDP):
            made = place.call(lambda protocol=protocol: _listening(protocol, port))
            self._sockets.append(made)
            self._selector.register(made, selectors.EVENT_READ, (protocol, place.name))

    def close(self) -> None:
        os.close(self._woken)
        self._thread.join(5)
        for each in self._sockets:
            each.close()
        os.close(self._wake)
        self._selector.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select(1):
                if key.data is None:
                    return
                with suppress(OSError):
                    _answer(key.fileobj, *key.data)  # type: ignore[arg-type]


def _listening(protocol: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if protocol == UDP:  # the answer has to come from the address that was asked
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    made.bind(("::", port))
    if protocol == TCP:
        made.listen(64)
    made.setblocking(False)
    return made


def _answer(asked: socket.socket, protocol: str, name: str) -> None:
    if protocol == TCP:
        connection, peer = asked.accept()
        with connection:
            connection.send(f"{name} {_plain(peer[0])}".encode())
    else:
        _, asked_for, _, peer = asked.recvmsg(65536, 256)
        answer_from = [(level, kind, data[:16] + bytes(4)) for level, kind, data in asked_for]
        asked.sendmsg([f"{name} {_plain(peer[0])}".encode()], answer_from, 0, peer)


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:").partition("%")[0]


class Network:
    """The places by their names, and what they can reach."""

    def __init__(self) -> None:
        self.places: dict[str, Namespace] = {}
        self.servers = Servers()

    def add(self, name: str) -> Namespace:
        self.places[name] = Namespace(name)
        return self.places[name]

    def __getitem__(self, name: str) -> Namespace:
        return self.places[name]

    def close(self) -> None:
        self.servers.close()
        for each in self.places.values():
            each.close()

    def answers(self, tries: Iterable[Try]) -> list[str]:
        """To all of them at once: "place source-address-seen", or nothing where there was no answer in time."""
        tries = list(tries)
        sockets = {}
        grouped: dict[str, list[int]] = {}
        for index, each in enumerate(tries):
            grouped.setdefault(each.who, []).append(index)
        for who, indexes in grouped.items():
            made = self.places[who].call(lambda indexes=indexes: [_asking(tries[index]) for index in indexes])
            sockets.update(zip(indexes, made, strict=True))
        found = _await({index: each for index, each in sockets.items() if each is not None})
        return [found.get(index, "") for index in range(len(tries))]


def _asking(wanted: Try) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in wanted.address else socket.AF_INET
    kind = socket.SOCK_STREAM if wanted.protocol == TCP else socket.SOCK_DGRAM
    asking = socket.socket(family, kind)
    try:
        if wanted.source:
            asking.bind(socket.getaddrinfo(wanted.source, 0, family, kind)[0][4])
        asking.setblocking(False)
        target = socket.getaddrinfo(wanted.address, wanted.port, family, kind)[0][4]
        with suppress(BlockingIOError):
            asking.connect(target)
        if wanted.protocol == UDP:
            asking.send(b"?" * wanted.size)
    except OSError:
        asking.close()
        return None
    return asking


def _await(sockets: dict[int, socket.socket]) -> dict[int, str]:
    found: dict[int, str] = {}
    with selectors.DefaultSelector() as selector:
        for index, each in sockets.items():
            selector.register(each, selectors.EVENT_READ, index)
        end = time.monotonic() + PATIENCE_S
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                with suppress(OSError):
                    found[key.data] = key.fileobj.recv(200).decode()  # type: ignore[union-attr]
                selector.unregister(key.fileobj)
    for each in sockets.values():
        each.close()
    return found


def readings(values: Iterable[Any]) -> Iterator[str]:
    return (str(each) for each in values)
