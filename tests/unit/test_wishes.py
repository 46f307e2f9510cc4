"""Wishes that are taken again from the last time: the same as those that are made anew, whatever was edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller.model.attachment import Leases
from controller.model.resource import CONTAINER, GROUP, NETWORK, Resource
from controller.reconcile.desired import Known, Named, resolve
from tests.unit.resources import by_key

NAMED = Named("i", "/run/names", "/state/spaces")


def _of(kind: str, name: str, spec: dict[str, Any]) -> Resource:
    return Resource(name, f"{name}.yaml", {}, spec, kind=kind)


NETWORKS = [
    _of(NETWORK, "lan", {"bridge": {}, "subnets": ["10.0.0.0/24"]}),
    _of(NETWORK, "lan", {"bridge": {}, "subnets": ["10.0.9.0/24"], "mtu": 1400}),
]
GROUPS = [_of(GROUP, "b", {"cpu": {"max": "1"}}), _of(GROUP, "b", {"memory": {"max": "1Gi"}})]
PARTS: list[dict[str, Any]] = [
    {},
    {"networks": [{"network": "lan"}]},
    {"networks": [{"network": "lan"}], "ports": ["80:80"]},
    {"group": "b", "limits": {"memory": {"max": "1Mi"}}},
    {"hostname": "x"},
]
WORLD = st.fixed_dictionaries(
    {
        "network": st.sampled_from(NETWORKS),
        "group": st.sampled_from([None, *GROUPS]),
        "containers": st.dictionaries(st.sampled_from(["web", "db"]), st.sampled_from(range(len(PARTS)))),
    }
)


def _resources(world: Mapping[str, Any], made: dict[tuple[str, int], Resource]) -> dict[str, Resource]:
    """A container that is not edited is the same object, as it is in a source of which one file has changed."""
    containers = [
        made.setdefault((name, index), _of(CONTAINER, name, {"rootfs": {"path": "/"}, **PARTS[index]}))
        for name, index in world["containers"].items()
    ]
    return by_key(*containers, world["network"], *filter(None, [world["group"]]))


@given(st.lists(WORLD, min_size=2, max_size=5))
def test_what_is_known_changes_no_wish(worlds: list[Mapping[str, Any]]) -> None:
    known: Known = {}
    made: dict[tuple[str, int], Resource] = {}
    leases: Leases = {}
    for world in worlds:
        resources = _resources(world, made)
        anew, after = resolve(NAMED, resources, leases, ())
        again, _ = resolve(NAMED, resources, leases, (), known)
        assert again == anew
        assert {key: each.digest for key, each in again.items()} == {
            key: each.digest for key, each in anew.items()
        }
        assert set(known) == {each.name for each in resources.values() if each.kind == CONTAINER}
        leases = after


def test_who_is_as_before_keeps_the_very_same_wish() -> None:
    known: Known = {}
    web, db = (_of(CONTAINER, name, {"rootfs": {"path": "/"}}) for name in ("web", "db"))
    before, _ = resolve(NAMED, by_key(web, db), {}, (), known)
    edited = _of(CONTAINER, "db", {"rootfs": {"path": "/other"}})
    after, _ = resolve(NAMED, by_key(web, edited), {}, (), known)
    assert after["web"] is before["web"]
    assert after["db"] != before["db"]
