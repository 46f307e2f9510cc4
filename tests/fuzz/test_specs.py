"""Spec files of any text and any bytes: told of with file, line and column, or accepted and then wished for."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from controller.errors import Problem, SpecInvalid
from controller.model.desired import DesiredSet
from controller.model.host_policy import HOST_POLICY, AsWritten
from controller.model.image import Choice, Image
from controller.model.resource import CONTAINER, NETWORK, NODE
from controller.model.snapshot import Snapshot, SourceFile
from controller.reconcile.desired import Desired, Named, desire, resolve
from controller.spec.accept import accept, anything
from controller.spec.document import read
from controller.spec.formats import FORMATS
from controller.spec.host_policy import forbidden, parse_policy
from controller.spec.parse import parse
from controller.spec.schema import kinds, schema
from tests.fuzz.bounds import bounded, soon
from tests.fuzz.strategies import damaged, leaves, mutated, places, texts
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
            "env": {"A": "b", "S": {"secret": "key"}},
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
        "sysctls": {"net.core.somaxconn": "1024", "kernel.msgmax": "5"},
        "mounts": [{"source": "/srv/www", "target": "/www", "readOnly": True}, {"tmpfs": "/tmp",
        "size": "64Mi"}],
        "files": [{"secret": "key", "target": "/run/secrets/key"}],
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
    {"kind": "Node", "metadata": {"name": "edge-7", "labels": {"disk": "fast"}},
    "spec": {"reserved": {"memory": "1Gi"}}},
)  # fmt: skip
OTHERS_WHOLE = [{"apiVersion": "masu/v1", **each} for each in OTHERS]
GOOD = [*WRITTEN, ALL, ALL, ALL, *OTHERS_WHOLE]
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


def _fits(check: Callable[[Any], bool], word: str) -> bool:
    try:
        return check(word)
    except ValueError:
        return False


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, (str, int)) and not isinstance(value, bool):
        yield str(value)


EDGES = (
    "0", "1", "0.001", "1e18", "18446744073709551615", "9223372036854775807", "9223372036854775808",
    "4294967295", "1Ei", "7Ei", "15Ei",
    "1ms", "1ns", "0s", "9999999d", "106751d", "-10d", "1bit", "100Tbit", "1Tbit", "1Mi/s", "15Ei/s", "0-3",
    "0", "255", "4095", "4,5",
    "0.0.0.0/0", "::/0", "10.88.0.0/30", "10.88.0.1/32", "fd88::1", "fd88::/127", "10.88.0.10", "127.0.0.1",
    "224.0.0.1", "::ffff:10.0.0.1",
    "8080:80", "65535:65535/udp", "127.0.0.1:1:1/tcp", "[::1]:1:1", "1-65535:1-65535", "80", "RTMIN+3",
    "SIGKILL", "9", "64", "0:0",
    "4294967294:1", "* * * * *", "59 23 31 12 *", "0 0 29 2 *", "@yearly", "22:00-06:00", "00:00-00:00",
    "150ms/1s", "1us/500ms",
    "02:00:00:00:00:01", "/", "/./x//", "/etc/hosts", "/dev/null", "/proc", "/sys/x", "/run/secrets/a", "/tmp",
    "net.core.somaxconn",
    "net.ipv4.conf.a.b", "net.ipv4.conf.all/x", "kernel.msgmax", "fs.mqueue.msg_max", "front", "wan", "batch",
    "data", "web", "edge-7",
    "container:db", "container:web", "oci:/srv/x:1", "docker://docker.io/library/x@sha256:" + "0" * 64, "2Mi",
    "1Gi", "64Ki", "unlimited",
)  # fmt: skip
"""Of every format some, and at its ends."""
POOL = sorted({*EDGES, *(each for kind in kinds() for each in _strings(schema(kind))), *_strings(GOOD)})
FITTING = {name: [each for each in POOL if _fits(check, each)] for name, check in FORMATS.items()}
plausible = st.sampled_from(EDGES) | st.sampled_from(
    [0, 1, 2**31, 2**63 - 1, 2**64 - 1, True, False, None, [], {}]
)


@st.composite
def of_schema(draw: st.DrawFn, node: Any, root: Any, level: int = 0) -> Any:  # noqa: PLR0911
    """What a schema asks for; now and then it is something else."""
    if "$ref" in node:
        target = root
        for key in node["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        rest = {key: each for key, each in node.items() if key != "$ref"}
        return draw(of_schema({**target, **rest}, root, level))
    if level > 12 or draw(st.integers(0, 99)) == 73:
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
        least = node.get("minItems", 0)
        items = of_schema(node.get("items", {}), root, level + 1)
        return draw(st.lists(items, min_size=least, max_size=max(least, 2)))
    if kind == "integer":
        least, most = node.get("minimum", 0), node.get("maximum", 2**64 - 1)
        return draw(st.sampled_from([least, most]) | st.integers(least, most))
    if kind in {"string", None} or "format" in node:
        return draw(st.sampled_from(_words_of(node)))
    return draw({"boolean": st.booleans(), "number": st.integers(0, 9)}.get(kind, leaves))


def _words_of(node: Any) -> list[str]:
    """What its format, or its pattern, takes of all words that there are."""
    if node.get("format") in FITTING:
        return FITTING[node["format"]] or ["?"]
    pattern = re.compile(node.get("pattern", ""))
    return [each for each in POOL if pattern.search(each) and len(each) >= node.get("minLength", 0)] or ["?"]


@st.composite
def _object_of(draw: st.DrawFn, node: Any, root: Any, level: int) -> dict[str, Any]:
    known, needed = node.get("properties", {}), set(node.get("required", ()))
    some = (
        draw(st.sets(st.sampled_from(sorted(known)), min_size=min(1, len(known)), max_size=5))
        if known
        else set()
    )
    found = {key: draw(of_schema(known[key], root, level + 1)) for key in known if key in needed | some}
    others = node.get("additionalProperties")
    if isinstance(others, dict):
        names = st.sampled_from(_words_of(node.get("propertyNames", {})))
        found.update(draw(st.dictionaries(names, of_schema(others, root, level + 1), min_size=1, max_size=2)))
    return found


LEAST: Mapping[str, Mapping[str, Any]] = {
    CONTAINER: {"rootfs": {"path": "/srv"}, "process": {"args": ["/x"]}},
    NETWORK: {"subnets": ["10.88.0.0/24", "fd88::/64"]},
}


def _named(kind: str) -> st.SearchStrategy[Any]:
    whole = schema(kind)
    head = {"apiVersion": "masu/v1", "kind": kind, "metadata": {"name": "web"}}
    return of_schema(whole["properties"]["spec"], whole).map(
        lambda spec: {**head, "spec": _whole(kind, spec)}
    )


def _whole(kind: str, spec: Any) -> Any:
    """With what it needs, and without what is known not to go together, or next to nothing would be accepted."""
    if not isinstance(spec, dict):
        return spec
    found = {**LEAST.get(kind, {}), **spec}
    rootfs = found.get("rootfs")
    if isinstance(rootfs, dict) and "image" not in rootfs:
        plain = {key: each for key, each in rootfs.items() if key not in {"pull", "authfile"}}
        found["rootfs"] = {"path": "/srv", **plain}
    return found


@st.composite
def _edited(draw: st.DrawFn) -> Any:
    """A good document with other values of the right sort in one to three places of its spec."""
    value = copy.deepcopy(draw(st.sampled_from(GOOD)))
    scalars = [place for place in places(value["spec"]) if isinstance(place[0][place[1]], (str, int))]
    for _ in range(draw(st.integers(1, 3))):
        parent, key = draw(st.sampled_from(scalars))
        parent[key] = draw(
            st.sampled_from(_alike(parent[key])) if isinstance(parent[key], str) else plausible
        )
    return value


def _alike(word: str) -> list[str]:
    """Words of the narrowest format that takes this one, too."""
    return min((each for each in FITTING.values() if word in each), key=len, default=POOL)


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
    ["&a ", "*a", "<<: ", "- ", "? ", ": ", "! ", "!!map ", "!!binary ", "!x ", "|\n", ">\n", "'", '"', "{",
     "}",
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


KINDS = [CONTAINER, CONTAINER, CONTAINER, *(each for each in kinds() if each != HOST_POLICY)]


@bounded(250)
@given(st.lists(st.sampled_from(KINDS).flatmap(_named), min_size=1, max_size=2), st.booleans())
def test_a_spec_that_its_schema_may_have_asked_for(values: list[Any], beside: bool) -> None:
    """By itself, and beside others that it may be about."""
    one(dumped([*values, *(OTHERS_WHOLE if beside else ())]))


@bounded(150)
@given(_edited())
def test_a_spec_with_another_value_in_it(value: Any) -> None:
    one(dumped([value, *(each for each in OTHERS_WHOLE if each["metadata"] != value["metadata"])]))


def test_what_is_mutated_was_good() -> None:
    for each in GOOD:
        parse(dumped([each]), "f.yaml")


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
