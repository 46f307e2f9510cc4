"""Schemas, and what people are told when a document does not fit."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from controller.spec import schema
from controller.spec.document import read
from controller.spec.formats import FORMATS

ROOT = Path(__file__).parents[2]

FULL = """
apiVersion: masu/v1
kind: Container
metadata: {name: web, labels: {app: shop, example.org/tier: "1"}}
spec:
  state: running
  rootfs: {path: /srv/rootfs/web, writable: overlay}
  process:
    args: [/bin/httpd, -f, -p, "80"]
    env: {LANG: C.UTF-8, EMPTY: ""}
    user: 1000:1000
    cwd: /
    rlimits: {nofile: {soft: 1024, hard: unlimited}, core: 0, memlock: max}
    capabilities: {drop: [ALL, CAP_KILL], add: [NET_BIND_SERVICE]}
    noNewPrivileges: true
    seccomp: default
    maskedPaths: none
    stop: {signal: SIGTERM, grace: 10s}
  restart: {policy: on-failure, backoff: {initial: 200ms, max: 1m}}
  namespaces:
    uts: private
    ipc: container:db
    pid: host
    mount: private
    net: private
    user: {uids: [{container: 0, host: 100000, size: 65536}], gids: [{container: 0, host: 100000, size: 65536}]}
    cgroup: host
    time: {boottime: 10d, monotonic: -5s}
  hostname: web.example.org
  sysctls: {net.core.somaxconn: "1024", net.ipv4.conf.eth0/1.forwarding: "1"}
  mounts: [{source: /srv/www, target: /www, readOnly: true}, {tmpfs: /tmp, size: 64Mi, mode: "1777"}]
  limits:
    cpu: {max: 1.5, weight: 200, cpus: 0-1, mems: 0}
    memory: {max: 256Mi, high: 200M, low: 0.5Gi, min: 1e3, swap: 0, force: false}
    pids: {max: 128}
    io: [{path: /srv, read: 50Mi/s, write: max, readIops: 500, writeIops: max, weight: 200, latency: 10ms}]
