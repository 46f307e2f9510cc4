"""What a change of the files means: the gravest of what its edits need, with no host to look at."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.errors import GuardRefused, Problem
from controller.model.resource import Resource
from controller.model.snapshot import Snapshot, SourceFile, moved_to
from controller.reconcile.compare import ABSENT, Change, Edit, compare
from controller.report.comparison import Comparison, comparison_json, comparison_markdown, comparison_text
from controller.steps._base import Effect


def web(labels: dict[str, str] | None = None, **sections: Any) -> Resource:
    spec = {"rootfs": {"path": "/srv/web"}, "process": {"args": ["/bin/web"]}, **sections}
    return Resource("web", "web.yaml", labels or {}, spec)


def network(**sections: Any) -> Resource:
    return Resource("home", "net.yaml", {}, {"subnets": ["10.88.0.0/24"], **sections}, kind="Network")


def changes(before: list[Resource], after: list[Resource]) -> tuple[Change, ...]:
    return compare({each.key: each for each in before}, {each.key: each for each in after})


@pytest.mark.parametrize(
    ("sections", "effect", "path"),
    [
        ({"limits": {"memory": {"max": "64Mi"}}}, Effect.LIVE, "limits"),
        ({"hostname": "box"}, Effect.LIVE, "hostname"),
        ({"state": "stopped"}, Effect.LIVE, "state"),
        ({"process": {"args": ["/bin/web"], "stop": {"grace": "1s"}}}, Effect.LIVE, "process.stop"),
        ({"process": {"args": ["/bin/other"]}}, Effect.RESTART, "process.args"),
        ({"mounts": [{"tmpfs": "/tmp"}]}, Effect.RESTART, "mounts"),
        ({"rootfs": {"path": "/srv/other"}}, Effect.RECREATE, "rootfs.path"),
        ({"namespaces": {"pid": "host"}}, Effect.RECREATE, "namespaces"),
    ],
)
def test_what_one_edit_needs(sections: dict[str, Any], effect: Effect, path: str) -> None:
    ((change),) = changes([web()], [web(**sections)])
    assert (change.key, change.effect) == ("web", effect)
    assert [each.path for each in change.edits] == [path]


def test_the_gravest_counts_and_every_edit_is_told() -> None:
    before = web(limits={"memory": {"max": "64Mi"}, "pids": {"max": 5}})
    after = web(limits={"memory": {"max": "32Mi"}, "pids": {"max": 5}}, process={"args": ["/bin/other"]})
    (change,) = changes([before], [after])
    assert change == Change(
        "web",
        Effect.RESTART,
        (Edit("limits.memory.max", "64Mi", "32Mi"), Edit("process.args", ["/bin/web"], ["/bin/other"])),
    )


def test_what_comes_and_goes_and_stays() -> None:
    other = Resource("other", "o.yaml", {}, web().spec)
    assert changes([web()], [web()]) == ()
    assert changes([web(), network()], [other, network()]) == (
        Change("other", Effect.CREATE),
        Change("web", Effect.DELETE),
    )
    assert changes([web()], [web({"app": "shop"})]) == (
        Change("web", Effect.LIVE, (Edit("metadata.labels.app", ABSENT, "shop"),)),
    )


def test_other_kinds_change_live_and_addresses_stay() -> None:
    before = [network(), web(networks=[{"network": "home"}])]
    first = Resource("a", "a.yaml", {}, web(networks=[{"network": "home"}]).spec)
    assert changes(before, [*before, first]) == (Change("a", Effect.CREATE),)
    assert changes(before, [network(nat=False), before[1]]) == (
        Change("network/home", Effect.LIVE, (Edit("nat", ABSENT, False),)),
    )


FOUND = Comparison(
    (
        Change("db", Effect.DELETE),
        Change("web", Effect.RESTART, (Edit("process.args", ["a"], ["b | `c`\n"]), Edit("x", ABSENT, 1))),
        Change("with", Effect.RECREATE),
    ),
    (Problem("a.yaml", 1, 2, "", "bad"),),
    "",
    GuardRefused("too many"),
)


def test_it_is_told_in_three_ways() -> None:
    text = comparison_text(FOUND, colours=False)
    assert "↻ web: restart\n    process.args: [" in text
    assert "    x: nothing → 1\n" in text
    assert "± with: recreate\n    because of what it uses\n" in text
    assert "invalid: a.yaml:1:2: bad\nrefused: too many\nplan: 1 to restart" in text
    value = json.loads(json.dumps(comparison_json(FOUND)))
    assert [each["action"] for each in value["changes"]] == ["delete", "restart", "recreate"]
    assert value["changes"][1]["steps"][1] == {
        "kind": "Edit",
        "text": "x: nothing → 1",
        "path": "x",
        "new": 1,
    }
    assert comparison_text(Comparison(()), colours=False) == "plan: nothing changes\n"


def test_markdown_holds_whatever_is_in_a_value() -> None:
    lines = comparison_markdown(FOUND).splitlines()
    assert lines[0] == "### masu plan: 1 to restart, 1 to make anew, 1 to delete"
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == 1 + 3
    assert all(line.replace("\\|", "").count("|") == 4 for line in rows)
    assert '`` ["b \\| `c`' in rows[2]
    assert "**Invalid**" in lines


def test_a_checkout_elsewhere_has_the_same_files() -> None:
    found = Snapshot(
        "r", (SourceFile("/a/b/x/web.yaml", b"", ""),), (Problem("/a/b/bad.yaml", 0, 0, "", ""),)
    )
    for root, other, expected in (
        ("/a/b", "nodes/edge", "nodes/edge/x/web.yaml"),
        ("/a/b", "", "x/web.yaml"),
        ("/a/b", ".", "./x/web.yaml"),
        ("/a/b/x/web.yaml", "one.yaml", "one.yaml"),
    ):
        assert moved_to(found, root, other).files[0].path == expected
    inside = Snapshot("r", (SourceFile("x/web.yaml", b"", ""),), ())
    assert moved_to(inside, "", "/a").files[0].path == "/a/x/web.yaml"
