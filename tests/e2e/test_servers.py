"""Checkpoints of what Debian ships: real servers under load, with connections that stay open, and much memory."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import socket
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from controller.host.departure import depart
from tests.e2e.boxes import PROGRAMS
from tests.e2e.harness import WAIT_S, Masu, NetworkedMasu, container, network, until
from tests.e2e.test_checkpoints import done

ADDRESS = "10.88.0.10"
FRONT = network("front", subnets=["10.88.0.0/24"])
TCP_WAIT_S = 6 * WAIT_S
"""Whoever had no answer sends again later and later."""


def program(*args: str, name: str = "web", **spec: Any) -> dict[str, Any]:
    """One of Debian's programs."""
    process = {"args": [*args], **spec.pop("process", {})}
    return container(name, rootfs={"path": PROGRAMS}, process=process, **spec)


def server(*args: str, **spec: Any) -> dict[str, Any]:
    """The same, with an address."""
    return program(*args, networks=[{"network": "front", "addresses": [ADDRESS]}], **spec)


def connect(masu: NetworkedMasu, port: int) -> socket.socket:
    """From the host that the test has made."""
    to = (ADDRESS, port)
    found: socket.socket = depart(
        f"/run/netns/{masu.host}", None, lambda: socket.create_connection(to, TCP_WAIT_S)
    )
    return found


def listening(masu: NetworkedMasu, port: int) -> socket.socket:
    """The first connection that is taken."""

    def attempt() -> socket.socket | None:
        try:
            return connect(masu, port)
        except OSError:
            return None

    found: socket.socket = until(attempt, lambda: f"port {port}: {masu.run('logs', 'web').stdout[-1000:]}")
    return found


def crash(masu: Masu, identity: str, name: str = "web") -> None:
    """And it goes on from that checkpoint."""
    before = masu.pid(name)
    os.kill(before, signal.SIGKILL)
    masu.restarted(before, name)
    assert masu.record(name)["restored"] == identity


class Redis:
    """One connection, and what is said on it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._stream = sock, sock.makefile("rwb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def ask(self, *words: str) -> Any:
        self.tell(*words)
        return self.hear()

    def tell(self, *words: str) -> None:
        self._stream.write(" ".join(words).encode() + b"\r\n")
        self._stream.flush()

    def hear(self) -> Any:
        line = self._stream.readline().decode()
        kind, rest = line[:1], line[1:].strip()
        assert kind in "+:$*", line
        if kind == "*":
            return [self.hear() for _ in range(int(rest))]
        if kind == "$" and int(rest) >= 0:
            return self._stream.read(int(rest) + 2)[:-2].decode()
        return "" if kind == "$" else rest


@contextlib.contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Done again and again by a thread of its own → how often so far. Its failure is the test's."""
    ended, failures = threading.Event(), list[Exception]()
    times = 0

    def again() -> None:
        nonlocal times
        try:
            while not ended.is_set():
                work()
                times += 1
        except Exception as error:  # noqa: BLE001  whatever it is, the test tells it
            failures.append(error)

    def so_far() -> int:
        assert not failures, failures
        return times

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    try:
        yield so_far
    finally:
        ended.set()
        thread.join(TCP_WAIT_S)
    assert not thread.is_alive()
    so_far()


REDIS = "/usr/bin/redis-server --bind 0.0.0.0 --protected-mode no --dir /var/lib/redis --appendonly yes"
BENCHMARK = f"/usr/bin/redis-benchmark -h {ADDRESS} -c 8 -n 100000000 -t incr -q"


