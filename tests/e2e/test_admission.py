"""What does not fit waits, and whoever runs goes on: with memory of which all but 400Mi is kept for the host."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from tests.e2e.harness import Masu, container, memory_max, until

ROOM = 400 << 20


def node(name: str = "this", **overcommit: str) -> dict[str, Any]:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    reserved = {"memory": int(lines["MemTotal"].split()[0]) * 1024 - ROOM}
    spec = {"reserved": reserved, "overcommit": overcommit}
    return {"apiVersion": "masu/v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}


def sized(name: str, memory: str, **spec: Any) -> dict[str, Any]:
    return container(name, limits={"memory": {"max": memory}}, **spec)


def said(masu: Masu, name: str, reason: str) -> str:
    """The message of that condition, once it is there."""

    def message() -> str:
        found = masu.status(name).get("conditions", ())
        return next((each["message"] for each in found if each["reason"] == reason), "")

    words: str = until(message, lambda: f"{name}: {reason}: {masu.status(name)}: {masu.log()[-1500:]}")
    return words


def limit(masu: Masu, name: str) -> int:
    return int(memory_max(masu, name).read_text())


def test_who_does_not_fit_waits_and_who_runs_stays_through_crashes_edits_and_removals(masu: Masu) -> None:
    masu.write(node(limits="refuse"), file="node.yaml")
    masu.write(sized("first", "280Mi"), file="b.yaml")
    masu.start()
    running = masu.running("first")
    masu.write(sized("waits", "240Mi"), sized("small", "40Mi"), file="a.yaml")
    masu.running("small")
    sum_of_three = "memory.max of 3 containers: 560Mi of 400Mi"
    assert said(masu, "waits", "DoesNotFit").startswith(sum_of_three)
    assert masu.pid("waits") == 0

    masu.stop(signal.SIGKILL)
    masu.start()
    masu.write(sized("first", "280Mi", hostname="edited"), file="b.yaml")
    until(lambda: masu.status("first")["converged"], "an edit of something else is applied")
    assert said(masu, "waits", "DoesNotFit").startswith(sum_of_three)

    masu.write(sized("first", "380Mi", hostname="again"), file="b.yaml")
    assert "the edit of its limits is not applied" in said(masu, "first", "DoesNotFit")
    until(lambda: {"memory.max"} == {each["key"] for each in masu.status("first")["drift"]}, "the rest is")
    assert limit(masu, "first") == 280 << 20
    assert masu.plan()["changes"] == []

    masu.write(sized("first", "120Mi"), file="b.yaml")
    masu.running("waits")
    until(lambda: limit(masu, "first") == 120 << 20, "what fits is applied")
    assert masu.pid("first") == running

    masu.write(sized("late", "80Mi"), file="c.yaml")
    said(masu, "late", "DoesNotFit")
    (masu.source / "b.yaml").unlink()
    masu.running("late")
    assert masu.traces("first") == []
    kinds = [each["type"] for each in masu.events() if each["container"] == "waits"]
    assert kinds.count("DoesNotFit") == 2, "once in each life of the daemon"


def test_what_has_ended_or_is_stopped_gives_its_room_to_the_next(masu: Masu) -> None:
    job = {"process": {"args": ["/bin/sleep", "0.2"]}, "restart": {"policy": "never"}}
    jobs = [sized(f"job-{number}", "360Mi", **job) for number in range(3)]
    masu.write(node(limits="refuse"), *jobs, sized("server", "320Mi"))
    masu.start()
    masu.running("server")
    ends = [
        (each["container"], each["type"]) for each in masu.events() if each["type"] in {"Started", "Exited"}
    ]
    inside = 0
    for _, kind in ends:
        inside += 1 if kind == "Started" else -1
        assert inside in {0, 1}, f"never two at once: {ends}"
    assert [name for name, kind in ends if kind == "Started"] == ["job-0", "job-1", "job-2", "server"]
    assert masu.grants() == ["server"]

    again = {**job, "process": {"args": ["/bin/sleep", "0.3"]}}
    masu.write(node(limits="refuse"), sized("job-0", "360Mi", **again), *jobs[1:], sized("server", "320Mi"))
    said(masu, "job-0", "DoesNotFit")
    stopped = sized("server", "320Mi", state="stopped")
    masu.write(node(limits="refuse"), sized("job-0", "360Mi", **again), *jobs[1:], stopped)
    until(lambda: masu.grants() == [], lambda: f"it has run and ended: {masu.grants()}: {masu.log()[-1500:]}")
    assert masu.status("job-0")["exitCode"] == 0
    assert masu.status("server")["converged"]


def test_a_warning_lets_everybody_run_and_a_refusal_comes_too_late_for_those_who_do(masu: Masu) -> None:
    masu.write(node(limits="warn"), sized("one", "280Mi"), sized("two", "280Mi"))
    (limited,) = masu.plan()["limited"]
    assert (
        limited["container"],
        limited["message"].startswith("memory.max of 2 containers: 560Mi of 400Mi"),
    ) == (
        "two",
        True,
    )
    assert masu.apply().returncode == 0
    pids = masu.running("one"), masu.running("two")
    status = masu.status("two")
    assert (status["converged"], [each["reason"] for each in status["conditions"]]) == (
        True,
        ["Overcommitted"],
    )
    assert masu.status("one")["conditions"] == []

    Path(f"/run/masu/{masu.instance}/grants.json").unlink()  # as if an older version had started them
    masu.write(node(limits="refuse"), sized("one", "280Mi"), sized("two", "280Mi"), sized("three", "1Mi"))
    planned = masu.run("plan", str(masu.source))
    assert (planned.returncode, "waits: three: DoesNotFit: memory.max of 3" in planned.stdout) == (4, True)
    refused = masu.apply()
    assert (refused.returncode, "three: DoesNotFit" in refused.stderr) == (4, True)
    assert (masu.running("one"), masu.running("two"), masu.pid("three")) == (*pids, 0)

    whole = json.loads(masu.run("status", "-o", "json").stdout)["node"]
    memory = next(each for each in whole["promises"] if each["key"] == "memory.max")
    assert (whole["name"], whole["overcommit"]["limits"], whole["waiting"]) == ("this", "refuse", ["three"])
    assert memory["total"] - memory["reserved"] == ROOM
    assert (memory["promised"], memory["containers"]) == (560 << 20, 2)
    assert "no room for: three" in masu.run("status").stdout

    masu.write(node(name="other"), file="z.yaml")
    said_twice = masu.run("validate", str(masu.source))
    assert said_twice.returncode == 3
    assert "z.yaml" in said_twice.stdout
    assert "web.yaml" in said_twice.stdout
