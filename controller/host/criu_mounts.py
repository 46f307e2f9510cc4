"""Which mounts of a container CRIU puts into its images, and where the others come from in a restore. Pure.

What the bundle config describes is made from the bundle config again. CRIU itself keeps what has contents of its
own (a tmpfs with files), and what belongs to namespaces that it makes (/proc, /dev/pts, /dev/mqueue). For each
tmpfs that it keeps it starts tar and gzip while everything stands still, which takes longer than all the rest of a
small dump: so a tmpfs with nothing in it is made anew, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, Final

from controller.errors import LaunchFailed
from controller.frozen import dataclass
from controller.model.dump import Layout, MountHeld

_OCTAL: Final = re.compile(r"\\([0-7]{3})")
_MADE_BY_CRIU: Final = frozenset({"proc", "devpts", "mqueue", "tmpfs", "cgroup", "cgroup2"})
DEVICES: Final = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
    "core": "/proc/kcore",
}
"""The OCI runtime specification's, config-linux.md, "Default Devices"; `core` is crun's."""
_FLAGS: Final = frozenset(
    {"ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "strictatime", "relatime"}
)
_SILENT: Final = frozenset({"rw", "suid", "dev", "exec", "bind", "rbind", "private", "rprivate", "defaults"})


@dataclass(frozen=True, slots=True)
class MountLine:
    """One line of /proc/PID/mountinfo."""

    at: str
    root: str
    device: str
    kind: str


def parse_mountinfo(text: str) -> tuple[MountLine, ...]:
    """Pure. proc_pid_mountinfo(5)."""
    return tuple(_line(each.split(" ")) for each in text.split("\n") if each)


def _line(fields: list[str]) -> MountLine:
    at, root = (_OCTAL.sub(lambda found: chr(int(found[1], 8)), each) for each in (fields[4], fields[3]))
    return MountLine(at, root, fields[2], fields[fields.index("-") + 1])


def held(
    lines: Iterable[MountLine],
    foreign: Iterable[str],
    targets: Mapping[str, str],
    bare: Container[str],
    is_dir: Callable[[str], bool],
) -> tuple[MountHeld, ...]:
    """Pure but for `is_dir`. Every mount below the root, and whether CRIU leaves it out.

    `foreign`: devices of mounts outside the container; `targets`: where a mount is → what the bundle config calls
    it; `bare`: where a tmpfs holds nothing that would be missed.
    """
    outside, inner, found = frozenset(foreign), set[str](), []
    for each in lines:
        if each.at == "/":
            continue
        whole = each.root == "/" and each.kind in _MADE_BY_CRIU and each.device not in outside
        if whole and not (each.kind == "tmpfs" and each.at in bare):
            inner.add(each.device)
        external = each.device not in inner
        found.append(MountHeld(each.at, targets.get(each.at, each.at), external, is_dir(each.at)))
    return tuple(found)


def staging(
    layout: Layout, config: Mapping[str, Any], root: Mapping[str, Any], stage: str, network: str
) -> tuple[tuple[dict[str, Any], ...], dict[str, str]]:
    """Pure. → (operations for the keeper, where a mount was → where it is found below `stage`).

    Raises LaunchFailed when the bundle config no longer has one of the mounts.
    """
    operations: list[dict[str, Any]] = [{"op": "scratch", "target": stage}]
    places = {}
    for number, each in enumerate(mount for mount in layout.mounts if mount.external):
        place = f"{stage}/{number}"
        operations.append(_operation(each, place, layout, config, root, network))
        places[each.at] = place
    return tuple(operations), places


def _operation(
    mount: MountHeld,
    place: str,
    layout: Layout,
    config: Mapping[str, Any],
    root: Mapping[str, Any],
    network: str,
) -> dict[str, Any]:
    source = _standing_in(mount, config)
    if source is not None:
        return {
            "op": "stage",
            "source": source,
            "below": "",
            "target": place,
            "flags": ["ro"] if mount.is_dir else [],
        }
    entry = _entry(mount.target, config)
    if entry is None:
        raise LaunchFailed(
            f"the checkpoint has a mount on {mount.target} that the specification no longer asks for",
            path=mount.target,
        )
    flags, rest = sorted_options(entry.get("options", ()))
    if entry["type"] == "tmpfs":
        return {"op": "fresh", "target": place, "flags": flags, **_fresh(mount, rest, layout, root)}
    if mount.target == "/sys":  # whether the runtime or masu mounts it, it shows the container's network
        return {"op": "system", "source": network, "target": place, "flags": flags}
    beyond = mount.target.removeprefix(entry["destination"])
    return {"op": "stage", "source": entry["source"], "below": beyond, "target": place, "flags": flags}


def _fresh(mount: MountHeld, rest: list[str], layout: Layout, root: Mapping[str, Any]) -> dict[str, Any]:
    """A tmpfs with nothing in it but what other mounts are put on, and in /dev the usual devices."""
    below = [each for each in layout.mounts if each.at.startswith(f"{mount.at}/")]
    is_dev = mount.target == "/dev"
    return {
        "data": ",".join(_owned(rest, root)),
        "holes": [[each.at.removeprefix(f"{mount.at}/"), each.is_dir] for each in below],
        "owner": _owner(root),
        "devices": {name: list(number) for name, number in DEVICES.items()} if is_dev else {},
        "links": LINKS if is_dev else {},
    }


def _entry(target: str, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The mount of the bundle config that is there, or whose recursive bind brought it along."""
    best: Mapping[str, Any] | None = None
    for each in config["mounts"]:
        destination = each["destination"].rstrip("/")
        below = target.startswith(f"{destination}/") and "rbind" in each.get("options", ())
        if (target == destination or below) and (
            best is None or len(destination) >= len(best["destination"])
        ):
            best = each
    return best


def _standing_in(mount: MountHeld, config: Mapping[str, Any]) -> str | None:
    """What the runtime itself mounts: over what it hides, "" for an empty directory; a device of the host's."""
    name = mount.target.removeprefix("/dev/")
    if mount.target in config["linux"].get("maskedPaths", ()):
        return "" if mount.is_dir else "/dev/null"
    if mount.target.startswith("/dev/") and name in DEVICES:
        return mount.target
    return None


def sorted_options(options: Iterable[str]) -> tuple[list[str], list[str]]:
    """Pure. → (flags of the mount, options of its file system); "r" before a flag: also below, OCI config.md."""
    flags, rest = [], []
    for each in options:
        plain = each if each in _FLAGS | _SILENT else each.removeprefix("r")
        if plain in _FLAGS:
            flags.append(plain)
        elif plain not in _SILENT:
            rest.append(each)
    return flags, rest


def _owner(root: Mapping[str, Any]) -> list[int]:
    """Host ids of the container's root."""
    ids = root.get("ids")
    return [_outside(ids[kind], 0) for kind in ("uids", "gids")] if ids else [0, 0]


def _outside(extents: Iterable[Iterable[int]], inside: int) -> int:
    for first, outside, size in extents:
        if first <= inside < first + size:
            return outside + inside - first
    return inside


def _owned(rest: Iterable[str], root: Mapping[str, Any]) -> list[str]:
    """A tmpfs is made outside, so its owners are given as the host counts them."""
    ids = root.get("ids")
    written = dict(option.partition("=")[::2] for option in rest)
    for key, kind in (("uid", "uids"), ("gid", "gids")):
        number = written.get(key, "0")
        if ids and number.isdecimal():
            written[key] = str(_outside(ids[kind], int(number)))
    return [f"{key}={value}" if value else key for key, value in written.items()]
