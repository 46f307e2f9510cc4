"""Promise 3: SIGKILL before and after every step of create, update, recreate and delete; then the same world.

MASU_FAIL_AT=<step kind>:<n> kills the process before the n-th step of that kind, `<kind>+:<n>` after it. The
steps to be interrupted are not listed here: they are what an uninterrupted run reports.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any, TypeVar

import pytest

from controller.steps import devices as devices_steps
from controller.steps import firewall as firewall_steps
from controller.steps import names as names_steps
from controller.steps import network as network_steps
from controller.steps import queueing as queueing_steps
from controller.steps import spaces as space_steps
from controller.steps._base import Step
from tests.e2e.harness import Masu, NetworkedMasu, container, memory_max, network, until, volume

FIRST = container(
    limits={"memory": {"max": "64Mi"}, "pids": {"max": 20}, "hugepages": {"2Mi": 0}},
    hostname="first",
    sysctls={"net.core.somaxconn": "64", "kernel.msgmax": "8000"},
    namespaces={"user": "auto"},
)
UPDATED = container(
    limits={"memory": {"max": "96Mi"}, "pids": {"max": 10}},
    hostname="second",
    sysctls={"net.core.somaxconn": "65", "kernel.msgmax": "8001"},
    namespaces={"user": "auto"},
    state="frozen",
)
RECREATED = container(
    limits={"memory": {"max": "96Mi"}},
    hostname="second",
    process={"env": {"A": "1"}},
    rootfs={"writable": "readOnly"},
)
COUNTED = container(
    process={"args": ["/bin/sh", "-c", "tail /dev/zero; exec sleep 100000"]},
    limits={"memory": {"max": "16Mi", "swap": "0"}},
    namespaces={"user": "auto"},
)
"""The kernel has ended a process of it by the time that anybody could write the next file."""
DEAF = container(
    process={"args": ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"], "stop": {"grace": "200ms"}}
)
KEPT = container("kept")
FRONT = network("front", subnets=["10.88.0.0/24", "fd88::/64"])
FRONT_SMALL = network("front", subnets=["10.88.0.0/24", "fd88::/64"], mtu=1400)
BACK = network("back", subnets=["10.89.0.0/24"])
ON_FRONT = {"network": "front", "addresses": ["10.88.0.2", "fd88::2"]}
"""Written, because what masu gives depends on what it gave before; see "network create" for that."""
WEB_ON_FRONT = container(networks=[ON_FRONT])
WEB_ANYWHERE = container(networks=[{"network": "front"}])
WEB_ON_BOTH = container(
    networks=[
        {"network": "front", "interface": "lan0", "addresses": ["10.88.0.9"], "mac": "02:00:00:00:00:09"},
        {"network": "back", "routes": [{"to": "10.9.0.0/16", "via": "10.89.0.7"}]},
    ]
)

BUDGET = {"max": "100Mbit"}
SHARED = network("front", subnets=["10.88.0.0/24", "fd88::/64"], egress=BUDGET, policy={"within": "deny"})
WEB_LIMITED = container(
    networks=[{**ON_FRONT, "egress": {"min": "10Mbit"}}, {"network": "back", "ingress": BUDGET}],
    ports=["127.0.0.1:8080:80"],
)
WEB_WITH_DEVICE = container(
    networks=[{"network": "lan"}, {"network": "direct", "interface": "dev0", "addresses": ["10.91.0.2/24"]}]
)
DATA = volume("data", size="16Mi")
DATA_LARGER = volume("data", size="24Mi", onDelete="remove", owner="7:8")
MOUNTED = [{"volume": "data", "target": "/data"}]
WEB_SIZED = container(rootfs={"size": "16Mi"}, mounts=MOUNTED)
WEB_SIZED_ALONE = container(rootfs={"size": "16Mi"})
LAN = network("lan", type="macvlan", parent="nic0", subnets=["10.90.0.0/24"])
DIRECT = network("direct", type="hostDevice", device="nic1")

BATCH = {
    "apiVersion": "masu/v1",
    "kind": "Group",
    "metadata": {"name": "batch"},
    "spec": {"cpu": {"max": "0.5"}, "pids": {"max": 50}},
}
ALONE = container(limits={"pids": {"max": 20}})
MEMBER = container(limits={"pids": {"max": 20}}, group="batch")
DEVICE = {"path": "/dev/cpu_dma_latency"}
WITH_DEVICES = container(devices=[{**DEVICE, "as": "one/latency"}, {**DEVICE, "as": "two"}])
WITH_OTHERS = container(
    devices=[{**DEVICE, "as": "two", "mode": "0666", "access": "r"}, {"path": "/dev/zero", "as": "three"}]
)

SITUATIONS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "create": ([KEPT], [KEPT, FIRST]),
    "update": ([KEPT, FIRST], [KEPT, UPDATED]),
    "recreate": ([KEPT, FIRST], [KEPT, RECREATED]),
    "delete": ([KEPT, COUNTED], [KEPT]),
    "stubborn": ([KEPT, DEAF], [KEPT]),
    "join": ([KEPT, ALONE], [KEPT, BATCH, MEMBER]),
    "leave": ([KEPT, BATCH, MEMBER], [KEPT, ALONE]),
    "network create": ([KEPT], [KEPT, FRONT, WEB_ANYWHERE]),
    "devices": ([KEPT, WITH_DEVICES], [KEPT, WITH_OTHERS]),
    "space create": ([KEPT], [KEPT, DATA, WEB_SIZED]),
    "space update": ([KEPT, DATA], [KEPT, DATA_LARGER]),
    "space unsize": ([KEPT, WEB_SIZED_ALONE], [KEPT, container()]),
    "space delete": ([KEPT, DATA, WEB_SIZED], [KEPT]),
    "network update": ([KEPT, FRONT, BACK, WEB_ON_FRONT], [KEPT, FRONT_SMALL, BACK, WEB_ON_BOTH]),
    "network shrink": ([KEPT, FRONT, BACK, WEB_ON_BOTH], [KEPT, FRONT, WEB_ON_FRONT]),
    "network delete": ([KEPT, FRONT, WEB_ON_FRONT], [KEPT]),
    "network delete limited": ([KEPT, SHARED, BACK, WEB_LIMITED], [KEPT]),
    "network limit": ([KEPT, FRONT, BACK, WEB_ON_BOTH], [KEPT, SHARED, BACK, WEB_LIMITED]),
    "network unlimit": ([KEPT, SHARED, BACK, WEB_LIMITED], [KEPT, FRONT, BACK, WEB_ON_BOTH]),
    "network device": ([KEPT, container()], [KEPT, LAN, DIRECT, WEB_WITH_DEVICE]),
    "network no device": ([KEPT, LAN, DIRECT, WEB_WITH_DEVICE], [KEPT, container()]),
}
NETWORKED = {each for each in SITUATIONS if each.startswith("network")}
SPACES = {each for each in SITUATIONS if each.startswith("space")}
"""The steps around those of spaces are interrupted elsewhere."""

EXPECTED_STEPS = {
    "create": {
        "CreateCgroup",
        "HandDown",
        "SetDeviceRules",
        "SetKnob",
        "PrepareLayer",
        "WriteBundle",
        "LaunchContainer",
    },
    "update": {"SetKnob", "SetHostname", "SetSysctl", "SetNetworkSetting", "SetFreezer"},
    "recreate": {
        "StopContainer",
        "RecordExit",
        "ClearRuntime",
        "RemoveLayer",
        "WriteBundle",
        "LaunchContainer",
    },
    "delete": {
        "StopContainer",
        "RemoveLayer",
        "ForgetContainer",
        "ForgetCounters",
        "RemoveCgroup",
        "RemoveRecord",
    },
    "stubborn": {"StopContainer", "KillContainer", "RemoveCgroup", "RemoveRecord"},
    "join": {"MoveCgroup", "SetKnob"},
    "leave": {"MoveCgroup", "RemoveBudget"},
    "devices": {"SetDeviceRules", "PutNode", "TakeNode"},
    "space create": {"MakeSpace", "MountSpace", "PrepareLayer"},
    "space update": {"GrowSpace", "SetSpaceRule", "SetSpaceOwner"},
    "space unsize": {"RemoveSpace", "PrepareLayer"},
    "space delete": {"UnmountSpace", "RemoveSpace", "RemoveLayer"},
    "network create": {
        "MakeBridge",
        "MakeNamespace",
        "MakeInterface",
        "AddAddress",
        "AddRoute",
        "WriteNames",
        "ApplyRuleset",
    },
    "network update": {
        "SetBridge",
        "SetInterface",
        "MakeInterface",
        "AddAddress",
        "RemoveAddress",
        "AddRoute",
    },
    "network shrink": {"SetInterface", "RemoveInterface", "RemoveBridge"},
    "network delete": {"RemoveInterface", "DropNamespace", "RemoveBridge", "RemoveRuleset", "ForgetNames"},
    "network delete limited": {"RemoveBridge", "RemoveFunnel"},
    "network limit": {
        "RemoveRoute",
        "MakeFunnel",
        "PutQueueing",
        "PutRedirect",
        "ApplyRuleset",
        "SetNetworkSetting",
    },
    "network unlimit": {"RemoveFunnel", "TakeQueueing", "TakeRedirect", "ApplyRuleset"},
    "network device": {"MakeInterface", "MoveInterface"},
    "network no device": {"RemoveInterface", "ReturnInterface"},
}
"""What each situation must at least do; guards against a situation that tests nothing."""

ONLY_ON_DRIFT = {"SetFunnel", "KeepNamespace", "RaiseLoopback"}
"""Steps of the network that no edit asks for: they put right what somebody else has changed."""

# A layer that lay in a space goes with the space, unless both are removed in the same pass: RemoveLayer.
UNCERTAIN = {"Await", "KillContainer", "SetNetworkSetting", "CreateCgroup", "RemoveLayer"}
CHANCY = {"RecordExit", "KillContainer", "GrowSpace", "RemoveBudget"}
AT_ONCE = 2
REACHED_WITHIN = 5
"""Changes."""
SETTLE_S = 5.0

Some = TypeVar("Some", bound=Masu)


def _steps(masu: Masu, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    """Kinds of the steps that an uninterrupted change applies, each as often as it is applied."""
    masu.write(*before)
    assert masu.apply().returncode == 0
    masu.write(*after)
    trace = masu.source.parent / "steps"
    assert masu.apply(env={"MASU_TRACE_STEPS": str(trace)}).returncode == 0
    return trace.read_text().split()


def _points(steps: list[str], wanted: set[str]) -> list[tuple[str, int, str]]:
    """(kind, n, before or after): before the first step, and after each; of one kind the first two and the last.

    Between two steps of a plan nothing happens, so after one is before the next.
    How often one waits, looks for an exit or tries to remove a budget that is not empty yet depends on the moment,
    and whether somebody is left to be killed.
    What was set up on the host for the first network is there for the next. Either a group or its first member
    makes the directory of a budget.
    """
    certain = [each for each in dict.fromkeys(steps) if each not in UNCERTAIN - wanted]
    counts = {kind: 1 if kind in CHANCY else steps.count(kind) for kind in certain}
    after = [
        (kind, number, "+")
        for kind, count in counts.items()
        for number in sorted({1, 2, count})
        if number <= count
    ]
    return [(certain[0], 1, ""), *after]


def _world(masu: Masu) -> dict[str, Any]:
    """What must be the same however one got there: everything but numbers that are new each time."""
    status = json.loads(masu.run("status", "-o", "json").stdout)
    for each in status["containers"]:
        each["pid"] = bool(each["pid"])
        del each["restarts"], each["exitCode"]
    for each in (*status["volumes"], *(one["disk"] for one in status["containers"] if one["disk"])):
        del each["used"]
    limit = memory_max(masu)
    traces = sorted(path for path in masu.traces() if "/keeper/" not in path)
    return {
        "containers": status["containers"],
        "volumes": status["volumes"],
        "devices": len(masu.in_space()),
        "processes": len(masu.processes()),
        "traces": traces,
        "limit": limit.read_text() if limit.exists() else None,
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("situation", sorted(set(SITUATIONS) - NETWORKED))
def test_killed_at_any_step_the_next_run_reaches_the_same_world(tmp_path: Path, situation: str) -> None:
    with _instances(Masu, tmp_path) as instances:
        _interrupt_everywhere(instances, situation, _world)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("situation", sorted(NETWORKED))
def test_killed_at_any_step_of_the_network_the_next_run_reaches_the_same_world(
    tmp_path: Path, situation: str
) -> None:
    with _instances(NetworkedMasu, tmp_path) as instances:
        for each, device in product(instances, ("nic0", "nic1")):
            each.ip("link", "add", device, "type", "veth", "peer", "name", f"{device}.wall")
        _interrupt_everywhere(instances, situation, lambda each: {**_world(each), **_network_world(each)})


@contextmanager
def _instances(kind: Callable[[Path], Some], directory: Path) -> Iterator[list[Some]]:
    """As many as share the points to be interrupted among them, at the same time."""
    with ExitStack() as stack:
        made = []
        for number in range(AT_ONCE):
            place = directory / str(number)
            place.mkdir()
            made.append(kind(place))
            stack.callback(made[-1].close)
        yield made


def _interrupt_everywhere(
    instances: Sequence[Some], situation: str, world: Callable[[Some], dict[str, Any]]
) -> None:
    given_up = Event()

    def interrupt(number: int) -> None:
        try:
            _interrupt(instances[number], situation, world, slice(number, None, len(instances)), given_up)
        except BaseException:
            given_up.set()
            raise

    with ThreadPoolExecutor(len(instances)) as pool:
        try:
            for _ in pool.map(interrupt, range(len(instances))):
                pass
        finally:
            given_up.set()


def _interrupt(
    masu: Some, situation: str, world: Callable[[Some], dict[str, Any]], share: slice, given_up: Event
) -> None:
    steps = _steps(masu, *SITUATIONS[situation])
    assert set(steps) >= EXPECTED_STEPS[situation], steps
    if situation in SPACES:
        steps = [each for each in steps if each in _kinds(space_steps) | {"PrepareLayer", "RemoveLayer"}]
    wanted, kept = world(masu), masu.pid("kept")
    for kind, count, when in _points(steps, EXPECTED_STEPS[situation])[share]:
        if given_up.is_set():
            return
        point = f"{kind}{when}:{count}"
        assert _killed(masu, situation, point), f"{point} was never reached"
        resumed = masu.apply()
        assert resumed.returncode == 0, f"{point}: {resumed.stderr}"
        devices = wanted["devices"]  # they go by themselves, once no launch elsewhere on the host has them
        until(lambda: len(masu.in_space()) == devices, f"{point}: {devices} devices", SETTLE_S)  # noqa: B023
        assert world(masu) == wanted, point
        assert masu.plan()["changes"] == [], point
        assert masu.pid("kept") == kept, f"{point}: the neighbour is untouched"


def _killed(masu: Masu, situation: str, point: str) -> bool:
    """In the middle of the change. A point that a race has left out is tried again: it has to come at last.

    Who makes the directory of a budget first, the group or its member, decides how many knobs still differ then.
    """
    before, after = SITUATIONS[situation]
    for _ in range(REACHED_WITHIN):
        if situation in SPACES:
            masu.run("down", "web", "volume/data")  # what has grown does not shrink; what was kept is there
        masu.write(*before)
        assert masu.apply().returncode == 0, point
        masu.write(*after)
        done = masu.apply(env={"MASU_FAIL_AT": point})
        if done.returncode == -signal.SIGKILL:
            return True
        assert done.returncode == 0, f"{point}: {done.stderr}"
    return False


def _network_world(masu: NetworkedMasu) -> dict[str, Any]:
    """Of host and container, by name: everything but numbers that are new each time."""
    found: dict[str, Any] = {}
    for where in ("", "web"):
        if where and not Path(f"/run/masu/{masu.instance}/netns/web").exists():
            continue
        found[where] = sorted(
            (
                each["ifname"],
                each.get("ifalias", ""),
                each.get("master", ""),
                each["mtu"],
                each["operstate"],
                sorted(
                    f"{one['local']}/{one['prefixlen']}"
                    for one in each["addr_info"]
                    if one["scope"] == "global"
                ),
            )
            for each in masu.ip_json(where, "addr")
        )
        found[f"{where} routes"] = sorted(
            f"{each['dst']} {each.get('gateway')} {each['dev']}"
            for family in ("-4", "-6")
            for each in masu.ip_json(where, family, "route")
        )
    return {"network": found}


def _kinds(*files: ModuleType) -> set[str]:
    return {
        name
        for file in files
        for name, each in vars(file).items()
        if isinstance(each, type) and issubclass(each, Step) and not inspect.isabstract(each)
        if each.__module__ == file.__name__
    }


def test_every_step_of_spaces_is_interrupted_somewhere() -> None:
    assert _kinds(space_steps) <= set().union(*EXPECTED_STEPS.values())


def test_every_step_of_networks_and_devices_is_interrupted_somewhere() -> None:
    kinds = _kinds(network_steps, firewall_steps, queueing_steps, names_steps, devices_steps)
    interrupted = set().union(*(EXPECTED_STEPS[each] for each in {*NETWORKED, "devices"}))
    assert kinds - interrupted - {"LinkStep"} == ONLY_ON_DRIFT


def test_killed_while_the_runtime_runs_there_is_one_process(masu: Masu) -> None:
    """SIGKILL between the runtime's start and the record of its pid: adopted or replaced, never doubled."""
    masu.write(container())
    killed = masu.apply(env={"MASU_FAIL_AT": "LaunchContainer+:1"})
    assert killed.returncode == -signal.SIGKILL
    record = Path(f"/run/masu/{masu.instance}/records/web.json")
    value = json.loads(record.read_text())
    pid = value["pid"]
    record.write_text(json.dumps({**value, "phase": "launching", "pid": 0, "start_time": 0}))
    assert masu.apply().returncode == 0
    assert masu.pid() == pid, "what was started is adopted"
    assert masu.processes() == [pid]


def test_a_damaged_record_is_no_reason_for_a_second_process(masu: Masu) -> None:
    masu.write(container())
    assert masu.apply().returncode == 0
    Path(f"/run/masu/{masu.instance}/records/web.json").write_text('{"name": "we')
    assert masu.apply().returncode == 0
    assert masu.processes() == [masu.pid()]


def test_another_boot_starts_everything_anew(masu: Masu) -> None:
    """/run that survived a reboot names processes of another boot; they are not taken for ours."""
    masu.write(container())
    assert masu.apply().returncode == 0
    pid = masu.pid()
    path = Path(f"/run/masu/{masu.instance}/records/web.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot_id": "another"}))
    os.kill(pid, signal.SIGKILL)
    assert masu.apply().returncode == 0
    assert masu.pid() not in {0, pid}
    assert masu.processes() == [masu.pid()]
