"""Spec files of any text and any bytes: told of with file, line and column, or accepted and then wished for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from controller.errors import Problem, SpecInvalid
from controller.model.desired import DesiredSet
from controller.model.host_policy import HOST_POLICY, AsWritten
from controller.model.image import Choice, Image
from controller.model.resource import CONTAINER, NODE
from controller.model.snapshot import Snapshot, SourceFile
from controller.reconcile.desired import Desired, Named, desire, resolve
from controller.spec.accept import accept, anything
from controller.spec.document import read
from controller.spec.host_policy import forbidden, parse_policy
from controller.spec.parse import parse
from controller.spec.schema import kinds, schema
from tests.fuzz.bounds import bounded, soon
from tests.fuzz.strategies import damaged, leaves, mutated, texts
from tests.worlds import LAYOUTS, facts

ROOT = Path(__file__).parents[2]
FILES = [
    each.read_bytes() for where in ("specs", "examples") for each in sorted((ROOT / where).glob("*.yaml"))
]
WRITTEN = [each.value for text in FILES for each in read(text, "f")]
NAMED = Named("i", "/run/names", "/state/spaces", "/run/secrets")
ALL: Mapping[str, Any] = {
    "apiVersion": "masu/v1",
    "kind": CONTAINER,
    "metadata": {"name": "web", "labels": {"app": "shop"}},
    "placement": {"nodes": ["edge-7"], "labels": {"disk": "fast"}},
    "spec": {
        "state": "running",
        "rootfs": {"path": "/srv", "writable": "overlay", "size": "1Gi"},
        "process": {
            "args": ["/bin/web"],
            "env": {"A": "b", "S": {"secret": "web/key"}},
            "user": "1000:1000",
            "cwd": "/",
            "stop": {"signal": "TERM", "grace": "10s"},
            "rlimits": {"nofile": {"soft": 1, "hard": "unlimited"}},
            "capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]},
        },
        "restart": {"policy": "always", "backoff": {"initial": "200ms", "max": "1m"}},
        "health": {"exec": ["/bin/true"], "interval": "10s", "timeout": "1s", "failures": 3},
        "namespaces": {"user": "auto", "time": {"boottime": "10d"}},
        "hostname": "web",
        "sysctls": {"net.core.somaxconn": "1024", "kernel.msgmax": 5},
        "mounts": [{"source": "/srv/www", "target": "/www", "readOnly": True}, {"tmpfs": "/tmp", "size": "64Mi"}],
        "files": [{"secret": "web/key", "target": "/run/secrets/key"}],
        "limits": {
            "cpu": {"max": "1.5", "weight": 200, "cpus": "0-1"},
            "memory": {"max": "256Mi", "high": "200Mi", "low": "64Mi", "swap": 0},
            "pids": {"max": 128},
            "io": [{"path": "/srv", "read": "50Mi/s", "writeIops": 500}],
            "hugepages": {"2Mi": "64Mi"},
        },
        "networks": [
            {"network": "front", "addresses": ["10.88.0.10"], "egress": {"max": "100Mbit"},
            "ingress": {"max": "5Mbit"}}
        ],
        "ports": ["8080:80/tcp"],
        "devices": [{"path": "/dev/fuse", "access": "rw"}, {"match": {"subsystem": "tty"}, "optional": True}],
        "notify": [{"on": "memory.pressure", "some": "150ms/1s", "exec": ["/x"]}],
        "checkpoint": {"schedule": {"every": "10m"}, "keep": {"last": 3}, "onFailure": "restore"},
    },
}  # fmt: skip
OTHERS: tuple[Mapping[str, Any], ...] = (
    {"kind": "Network", "metadata": {"name": "front"}, "spec": {"subnets": ["10.88.0.0/24", "fd88::/64"],
    "mtu": 1400}},
    {"kind": "Network", "metadata": {"name": "wan"}, "spec": {"type": "macvlan", "parent": "eth0",
    "subnets": ["192.0.2.0/24"]}},
    {"kind": "Group", "metadata": {"name": "batch"}, "spec": {"cpu": {"max": "2"}, "memory": {"max": "1Gi"},
    "network": {"egress": {"max": "1Gbit"}}}},
    {"kind": "Volume", "metadata": {"name": "data"}, "spec": {"size": "1Gi"}},
    {"kind": "Node", "metadata": {"name": "edge-7", "labels": {"disk": "fast"}}, "spec": {}},
)  # fmt: skip
GOOD = [*WRITTEN, ALL, *({"apiVersion": "masu/v1", **each} for each in OTHERS)]
RULES: Mapping[str, Any] = {
    "rootfs": [{"path": "/srv"}],
    "mounts": [{"path": "/srv", "writable": True}],
    "images": ["docker.io/library/*"],
    "devices": [{"path": "/dev/*"}, {"match": {"subsystem": "tty"}}],
    "capabilities": ["NET_RAW"],
    "networks": ["host"],
    "ports": ["8000-8999"],
    "limits": {"memory": "1Gi"},
}
POLICY = {"apiVersion": "masu/v1", "kind": HOST_POLICY, "spec": RULES}


@st.composite
def of_schema(draw: st.DrawFn, node: Any, root: Any, level: int = 0) -> Any:  # noqa: PLR0911
    """What a schema asks for, but for its formats: those are strange texts, or what it gives for examples."""
    if "$ref" in node:
        target = root
        for key in node["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        return draw(
            of_schema({**target, **{key: each for key, each in node.items() if key != "$ref"}}, root, level)
        )
    if level > 12 or draw(st.integers(0, 15)) == 0:
        return draw(leaves)
    if "const" in node:
        return node["const"]
    if "enum" in node:
        return draw(st.sampled_from(node["enum"]))
    for key in ("oneOf", "anyOf"):
        if key in node:
            return draw(of_schema(draw(st.sampled_from(node[key])), root, level + 1))
    kind = node.get("type")
    kind = draw(st.sampled_from(kind)) if isinstance(kind, list) else kind
    if kind == "object" or "properties" in node:
        return draw(_object_of(node, root, level))
    if kind == "array":
        return draw(st.lists(of_schema(node.get("items", {}), root, level + 1), max_size=3))
    if node.get("examples"):
        return draw(st.sampled_from(node["examples"]) | leaves)
    plain = {
        "integer": st.integers(-1, 2**40),
        "boolean": st.booleans(),
        "string": texts,
        "number": st.integers(0, 9),
    }
    return draw(plain.get(kind, leaves))


@st.composite
def _object_of(draw: st.DrawFn, node: Any, root: Any, level: int) -> dict[str, Any]:
    known, needed = node.get("properties", {}), set(node.get("required", ()))
    wanted = [key for key in known if key in needed or draw(st.integers(0, 3)) == 0]
    found = {key: draw(of_schema(known[key], root, level + 1)) for key in wanted}
    others = node.get("additionalProperties")
    if isinstance(others, dict):
        found.update(draw(st.dictionaries(texts, of_schema(others, root, level + 1), max_size=2)))
    return found


def _named(kind: str) -> st.SearchStrategy[Any]:
    whole = schema(kind)
    head = {"apiVersion": "masu/v1", "kind": kind, "metadata": {"name": "x"}}
    return of_schema(whole["properties"]["spec"], whole).map(lambda spec: {**head, "spec": spec})


def _policies() -> st.SearchStrategy[Any]:
    whole = schema(HOST_POLICY)
    spec = of_schema(whole["properties"]["spec"], whole)
    return spec.map(lambda spec: {"apiVersion": "masu/v1", "kind": HOST_POLICY, "spec": spec})


def told(problems: tuple[Problem, ...], files: set[str]) -> None:
    """Every problem says where it is, on one line that a terminal can be given."""
    assert problems
    for each in problems:
        assert each.file in files
        assert (each.line == 0) == (each.column == 0)
        assert 0 <= each.line <= 1 << 20
        assert 0 <= each.column <= 1 << 20
        assert str(each).isprintable(), str(each)
        assert len(str(each)) < 3000


def dumped(documents: list[Any]) -> bytes:
    """JSON is YAML, and unlike a dumper of YAML it writes down anything."""
    return b"\n---\n".join(_text(each) for each in documents) + b"\n"


def _text(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def source(name: str, text: bytes, layer: int = 0) -> SourceFile:
    return SourceFile(name, text, hashlib.sha256(text).hexdigest(), layer=layer)


def taken(before: DesiredSet, *files: SourceFile, node: str = "edge-7", judge: Any = anything) -> DesiredSet:
    """Accepted, written down, read back, and wished for on every sort of host."""
    layout = {"web": "v1"}.get(node, "v2")
    after = accept(before, Snapshot("r", files, ()), parse, layout, judge, node)
    paths = {each.path for each in files} | set(before.files)
    if after.rejected:
        told(after.rejected, paths)
    text = json.dumps(after.to_json())
    assert DesiredSet.from_json(json.loads(text)).resources == after.resources
    text.encode()
    digests = {key: each.digest for key, each in after.resources.items()}
    again = accept(DesiredSet(), Snapshot("r", files, ()), parse, layout, judge, node)
    once = accept(DesiredSet(), Snapshot("r", files, ()), parse, layout, judge, node)
    assert once == again
    assert {key: each.digest for key, each in once.resources.items()} == {
        key: each.digest for key, each in again.resources.items()
    }
    for layer in LAYOUTS:
        wished(after, layer)
    assert {key: each.digest for key, each in after.resources.items()} == digests
    return after


def wished(found: DesiredSet, layout: str) -> None:
    resources = {key: each for key, each in found.resources.items() if each.kind != NODE}
    image = Image("sha256:" + "0" * 64, "/images/x", ("/bin/x",), (), (("A", "1"),))
    choices = {
        each.name: Choice(image.digest, image) for each in resources.values() if each.kind == CONTAINER
    }
    wishes, leases = resolve(NAMED, resources, {}, (), None, choices)
    again, _ = resolve(NAMED, resources, leases, (), None, choices)
    assert {key: each.digest for key, each in again.items()} == {
        key: each.digest for key, each in wishes.items()
    }
    for wish in wishes.values():
        assert isinstance(desire(wish, facts(layout)), Desired)


def one(text: bytes) -> None:
    """The whole way of one file."""
    with soon():
        try:
            resources = parse(text, "f.yaml")
        except SpecInvalid as error:
            told(error.problems, {"f.yaml"})
            assert taken(DesiredSet(), source("f.yaml", text)).resources == {}
            return
    assert len(resources) == len(parse(text, "f.yaml"))
    taken(DesiredSet(), source("f.yaml", text))


WORDS = st.sampled_from(
    ["&a ", "*a", "<<: ", "- ", "? ", ": ", "! ", "!!map ", "!!binary ", "!x ", "|\n", ">\n", "'", '"', "{", "}",
     "[", "]", ",",
     "\n", "  ", "\t", "#", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x:\n", "a", "~", ".inf", "0o7", "\ufeff",
     "\u2028", "\x85", "\0",
     "apiVersion: masu/v1\n", "kind: Container\n", "metadata: {name: web}\n", "spec:\n", "\\u0000", "\\ud800",
     "\U0010ffff"]
)  # fmt: skip


@bounded(150)
@given(st.binary(max_size=80) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"\xff\xfea\0")
@example(b"a: &a [*a]")
def test_any_bytes(text: bytes) -> None:
    one(text)


@bounded(300)
@given(st.lists(WORDS | texts, max_size=30).map("".join))
def test_anything_that_looks_like_yaml(text: str) -> None:
    one(text.encode("utf-8", "surrogatepass"))


@bounded(200)
@given(damaged(st.sampled_from(FILES)))
def test_a_spec_that_is_damaged(text: bytes) -> None:
    one(text)


@bounded(500)
@given(st.lists(mutated(st.sampled_from(GOOD)), min_size=1, max_size=2).map(dumped))
@example(b"{kind: [], metadata: {name: web}}")
@example(b"{kind: Container, metadata: {name: {}}}")
def test_a_spec_with_something_else_in_it(text: bytes) -> None:
    one(text)


@bounded(500)
@given(st.sampled_from([each for each in kinds() if each != HOST_POLICY]).flatmap(_named))
def test_a_spec_that_its_schema_may_have_asked_for(value: Any) -> None:
    one(dumped([value]))


@bounded(150)
@given(
    st.lists(
        st.lists(mutated(st.sampled_from(GOOD)) | st.sampled_from(GOOD), min_size=1, max_size=3),
        min_size=1,
        max_size=3,
    ),
    st.lists(
        st.lists(mutated(st.sampled_from(GOOD)) | st.sampled_from(GOOD), min_size=1, max_size=3),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
    st.sampled_from(["", "edge-7", "web"]),
)
def test_one_edit_after_another(before: list[Any], after: list[Any], layered: bool, node: str) -> None:
    """Files and layers that are at odds with each other, and with what they were before."""
    first = [source(f"{number}.yaml", dumped(each), number * layered) for number, each in enumerate(before)]
    then = [source(f"{number}.yaml", dumped(each), number * layered) for number, each in enumerate(after)]
    with soon():
        desired = taken(DesiredSet(), *first, node=node)
    with soon():
        taken(desired, *then, node=node)


@bounded(200)
@given(mutated(st.just(POLICY)) | _policies(), st.lists(st.sampled_from(GOOD), max_size=3))
def test_a_policy_of_any_shape(value: Any, asked: list[Any]) -> None:
    paths = AsWritten()
    try:
        with soon():
            policy = parse_policy(dumped([value]), "policy.yaml", paths)
    except SpecInvalid as error:
        told(error.problems, {"policy.yaml"})
        return
    judge = partial(forbidden, policy=policy, paths=paths)
    taken(DesiredSet(), source("a.yaml", dumped(asked)), judge=judge)
