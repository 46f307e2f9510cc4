"""What a runtime remembers of a container, written for it: of one that was restored it knows nothing.

Not needed for the restore: it is written when somebody wants the runtime's `exec`, so that no interruption can
leave a state that names the wrong process. crun reads `status`, the bundle config and the compiled filter
(crun's status.c); runc reads `state.json` (libcontainer/state_linux.go), of which the dump has kept a copy.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from typing import Any, Final

from controller.errors import StepFailed
from controller.host import command
from controller.host.cgroups.homes import Homes
from controller.host.facts import find
from controller.host.places import Places
from controller.host.proc_stat import parse_stat
from controller.host.text import failed, read_text, write_atomic
from controller.model.dump import RUNTIME_FILE
from controller.model.facts import CORE, Runtime
from controller.model.launch import Init

LOOK_TIMEOUT_S: Final = 5.0
KEPT: Final = {"state.json": "dumped-state.json", "seccomp.bpf": "seccomp.bpf"}
"""Files of the runtime's that a dump keeps beside its images → their names where a restore puts them."""
_SPACES: Final = {
    "NEWNS": "mnt",
    "NEWUTS": "uts",
    "NEWIPC": "ipc",
    "NEWUSER": "user",
    "NEWPID": "pid",
    "NEWNET": "net",
    "NEWCGROUP": "cgroup",
    "NEWTIME": "time",
}
"""runc's names of namespaces → the kernel's."""


def keep(places: Places, name: str, directory: str) -> None:
    """Copy what a later restore cannot make anew from the container's state to beside its images."""
    _copy(f"{places.runtime}/{name}", directory, {each: f"{RUNTIME_FILE}{each}" for each in KEPT})


def prepare(places: Places, name: str, directory: str) -> None:
    """Before a restore: that there is a container, for whoever finds it before it is recorded."""
    target = f"{places.runtime}/{name}"
    os.makedirs(target, mode=0o700, exist_ok=True)
    _copy(directory, target, {f"{RUNTIME_FILE}{each}": found for each, found in KEPT.items()})


def _copy(source: str, target: str, names: Mapping[str, str]) -> None:
    for here, there in names.items():
        try:
            shutil.copyfile(f"{source}/{here}", f"{target}/{there}")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise failed(error, "copying", f"{source}/{here}") from error


def describe(runtime: Runtime, places: Places, name: str, init: Init, homes: Homes) -> None:
    """The runtime's state tells of this init when this returns.

    Raises StepFailed when there is nothing to make it from.
    """
    init = _as_seen_inside(init)
    if runtime.name == "crun":
        _describe_to_crun(places, name, init)
    else:
        _describe_to_runc(places, name, init, homes)


def _as_seen_inside(init: Init) -> Init:
    """Start times count from the boot of whoever asks (time_namespaces(7)), and `exec` asks from inside.

    A process with threads cannot enter a time namespace, so a program does.
    """
    theirs = f"/proc/{init.pid}/ns/time"
    try:
        if os.path.samefile(theirs, "/proc/self/ns/time"):
            return init
    except OSError:  # a kernel without time namespaces, or the process has ended
        return init
    argv = [find("nsenter") or "nsenter", f"--time={theirs}", "--", "cat", f"/proc/{init.pid}/stat"]
    status, text = command.output(argv, LOOK_TIMEOUT_S)
    if status != 0:
        raise StepFailed(f"looking at process {init.pid} from inside its time namespace: {text.strip()}")
    return Init(init.pid, parse_stat(init.pid, text).start_time)


def _describe_to_crun(places: Places, name: str, init: Init) -> None:
    directory, bundle = f"{places.runtime}/{name}", f"{places.bundles}/{name}"
    known = _read(f"{directory}/status")
    if known.get("pid") == init.pid and known.get("process-start-time") == init.start_time:
        return
    config = _read(f"{bundle}/config.json")
    if "seccomp" in config.get("linux", {}) and not os.path.exists(f"{directory}/seccomp.bpf"):
        raise StepFailed(
            f"{name} was restored without its compiled filter: nothing is started in it unfiltered"
        )
    status = {
        "pid": init.pid,
        "process-start-time": init.start_time,
        "cgroup-path": "",
        "scope": "",
        "rootfs": f"{bundle}/rootfs",
        "systemd-cgroup": False,
        "bundle": bundle,
        "created": _now(),
        "owner": "root",
        "detached": True,
        "external_descriptors": "[]",
    }
    write_atomic(f"{directory}/config.json", json.dumps(config), durable=False)
    write_atomic(f"{directory}/status", json.dumps(status), durable=False)


def _describe_to_runc(places: Places, name: str, init: Init, homes: Homes) -> None:
    directory, bundle = f"{places.runtime}/{name}", f"{places.bundles}/{name}"
    path = f"{directory}/state.json"
    state = _read(path)
    if state.get("init_process_pid") == init.pid and state.get("init_process_start") == init.start_time:
        return
    state = _read(f"{directory}/{KEPT['state.json']}")
    if not state:
        raise StepFailed(
            f"runc was told nothing of {name}, which was restored: there is no {path}", path=path
        )
    kinds = [each["type"] for each in state["config"]["namespaces"]]
    spaces = {kind: f"/proc/{init.pid}/ns/{_SPACES[kind]}" for kind in kinds}
    labels = [each for each in state["config"].get("labels") or () if not each.startswith("bundle=")]
    config = {**state["config"], "rootfs": f"{bundle}/rootfs", "labels": [*labels, f"bundle={bundle}"]}
    state |= {
        "id": name,
        "init_process_pid": init.pid,
        "init_process_start": init.start_time,
        "created": _now(),
        "config": config,
        "namespace_paths": {**state.get("namespace_paths", {}), **spaces},
        "cgroup_paths": _cgroup_paths(state.get("cgroup_paths", {}), homes, places.group_of(name)),
    }
    write_atomic(path, json.dumps(state), durable=False)


def _cgroup_paths(known: Mapping[str, str], homes: Homes, group: str) -> dict[str, str]:
    """Subsystem, "" for cgroup2 → directory. What masu does not use and is gone is left out."""
    found = {}
    for subsystem, path in known.items():
        home = homes.facts.hierarchy(subsystem or CORE)
        if home or os.path.isdir(path):
            found[subsystem] = homes.locate(home, group) if home else path
    return found


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())


def _read(path: str) -> dict[str, Any]:
    try:
        value = json.loads(read_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
