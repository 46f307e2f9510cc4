"""Networks: start on a bridge, repair of what somebody deletes, looking at many, and what a link carries.

The host is a network namespace of the benchmark's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from controller.host import nfnetlink, syscalls
from controller.host.namespaces import KeptNamespaces
from controller.host.rtnetlink import Rtnetlink
from controller.host.visits import Visits
from controller.model import marks
from controller.model.links import DeleteAddress, DeleteLink
from tests.bench import start
from tests.bench.bare import Bare, bare
from tests.bench.look import observe
from tests.bench.options import Options
from tests.bench.rows import Row, median, spread
from tests.bench.world import ANCHOR, WAIT_S, World, names, until

NETWORK, SUBNET = "front", "10.88.0.0/16"
CONTAINERS = 20
PAUSE_S, RULES_PAUSE_S = 0.05, 0.8
"""What is repaired more often than that counts as a fight, in which repairs are slowed down."""
START_BUDGET, ADDRESS_MS, VETH_MS, RULES_MS, CARRIED = 2.5, 20, 50, 50, 0.98
TRANSFER_S, TRANSFERS = 2.0, 5


class NetworkedWorld(World):
    """`host`: the network namespace in which the daemon runs."""

    def __init__(self) -> None:
        super().__init__()
        self.host = self.instance
        _command("ip", "netns", "add", self.host)
        self.inside("ip", "link", "set", "lo", "up")

    def argv(self) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.host}", *super().argv()]

    def inside(self, *words: str) -> str:
        return _command("nsenter", f"--net=/run/netns/{self.host}", *words)

    def start(self, *options: str) -> None:
        network = {"subnets": [SUBNET, "fd88::/64"]}
        spec = {"apiVersion": "masu/v1", "kind": "Network", "metadata": {"name": NETWORK}, "spec": network}
        (self.source / "networks.yaml").write_text(yaml.safe_dump(spec))
        super().start(*options)

    def close(self) -> None:
        super().close()
        _command("ip", "netns", "del", self.host)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread, and those that it starts, are in the host's namespace meanwhile."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/run/netns/{self.host}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(there, syscalls.CLONE_NEWNET)
            yield
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
            os.close(home)
            os.close(there)

    def _spec(self, name: str, state: str, limits: dict[str, Any]) -> dict[str, Any]:
        found = super()._spec(name, state, limits)
        found["spec"]["networks"] = [{"network": NETWORK}]
        return found


def measure(options: Options) -> list[Row]:
    with _running(0) as world:
        rows = [*_start(world, options), *_throughput(world)]
    with _running(CONTAINERS) as world, world.entered():
        rows += _repair(world, options)
    for count in options.looked_at:
        with _running(count - 1) as world, world.entered():
            rows += observe(world, count, "on a network", budget_s=None)
    return rows


@contextmanager
def _running(count: int) -> Iterator[NetworkedWorld]:
    world = NetworkedWorld()
    try:
        world.start()
        if count:
            world.write(names("c", count))
            world.marks.wait(names("c", count), WAIT_S)
        world.until_converged()
        yield world
    except BaseException:
        sys.stderr.write(world.log()[-3000:])
        raise
    finally:
        world.close()


# --- start ---


def _start(world: NetworkedWorld, options: Options) -> list[Row]:
    with bare(world, "by-hand") as hand, bare(world, "by-script") as script:
        wanted = names("s", options.starts + 1)
        hand.prepare(wanted, ANCHOR, network=lambda _: "")
        script.prepare(wanted, ANCHOR, lambda name: f"/run/netns/{_place(world, name)}")
        _bridge_by_hand(world)
        kinds: list[Callable[[str], float]] = [
            lambda name: start.by_masu(world, name),
            lambda name: start.by_hand(world, hand, name),
            lambda name: _by_script(world, script, name),
        ]
        samples = [[kind(name) for kind in kinds] for name in wanted][1:]
    ours, without, theirs = ([1000 * each[kind] for each in samples] for kind in range(3))
    return [
        *spread(
            "start on a bridge: file → workload runs, against crun without a network",
            ours,
            "ms",
            p50=(median(without), START_BUDGET),
        ),
        *spread("start on a bridge: the same, against `ip` and crun", ours, "ms", p50=(median(theirs), None)),
        *spread("start on a bridge: `ip` and crun in a shell", theirs, "ms"),
    ]


def _by_script(world: NetworkedWorld, hand: Bare, name: str) -> float:
    """What masu does, as a careful person writes it: two processes of `ip -batch` and one of `ip netns`."""
    place, link = _place(world, name), f"v{name}"
    outside = f"link add {link} type veth peer name eth0 netns {place}\\nlink set {link} master hand up\\n"
    inside = "link set lo up\\naddr add 10.99.0.2/16 dev eth0\\naddr add fd99::2/64 dev eth0 nodad\\n"
    inside += "link set eth0 up\\nroute add default via 10.99.0.1\\nroute add default via fd99::1\\n"
    enter = f"nsenter --net=/run/netns/{world.host}"
    time.sleep(PAUSE_S)
    at = time.monotonic()
    hand.do(
        f"ip netns add {place} && printf '{outside}' | {enter} ip -batch - "
        f"&& printf '{inside}' | ip -n {place} -batch -"
    )
    hand.start(name)
    took = world.marks.wait([name], WAIT_S) - at
    hand.delete_all([name])
    hand.do(f"ip netns del {place}")
    return took


def _bridge_by_hand(world: NetworkedWorld) -> None:
    world.inside("ip", "link", "add", "hand", "up", "type", "bridge")
    world.inside("ip", "addr", "add", "10.99.0.1/16", "dev", "hand")
    world.inside("ip", "addr", "add", "fd99::1/64", "dev", "hand", "nodad")


def _place(world: NetworkedWorld, name: str) -> str:
    return f"{world.instance}-{name}"


# --- repair ---


def _repair(world: NetworkedWorld, options: Options) -> list[Row]:
    links = Rtnetlink(KeptNamespaces(str(world.run_dir / "netns"), Visits()))
    wanted = names("c", CONTAINERS)
    samples: list[list[float]] = [[], [], [], []]
    for index in range(options.repairs):
        name = wanted[index % CONTAINERS]
        samples[0].append(1000 * _address(world, links, name))
        whole, after = _veth(world, links, name)
        samples[1].append(1000 * whole)
        samples[3].append(1000 * after)
    samples[2] += [1000 * _rules(world) for _ in range(options.kills)]
    return [
        *spread("repair: address deleted → back", samples[0], "ms", p99=(None, ADDRESS_MS)),
        *spread("repair: a veth, from the call that deletes it → back with all on it", samples[1], "ms"),
        *spread("repair: the same, from when that call returns", samples[3], "ms", p99=(None, VETH_MS)),
        *spread("repair: ruleset flushed → back", samples[2], "ms", p99=(None, RULES_MS)),
    ]


def _address(world: NetworkedWorld, links: Rtnetlink, name: str) -> float:
    time.sleep(PAUSE_S)
    before = set(links.addresses(name))
    gone = next(each for each in before if each.ours and ":" not in each.address)
    at = time.monotonic()
    links.change(name, (DeleteAddress(gone.index, gone.address),))
    return until(lambda: set(links.addresses(name)) == before, f"the address of {name}") - at


def _veth(world: NetworkedWorld, links: Rtnetlink, name: str) -> tuple[float, float]:
    """The kernel takes its time to delete a link, waiting for readers on all processors, and tells of it before."""
    time.sleep(PAUSE_S)

    def picture() -> tuple[set[str], set[str], bool]:
        addresses = {each.address for each in links.addresses(name)}
        routes = {f"{each.destination} {each.via}" for each in links.routes(name)}
        return addresses, routes, links.link("", end) is not None

    end = marks.veth_name(world.instance, name, NETWORK)
    before = picture()
    at = time.monotonic()
    links.change("", (DeleteLink(end),))
    deleted = time.monotonic()
    back = until(lambda: picture() == before, f"the veth of {name}")
    return back - at, back - deleted


def _rules(world: NetworkedWorld) -> float:
    """From the moment at which the table is seen to be gone, to that at which it is there again, all at once."""
    time.sleep(RULES_PAUSE_S)
    table = marks.table_name(world.instance)
    with subprocess.Popen(["nft", "flush", "ruleset"]):
        at = until(lambda: not nfnetlink.families_of(table), "no ruleset", pause_s=0)
        return until(lambda: bool(nfnetlink.families_of(table)), "the ruleset") - at


# --- throughput ---


def _throughput(world: NetworkedWorld) -> list[Row]:
    """TCP from the host's namespace into a container, and into a namespace that hangs on a bridge made by hand."""
    place = _place(world, "hand")
    _command("ip", "netns", "add", place)
    try:
        world.inside("ip", "link", "add", "vhand", "type", "veth", "peer", "name", "eth0", "netns", place)
        world.inside("ip", "link", "set", "vhand", "master", "hand", "up")
        for words in ("link set lo up", "addr add 10.99.0.3/16 dev eth0", "link set eth0 up"):
            _command("ip", "-n", place, *words.split())
        ours = f"{world.run_dir}/netns/{ANCHOR}"
        pairs = [
            (_carried(world, ours), _carried(world, f"/run/netns/{place}")) for _ in range(TRANSFERS + 1)
        ]
    finally:
        _command("ip", "netns", "del", place)
    found, by_hand = (median([pair[kind] for pair in pairs[1:]]) for kind in range(2))
    name = "TCP into an unlimited container, against a veth on a bridge made by hand"
    return [Row(name, found, "Gbit/s", by_hand, CARRIED, at_least=True)]


def _carried(world: NetworkedWorld, place: str) -> float:
    """Gbit/s as received."""
    (address,) = (
        each["local"]
        for link in json.loads(
            _command("nsenter", f"--net={place}", "ip", "-j", "-4", "addr", "show", "eth0")
        )
        for each in link["addr_info"]
    )
    serve = ["nsenter", f"--net={place}", "iperf3", "-s", "-1", "-J"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            probe = ["nsenter", f"--net={place}", "ss", "-Hltn", "sport", "=", "5201"]
            until(lambda: _command(*probe), "iperf3 listens", pause_s=0.01)
            world.inside("iperf3", "-c", address, "-t", str(TRANSFER_S))
            report = json.loads(server.communicate(timeout=10)[0])
        finally:
            server.kill()
    return float(report["end"]["sum_received"]["bits_per_second"]) / 1e9


def _command(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr or done.stdout}")
    return done.stdout
