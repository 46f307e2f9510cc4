"""Images as values: how they are called, which one a container has, and what runs."""

from __future__ import annotations

from typing import Any

import pytest

from controller.errors import SpecInvalid
from controller.model.image import (
    Choice,
    Image,
    Pin,
    Source,
    Want,
    choose,
    image_of,
    in_index,
    parse_reference,
    process_of,
    unfit,
)
from controller.reconcile.desired import Named, desire, resolve
from controller.spec.parse import parse
from tests.unit.resources import by_key, container
from tests.worlds import facts

ONE, TWO = (f"sha256:{each * 64}" for each in "12")
IMAGE = Image(ONE, "/i", ("/run",), ("-f",), (("A", "1"), ("PATH", "/x")), "/srv", "5:6", stop="SIGINT")


@pytest.mark.parametrize(
    ("text", "name", "tag", "digest", "registry", "loopback"),
    [
        ("oci:/srv/web:1.2", "/srv/web", "1.2", "", "", False),
        (f"oci:/srv/web@{ONE}", "/srv/web", "", ONE, "", False),
        ("docker://r.example/a/b:x", "r.example/a/b", "x", "", "r.example", False),
        (f"docker://127.0.0.1:5000/a:x@{ONE}", "127.0.0.1:5000/a", "x", ONE, "127.0.0.1:5000", True),
        ("docker://[::1]:5000/a:x", "[::1]:5000/a", "x", "", "[::1]:5000", True),
        ("docker://localhost/a:x", "localhost/a", "x", "", "localhost", True),
        ("docker://127.0.0.1.example/a:x", "127.0.0.1.example/a", "x", "", "127.0.0.1.example", False),
    ],
)
def test_references(text: str, name: str, tag: str, digest: str, registry: str, loopback: bool) -> None:
    found = parse_reference(text)
    assert (found.name, found.tag, found.digest, found.registry) == (name, tag, digest, registry)
    assert found.is_loopback is loopback


@pytest.mark.parametrize(
    "text",
    [
        "web:1", "oci:web:1", "oci:/srv/../web:1", "oci:/srv/web", "docker:r.example/a:1", "docker://busybox:1",
        "docker://r.example/a", "docker://user:secret@r.example/a:1", "docker://r.example/A:1",
        "docker://r.example/a@sha256:12", "docker://r.example/../a:1", "docker://r.example/a:1 --x",
        "docker://-r.example/a:1",
    ],
)  # fmt: skip
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("written", "args"),
    [
        ({}, ["/run", "-f"]),
        ({"args": ["-v"]}, ["/run", "-v"]),
        ({"command": ["/sh"]}, ["/sh"]),
        ({"command": ["/sh"], "args": ["-c"]}, ["/sh", "-c"]),
    ],
)
def test_command_and_args_as_in_kubernetes(written: dict[str, Any], args: list[str]) -> None:
    assert process_of(written, Choice(ONE, IMAGE))["args"] == args


def test_what_is_written_wins() -> None:
    found = process_of({"env": {"A": "2"}, "stop": {"grace": "1s"}, "user": 0}, Choice(ONE, IMAGE))
    assert found["env"] == {"A": "2", "PATH": "/x"}
    assert (found["cwd"], found["user"]) == ("/srv", 0)
    assert found["stop"] == {"signal": "SIGINT", "grace": "1s"}


@pytest.mark.parametrize(
    ("said", "user", "unknown"),
    [
        ("", "", ""),
        ("7", "7:0", ""),
        ("web", "100:101", ""),
        ("100", "100:101", ""),
        ("web:www", "100:200", ""),
        ("web:9", "100:9", ""),
        ("ghost", "", "ghost"),
        ("web:ghosts", "", "web:ghosts"),
    ],
)
def test_users_by_name(said: str, user: str, unknown: str) -> None:
    found = image_of(ONE, "/i", {"config": {"User": said}}, "web:x:100:101::/:\n", "www:x:200:\n")
    assert (found.user, found.unknown_user) == (user, unknown)
    assert bool(unfit({"args": ["x"]}, found)) is bool(unknown)
    assert not unfit({"args": ["x"], "user": 1}, found)
    assert unfit({"user": 1}, found), "it does not say what to run"


def want(reference: str, pull: Any = "missing") -> Want:
    return Want(Source(reference), pull, "spec")


def test_a_tag_means_what_it_meant() -> None:
    tag = "oci:/srv/web:1"
    pins = {"web": Pin(tag, ONE), "other": Pin("oci:/srv/other:1", TWO)}
    assert choose(want(tag), "web", pins, ()) == ONE
    assert choose(want(tag), "db", pins, {ONE}) == ONE, "the host has one of that name"
    assert choose(want(tag), "db", pins, ()) == ""
    assert choose(want(tag, "always"), "web", pins, {ONE}) == ONE, "until it was asked for"
    assert choose(want(tag, "always"), "db", pins, {ONE}) == ""
    assert choose(want(f"docker://r.example/a@{TWO}", "always"), "db", {}, {TWO}) == TWO
    assert choose(want("oci:/srv/web:2"), "web", pins, {ONE}) == ""


def test_the_one_for_this_machine() -> None:
    entries = [
        {"digest": ONE, "platform": {"os": "linux", "architecture": "arm64"}},
        {"digest": TWO, "platform": {"os": "linux", "architecture": "amd64"}},
    ]
    assert in_index({"manifests": entries}, "x86_64") == TWO
    assert in_index({"manifests": entries}, "aarch64") == ONE
    assert in_index({"layers": []}, "x86_64") is None
    with pytest.raises(ValueError, match="no image for riscv64"):
        in_index({"manifests": entries}, "riscv64")
    with pytest.raises(ValueError, match="no digest"):
        in_index({"manifests": [{"digest": "../../x"}]}, "x86_64")


def test_a_digest_in_place_of_its_tag_makes_nothing_anew() -> None:
    def frames(reference: str, choice: Choice) -> tuple[str, str]:
        one = container("web", rootfs={"image": reference})
        found, _ = resolve(Named("i", "/n", "/s"), by_key(one), {}, (), images={"web": choice})
        frame = desire(found["web"], facts("v2")).frame
        return frame.digest, frame.frame_digest

    by_tag = frames("docker://r.example/a:1", Choice(ONE, IMAGE))
    assert frames(f"docker://r.example/a@{ONE}", Choice(ONE, IMAGE)) == by_tag
    assert frames("docker://r.example/a:1", Choice(TWO, None))[1] != by_tag[1]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("rootfs: {}", 'spec.rootfs: "path" or "image" is missing'),
        ("rootfs: {path: /r}", '"process" is missing'),
        ("rootfs: {path: /r}, process: {cwd: /}", 'spec.process: "args" is missing'),
        ("rootfs: {path: /r, image: 'oci:/i:1'}, process: {args: [x]}", "remove one of path and image"),
        ("rootfs: {image: 'oci:/i:1', writable: direct}", "an image is not written into"),
        ("rootfs: {image: 'oci:/i:1', authfile: /a}", "asks for no credentials"),
        ("rootfs: {path: /r, pull: always}, process: {args: [x]}", "pull is about an image"),
    ],
)
def test_rules_that_no_schema_says(spec: str, problem: str) -> None:
    text = f"apiVersion: masu/v1\nkind: Container\nmetadata: {{name: web}}\nspec: {{{spec}}}\n"
    with pytest.raises(SpecInvalid) as caught:
        parse(text.encode(), "f.yaml")
    assert problem in str(caught.value)