def test_redis_keeps_its_clients_over_a_checkpoint_and_its_keys_over_a_crash(
    networked: NetworkedMasu,
) -> None:
    """Under load from another container; whoever asks all the while is never told twice, nor not at all."""
    redis = server(*REDIS.split(), checkpoint={"onFailure": "restore"})
    load = program(
        *BENCHMARK.split(), name="load", networks=[{"network": "front"}], limits={"cpu": {"max": "0.3"}}
    )
    networked.write(FRONT, redis)
    networked.start()
    with Redis(listening(networked, 6379)) as client, Redis(connect(networked, 6379)) as other:
        networked.write(FRONT, redis, load)
        clients = networked.running("load")
        keys = [f"key:{each}" for each in range(1000)]
        for each in keys:
            client.tell("set", each, each[::-1])
        assert {client.hear() for _ in keys} == {"OK"}
        counter = "counter:__rand_int__"
        until(lambda: int(client.ask("get", counter) or 0) > 1000, "there is load")
        told = itertools.count(1)

        def count() -> None:
            assert other.ask("incr", "mine") == str(next(told))

        with meanwhile(count) as asked:
            until(lambda: asked() > 10, "it asks")
            before = int(client.ask("get", counter))
            identity = done(networked, "checkpoint", "web").split(":")[0]
            far, counted = asked(), int(client.ask("get", counter))
            until(lambda: asked() > far + 10, "it goes on asking")
            until(lambda: int(client.ask("get", counter)) > counted, "there still is load")
        assert networked.pid("load") == clients, "none of its clients saw an error"
    crash(networked, identity)
    with Redis(listening(networked, 6379)) as client:
        assert client.ask("mget", *keys) == [each[::-1] for each in keys]
        assert int(client.ask("get", counter)) >= before
        assert 10 < int(client.ask("get", "mine")) <= far + 1
        assert "aof_last_write_status:ok" in client.ask("info", "persistence")


ALL_SORTS = """
import ctypes, json, os, select, signal, socket, struct, threading, time

libc = ctypes.CDLL(None, use_errno=True)

def sure(value):
    assert value >= 0, os.strerror(ctypes.get_errno())
    return value

timer = sure(libc.timerfd_create(1, 0o4000))
every = struct.pack("4q", 0, 10_000_000, 0, 10_000_000)
sure(libc.timerfd_settime(timer, 0, every, None))
os.mkdir("/watched")
watch = sure(libc.inotify_init1(0o4000))
for each in (b"/", b"/etc/passwd", b"/usr/lib"):
    sure(libc.inotify_add_watch(watch, each, 0x400))
watched = sure(libc.inotify_add_watch(watch, b"/watched", 8))
near, far = socket.socketpair()
out, into = os.pipe()
lines = open("/lines", "a")
seen = dict.fromkeys(("timer", "alarm", "signal", "watch", "pipe", "looks"), 0)
seen["shift"], seen["wrong"] = 0, []

def count(number, _):
    seen["alarm" if number == signal.SIGALRM else "signal"] += 1

def work():
    with far.makefile("rb") as numbers:
        for number in numbers:
            lines.write(number.decode())
            lines.flush()
            open("/watched/file", "w").close()
            os.write(into, number)

def look():
    last, first = time.monotonic(), time.time() - time.monotonic()
    while True:
        now = time.monotonic()
        if not last <= now < last + 60:
            seen["wrong"].append(f"the clock went from {last} to {now}")
        last, seen["shift"] = now, time.time() - now - first
        seen["looks"] += 1
        time.sleep(0.002)

for each in (signal.SIGALRM, signal.SIGUSR1):
    signal.signal(each, count)
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
signalled = ctypes.c_void_p()
sure(libc.timer_create(1, struct.pack("QiI48x", 0, signal.SIGUSR1, 0), ctypes.byref(signalled)))
sure(libc.timer_settime(signalled, 0, every, None))
signal.setitimer(signal.ITIMER_VIRTUAL, 3600)
for each in (work, look):
    threading.Thread(target=each, daemon=True).start()
poll = select.epoll()
for each in (timer, watch, out):
    poll.register(each, select.EPOLLIN)
sent = 0
with os.fdopen(out, "rb", buffering=0) as come:
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == timer:
                seen["timer"] += struct.unpack("Q", os.read(timer, 8))[0]
                sent += 1
                near.sendall(b"%d\\n" % sent)
            elif descriptor == watch:
                seen["watch"] += 1
                if (number := struct.unpack_from("i", os.read(watch, 4096))[0]) != watched:
                    seen["wrong"].append(f"an event of watch {number}")
            else:
                seen["pipe"] += 1
                if (number := come.readline()) != b"%d\\n" % seen["pipe"]:
                    seen["wrong"].append(f"{number} instead of {seen['pipe']}")
        seen["once"] = signal.getitimer(signal.ITIMER_VIRTUAL)[0]
        with open("/.seen", "w") as file:
            json.dump(seen, file)
        os.rename("/.seen", "/seen")
"""
COUNTED = ("timer", "alarm", "signal", "watch", "pipe", "looks")


