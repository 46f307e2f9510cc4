"""What a checkpoint's processes were made with and the spec has otherwise: named by its keys, without secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.model.frame import Frame, without_secrets
from controller.reconcile.differences import differences

CONFIG: dict[str, Any] = {
    "root": {"readonly": False},
    "hostname": "a",
    "process": {
        "args": ("/bin/a", "-x"),
        "cwd": "/",
        "env": ["A=1", "B=2", {"name": "P", "secret": "db"}],
        "user": {"uid": 0, "gid": 0},
        "rlimits": [],
    },
    "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}], "sysctl": {"a": "1"}},
    "mounts": [
        {"destination": "/sys", "type": "sysfs"},
        {"destination": "/data", "volume": "data", "source": "/var/lib/masu/a/x"},
        {"destination": "/srv", "source": "/srv/a", "options": ["ro"]},
    ],
}
THEN = json.loads(json.dumps(without_secrets(CONFIG)))


def frame(config: dict[str, Any], path: str = "/r") -> Frame:
    return Frame("d", "f", config, {"path": path})


def test_the_same_is_no_difference() -> None:
    assert differences(THEN, "/r", frame(CONFIG)) == ()
    assert differences({}, "/r", frame(CONFIG)) == ()
    live = {**CONFIG, "hostname": "b", "linux": {**CONFIG["linux"], "sysctl": {}}}
    assert differences(THEN, "/r", frame(live)) == (), "these change without a restart"


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"process": {"args": ["/bin/b"]}}, 'process.args: ["/bin/a", "-x"] → ["/bin/b"]'),
        ({"process": {"cwd": "/b"}}, "process.cwd: / → /b"),
        ({"process": {"rlimits": [1]}}, "process.rlimits differs"),
        ({"process": {"env": ["A=1", "B=2"]}}, ""),
        ({"process": {"env": ["A=3", "P=1"]}},
         "process.env: A differs; process.env: B is gone; process.env: P is new"),
        ({"linux": {"namespaces": [{"type": "pid", "partner": "db"}]}},
         "namespaces.net: private → host; namespaces.pid: private → container:db"),
        ({"root": {"readonly": True}}, "rootfs.writable differs"),
        ({"mounts": [{"destination": "/data", "volume": "data", "source": "/elsewhere"}]}, "mounts: /srv is gone"),
        ({"mounts": [*CONFIG["mounts"][:2], {"destination": "/srv", "source": "/srv/b"}]}, "mounts: /srv differs"),
    ],
)  # fmt: skip
def test_what_differs_is_named(part: dict[str, Any], said: str) -> None:
    changed = {
        key: {**CONFIG[key], **value} if isinstance(value, dict) else value for key, value in part.items()
    }
    assert "; ".join(differences(THEN, "/r", frame({**CONFIG, **changed}))) == said


def test_what_is_long_is_shortened_and_what_is_none_passed_over() -> None:
    long = {**CONFIG, "process": {**CONFIG["process"], "args": ["/bin/" + "x" * 9000, "\x1b"]}}
    (said,) = differences(THEN, "/r", frame(long))
    assert len(said) < 300
    assert said.isprintable()
    forged = {"process": [], "linux": {"namespaces": 7}, "mounts": [1, {}], "root": None}
    assert "rootfs: /r → /new" in differences(forged, "/r", frame(CONFIG, "/new"))
