"""What people are told to write instead of a value of the wrong type, and of a field that is not there."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.spec import schema
from controller.spec.document import read
from controller.spec.flow import flow

HEAD = "apiVersion: masu/v1\nkind: Container\nmetadata: {name: web}\nspec:\n"


def told(text: str, head: str = HEAD) -> list[str]:
    """The problems of a container whose spec has this line, without their positions."""
    rootfs = "" if text.startswith("rootfs") or head is not HEAD else "  rootfs: {path: /srv}\n"
    (document,) = read(f"{head}{rootfs}  {text}\n".encode(), "f.yaml")
    return [each.message for each in schema.validate(document)]


MAPPING = "expected a mapping, got a "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits: {memory: 64Mi}", MAPPING + "string: write {max: 64Mi}"),
        ("limits: {cpu: 0.5}", MAPPING + "number with a fraction: write {max: 0.5}"),
        ("limits: {pids: 10}", MAPPING + "number: write {max: 10}"),
        ("limits: 64Mi", MAPPING + "string: write {memory: {max: 64Mi}}"),
        ("rootfs: /opt/x", MAPPING + "string: write {path: /opt/x}"),
        ("rootfs: nginx:1.27", MAPPING + "string: write {image: docker://docker.io/library/nginx:1.27}"),
        ("rootfs: 5", MAPPING + "number: write for example {path: /srv/rootfs/web}"),
        ("restart: always", MAPPING + "string: write {policy: always}"),
        ("networks: [home]", MAPPING + "string: write {network: home}"),
        ("networks: home", "expected a list, got a string: write [{network: home}]"),
        ("mounts: [/srv:/data]", MAPPING + "string: write {source: /srv, target: /data}"),
        ("mounts: [data:/data:ro]", MAPPING + "string: write {volume: data, target: /data, readOnly: true}"),
        ("mounts: [/data]", MAPPING + "string: write for example {source: /srv/www, target: /www}"),
        ("devices: [/dev/fuse]", MAPPING + "string: write {path: /dev/fuse}"),
        ("checkpoint: {schedule: 10m}", MAPPING + "string: write {every: 10m}"),
        ("checkpoint: {schedule: '0 4 * * *'}", MAPPING + 'string: write {cron: "0 4 * * *"}'),
        ("checkpoint: {volumes: data}", "is not allowed here: write [data]"),
        ("process: {capabilities: [NET_ADMIN]}", MAPPING + "list: write {add: [NET_ADMIN]}"),
        ("process: {env: [A=b]}", MAPPING + "list: write {A: b}"),
        ("process: {env: [{name: A, value: b}]}", MAPPING + "list: write {A: b}"),
        ("process: {env: {A: }}", 'expected a string or a mapping, got nothing: write ""'),
        ("health: {exec: wget -qO- x}", "expected a list, got a string: write [wget, -qO-, x]"),
        ("process: {args: sleep 1000}", 'expected a list, got a string: write [sleep, "1000"]'),
        ("ports: 8080:80", 'expected a list, got a string: write ["8080:80"]'),
        (
            "ports: [{host: 8080, container: 80}]",
            'expected a string, got a mapping: write for example "8080:80/tcp"',
        ),
        ("ports: [8080]", 'expected a string, got a number: write for example "8080:80/tcp"'),
        (
            "process: {args: [sh, -c, echo a: b]}",
            'expected a string, got a mapping; a colon and a space make a mapping: write "echo a: b"',
        ),
        ("hostname: [web]", "expected a string, got a list: write web"),
        ("group: [web]", "expected a string or a mapping, got a list: write web"),
        ("state: true", "expected a string, got true: use running, frozen, stopped"),
        ("process: {rlimits: 9}", MAPPING + "number: write for example {nofile: {soft: 1024, hard: 4096}}"),
        ("checkpoint: true", "expected a mapping, got true: write for example {schedule: {every: 10m}}"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_told_with_what_to_write(text: str, message: str) -> None:
    assert told(text) == [message]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("volumes: [data]", "unknown field: write mounts: [{volume: NAME, target: /data}]"),
        ("labels: {a: b}", "unknown field: write metadata: {labels: "),
        ("image: nginx", "unknown field: write rootfs: {image: "),
        ("process: {cmd: [sh]}", "unknown field: write args: [PROGRAM, ARGUMENT]"),
        ("mounts: [{type: tmpfs, target: /tmp}]", "or {tmpfs: /tmp} for one in memory"),
        ("networks: [{netwrk: home}]", 'unknown field, did you mean "network"?'),
        ("zzz: 1", "unknown field; known here: state, rootfs, process, "),
    ],
)
def test_a_field_of_other_programs_is_told_with_its_place_here(text: str, part: str) -> None:
    (message,) = told(text)
    assert part in message


def test_every_object_lists_what_it_knows() -> None:
    head = "apiVersion: masu/v1\nkind: HostPolicy\nspec:\n"
    (message,) = told("zzz: 1", head)
    assert message.startswith("unknown field; known here: rootfs, mounts, secrets, ")


TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126)) | st.sampled_from(
    ["é", "true", "1e3", "~", "\U00018cd6", "a\nb"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(VALUES)
def test_what_is_to_be_written_is_read_as_it_was_meant(value: object) -> None:
    (document,) = read(f"a: {flow(value)}".encode(), "f.yaml")
    assert document.value == {"a": value}


BEGIN, END = "-----BEGIN AGE ENCRYPTED FILE-----", "-----END AGE ENCRYPTED FILE-----"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([BEGIN, "YWdl", "", "YQ==", END], ""),
        (
            ["YWdl", END],
            f"its first line is not {BEGIN}: write what masu seal says after |, line below line",
        ),
        (["age: |", f"  {BEGIN}", "  YWdl", f"  {END}"], "its first line is age: | again"),
        ([f"{BEGIN} YWdl {END}"], f"its first line is not {BEGIN}: "),
        ([BEGIN, "YWdl"], f"its last line is not {END}"),
        ([BEGIN, "YWdl", "a b", END], "its line 3 is not base64"),
        ([BEGIN, "", END], "there is nothing between its first line and its last"),
    ],
)
def test_what_is_sealed_is_told_what_it_lacks(lines: list[str], message: str) -> None:
    found = told(f"process: {{env: {{A: {{age: {json.dumps(chr(10).join(lines))}}}}}}}")
    assert found == [] if not message else found[0].startswith(message)


def test_what_is_long_is_not_turned_over() -> None:
    """A long text that aliases multiply costs no more than its mistake."""
    text = f"process: {{args: &a {'x ' * 100_000}, command: *a}}"
    began = time.thread_time()
    assert told(text) == [
        'expected a list, got a string: write for example [/bin/httpd, -f, -p, "80"]',
        "expected a list, got a string: write for example [/bin/sh, -c]",
    ]
    assert time.thread_time() - began < 1