def test_whatever_a_process_waits_for_comes_after_a_restore(masu: Masu) -> None:
    """Threads, timers, a file, a pipe and a socket between threads, inotify and epoll; its clock stood still."""
    masu.write(program("/usr/bin/python3", "-c", ALL_SORTS))
    assert masu.apply().returncode == 0

    def seen() -> dict[str, Any]:
        try:
            value: dict[str, Any] = json.loads(Path(f"/proc/{masu.pid()}/root/seen").read_text())
        except FileNotFoundError:  # it has not come so far
            return dict.fromkeys(COUNTED, 0)
        return value

    def all_further(than: dict[str, Any]) -> bool:
        now = seen()
        return all(now[each] > than[each] + 5 for each in COUNTED)

    def written() -> list[str]:
        return Path(f"/proc/{masu.pid()}/root/lines").read_text().split("\n")[:-1]

    until(lambda: all_further(dict.fromkeys(COUNTED, 0)), lambda: f"all come: {seen()}")
    begun = time.time()
    done(masu, "checkpoint", "web", "--stop")
    ended = time.time()
    last = json.loads(Path(f"/var/lib/masu/{masu.instance}/layers/web/upper/seen").read_text())
    done(masu, "checkpoints", "--verify")
    away = time.time() - ended
    done(masu, "restore", "web")
    until(lambda: all_further(last), lambda: f"all come again after {last}: {seen()}")
    now = seen()
    assert now["wrong"] == []
    assert now["once"] > 0, "what has not yet come is not forgotten"
    assert away < now["shift"] < time.time() - begun, "its clock stood still while it was away"
    count = len(written())
    assert written()[:count] == [str(each) for each in range(1, count + 1)]
    assert count > last["pipe"]


NGINX = """
daemon off;
user root;
worker_processes 2;
events {}
http {
    sendfile on;
    server { listen 80; root /srv; }
}
"""
"""Its workers as root: whose they usually are, masu may not look at everywhere; see the last test."""


def get(connection: http.client.HTTPConnection, path: str = "/") -> http.client.HTTPResponse:
    connection.request("GET", path)
    return connection.getresponse()


def kept(sock: socket.socket) -> http.client.HTTPConnection:
    """Made once, and not again when it is lost."""
    connection = http.client.HTTPConnection(ADDRESS)
    connection.sock, connection.auto_open = sock, 0
    return connection


def fetched(connection: http.client.HTTPConnection) -> bytes:
    return get(connection).read()


def test_nginx_ends_what_it_had_begun_before_a_restore(networked: NetworkedMasu, tmp_path: Path) -> None:
    """Half a request, a download, and a connection that is kept; after a crash they are gone, and new ones come."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("welcome")
    (site / "large").write_bytes(random.Random(7).randbytes(48 << 20))
    (tmp_path / "nginx.conf").write_text(NGINX)
    mounts = [
        {"source": str(site), "target": "/srv", "readOnly": True},
        {"source": str(tmp_path / "nginx.conf"), "target": "/etc/nginx/nginx.conf", "readOnly": True},
    ]
    networked.write(FRONT, server("/usr/sbin/nginx", mounts=mounts))
    assert networked.apply().returncode == 0
    with contextlib.ExitStack() as stack:
        idle, half, load = (
            stack.enter_context(contextlib.closing(kept(each)))
            for each in (listening(networked, 80), connect(networked, 80), connect(networked, 80))
        )
        assert fetched(idle) == b"welcome"
        assert half.sock
        half.sock.sendall(b"GET / HTTP/1.1\r\nHost: w")
        download = get(load, "/large")
        large = download.read(1 << 20)
        done(networked, "checkpoint", "web")
        assert fetched(idle) == b"welcome"
        large += download.read(1 << 20)
        before = networked.pid()
        done(networked, "checkpoint", "web", "--stop")
        done(networked, "restore", "web")
        assert networked.pid() not in {0, before}
        assert fetched(idle) == b"welcome"
        half.sock.sendall(b"eb\r\n\r\n")
        assert half.sock.recv(12) == b"HTTP/1.1 200"
        large += download.read()
        assert large == (site / "large").read_bytes()
        os.kill(networked.pid(), signal.SIGKILL)
        done(networked, "restore", "web")
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            fetched(idle)
    with contextlib.closing(kept(connect(networked, 80))) as late:
        assert fetched(late) == b"welcome"


ECHO = """
import socket
with socket.create_server(("", 7000)) as listener:
    while True:
        with listener.accept()[0] as connection:
            while data := connection.recv(65536):
                connection.sendall(data)
