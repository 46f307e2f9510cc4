"""Documents that count on some hosts alone."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import SpecInvalid
from controller.model.desired import DesiredSet
from controller.model.snapshot import Snapshot, SourceFile
from controller.spec.accept import accept
from controller.spec.parse import parse
from controller.spec.placement import counts

WEB = """\
apiVersion: masu/v1
kind: Container
metadata: {{name: {name}}}
{placement}
spec: {{rootfs: {{path: /srv}}, process: {{args: [/bin/web]}}, limits: {{pids: {{max: {most}}}}}}}
"""
NODE = """\
apiVersion: masu/v1
kind: Node
metadata: {{name: {name}, labels: {{site: {site}}}}}
placement: {{nodes: [{name}]}}
spec: {{overcommit: {{limits: warn}}}}
"""


def web(placement: str = "", name: str = "web", most: int = 1) -> str:
    return WEB.format(name=name, placement=f"placement: {placement}" if placement else "", most=most)


def take(before: DesiredSet, node: str, **files: str) -> DesiredSet:
    found = tuple(
        SourceFile(f"{name}.yaml", text.encode(), hashlib.sha256(text.encode()).hexdigest())
        for name, text in files.items()
    )
    return accept(before, Snapshot("r", found, ()), parse, "", node=node)


def test_by_name() -> None:
    files = {"a": web("{nodes: [edge-7, edge-8]}"), "b": web(name="all")}
    assert set(take(DesiredSet(), "edge-7", **files).containers) == {"web", "all"}
    assert set(take(DesiredSet(), "edge-9", **files).containers) == {"all"}
    assert set(take(DesiredSet(), "", **files).containers) == {"all"}


def test_by_labels_of_the_node_and_again_when_they_change() -> None:
    files = {"web": web("{labels: {site: north}}"), "b": web(name="all")}
    nodes = NODE.format(name="n1", site="north") + "---\n" + NODE.format(name="n2", site="south")
    first = take(DesiredSet(), "n1", nodes=nodes, **files)
    assert set(first.containers) == {"web", "all"}
    assert first.rejected == ()
    assert set(take(DesiredSet(), "n2", nodes=nodes, **files).containers) == {"all"}
    assert set(take(DesiredSet(), "n3", nodes=nodes, **files).containers) == {"all"}
    stored = DesiredSet.from_json(json.loads(json.dumps(first.to_json())))
    moved = take(stored, "n1", nodes=NODE.format(name="n1", site="south"), **files)
    assert set(moved.containers) == {"all"}
    back = take(DesiredSet.from_json(moved.to_json()), "n1", nodes=nodes, **files)
    assert set(back.containers) == {"web", "all"}, "although web.yaml has not changed"


def test_one_name_for_different_hosts() -> None:
    text = web("{nodes: [a]}", most=1) + "---\n" + web("{nodes: [b]}", most=2)
    for node, most in (("a", 1), ("b", 2)):
        found = take(DesiredSet(), node, web=text)
        assert found.containers["web"].section("limits.pids.max") == most
        assert found.rejected == ()
    twice = take(DesiredSet(), "a", web=text + "---\n" + web("{nodes: [a, c]}", most=3))
    assert twice.containers == {}, "nobody knows which of them is meant"
    ((problem),) = twice.rejected
    assert "counts on this host twice: it is already defined in this file at line 3" in problem.message
    assert problem.line == 15
    good = take(DesiredSet(), "a", web=text)
    still = take(good, "a", web=web("{nodes: [a, c]}", most=3) + "---\n" + text)
    assert still.containers["web"].section("limits.pids.max") == 1, "the last good version"
    assert still.rejected
    assert take(still, "a", web=text).rejected == ()


def test_a_bad_edit_keeps_the_last_good_version_on_each_host() -> None:
    first = take(DesiredSet(), "a", web=web("{nodes: [b]}"), all=web(name="all"))
    second = take(first, "a", web="kind: Nonsense", all=web(name="all"))
    assert second.rejected
    assert set(take(second, "b", web="kind: Nonsense", all=web(name="all")).containers) == {"all", "web"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (web("{}"), "placement"),
        (web("{nodes: edge-7}"), "placement.nodes"),
        (web("{nodes: [-x]}"), "is not the name of a host"),
        (web("{node: [x]}"), "nodes"),
        (NODE.format(name="n", site="s").replace("{nodes: [n]}", "{labels: {a: b}}"), "placed by its name"),
    ],
)
def test_what_is_no_placement(text: str, why: str) -> None:
    with pytest.raises(SpecInvalid) as caught:
        parse(text.encode(), "web.yaml")
    assert why in str(caught.value)


WORDS = st.sampled_from(["a", "b", "c"])


@given(st.lists(WORDS), st.dictionaries(WORDS, WORDS), WORDS, st.dictionaries(WORDS, WORDS))
def test_more_conditions_count_on_fewer_hosts(
    nodes: list[str], wanted: dict[str, str], node: str, labels: dict[str, str]
) -> None:
    both = counts({"nodes": nodes, "labels": wanted}, node, labels)
    assert both == (counts({"nodes": nodes}, node, labels) and counts({"labels": wanted}, node, labels))
    assert counts(None, node, labels)
    assert not counts({"labels": wanted}, "", labels)


def test_what_is_used_here_stays_once_although_its_file_is_bad() -> None:
    network = """\
apiVersion: masu/v1
kind: Network
metadata: {name: home}
placement: {nodes: [%s]}
spec: {subnets: [10.88.0.0/24]}
"""
    user = web(name="all").replace("spec: {rootfs", "spec: {networks: [{network: home}], rootfs")
    state = take(DesiredSet(), "a", home=network % "a", all=user)
    assert "network/home" in state.resources
    for text in (network % "b", "kind: Nonsense", "kind: Nonsense", "kind: Nonsense"):
        state = take(state, "a", home=text, all=user)
        assert "network/home" in state.resources
        assert len(state.files["home.yaml"].elsewhere) <= 1
