"""Where an instance keeps its things on the host: the only module that knows these paths."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from controller.frozen import dataclass
from controller.model.cgroups import cgroup_of
from controller.model.marks import table_name


@dataclass(frozen=True, slots=True)
class Places:
    """`run` is volatile and `state` is kept; both belong to one instance alone."""

    instance: str
    run_root: str = "/run/masu"
    state_root: str = "/var/lib/masu"
    log_root: str = "/var/log/masu"

    @property
    def run(self) -> str:
        return f"{self.run_root}/{self.instance}"

    @property
    def state(self) -> str:
        return f"{self.state_root}/{self.instance}"

    @property
    def group(self) -> str:
        return f"/masu/{self.instance}"

    def group_of(self, name: str) -> str:
        return cgroup_of(self.group, name)

    @property
    def records(self) -> str:
        return f"{self.run}/records"

    @property
    def bundles(self) -> str:
        return f"{self.run}/bundles"

    @property
    def runtime(self) -> str:
        return f"{self.run}/runtime"

    @property
    def keeper(self) -> str:
        return f"{self.run}/keeper"

    @property
    def namespaces(self) -> str:
        return f"{self.run}/netns"

    @property
    def names(self) -> str:
        return f"{self.run}/names"

    @property
    def secrets(self) -> str:
        return f"{self.run}/secrets"

    @property
    def devices(self) -> str:
        return f"{self.run}/devices"

    @property
    def ruleset(self) -> str:
        return f"{self.run}/ruleset.json"

    def rulesets(self) -> Iterator[tuple[str, str, str]]:
        """Of other instances: (name, the name of its tables, where it keeps what `ruleset` has)."""
        with contextlib.suppress(OSError):
            for each in sorted(set(os.listdir(self.run_root)) - {self.instance}):
                yield each, table_name(each), f"{self.run_root}/{each}/ruleset.json"

    @property
    def leases(self) -> str:
        return f"{self.state}/leases.json"

    @property
    def grants(self) -> str:
        return f"{self.run}/grants.json"

    @property
    def layers(self) -> str:
        return f"{self.state}/layers"

    @property
    def images(self) -> str:
        return f"{self.state}/images"

    @property
    def pins(self) -> str:
        return f"{self.state}/pins.json"

    @property
    def spaces(self) -> str:
        return f"{self.state}/spaces"

    def all_spaces(self) -> Iterator[str]:
        """Those of every instance: they are on one file system."""
        with contextlib.suppress(OSError):
            for each in os.listdir(self.state_root):
                yield f"{self.state_root}/{each}/spaces"

    @property
    def projects(self) -> str:
        return f"{self.state_root}/project-ids.json"

    @property
    def logs(self) -> str:
        return f"{self.state}/logs"

    @property
    def checkpoints(self) -> str:
        return f"{self.state}/checkpoints"

    @property
    def attempts(self) -> str:
        return f"{self.state}/attempts"

    @property
    def snapshots(self) -> str:
        """Copies of layers, until they are part of a checkpoint; on the file system that layers are on."""
        return f"{self.state}/snapshots"

    @property
    def scratch(self) -> str:
        return f"{self.run}/scratch"

    @property
    def dumps(self) -> str:
        """Which CRIU works on which container."""
        return f"{self.run}/dumps"

    @property
    def control(self) -> str:
        return f"{self.run}/control.socket"

    @property
    def events(self) -> str:
        return f"{self.run}/events.jsonl"

    @property
    def audit(self) -> str:
        """Of what was done, which stays when everything else of an instance has gone."""
        return f"{self.log_root}/{self.instance}.audit.jsonl"

    @property
    def conditions(self) -> str:
        return f"{self.run}/conditions"

    @property
    def counters(self) -> str:
        return f"{self.run}/counters"

    @property
    def desired(self) -> str:
        return f"{self.state}/desired.json"

    @property
    def git(self) -> str:
        """Copies of repositories that are sources."""
        return f"{self.state}/git"

    @property
    def ranges(self) -> str:
        return f"{self.state_root}/id-ranges.json"

    @property
    def lock(self) -> str:
        return f"{self.run}/controller.lock"

    @property
    def criu(self) -> tuple[str, str]:
        """What CRIU can do here, and its own notes about the kernel."""
        return f"{self.run}/criu.json", f"{self.run}/criu.kdat"

    def sweep(self) -> None:
        """Remove the directories of an instance that holds nothing any more; the events stay readable."""
        for file in (*self.criu, self.control):
            with contextlib.suppress(OSError):
                os.unlink(file)
        for directory in (
            self.bundles,
            self.records,
            self.conditions,
            self.counters,
            self.runtime,
            self.keeper,
            self.names,
            self.git,
            self.attempts,
            self.dumps,
        ):
            shutil.rmtree(directory, ignore_errors=True)
        if not os.path.isdir(f"{self.checkpoints}/manifests") or not os.listdir(
            f"{self.checkpoints}/manifests"
        ):
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        spaces = (f"{self.spaces}/rootfs", f"{self.spaces}/volume", self.spaces)
        for directory in (
            self.namespaces,
            self.layers,
            self.images,
            self.snapshots,
            self.scratch,
            *spaces,
            self.logs,
            self.state,
        ):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