"""
BLOCK = 65536


def block(number: int) -> bytes:
    """A part of the natural numbers, eight bytes each."""
    return array("Q", range(number * BLOCK // 8, (number + 1) * BLOCK // 8)).tobytes()


def test_no_byte_of_a_stream_is_lost_or_comes_twice(networked: NetworkedMasu) -> None:
    """In either direction, through a checkpoint and two restores, while it never pauses."""
    networked.write(FRONT, server("/usr/bin/python3", "-c", ECHO))
    assert networked.apply().returncode == 0
    sent, come, over = itertools.count(), itertools.count(), threading.Event()
    with listening(networked, 7000) as peer, peer.makefile("rb") as stream:

        def send() -> None:
            peer.sendall(block(next(sent)))

        def receive() -> None:
            if data := stream.read(BLOCK):
                assert data == block(next(come))
            else:
                over.set()

        with meanwhile(receive) as received:
            with meanwhile(send):
                goes_on(received)
                done(networked, "checkpoint", "web")
                for _ in range(2):
                    goes_on(received)
                    done(networked, "checkpoint", "web", "--stop")
                    done(networked, "restore", "web")
                goes_on(received)
            assert not over.is_set()
            peer.shutdown(socket.SHUT_WR)
            assert over.wait(TCP_WAIT_S)
    assert next(come) == next(sent)


def goes_on(count: Callable[[], int]) -> None:
    before = count()
    until(lambda: count() > before + 10, "it goes on", TCP_WAIT_S)


DATA = "/var/lib/postgresql/data"
POSTGRES = f"""
[ -e {DATA} ] || initdb --auth=trust --data-checksums --no-sync --locale=C --wal-segsize=1 {DATA} || exit 1
echo "host all all 10.88.0.0/24 trust" >>{DATA}/pg_hba.conf
exec postgres -D {DATA} -c listen_addresses='*' -k /tmp
"""
TABLES = """
create extension amcheck;
create table one (id serial primary key, at timestamptz);
create table two (like one);
"""
INSERT = "with new as (insert into one (at) values (now()) returning *) insert into two select * from new;"
ODD = "select count(*) from one full join two using (id, at) where one.id is null or two.id is null"


def test_postgres_is_consistent_after_a_crash_and_goes_on(networked: NetworkedMasu) -> None:
    """A checkpoint among inserts of another container, whose session goes on; after a crash it makes another."""
    (tools,) = Path(PROGRAMS).glob("usr/lib/postgresql/*/bin")
    path = f"/{tools.relative_to(PROGRAMS)}"
    env = {"PATH": f"{path}:/usr/bin:/bin"}
    postgres = server(
        "/bin/sh",
        "-c",
        POSTGRES,
        process={"user": "101:103", "env": env},
        checkpoint={"onFailure": "restore"},
        namespaces={"user": "auto"},
    )
    load = program(
        "/bin/sh",
        "-c",
        f'yes "{INSERT}" | psql -q -v ON_ERROR_STOP=1 -h {ADDRESS} -U postgres',
        process={"env": env},
        name="load",
        networks=[{"network": "front"}],
        limits={"cpu": {"max": "0.3"}},
    )

    def ask(sql: str) -> str:
        asked = ["chroot", PROGRAMS, f"{path}/psql", "-h", ADDRESS, "-U", "postgres", "-Atc", sql]
        return networked.inside("", *asked).strip()

    def rows() -> int:
        return int(ask("select count(*) from one"))

    networked.write(FRONT, postgres)
    networked.start()
    until(lambda: "ready to accept" in networked.run("logs", "web").stderr, networked.log, TCP_WAIT_S)
    ask(TABLES)
    networked.write(FRONT, postgres, load)
    clients = networked.running("load")
    until(lambda: rows() > 100, "rows come")
    before = rows()
    identity = done(networked, "checkpoint", "web").split(":")[0]
    after = rows()
    until(lambda: rows() > after, "more rows come")
    assert networked.pid("load") == clients, "its session saw no error"
    crash(networked, identity)
    back = rows()
    assert back >= before
    networked.restarted(clients, "load")
    until(lambda: rows() > back, "and more")
    assert ask(ODD) == "0", "what was written at once is there at once"
    assert ask("select bt_index_check('one_pkey', true)") == ""


UPTIME = """
exec 3>/count
i=0
while :; do i=$((i+1)); read up idle </proc/uptime; echo $i $up >&3; sleep 0.02; done
"""
TEN_DAYS_S = 864_000


def test_a_container_with_users_and_a_time_of_its_own_is_never_thrown_back(masu: Masu) -> None:
    """It counts, and writes its uptime beside: both only grow, through a checkpoint and two restores."""
    spaces = {"user": "auto", "time": {"boottime": "10d"}}
    masu.write(program("/bin/dash", "-c", UPTIME, namespaces=spaces))
    assert masu.apply().returncode == 0

    def lines() -> list[list[str]]:
        try:
            text = Path(f"/proc/{masu.pid()}/root/count").read_text()
        except FileNotFoundError:  # it has not come so far
            return []
        return [each.split() for each in text.split("\n")[:-1]]

    def further(than: int) -> int:
        until(lambda: len(lines()) > than + 20, "it counts")
        return len(lines())

    begun = time.monotonic()
    count = further(0)
    done(masu, "checkpoint", "web")
    further(len(lines()))
    for _ in range(2):
        done(masu, "restore", "web")
        further(count)
    found = lines()
    assert [int(each[0]) for each in found] == [*range(1, len(found) + 1)]
    uptimes = [float(each[1]) for each in found]
    assert uptimes == sorted(uptimes)
    assert uptimes[0] > TEN_DAYS_S
    assert uptimes[-1] - uptimes[0] < time.monotonic() - begun
    assert float(done(masu, "exec", "web", "--", "cat", "/proc/uptime").split()[0]) >= uptimes[-1]


MEMORY = """
import mmap, os, signal, sys, zlib
size = int(sys.argv[1]) << 20
held = mmap.mmap(-1, size, getattr(mmap, sys.argv[2]) | mmap.MAP_ANONYMOUS)
block = os.urandom(4 << 20)
for turn in range(size // len(block)):
    held[turn * len(block) : (turn + 1) * len(block)] = block[turn:] + block[:turn]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
was = zlib.crc32(held)
print("held", flush=True)
while signal.sigwait({signal.SIGUSR1}):
    print("same" if zlib.crc32(held) == was else "another", flush=True)
"""


@pytest.mark.parametrize(
    ("mebibytes", "kind"),
    [(100, "MAP_PRIVATE"), (100, "MAP_SHARED"), pytest.param(1024, "MAP_PRIVATE", marks=pytest.mark.slow)],
)
def test_memory_is_the_same_to_its_last_byte(masu: Masu, mebibytes: int, kind: str) -> None:
    """Its owner says so; and what cannot be compressed takes as much room in the store."""
    masu.write(program("/usr/bin/python3", "-c", MEMORY, str(mebibytes), kind))
    assert masu.apply().returncode == 0

    def said(words: list[str]) -> None:
        until(lambda: masu.run("logs", "web").stdout.split() == words, str(words), TCP_WAIT_S)

    said(["held"])
    done(masu, "checkpoint", "web", "--stop")
    (made,) = masu.checkpoints()
    assert mebibytes << 20 <= made["stored"] < (mebibytes + 32) << 20
    done(masu, "restore", "web")
    os.kill(masu.pid(), signal.SIGUSR1)
    said(["held", "same"])


def test_whose_user_masu_may_not_look_at_is_told_before_anything_is_frozen(masu: Masu) -> None:
    """Without CAP_SYS_RESOURCE; in a user namespace of its own nothing is in the way."""
    lacking = ["setpriv", "--bounding-set", "-sys_resource", "--"]
    masu.prefix = lambda: lacking  # type: ignore[method-assign]
    sleeper: dict[str, Any] = {"process": {"user": "33:33"}}
    masu.write(program("/bin/sleep", "1000", **sleeper))
    assert masu.apply().returncode == 0
    pid = masu.pid()
    reason = f"process {pid}: it is not masu's own user, and masu lacks CAP_SYS_RESOURCE to read its limits"
    way_out = "with namespaces: {user: auto} in the spec it can be dumped all the same"
    said = masu.run("preflight").stdout
    assert said == f"web: no checkpoint now\n  container web: {reason}: {way_out}\n"
    assert reason in done(masu, "checkpoint", "web", code=1)
    assert masu.pid() == pid
    masu.write(program("/bin/sleep", "1000", namespaces={"user": "auto"}, **sleeper))
    assert masu.apply().returncode == 0
    assert masu.run("preflight").returncode == 0
    identity = done(masu, "checkpoint", "web").split(":")[0]
    done(masu, "restore", "web")
    assert masu.record()["restored"] == identity
