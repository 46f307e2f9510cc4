"""What specs may ask of a host: each rule by itself, and what becomes of a file that asks for too much."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.errors import SpecInvalid
from controller.model.desired import DesiredSet
from controller.model.host_policy import HostPolicy
from controller.model.resource import Resource
from controller.model.snapshot import Snapshot, SourceFile
from controller.spec.accept import accept
from controller.spec.host_policy import forbidden, parse_policy
from controller.spec.parse import parse
from tests.unit.resources import by_key, container, network

FILE = "/etc/masu/policy.yaml"
LINKS = {"/srv/www/link": "/etc"}
THEIRS = "/srv/theirs"
SAFE: dict[str, Any] = {
    "rootfs": {"path": "/srv/rootfs/web"},
    "namespaces": {"user": "auto"},
}
ROOTFS = {"rootfs": [{"path": "/srv/rootfs"}]}


class Host:
    def real(self, path: str) -> str:
        for link, target in LINKS.items():
            if path == link or path.startswith(f"{link}/"):
                return target + path.removeprefix(link)
        return path

    def loose(self, top: str, path: str) -> str:
        return (
            f"{THEIRS} is theirs"
            if top.startswith("/srv") and path.startswith(f"{THEIRS}/") and path != top
            else ""
        )


HOST = Host()


def policy(**rules: Any) -> HostPolicy:
    text = yaml.safe_dump({"apiVersion": "masu/v1", "kind": "HostPolicy", "spec": {**ROOTFS, **rules}})
    return parse_policy(text.encode(), FILE, HOST)


def found(rules: HostPolicy | None, *resources: Resource) -> list[tuple[str, str]]:
    """(path, why)."""
    return [(each.path, each.why) for each in forbidden(by_key(*resources), rules, HOST)]


def test_the_policy_to_begin_with_is_safe_and_its_comments_are_rules() -> None:
    text = Path("docs/policy.yaml").read_text()
    rules = parse_policy(text.encode(), FILE, HOST)
    path = {"path": "/opt/masu/rootfs/busybox"}
    assert found(rules, container("web", rootfs=path, namespaces={"user": "auto"})) == []
    dangerous: tuple[dict[str, Any], ...] = (
        {"namespaces": {}},
        {"rootfs": {"path": "/"}},
        {"mounts": [{"source": "/srv/www", "target": "/www"}]},
        {"devices": [{"path": "/dev/ttyUSB0"}]},
        {"ports": ["8080:80"]},
        {"process": {"args": ["/bin/sh"], "capabilities": {"add": ["NET_RAW"]}}},
    )
    for each in dangerous:
        assert found(rules, container("web", **{"rootfs": path, "namespaces": {"user": "auto"}, **each})), (
            each
        )
    written = re.sub(r"^  # ", "  ", text, flags=re.MULTILINE)
    assert parse_policy(written.encode(), FILE, HOST) != rules


def test_without_a_policy_everything_goes() -> None:
    assert found(None, container("a", rootfs={"path": "/"})) == []


def test_what_is_safe_goes_with_an_empty_policy() -> None:
    wanted = container(
        "a",
        **SAFE,
        mounts=[{"tmpfs": "/tmp"}, {"volume": "data", "target": "/data"}],
        limits={"pids": {"max": 9}},
    )
    assert found(policy(), wanted) == []


DANGEROUS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # what: rule, path, the part of the spec, rules that do not suffice, rules that do
    "another root": (
        "rootfs",
        "spec.rootfs.path",
        {"rootfs": {"path": "/srv/rootfsx"}},
        {},
        {"rootfs": [{"path": "/srv/rootfsx"}]},
    ),
    "a root that is written": (
        "rootfs",
        "spec.rootfs.path",
        {"rootfs": {"path": "/srv/rootfs/web", "writable": "direct"}},
        {},
        {"rootfs": [{"path": "/srv", "writable": True}]},
    ),
    "a mount": (
        "mounts",
        "spec.mounts[0].source",
        {"mounts": [{"source": "/srv/www", "target": "/www", "readOnly": True}]},
        {"mounts": [{"path": "/srv/ww"}]},
        {"mounts": [{"path": "/srv/www"}]},
    ),
    "a mount that is written": (
        "mounts",
        "spec.mounts[0].source",
        {"mounts": [{"source": "/srv/www", "target": "/www"}]},
        {"mounts": [{"path": "/srv/www"}]},
        {"mounts": [{"path": "/srv/www"}, {"path": "/srv", "writable": True}]},
    ),
    "a mount through a link": (
        "mounts",
        "spec.mounts[0].source",
        {"mounts": [{"source": "/srv/www/link/ssh", "target": "/www", "readOnly": True}]},
        {"mounts": [{"path": "/srv/www"}]},
        {"mounts": [{"path": "/etc/ssh"}]},
    ),
    "what others may exchange": (
        "mounts",
        "spec.mounts[0].source",
        {"mounts": [{"source": f"{THEIRS}/www", "target": "/www", "readOnly": True}]},
        {"mounts": [{"path": "/srv"}, {"path": THEIRS}]},
        {"mounts": [{"path": "/srv"}, {"path": f"{THEIRS}/www"}]},
    ),
    "a secret of the host in a variable": (
        "secrets",
        "spec.process.env.A",
        {"process": {"env": {"A": {"secret": "db-key"}, "B": {"age": "sealed"}}}},
        {"secrets": ["web-*"]},
        {"secrets": ["web-*", "db-*"]},
    ),
    "a secret of the host in a file": (
        "secrets",
        "spec.files[1].secret",
        {"files": [{"age": "sealed", "target": "/s/a"}, {"secret": "db-key", "target": "/s/b"}]},
        {"secrets": ["db"]},
        {"secrets": ["db-key"]},
    ),
    "a key": (
        "credentials",
        "spec.checkpoint.encryption.keyFile",
        {"checkpoint": {"encryption": {"keyFile": "/root/key"}}},
        {"mounts": [{"path": "/root"}]},
        {"credentials": ["/root"]},
    ),
    "credentials of a registry": (
        "credentials",
        "spec.rootfs.authfile",
        {"rootfs": {"image": "docker://r.example/a", "authfile": "/root/auth.json"}},
        {"images": [{"from": "docker://r.example", "tags": True}]},
        {"images": [{"from": "docker://r.example", "tags": True}], "credentials": ["/root/auth.json"]},
    ),
    "a device": (
        "devices",
        "spec.devices[0]",
        {"devices": [{"path": "/dev/fuse"}]},
        {"devices": [{"path": "/dev/net/*"}, {"match": {"subsystem": "misc"}}]},
        {"devices": [{"path": "/dev/fus[e]"}]},
    ),
    "a device below what is meant": (
        "devices",
        "spec.devices[0]",
        {"devices": [{"path": "/dev/shm/link"}]},
        {"devices": [{"path": "/dev/s*"}]},
        {"devices": [{"path": "/dev/shm/*"}]},
    ),
    "making nodes": (
        "devices",
        "spec.devices[0]",
        {"devices": [{"path": "/dev/fuse", "access": "rwm"}]},
        {"devices": [{"path": "/dev/fuse"}]},
        {"devices": [{"path": "/dev/fuse", "access": "mrw"}]},
    ),
    "whatever is plugged in": (
        "devices",
        "spec.devices[0]",
        {"devices": [{"match": {"subsystem": "tty", "name": "tty*"}}]},
        {"devices": [{"match": {"subsystem": "tty", "name": "tty?"}}, {"path": "/dev/tty*"}]},
        {"devices": [{"match": {"subsystem": "tty"}}]},
    ),
    "a right": (
        "capabilities",
        "spec.process.capabilities.add[1]",
        {"process": {"capabilities": {"add": ["NET_RAW", "CAP_SYS_ADMIN"]}}},
        {"capabilities": ["CAP_NET_RAW"]},
        {"capabilities": ["NET_RAW", "SYS_ADMIN"]},
    ),
    "no filter of system calls": (
        "privileged",
        "spec.process.seccomp",
        {"process": {"seccomp": "unconfined"}},
        {"privileged": ["maskedPaths", "newPrivileges"]},
        {"privileged": ["seccomp"]},
    ),
    "set-user-id programs": (
        "privileged",
        "spec.process.noNewPrivileges",
        {"process": {"noNewPrivileges": False}},
        {},
        {"privileged": ["newPrivileges"]},
    ),
    "bare /proc": (
        "privileged",
        "spec.process.maskedPaths",
        {"process": {"maskedPaths": "none"}},
        {},
        {"privileged": ["maskedPaths"]},
    ),
    "users of the host": (
        "namespaces",
        "spec.namespaces.user",
        {"namespaces": {}},
        {"namespaces": ["pid"]},
        {"namespaces": ["user"]},
    ),
    "ranges of ids": (
        "namespaces",
        "spec.namespaces.user",
        {"namespaces": {"user": {"uids": [], "gids": []}}},
        {},
        {"namespaces": ["user"]},
    ),
    "processes of the host": (
        "namespaces",
        "spec.namespaces.pid",
        {"namespaces": {"user": "auto", "pid": "host"}},
        {"namespaces": ["user", "ipc"]},
        {"namespaces": ["pid"]},
    ),
    "the network of the host": (
        "networks",
        "spec.namespaces.net",
        {"namespaces": {"user": "auto", "net": "host"}},
        {"networks": ["macvlan"]},
        {"networks": ["host"]},
    ),
    "a port": (
        "ports",
        "spec.ports[0]",
        {"ports": ["8080:80"]},
        {"ports": [{"ports": "8080/udp"}, {"ports": "8081-9000"}, {"ports": "8080", "addresses": ["::1"]}]},
        {"ports": [{"ports": "8000-8080/tcp"}]},
    ),
    "a port on one address": (
        "ports",
        "spec.ports[0]",
        {"ports": ["192.0.2.7:53:53/udp"]},
        {"ports": [{"ports": "53/udp", "addresses": ["127.0.0.1", "2001:db8::/32"]}]},
        {"ports": [{"ports": "53/udp", "addresses": ["192.0.2.0/24"]}]},
    ),
    "an image": (
        "images",
        "spec.rootfs.image",
        {"rootfs": {"image": "docker://ghcr.io/acmeevil/web@sha256:00"}},
        {"images": [{"from": "docker://ghcr.io/acme", "tags": True}]},
        {"images": [{"from": "docker://ghcr.io/acmeevil"}]},
    ),
    "an image by its tag": (
        "images",
        "spec.rootfs.image",
        {"rootfs": {"image": "oci:/srv/images/web:1.2"}},
        {"images": [{"from": "oci:/srv/images"}]},
        {"images": [{"from": "oci:/srv/images", "tags": True}]},
    ),
    "too much memory": (
        "limits",
        "spec.limits.memory.max",
        {"limits": {"memory": {"max": "1025Mi"}}},
        {"limits": {"memory": "1Gi"}},
        {"limits": {"memory": "2Gi", "cpu": None}},
    ),
    "no limit": (
        "limits",
        "spec.limits.cpu.max",
        {"limits": {"cpu": {"max": "max"}}},
        {"limits": {"cpu": "2"}},
        {},
    ),
    "no limit of processes": ("limits", "spec.limits.pids.max", {}, {"limits": {"pids": 10}}, {}),
}


@pytest.mark.parametrize("what", DANGEROUS)
def test_what_is_dangerous_has_to_be_listed(what: str) -> None:
    rule, path, part, too_little, enough = DANGEROUS[what]
    wanted = container("a", **{**SAFE, **part})
    ((where, why),) = found(policy(**too_little), wanted)
    assert where == path
    assert why.startswith(f"is not allowed by rule {rule} of {FILE}: ")
    enough = {key: value for key, value in enough.items() if key != "limits"} | {
        "limits": {k: v for k, v in enough.get("limits", {}).items() if v is not None}
    }
    assert found(policy(**enough), wanted) == []


def test_networks_and_who_is_on_them() -> None:
    lan, wanted = network("lan", type="macvlan", parent="nic0"), container("a", "lan", **SAFE)
    assert [path for path, _ in found(policy(), lan, wanted)] == ["spec.type", "spec.networks[0]"]
    assert found(policy(networks=["macvlan"]), lan, wanted) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds 0 documents"),
        ("kind: Node\napiVersion: masu/v1", "is not HostPolicy"),
        (
            "kind: HostPolicy\napiVersion: masu/v1\nspec: {mount: []}",
            '3:8: spec.mount: unknown field, did you mean "mounts"',
        ),
        ("kind: HostPolicy\napiVersion: masu/v1\nspec: {mounts: [{path: a}]}", "is not an absolute path"),
        ("kind: HostPolicy\napiVersion: masu/v1\nspec: {ports: [{ports: 0}]}", "a port is a number"),
    ],
)
def test_a_bad_policy_says_where(text: str, said: str) -> None:
    with pytest.raises(SpecInvalid, match=re.escape(FILE)) as raised:
        parse_policy(text.encode(), FILE, HOST)
    assert said in str(raised.value)


def test_a_policy_is_not_for_a_source() -> None:
    with pytest.raises(SpecInvalid, match="2:1: kind: is not for a source"):
        parse(b"apiVersion: masu/v1\nkind: HostPolicy\nspec: {}\n", "a.yaml")


SPEC = """\
apiVersion: masu/v1
kind: Container
metadata: {name: web}
spec:
  rootfs: {path: /srv/rootfs/web}
  namespaces: {user: auto}
  process:
    args: [/bin/true]
    capabilities:
      add: [NET_RAW]