"""
LEAST = """
apiVersion: masu/v1
kind: Container
metadata: {name: web}
spec: {rootfs: {path: /srv/web}, process: {args: [/bin/sh]}}
"""
NOT_A_SPACE = 'spec.namespaces.{}: "{}" is not a namespace: use private, host or container:NAME'
NOT_A_SIGNAL = 'stop.signal: "65" is not a signal: use TERM, INT, HUP, USR1 or RTMIN+3, for example'
NOT_A_CAPABILITY = 'capabilities.add[0]: "{}" is not a capability'


def check(text):
    (only,) = read(text.encode(), "f.yaml")
    return [str(problem).removeprefix("f.yaml:") for problem in schema.validate(only)]


def spec(**sections):
    """The problems of a least container with these sections, without their positions."""
    (only,) = read(LEAST.encode(), "f.yaml")
    value = copy.deepcopy(only.value)
    value["spec"] |= sections
    return [f"{each.path}: {each.message}" for each in schema.validate(type(only)("f", 0, value, only.marks))]


def process(**fields):
    return [each.removeprefix("spec.process.") for each in spec(process={"args": ["/bin/sh"], **fields})]


@pytest.mark.parametrize("text", [FULL, LEAST])
def test_a_good_container_has_no_problems(text):
    assert check(text) == []


@pytest.mark.parametrize(
    "sections",
    [
        {"namespaces": {"user": "auto", "time": "host"}},
        {"namespaces": {}},
        {"mounts": []},
        {"limits": {}},
        {"limits": {"pids": {"max": "max"}, "cpu": {"max": "max"}, "memory": {"max": "max", "swap": "max"}}},
        {"limits": {"cpu": {"max": "1500m", "cpus": "0,2-3"}}},
        {"restart": {}},
        {"state": "frozen"},
    ],
)
def test_good_sections_have_no_problems(sections):
    assert spec(**sections) == []


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        (
            {"limits": {"io": [{"path": "/srv", "latency": "0s"}]}},
            'spec.limits.io[0].latency: "0s" is no target: write max for none',
        ),
        ({"limits": {"memory": {"maxx": 1}}}, 'spec.limits.memory.maxx: unknown field, did you mean "max"?'),
        (
            {"limits": {"memory": {"max": "256Mb"}}},
            'spec.limits.memory.max: "256Mb" is not a quantity: use 256M or 256Mi',
        ),
        (
            {"limits": {"memory": {"max": []}}},
            "spec.limits.memory.max: expected a string or a number, got a list: write for example 256Mi",
        ),
        (
            {"limits": {"memory": {"swap": -1}}},
            'spec.limits.memory.swap: "-1" is not a quantity: it is below zero',
        ),
        (
            {"limits": {"memory": None}},
            "spec.limits.memory: expected a mapping, got nothing: write for example {max: 256Mi}",
        ),
        ({"limits": {"cpu": {"weight": 0}}}, "spec.limits.cpu.weight: 0 is too small: at least 1"),
        ({"limits": {"cpu": {"weight": 10001}}}, "spec.limits.cpu.weight: 10001 is too large: at most 10000"),
        (
            {"limits": {"cpu": {"weight": 1.0}}},
            "spec.limits.cpu.weight: expected a whole number, got a number with a fraction: write for example 200",
        ),
        (
            {"limits": {"cpu": {"max": 0.001}}},
            'spec.limits.cpu.max: "0.001" is too little: the kernel gives no less than 10m',
        ),
        ({"limits": {"cpu": {"cpus": "3-1"}}}, 'spec.limits.cpu.cpus: "3-1": 3-1 ends before it begins'),
        (
            {"limits": {"pids": {"max": 0}}},
            "spec.limits.pids.max: 0 is not a number of processes: use a whole number from 1 to 4194304, or max",
        ),
        ({"memory": {}}, "spec.memory: unknown field: write limits: {memory: {max: 256Mi}}"),
        ({"mount": []}, 'spec.mount: unknown field, did you mean "mounts"?'),
        (
            {"state": "runing"},
            'spec.state: "runing" is not one of running, frozen, stopped, did you mean "running"?',
        ),
        ({"rootfs": {"path": "srv"}}, 'spec.rootfs.path: "srv" is not an absolute path: begin with /'),
        (
            {"rootfs": {"path": "/srv/../x"}},
            'spec.rootfs.path: "/srv/../x" contains ..: write the path that is meant',
        ),
        ({"rootfs": {"path": "/srv\n"}}, 'spec.rootfs.path: "/srv\\n" contains a control character'),
        (
            {"rootfs": {"path": "/srv", "image": "oci:x"}},
            'spec.rootfs.image: "x" is not an absolute path: begin with /',
        ),
        (
            {"restart": {"backoff": {"max": "10"}}},
            'spec.restart.backoff.max: "10" is not a duration: it has no unit: use 10s or 10ms',
        ),
        (
            {"mounts": {"source": "/a", "target": "/b"}},
            "spec.mounts: expected a list, got a mapping: write [{source: /a, target: /b}]",
        ),
        (
            {"mounts": ["/x"]},
            "spec.mounts[0]: expected a mapping, got a string: write for example {source: /srv/www, target: /www}",
        ),
        ({"mounts": [{"source": "/x"}]}, 'spec.mounts[0]: "target" is missing'),
        (
            {"mounts": [{"source": "/x", "target": "/y", "size": 1}]},
            "spec.mounts[0].size: size is for a tmpfs, not for a mount from the host",
        ),
        (
            {"mounts": [{"tmpfs": "/x", "source": "/y"}]},
            "spec.mounts[0].source: a tmpfs has no source: remove source or tmpfs",
        ),
        (
            {"mounts": [{"tmpfs": "/x", "mode": 755}]},
            "spec.mounts[0].mode: expected a string, got a number: put it in quotes",
        ),
        (
            {"namespaces": {"pid": "privat"}},
            NOT_A_SPACE.format("pid", "privat") + ', did you mean "private"?',
        ),
        (
            {"namespaces": {"net": "container:a/b"}},
            NOT_A_SPACE.format("net", "container:a/b"),
        ),
        (
            {"namespaces": {"mount": "container:a"}},
            'spec.namespaces.mount: "container:a" is not "private"',
        ),
        (
            {"namespaces": {"user": {"uids": [{"container": 0, "host": 1, "size": 1}]}}},
            'spec.namespaces.user: "gids" is missing',
        ),
        ({"namespaces": {"time": {}}}, "spec.namespaces.time: must have at least 1 field"),
        (
            {"namespaces": {"uts": True}},
            "spec.namespaces.uts: expected a string, got true: use private, host or container:NAME",
        ),
        (
            {"sysctls": {"net.core.somaxconn": 1}},
            'spec.sysctls["net.core.somaxconn"]: expected a string, got a number: put it in quotes',
        ),
        (
            {"sysctls": {"net.core.x": "1\n2"}},
            'spec.sysctls["net.core.x"]: "1\\n2" is not a sysctl value: write one line',
        ),
    ],
)
def test_each_mistake_is_one_problem_in_plain_words(sections, problem):
    assert spec(**sections) == [problem]


@pytest.mark.parametrize(
    "key", ["somaxconn", "net..x", "net.//.x", "net./x", "../x", "net.core.", "/proc/x", "a.b\n", ""]
)
def test_a_sysctl_name_cannot_leave_its_directory(key):
    assert len(spec(sysctls={key: "1"})) == 1


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"args": []}, "args: must have at least 1 entry"),
        ({"args": "sh"}, "args: expected a list, got a string: write [sh]"),
        ({"args": [""]}, 'args[0]: "" is too short: at least 1'),
        ({"args": ["sleep", 10]}, "args[1]: expected a string, got a number: put it in quotes"),
        ({"arg": 1}, 'arg: unknown field, did you mean "args"?'),
        ({"env": {"A=B": "1"}}, 'env["A=B"]: "A=B" is not the name of an environment variable: no = and no spaces'),
        ({"env": {"PORT": 80}}, "env.PORT: 80 is not text: put it in quotes"),
        ({"user": "root"}, 'user: "root" is not a user: use numbers, as "1000" or "1000:1000"'),
        ({"user": "1:4294967295"}, 'user: "1:4294967295" is not a user: ids end at 4294967294'),
        ({"user": "1:"}, 'user: "1:" is not a user: use numbers, as "1000" or "1000:1000"'),
        ({"noNewPrivileges": "yes"}, "noNewPrivileges: expected true or false, got a string: write true"),
        ({"rlimits": {"nofile": {"soft": 2, "hard": 1}}}, "rlimits.nofile: soft is above hard: 2 > 1"),
        ({"rlimits": {"nofile": {"soft": 2}}}, 'rlimits.nofile: "hard" is missing'),
        ({"rlimits": {"NOFILE": 2}}, 'rlimits.NOFILE: unknown field, did you mean "nofile"?'),
        (
            {"capabilities": {"add": ["NET_AMDIN"]}},
            NOT_A_CAPABILITY.format("NET_AMDIN") + ', did you mean "NET_ADMIN"?',
        ),
        ({"capabilities": {"add": ["ALL"]}}, NOT_A_CAPABILITY.format("ALL")),
        ({"stop": {"signal": "TRM"}}, 'stop.signal: "TRM" is not a signal, did you mean "TERM"?'),
        ({"stop": {"signal": 65}}, NOT_A_SIGNAL),
        ({"seccomp": "none"}, 'seccomp: "none" is not one of default, unconfined'),
    ],
)  # fmt: skip
def test_each_mistake_in_a_process_is_one_problem(fields, problem):
    assert process(**fields) == [problem]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1", ['1:1: "kind" is missing: write kind: Container']),
        (
            "kind: Contaner",
            [
                (
                    '1:1: kind: "Contaner" is not one of Container, Group, HostPolicy, Network, Node, Volume,'
                    ' did you mean "Container"?'
                )
            ],
        ),
        ("kind: [Container]", ["1:1: kind: expected a string, got a list"]),
        (LEAST.replace("masu/v1", "masu/v2"), ['2:1: apiVersion: "masu/v2" is not "masu/v1"']),
        (LEAST.replace("name: web", "name: Web"), None),
        (LEAST.replace("metadata", "metdata"), None),
        (
            "apiVersion: masu/v1\nkind: Container",
            ['1:1: "metadata" is missing', '1:1: "spec" is missing'],
        ),
    ],
)
def test_the_frame_of_a_document(text, problems):
    found = check(text)
    assert found == problems if problems else found


def test_problems_stand_where_the_key_is_and_come_in_the_order_of_the_file():
    text = LEAST.replace(
        "spec: {", "spec:\n  state: x\n  rootfs: {path: y}\n  process: {args: [a, 1]}\n  zzz: {\n"
    )
    text = text.partition("  zzz")[0] + "  zzz: 1\n"
    assert [each.split(": ")[0] for each in check(text)] == ["6:3", "7:12", "8:23", "9:3"]


def test_a_flood_of_mistakes_ends():
    assert len(process(env={f"A{n}": n for n in range(1000)})) == schema.MOST_ERRORS
    assert len(process(**{f"A{n}": n for n in range(1000)})) == schema.MOST_ERRORS


def test_the_whole_schema_stands_alone_and_is_valid():
    whole = schema.schema("Container")
    Draft202012Validator.check_schema(whole)
    text = json.dumps(whole)
    assert ".schema.json" not in text
    assert set(whole["$defs"]) == {
        "metadata", "state", "rootfs", "process", "restart", "namespaces", "hostname", "sysctls", "mounts",
        "cpu", "hugepages", "memory", "pids", "io", "networks", "ports", "hosts", "resolver", "group", "notify",
        "devices", "checkpoint", "health", "placement", "files", "values",
    }  # fmt: skip
    (full,) = read(FULL.encode(), "f.yaml")
    assert not list(Draft202012Validator(whole).iter_errors(full.value))


def test_an_unknown_kind_has_no_schema():
    assert schema.kinds() == ("Container", "Group", "HostPolicy", "Network", "Node", "Volume")
    with pytest.raises(ValueError, match='"Pod" is not one of Container, Group, HostPolicy'):
        schema.schema("Pod")


def schemas_in(node, path="", *, named=False):
    """Every schema below, with its path; `named`: the node maps names to schemas."""
    if isinstance(node, list):
        for index, each in enumerate(node):
            yield from schemas_in(each, f"{path}/{index}")
    elif isinstance(node, dict):
        if not named:
            yield path, node
        for key, value in node.items():
            if named or key in {"properties", "$defs"}:
                yield from schemas_in(value, f"{path}/{key}", named=not named)
            elif key in {"items", "prefixItems", "additionalProperties", "if", "then", "else"}:
                yield from schemas_in(value, f"{path}/{key}")


ALL = {f"{kind}#{path}": each for kind in schema.kinds() for path, each in schemas_in(schema.schema(kind))}


@pytest.mark.parametrize("path", [path for path in ALL if "/then/" not in path and "/else/" not in path])
def test_every_field_is_described_for_its_user(path):
    if path.rpartition("/")[0].endswith("/properties"):
        target = path.partition("#")[0] + ALL[path].get("$ref", "#")
        said = ALL[path].get("description") or ALL[target]["description"]
        assert said.endswith("."), path


@pytest.mark.parametrize("path", list(ALL))
def test_every_object_is_closed_and_every_pattern_is_whole(path):
    each = ALL[path]
    if each.get("type") == "object" and "properties" in each:
        assert each["additionalProperties"] is False
    if "pattern" in each:
        assert each["pattern"].startswith("^")
        assert each["pattern"].endswith("$")
        assert "x-error" in each or each.get("format") in FORMATS
    assert each.get("format") is None or each["format"] in FORMATS


@pytest.mark.parametrize(
    "path", [path for path, each in ALL.items() if "examples" in each or "default" in each]
)
def test_examples_and_defaults_fit_their_own_schema(path):
    whole = schema.schema(path.partition("#")[0])
    validator = Draft202012Validator({"$defs": whole["$defs"], **ALL[path]})
    for value in (
        *ALL[path].get("examples", ()),
        *([ALL[path]["default"]] if "default" in ALL[path] else ()),
    ):
        validator.validate(value)
        if "format" in ALL[path]:
            assert FORMATS[ALL[path]["format"]](value)


TEXTS = st.text(alphabet="0123456789.-+,:eEkKmMgGiIdhs/ax\n ", max_size=8) | st.from_regex(
    r"\A(max|[0-9]{1,3}(\.[0-9])?(Ki|Mi|k|M|m|e[0-9])?|([0-9]d)?([0-9]h)?([0-9]m)?([0-9]s)?|[0-3]-[0-9],[0-9]"
    r"|/[a./]{0,6}|[0-9]{1,4}:[0-9]{1,4}|(SIG)?(TERM|INT|HUP|RTMIN\+[0-9]))\Z"
)


@settings(deadline=None, max_examples=500)
@given(TEXTS)
def test_what_a_format_accepts_its_pattern_accepts(text):
    """Editors see the pattern, masu asks the format."""
    for path, each in ALL.items():
        if "format" in each and "pattern" in each:
            try:
                FORMATS[each["format"]](text)
            except ValueError:
                continue
            alone = {key: each[key] for key in ("type", "pattern")}
            assert Draft202012Validator(alone).is_valid(text), (path, text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
SECTIONS = ["rootfs", "process", "restart", "namespaces", "sysctls", "mounts", "limits", "hostname", "state"]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(SECTIONS), json_values)
def test_any_value_anywhere_gives_problems_of_one_line(section, value):
    for problem in spec(**{section: value}) + process(
        rlimits=value, user=value, stop=value, capabilities=value
    ):
        assert len(problem.splitlines()) == 1
        assert len(problem) < 500


def test_the_validator_is_not_imported_before_it_is_needed():
    program = "import sys, controller.spec.schema; print('jsonschema' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "False\n"


def test_one_schema_for_all_kinds_says_the_same_as_each() -> None:
    whole = schema.bundle()
    Draft202012Validator.check_schema(whole)
    both = Draft202012Validator(whole)
    good = {
        "apiVersion": "masu/v1",
        "kind": "Container",
        "metadata": {"name": "web"},
        "spec": {"rootfs": {"path": "/srv"}, "process": {"args": ["/bin/web"]}},
    }
    assert both.is_valid(good)
    assert both.is_valid({**good, "kind": "Volume", "spec": {"size": "1Gi"}})
    assert not both.is_valid({**good, "kind": "Volume"})
    assert not both.is_valid({**good, "kind": "Nonsense"})
    assert not both.is_valid({**good, "spec": {**good["spec"], "nonsense": 1}})
    assert "Group" in whole["$defs"]
    assert "group" in whole["$defs"]
