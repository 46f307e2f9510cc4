"""The Runtimes port: crun or runc, started through the keeper. Writes bundles, reads what runtimes leave.

A container that has ended is cleared by removing the runtime's own state directory, not by calling its
`delete`: nothing is left to be done there, and runc's sleeps 0.1 s (cgroup, mounts and network are masu's).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from controller.errors import HostLacks, LaunchFailed
from controller.frozen import dataclass
from controller.host import oci_cgroups
from controller.host.cgroups.homes import Homes
from controller.host.inits import Inits
from controller.host.keeping import KeeperClient
from controller.host.places import Places
from controller.host.processes import ProcDirectory
from controller.host.text import make_directories, read_text, remove_file, remove_tree, write_atomic
from controller.model.cgroups import budget_of
from controller.model.device import ANY, RIGHTS, Rule
from controller.model.facts import Facts, Runtime
from controller.model.frame import OWN_SYS
from controller.model.launch import (
    BindMount,
    Ended,
    ExitRecord,
    IdmapMount,
    Init,
    LaunchRecipe,
    MountOp,
    NodesMount,
    OverlayMount,
    SysMount,
)
from controller.model.process import RuntimeState
from controller.model.space import ROOTFS, Space, content_path

LAUNCH_TIMEOUT_MS = 30_000


@dataclass(frozen=True, slots=True)
class OciRuntime:
    """Stateless apart from where things are; every method may be called from any thread."""

    places: Places
    homes: Homes
    keeper: KeeperClient
    processes: ProcDirectory
    inits: Inits
    variable: Callable[[str], str]
    """The value of a secret. Raises StepFailed."""

    @property
    def facts(self) -> Facts:
        return self.homes.facts

    def write_bundle(self, name: str, config: Mapping[str, Any], root: Mapping[str, Any]) -> None:
        bundle = self._bundle(name)
        make_directories(f"{bundle}/rootfs", 0o711)
        make_directories(f"{bundle}/lower", 0o711)
        make_directories(f"{bundle}/sys", 0o711)
        if root["nodes"]:
            make_directories(f"{bundle}/nodes", 0o711)
        else:
            remove_tree(f"{bundle}/nodes")
        for volume in root.get("volumes", ()):
            make_directories(f"{bundle}/volumes/{volume}", 0o711)
        text = json.dumps(self._completed(name, config, root))
        write_atomic(f"{bundle}/config.json", text, durable=False)

    def recipe(self, name: str, group: str, root: Mapping[str, Any]) -> LaunchRecipe:
        """How the runtime is called here for this container. Raises HostLacks, LaunchFailed."""
        runtime = self._runtime()
        if not os.path.isdir(root["path"]):
            raise LaunchFailed(f"rootfs {root['path']} is not a directory on this host", path=root["path"])
        bundle, joined = self._bundle(name), self.homes.join_files(group)
        return LaunchRecipe(
            container=name,
            argv=tuple(_argv(runtime, self.places, bundle, name)),
            env={"PATH": os.defpath},
            cwd=bundle,
            join=() if runtime.joins_itself else joined,
            mounts=(
                *self.root_mounts(name, root),
                *oci_cgroups.shown(self.homes, runtime, group),
                *self._sys_mounts(name, root),
                *self.volume_mounts(name, root),
            ),
            pid_file=f"{bundle}/pid",
            members=next(iter(joined), ""),
            timeout_ms=LAUNCH_TIMEOUT_MS,
            offsets=root.get("offsets", {}),
            nodes=self._nodes(name, root),
        )

    def absent(self, config: Mapping[str, Any], root: Mapping[str, Any]) -> tuple[str, ...]:
        mounts = [each["source"] for each in config.get("mounts", ()) if each.get("type") == "bind"]
        made = (f"{self.places.names}/", f"{self.places.spaces}/", f"{self.places.secrets}/")
        sources = [each for each in mounts if not each.startswith(made)]
        return tuple(path for path in (root["path"], *sources) if not os.path.exists(path))

    def launch(self, recipe: LaunchRecipe) -> Init | None:
        """None: not yet, ask `launched`. Raises LaunchFailed with the runtime's own message, KeeperGone."""
        make_directories(self.places.runtime)
        remove_file(recipe.pid_file)
        remove_file(f"{recipe.cwd}/runtime.log")
        with self._explained(recipe.container):
            return self.keeper.launch(recipe)

    def launched(self, name: str) -> Init | None:
        """None: not yet. Raises LaunchFailed with the runtime's own message, KeeperGone."""
        with self._explained(name):
            return self.keeper.launched(name)

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except LaunchFailed as error:
            said = _last_message(f"{self._bundle(name)}/runtime.log")
            raise LaunchFailed(said or str(error), path=error.path, errno=error.errno) from error

    def adopt(self, name: str, init: Init) -> None:
        """Raises StepFailed when the keeper cannot hold it, KeeperGone."""
        self.keeper.ensure()
        self.keeper.adopt(name, init)

    def state(self, name: str, group: str) -> RuntimeState:
        """What a launch that nobody lived to record has left.

        Its pid counts only inside the right cgroup, and while its log pipes are known: without them its log would
        be lost, and it would wait for ever once they are full.
        """
        remembered = os.path.isdir(f"{self.places.runtime}/{name}")
        text = (read_text(f"{self._bundle(name)}/pid") or "").strip() if remembered else ""
        pid = int(text) if text.isdigit() else 0
        stat = self.processes.stat(pid) if pid else None
        paths = self.processes.groups(pid).values() if stat and not stat.ended else ()
        ours = any(budget_of(group, path) is not None for path in paths) and self.keeper.knows(name)
        logs, kept = f"{self.places.logs}/{name}", f"{self.places.keeper}/exits/{name}.json"
        traces = remembered or any(os.path.exists(path) for path in (self._bundle(name), logs, kept))
        return RuntimeState(remembered, traces, pid if ours else 0, self.keeper.launching(name))

    def clear(self, name: str) -> None:
        self.keeper.abandon(name)
        remove_tree(f"{self.places.runtime}/{name}")
        remove_file(f"{self._bundle(name)}/pid")

    def forget(self, name: str) -> None:
        self.clear(name)
        self.keeper.forget(name)
        remove_tree(self._bundle(name))

    def exit_of(self, name: str) -> ExitRecord | None:
        return self.keeper.exit_of(name)

    def end_of(self, name: str, pid: int) -> Ended | None:
        return self.inits.end_of(name, pid)

    def _bundle(self, name: str) -> str:
        return f"{self.places.bundles}/{name}"

    def _runtime(self) -> Runtime:
        if self.facts.runtime is None:
            raise HostLacks("no OCI runtime runs here: install crun or runc, or run `masu doctor`")
        return self.facts.runtime

    def _completed(self, name: str, config: Mapping[str, Any], where: Mapping[str, Any]) -> dict[str, Any]:
        root = {**config["root"], "path": f"{self._bundle(name)}/rootfs"}
        linux = {**config["linux"], "rootfsPropagation": "private"}
        linux["namespaces"] = [self._kept(name, each) for each in linux["namespaces"]]
        if self._runtime().joins_itself:
            linux["cgroupsPath"] = oci_cgroups.joined(self.homes, self.places.group_of(name))
            linux["resources"] = {"devices": [_deny_all(), *map(_allowed, where["rules"])]}
        mapped = "uidMappings" in linux
        mounts = [
            self._placed(name, each, mapped=mapped)
            for each in config["mounts"]
            if self._has_a_place(each, where)
        ]
        nodes = [_node_bind(f"{self._bundle(name)}/nodes", each.place) for each in where["nodes"]]
        process = {**config["process"], "env": [self._filled(each) for each in config["process"]["env"]]}
        return {**config, "process": process, "root": root, "linux": linux, "mounts": [*mounts, *nodes]}

    def _filled(self, variable: str | Mapping[str, str]) -> str:
        """Here, and nowhere else, is a secret written down: the runtime reads it from the bundle config (0600)."""
        if isinstance(variable, str):
            return variable
        return f"{variable['name']}={self.variable(variable['secret'])}"

    def _placed(self, name: str, mount: Mapping[str, Any], *, mapped: bool) -> Mapping[str, Any]:
        """What is mounted for this launch alone is found below the bundle."""
        if mount["source"] == OWN_SYS:
            return {**mount, "source": f"{self._bundle(name)}/sys"}
        if "volume" not in mount:
            return mount
        plain = {key: value for key, value in mount.items() if key != "volume"}
        return {**plain, "source": self._volume(name, mount["volume"])} if mapped else plain

    def _has_a_place(self, mount: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
        """A runtime makes the file that something is mounted on: what masu generates must not end up in a root file
        system that is somebody's own."""
        generated = mount["source"].startswith(f"{self.places.names}/")
        return (
            not generated
            or root["writable"] == "overlay"
            or os.path.exists(root["path"] + mount["destination"])
        )

    def _kept(self, name: str, namespace: Mapping[str, Any]) -> Mapping[str, Any]:
        """A network namespace of the container's own is the one that masu keeps for it."""
        if namespace["type"] != "network" or "path" in namespace:
            return namespace
        return {**namespace, "path": self._namespace(name)}

    def _namespace(self, name: str) -> str:
        return f"{self.places.namespaces}/{name}"

    def root_mounts(self, name: str, root: Mapping[str, Any]) -> list[MountOp]:
        """The root file system appears only in the launch's own mount namespace, so nothing of it can leak."""
        bundle, source, ids = self._bundle(name), root["path"], root.get("ids")
        sized = content_path(self.places.spaces, Space(ROOTFS, name))
        layer = sized if root.get("sized") else f"{self.places.layers}/{name}"
        target = f"{bundle}/rootfs"
        if root["writable"] != "overlay":
            return [_lower(source, target, ids)]
        before = [_lower(source, f"{bundle}/lower", ids)] if ids else []
        lower = f"{bundle}/lower" if ids else source
        return [*before, OverlayMount(lower, f"{layer}/upper", f"{layer}/work", target)]

    def volume_mounts(self, name: str, root: Mapping[str, Any]) -> list[MountOp]:
        """Files of a volume have the owners that containers see, whichever ids each of them has on the host."""
        ids = root.get("ids")
        volumes = root.get("volumes", {}).items() if ids else ()
        return [_lower(source, self._volume(name, volume), ids) for volume, source in volumes]

    def _volume(self, name: str, volume: str) -> str:
        return f"{self._bundle(name)}/volumes/{volume}"

    def _sys_mounts(self, name: str, root: Mapping[str, Any]) -> list[MountOp]:
        return [SysMount(self._namespace(name), f"{self._bundle(name)}/sys")] if root.get("sys") else []

    def _nodes(self, name: str, root: Mapping[str, Any]) -> tuple[NodesMount, ...]:
        nodes = tuple(replace(each, name=_flat(each.name)) for each in root["nodes"])
        return (NodesMount(f"{self._bundle(name)}/nodes", nodes),) if nodes else ()


def _flat(place: str) -> str:
    """The name of a file for a node that is deeper below /dev, as sysfs writes it."""
    return place.replace("/", "!")


def _node_bind(directory: str, place: str) -> dict[str, Any]:
    options = ["bind", "rprivate", "nosuid", "noexec"]
    source = f"{directory}/{_flat(place)}"
    return {"destination": f"/dev/{place}", "type": "bind", "source": source, "options": options}


def _deny_all() -> dict[str, Any]:
    return {"allow": False, "access": RIGHTS}


def _allowed(rule: Rule) -> dict[str, Any]:
    """OCI config-linux.md, Allowed Device list: a number that is left out is any."""
    numbers = {key: each for key, each in (("major", rule.major), ("minor", rule.minor)) if each != ANY}
    return {"allow": True, "type": rule.kind, **numbers, "access": rule.access}


def _lower(source: str, target: str, ids: Mapping[str, Any] | None) -> MountOp:
    if ids is None:
        return BindMount(source, target)
    return IdmapMount(source, target, tuple(ids["uids"]), tuple(ids["gids"]))


def _argv(runtime: Runtime, places: Places, bundle: str, name: str) -> list[str]:
    log = ["--log", f"{bundle}/runtime.log", "--log-format", "json"]
    own = ["--cgroup-manager=disabled"] if runtime.name == "crun" else []
    run = ["run", "--detach", "--bundle", bundle, "--pid-file", f"{bundle}/pid", name]
    return [runtime.path, "--root", places.runtime, *own, *log, *run]


def _last_message(path: str) -> str:
    """The last error in the runtime's JSON log."""
    message = ""
    for line in (read_text(path) or "").splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and entry.get("level") in {"error", "fatal"}:
            message = str(entry.get("msg", ""))
    return message
