"""How CRIU is called by the keeper for a restore, in the place of the runtime. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from controller.errors import LaunchFailed
from controller.host.criu_mounts import staging
from controller.host.criu_process import LOG_LEVEL, SEARCH_PATH
from controller.host.departure import FEATURE_CACHE
from controller.model.dump import Layout, RestoreOrder
from controller.model.launch import LaunchRecipe, MountOp

HOST_NETWORK = "/proc/self/ns/net"


def restore_recipe(
    criu: str,
    order: RestoreOrder,
    base: LaunchRecipe,
    root_mounts: tuple[MountOp, ...],
    config: Mapping[str, Any],
    layout: Layout,
    features: str,
) -> LaunchRecipe:
    """`base`: of a launch, with `join` as CRIU needs it; `features`: the file with CRIU's cache, or "".

    Raises LaunchFailed when the bundle config does not fit the images.
    """
    network = network_of(config)
    operations, places = staging(layout, config, order.root, f"{base.cwd}/stage", network or HOST_NETWORK)
    around: list[dict[str, Any]] = []
    if network:
        around.append({"op": "network", "source": network, "target": network})
    if _is_private(config, "cgroup"):
        around.append({"op": "cgroups", "target": "a cgroup namespace"})
    if features:  # last, because it hides the rest of /run
        around.append({"op": "features", "source": features, "target": FEATURE_CACHE})
    return replace(
        base,
        argv=tuple(_argv(criu, order, base, layout, places, config)),
        env={"PATH": SEARCH_PATH},
        mounts=(*root_mounts, *operations, *around),
        offsets={},  # CRIU has the clocks go on by itself
        timeout_ms=order.timeout_ms,
    )


def _argv(
    criu: str,
    order: RestoreOrder,
    base: LaunchRecipe,
    layout: Layout,
    places: Mapping[str, str],
    config: Mapping[str, Any],
) -> Iterator[str]:
    """Connections that a user namespace bars from being made anew are closed: see `criu.possible_tcp`."""
    yield from (criu, "restore", "--restore-detached", "--images-dir", order.directory)
    yield from ("--work-dir", base.cwd, "--log-file", "restore.log", f"-v{LOG_LEVEL}")
    yield from ("--root", f"{base.cwd}/rootfs", "--pidfile", base.pid_file)
    yield from ("--manage-cgroups=ignore", "--file-locks", "--link-remap")
    yield "--tcp-close" if order.tcp == "close" or "ids" in order.root else "--tcp-established"
    for at, place in places.items():
        yield from ("--external", f"mnt[{at}]:{place}")
    for number, inode in enumerate(layout.pipes, start=1):
        yield from ("--inherit-fd", f"fd[{number}]:pipe:[{inode}]")
    yield from _joined(config)


def _joined(config: Mapping[str, Any]) -> Iterator[str]:
    for each in config["linux"]["namespaces"]:
        if "path" not in each or each["type"] == "network":
            continue
        if each["type"] not in {"ipc", "uts"}:
            raise LaunchFailed(f"a container in the {each['type']} namespace of another cannot be restored")
        yield from ("--join-ns", f"{each['type']}:{each['path']}")


def network_of(config: Mapping[str, Any]) -> str:
    """The file of the network namespace that the container is in; "": the host's."""
    spaces = config.get("linux", {}).get("namespaces", ())
    return next((str(each.get("path", "")) for each in spaces if each["type"] == "network"), "")


def _is_private(config: Mapping[str, Any], kind: str) -> bool:
    return any(each["type"] == kind and "path" not in each for each in config["linux"]["namespaces"])
