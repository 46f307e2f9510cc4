"""The part of every bundle config that no spec section asks for, and how parts are put together. Pure.

Source: the OCI runtime specification, config.md and config-linux.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controller.aspects._base import Birth
from controller.model.frame import Frame
from controller.model.resource import digest
from controller.steps._base import Effect

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

SKELETON: Mapping[str, Any] = {
    "ociVersion": "1.0.2",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        },
        {
            "destination": "/dev/shm",  # noqa: S108
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        },
    ],
}


def merge(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Maps deeply, lists appended, anything else replaced by `right`."""
    merged = dict(left)
    for key, value in right.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            merged[key] = [*before, *value]
        else:
            merged[key] = value
    return merged


def without_defaults(written: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What is left out and what says the same in so many words are one; a default may change with a version."""
    return {key: value for key, value in written.items() if defaults.get(key) != value}


def compose(births: Iterable[tuple[str, Birth]]) -> Frame:
    """Put the aspects' parts together.

    The digests cover what was asked for, not how this version builds it: a new one restarts nobody.
    """
    config: Mapping[str, Any] = SKELETON
    root: Mapping[str, Any] = {}
    restart: dict[str, Any] = {}
    recreate: dict[str, Any] = {}
    for name, birth in births:
        config, root = merge(config, birth.config), merge(root, birth.root)
        if birth.identity is not None:
            (recreate if birth.effect is Effect.RECREATE else restart)[name] = birth.identity
    return Frame(digest([restart, recreate]), digest(recreate), config, root)