"""


def take(before: DesiredSet, text: str, rules: HostPolicy | None) -> DesiredSet:
    file = SourceFile("a.yaml", text.encode(), hashlib.sha256(text.encode()).hexdigest())
    return accept(
        before, Snapshot("rev", (file,), ()), parse, "", lambda resources: forbidden(resources, rules, HOST)
    )


def test_an_edit_that_asks_too_much_keeps_the_last_good_version() -> None:
    good = take(DesiredSet(), SPEC.replace("[NET_RAW]", "[]"), policy())
    assert good.rejected == ()
    after = take(good, SPEC, policy())
    assert [str(each).split(" is not allowed")[0] for each in after.rejected] == [
        'a.yaml:10:13: spec.process.capabilities.add[0]: "web"'
    ]
    assert after.containers["web"].spec == good.containers["web"].spec
    loosened = take(after, SPEC, policy(capabilities=["NET_RAW"]))
    assert (loosened.rejected, loosened.containers["web"].section("process.capabilities.add")) == (
        (),
        ["NET_RAW"],
    )


def test_what_was_taken_under_a_wider_policy_stays_in_force_and_is_refused_where_it_stands() -> None:
    """Also when it was read by an earlier masu, and so without its positions."""
    wide = take(DesiredSet(), SPEC, None)
    for before in (wide, DesiredSet.from_json(wide.to_json())):
        after = take(before, SPEC, policy())
        assert after.containers["web"].spec == wide.containers["web"].spec
        assert [(each.line, each.column) for each in after.rejected] == [(10, 13)]


def test_who_is_new_and_asks_too_much_is_not_made_and_every_reason_is_told() -> None:
    text = SPEC.replace("user: auto", "pid: host")
    after = take(DesiredSet(), text, policy())
    assert after.resources == {}
    assert [each.path for each in after.rejected] == [
        "spec.namespaces.user",
        "spec.namespaces.pid",
        "spec.process.capabilities.add[0]",
    ]
