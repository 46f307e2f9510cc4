"""Directories laid over each other: what a patch comes to, and whose fault it is when it is wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.errors import Problem, SpecInvalid
from controller.model.desired import DesiredSet
from controller.model.snapshot import Snapshot, SourceFile
from controller.sources.layers import MOST, stacked
from controller.spec.accept import accept
from controller.spec.explain import without_overlays
from controller.spec.layers import merge_values
from controller.spec.parse import parse

WEB = """\
apiVersion: masu/v1
kind: Container
metadata: {name: web, labels: {app: shop}}
spec:
  rootfs: {path: /srv}
  process: {args: [/bin/web, -p, "80"], env: {A: "1", B: "2"}}
  limits:
    pids: {max: 10}
"""
HEAD = "apiVersion: masu/v1\nkind: Container\nmetadata: {name: web}\n"
DB = WEB.replace("name: web", "name: db")


def file(path: str, text: str, layer: int = 0) -> SourceFile:
    return SourceFile(path, text.encode(), hashlib.sha256(text.encode()).hexdigest(), layer=layer)


def take(before: DesiredSet, *files: SourceFile, unreadable: tuple[Problem, ...] = ()) -> DesiredSet:
    return accept(before, Snapshot("r", files, unreadable), parse, "")


def base(text: str = WEB, path: str = "base/web.yaml") -> SourceFile:
    return file(path, text)


def patch(text: str, path: str = "edge/web.yaml", layer: int = 1) -> SourceFile:
    return file(path, text, layer)


def test_maps_merge_lists_are_replaced_and_null_removes() -> None:
    text = HEAD + "spec: {process: {args: [/bin/other], env: {B: null, C: '3'}}, limits: {pids: {max: 20}}}\n"
    found = take(DesiredSet(), base(), patch(text))
    assert found.rejected == ()
    (web,) = found.containers.values()
    assert web.spec == {
        "rootfs": {"path": "/srv"},
        "process": {"args": ["/bin/other"], "env": {"A": "1", "C": "3"}},
        "limits": {"pids": {"max": 20}},
    }
    assert (web.labels, web.file, web.line) == ({"app": "shop"}, "base/web.yaml", 3)
    assert set(found.files) == {"base/web.yaml", "edge/web.yaml"}


def test_what_is_only_above_is_added_and_what_is_not_patched_stays() -> None:
    found = take(
        DesiredSet(), base(), base(DB, "base/db.yaml"), patch(WEB.replace("name: web", "name: more"))
    )
    assert set(found.containers) == {"web", "db", "more"}


def test_a_document_can_be_taken_away_and_three_layers_lie_over_each_other() -> None:
    middle = patch(HEAD + "spec: {limits: {pids: {max: 20}}, hostname: middle}\n", "site/web.yaml", 1)
    top = patch(HEAD + "spec: {hostname: top}\n", "edge/web.yaml", 2)
    (web,) = take(DesiredSet(), base(), middle, top).containers.values()
    assert (web.section("limits.pids.max"), web.section("hostname")) == (20, "top")
    gone = patch(HEAD + "spec: null\n", "edge/web.yaml", 2)
    assert set(take(DesiredSet(), base(), base(DB, "base/db.yaml"), middle, gone).containers) == {"db"}


def test_what_is_wrong_is_told_where_it_is_written() -> None:
    first = take(DesiredSet(), base(), base(DB, "base/db.yaml"))
    for text, where, why in (
        (
            HEAD + "spec:\n  limits:\n    pids: {max: lots}\n",
            ("edge/web.yaml", 6, 12),
            "spec.limits.pids.max",
        ),
        (HEAD + "spec:\n  nonsense: 1\n", ("edge/web.yaml", 5, 3), "nonsense"),
        (HEAD + "spec:\n  process: null\n", ("edge/web.yaml", 4, 1), "process"),
        (HEAD + "spec:\n  process: {args: null}\n", ("edge/web.yaml", 5, 3), "args"),
        (HEAD + "spec: {networks: [{network: nowhere}]}\n", ("edge/web.yaml", 4, 8), "nowhere"),
    ):
        found = take(first, base(), base(DB, "base/db.yaml"), patch(text))
        ((problem),) = found.rejected
        assert (problem.file, problem.line, problem.column) == where, text
        assert why in str(problem)
        assert found.containers["web"].section("limits.pids.max") == 10, "its last good version"
        assert "db" in found.containers
    wrong_below = take(
        DesiredSet(), base(WEB.replace("max: 10", "max: lots")), patch(HEAD + "spec: {hostname: x}\n")
    )
    assert {(each.file, each.line) for each in wrong_below.rejected} == {("base/web.yaml", 8)}


def test_a_patch_that_cannot_be_read_leaves_what_it_patched_as_it_was() -> None:
    good = patch(HEAD + "spec: {limits: {pids: {max: 20}}}\n")
    db = base(DB, "base/db.yaml")
    first = take(DesiredSet(), base(), db, good)
    stored = DesiredSet.from_json(json.loads(json.dumps(first.to_json())))
    refused = (Problem("edge/web.yaml", 0, 0, "", "is a symbolic link"),)
    changed = base(DB.replace("max: 10", "max: 11"), "base/db.yaml")
    for after in (
        take(stored, base(), changed, patch("a: [")),
        take(stored, base(), changed, file("edge/x.yaml", "", 1), unreadable=refused),
    ):
        assert after.containers["web"].section("limits.pids.max") == 20
        assert after.containers["db"].section("limits.pids.max") == 11, "others go on"
        assert after.rejected
    fresh = take(DesiredSet(), base(), db, patch("a: ["))
    assert fresh.containers == {}, "nobody can know what it would say"
    assert any("waits for edge/web.yaml" in each.message for each in fresh.rejected)


def test_two_patches_in_one_directory_are_one_too_many() -> None:
    found = take(
        DesiredSet(),
        base(),
        patch(HEAD + "spec: {limits: {pids: {max: 20}}}\n", "edge/a.yaml"),
        patch(HEAD + "spec: {limits: {pids: {max: 30}}}\n", "edge/b.yaml"),
    )
    assert found.containers["web"].section("limits.pids.max") == 20
    ((problem),) = found.rejected
    assert (problem.file, problem.line) == ("edge/b.yaml", 3)
    assert "already patched in edge/a.yaml" in problem.message


def test_the_same_files_are_not_read_twice() -> None:
    files = base(), patch(HEAD + "spec: {hostname: x}\n")
    first = take(DesiredSet(), *files)
    assert take(first, *files).files == first.files
    assert all(take(first, *files).files[path] is state for path, state in first.files.items())
    assert take(first, base()).containers["web"].section("hostname") is None, "without the layer"


LEAF = st.none() | st.booleans() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2)
KEYS = st.sampled_from("abc")
TREES = st.dictionaries(
    KEYS, st.recursive(LEAF, lambda inner: st.dictionaries(KEYS, inner, max_size=3)), max_size=3
)


def without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_null(each) for key, each in value.items() if each is not None}
    return value


@given(TREES, TREES, TREES)
def test_laws_of_merging(below: dict[str, Any], middle: dict[str, Any], above: dict[str, Any]) -> None:
    below = without_null(below)
    once = merge_values(below, above)
    assert merge_values(once, above) == once, "twice is once"
    assert merge_values(below, {}) == below, "nothing changes nothing"
    assert once == without_null(once), "nothing is null"
    assert set(once) <= {*below, *above}
    assert all(once[key] == each for key, each in below.items() if key not in above)
    assert merge_values({}, above) == without_null(above)
    assert merge_values(merge_values(below, middle), above) is not below


# --- which directories ---


def looking(**directories: dict[str, str]) -> Callable[[str], Snapshot]:
    def look(root: str) -> Snapshot:
        below = directories.get(root.replace("/", "_"), {})
        return Snapshot("r", tuple(file(f"{root}/{name}", text) for name, text in below.items()), ())

    return look


def test_a_directory_names_its_base() -> None:
    look = looking(
        nodes_edge={"masu.yaml": "base: ../../site\natomic: true\n", "web.yaml": "a"},
        site={"masu.yaml": "base: ../base\n", "web.yaml": "b"},
        base={"web.yaml": "c"},
    )
    found, roots = stacked("nodes/edge", look)
    assert [(each.path, each.layer) for each in found.files] == [
        ("base/web.yaml", 0), ("nodes/edge/web.yaml", 2), ("site/web.yaml", 1),
    ]  # fmt: skip
    assert roots == ("nodes/edge", "site", "base")
    assert found.atomic
    assert stacked("base", look)[0].files[0].layer == 0


def test_a_spec_may_be_called_masu_yaml() -> None:
    found, _ = stacked("base", looking(base={"masu.yaml": WEB}))
    assert [each.path for each in found.files] == ["base/masu.yaml"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("base: ../../../x\n", "nodes/edge/masu.yaml:1:1: base: ../x leads out"),
        ("base: /etc\n", "relative"),
        ("base: 7\n", "is not a directory"),
        ("base: ''\n", "is not a directory"),
        ("bse: x\n", "nodes/edge/masu.yaml:1:1: bse: is not known"),
        ("atomic: sometimes\n", "is not true or false"),
        ("base: ..\n", "is inside"),
        ("base: .\n", "is inside"),
        ("base: below\n", "is inside"),
        ("base: ../../empty\n", "empty: is a base, and holds no spec file"),
        ("base: ../other\n", "is inside"),
        ("a: [", "masu.yaml:2"),
    ],
)
def test_what_is_no_base(text: str, why: str) -> None:
    look = looking(
        nodes_edge={"masu.yaml": text}, nodes_other={"masu.yaml": "base: ../edge"}, nodes={"a.yaml": "a"}
    )
    with pytest.raises(SpecInvalid) as caught:
        stacked("nodes/edge", look, inside=True)
    assert why in str(caught.value)


def test_there_is_an_end_to_it() -> None:
    many = {f"d{index}": {"masu.yaml": f"base: ../d{index + 1}"} for index in range(MOST + 2)}
    with pytest.raises(SpecInvalid, match="too many"):
        stacked("d0", looking(**many))


def test_a_patch_that_lies_over_nothing_says_so() -> None:
    wrong = patch(HEAD.replace("name: web", "name: wbe") + "spec: {limits: {pids: {max: 20}}}\n")
    (found,) = take(DesiredSet(), base(), wrong).rejected
    why = 'it lies over nothing: the base has no Container wbe, did you mean web? (by itself, "rootfs" is missing)'
    assert (found.file, found.line, found.message) == ("edge/web.yaml", 3, why)


def test_a_directory_that_is_laid_over_another_is_told_to_be_validated_by_itself() -> None:
    layering = file("all/edge/masu.yaml", "base: ../base\n")
    part = file("all/edge/web.yaml", HEAD.replace("web", "db") + "spec: {limits: {pids: {max: 20}}}\n")
    found = take(DesiredSet(), file("all/base/web.yaml", WEB), layering, part).rejected
    (only,) = without_overlays(found)
    assert len(found) > 1
    assert only.file == "all/edge/masu.yaml"
    assert only.message.endswith(": masu validate all/edge")
