"""The Criu port: dumps and restores processes by calling CRIU itself, in half the time that the runtimes take.

A dump goes through CRIU's own protocol (`criu_rpc`), from a thread that is in the container's network namespace:
CRIU then finds nothing there that it would have to keep, and links and addresses stay masu's. A restore is a launch
by the keeper with CRIU in the runtime's place. What is known of CRIU's ways is in docs/checkpoints.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

from controller.errors import NOT_UNDERSTOOD, HostLacks, LaunchFailed, StepFailed
from controller.frozen import dataclass
from controller.host import (
    criu_ahead,
    criu_layout,
    criu_mended,
    criu_obstacles,
    criu_rpc,
    criu_timers,
    criu_users,
    criu_watches,
    oci_state,
)
from controller.host.cgroups.tree import branches
from controller.host.criu_ended import Notes
from controller.host.criu_features import Features, last_error, read_bytes, read_json
from controller.host.criu_mended import Ice, mend
from controller.host.criu_process import Killed, Options, Run
from controller.host.criu_recipe import network_of, restore_recipe
from controller.host.oci import OciRuntime
from controller.host.proc_stat import stat_of
from controller.host.text import failed, make_directories, read_text, remove_file, write_atomic
from controller.model.dump import (
    GHOST_LIMIT,
    LAYOUT_FILE,
    PRE_DUMP,
    CriuAbilities,
    Dumped,
    DumpOrder,
    Layout,
    Prospect,
    RestoreOrder,
)
from controller.model.launch import Init, LaunchRecipe


class _Changed(Exception):
    """While the container was being frozen, it came to be something else than what the dump was asked for."""


@dataclass(frozen=True, slots=True)
class CriuProgram:
    """Stateless apart from where things are; every method may be called from any thread."""

    runtime: OciRuntime

    def abilities(self) -> CriuAbilities:
        return self._features.look()

    def prospect(self, init: Init, group: str) -> Prospect:
        members = self._members(group)
        found = criu_obstacles.look(init.pid, members, GHOST_LIMIT)
        return Prospect(found, criu_obstacles.memory(members), criu_obstacles.shared(members))

    def dump(self, order: DumpOrder, while_frozen: Callable[[], None]) -> Dumped:
        """Raises StepFailed, HostLacks, and what `while_frozen` raises."""
        order = replace(order, tcp=possible_tcp(order))
        for is_second in (False, True):
            with contextlib.suppress(_Changed):
                return self._dump(order, while_frozen, is_second=is_second)
            order = criu_ahead.forgotten(order)
        raise StepFailed(f"{order.container} changed while it was dumped, twice", path=order.directory)

    def pre_dump(self, order: DumpOrder) -> Dumped:
        """Raises StepFailed, HostLacks."""
        if not self.abilities().tracks_memory:
            raise HostLacks("this kernel does not track dirty pages (CONFIG_MEM_SOFT_DIRTY, PAGEMAP_SCAN)")
        criu_ahead.check(self._members(self.runtime.places.group_of(order.container)))
        order = replace(order, directory=f"{order.directory}/{PRE_DUMP}")
        make_directories(order.directory, 0o700)
        return self._converse(order, criu_rpc.SINGLE_PRE_DUMP, [], _nothing)

    def restore(self, order: RestoreOrder) -> Init | None:
        """Raises LaunchFailed, KeeperGone, HostLacks."""
        recipe = self.recipe(order)
        make_directories(f"{recipe.cwd}/stage", 0o711)
        remove_file(f"{recipe.cwd}/restore.log")
        criu_timers.mend(order.directory)
        if "ids" in order.root:
            criu_users.mend(order.directory, order.root["ids"]["uids"], order.root["ids"]["gids"])
            _open_images(order.directory)
        oci_state.prepare(self.runtime.places, order.container, order.directory)
        with self._explained(order.container):
            return self.runtime.launch(recipe)

    def restored(self, name: str) -> Init | None:
        """Raises LaunchFailed, KeeperGone."""
        with self._explained(name):
            return self.runtime.launched(name)

    def mend(self, name: str, group: str) -> tuple[str, ...]:
        ice = Ice(self.runtime.homes, group)
        try:
            return (*self._notes(name).end(ice), *self._mend(name, group))
        finally:
            ice.thaw()

    def _mend(self, name: str, group: str) -> tuple[str, ...]:
        network = network_of(read_json(f"{self._bundle(name)}/config.json"))
        return mend(network, self.runtime.homes.join_files(group))

    def recipe(self, order: RestoreOrder) -> LaunchRecipe:
        """How CRIU is called here for this restore; changes nothing. Raises LaunchFailed, HostLacks."""
        runtime, features = self.runtime, self._features
        base = runtime.recipe(order.container, order.group, order.root)
        return restore_recipe(
            features.usable().path,
            order,
            replace(base, join=runtime.homes.join_files(order.group)),
            (
                *runtime.root_mounts(order.container, order.root),
                *runtime.volume_mounts(order.container, order.root),
            ),
            read_json(f"{base.cwd}/config.json"),
            _layout(order.directory),
            features.cache_file if features.cache() else "",
        )

    def _dump(self, order: DumpOrder, while_frozen: Callable[[], None], *, is_second: bool) -> Dumped:
        """`is_second`: the first dump found something that had been empty, or quiet, not to be so any more."""
        pid = order.init.pid
        config = read_json(f"{self._bundle(order.container)}/config.json")
        pipes = f"{self.runtime.places.keeper}/pipes/{order.container}.json"
        seen = criu_layout.observe(pid, config, pipes, keep_all=is_second)
        try:
            return self._dump_seen(order, while_frozen, seen, is_second=is_second)
        finally:
            seen.close()

    def _dump_seen(
        self, order: DumpOrder, while_frozen: Callable[[], None], seen: criu_layout.Seen, *, is_second: bool
    ) -> Dumped:
        pid = order.init.pid
        keeps_tcp = order.tcp == "established"
        locks = keeps_tcp and (is_second or criu_layout.has_connections(pid))

        def frozen() -> None:
            connected = keeps_tcp and not locks and criu_layout.has_connections(pid)
            if connected or criu_layout.changed(seen):
                raise _Changed
            self._check_alone(order.container)
            while_frozen()

        write_atomic(f"{order.directory}/{LAYOUT_FILE}", json.dumps(seen.layout.to_json()), durable=False)
        oci_state.keep(self.runtime.places, order.container, order.directory)
        criu_watches.note(pid, self._members(self.runtime.places.group_of(order.container)), order.directory)
        return self._converse(order, criu_rpc.DUMP, _options(order, seen.layout, locks=locks), frozen)

    def _converse(self, order: DumpOrder, kind: int, options: Options, frozen: Callable[[], None]) -> Dumped:
        """One CRIU from its start to its end. Raises StepFailed and what `frozen` raises."""
        found, cache = self._features.usable(), self._features.cache()
        ice = Ice(self.runtime.homes, self.runtime.places.group_of(order.container))
        _check_can_run(order, ice)
        before = time.monotonic()
        try:
            thawed = Run(found.path, cache, order, ice, self._notes(order.container)).talk(
                kind, options, frozen
            )
        except OSError as error:
            raise failed(error, f"dumping {order.container} to", order.directory) from error
        except Killed as killed:
            raise StepFailed("; ".join((str(killed), *self._recover(order, ice)))) from killed
        except (KeyboardInterrupt, SystemExit):
            self._recover(order, ice)
            raise
        stats = criu_rpc.stats(read_bytes(f"{order.directory}/stats-dump"))
        took_ms = round((time.monotonic() - before) * 1000)
        frozen_us, written, shared, inherited = (criu_rpc.number(stats, each) for each in (2, 7, 14, 6))
        return Dumped(frozen_us, took_ms, written + shared, inherited, order.tcp, thawed)

    def _check_alone(self, name: str) -> None:
        """Whoever came into the container from outside runs on while its files are copied, and is not dumped."""
        members = self._members(self.runtime.places.group_of(name))
        strangers = [pid for pid in sorted(members) if criu_mended.is_free(pid)]
        if strangers:
            raise StepFailed(
                f"process {strangers[0]} runs in {name} beside its own, as those of masu exec do:"
                " wait until it has ended"
            )

    def _members(self, group: str) -> frozenset[int]:
        """Also of the groups that the container itself has made below its own."""
        homes = self.runtime.homes.everywhere(group)
        files = (f"{path}/cgroup.procs" for home in homes for path in branches(home))
        return frozenset(criu_mended.members(files))

    def _recover(self, order: DumpOrder, ice: Ice) -> tuple[str, ...]:
        """Whatever happens, the container goes on."""
        try:
            return self._mend(order.container, ice.group)
        finally:
            ice.thaw()

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except LaunchFailed as error:
            said = last_error(f"{self._bundle(name)}/restore.log")
            raise LaunchFailed(
                f"criu: {said}" if said else str(error), path=error.path, errno=error.errno
            ) from error

    def _notes(self, name: str) -> Notes:
        return Notes(f"{self.runtime.places.dumps}/{name}.json", self.runtime.facts.boot_id)

    @property
    def _features(self) -> Features:
        return Features(*self.runtime.places.criu, self.runtime.facts.boot_id)

    def _bundle(self, name: str) -> str:
        return f"{self.runtime.places.bundles}/{name}"


def possible_tcp(order: DumpOrder) -> Literal["established", "close"]:
    """Nobody in a user namespace of its own can make a connection anew in a network namespace of masu's: TCP_REPAIR
    wants CAP_NET_ADMIN over it (net/ipv4/tcp.c, tcp_can_repair_sock)."""
    theirs = f"/proc/{order.init.pid}/ns/user"
    try:
        return order.tcp if os.path.samefile(theirs, "/proc/self/ns/user") else "close"
    except OSError as error:
        raise failed(error, "looking at", theirs) from error


def _options(order: DumpOrder, layout: Layout, *, locks: bool) -> Options:
    """Pure. Without a connection nothing has to be locked, which saves a dozen calls of nftables."""
    outside: Options = [("external", f"mnt[{each.at}]:{each.at}") for each in layout.mounts if each.external]
    return [
        *outside,
        ("leave_running", int(not order.kill)),
        ("tcp_established", int(order.tcp == "established")),
        ("tcp_close", int(order.tcp == "close")),
        ("file_locks", 1),
        ("link_remap", 1),
        ("ghost_limit", order.ghost_limit),
        ("notify_scripts", 1),
        ("network_lock", criu_rpc.NFTABLES if locks else criu_rpc.SKIP_LOCK),
    ]


def _check_can_run(order: DumpOrder, ice: Ice) -> None:
    stat = stat_of(order.init.pid)
    if stat is None or stat.start_time != order.init.start_time:
        raise StepFailed(f"process {order.init.pid} of {order.container} has ended")
    if ice.frozen:
        raise StepFailed(f"{order.container} is frozen: CRIU needs its processes to run for a moment")


def _layout(directory: str) -> Layout:
    path = f"{directory}/{LAYOUT_FILE}"
    try:
        value: dict[str, Any] = json.loads(read_text(path) or "{}")
        return Layout.from_json(value)
    except NOT_UNDERSTOOD as error:
        raise LaunchFailed(f"{path} is not what masu wrote: {error}", path=path) from error


def _open_images(directory: str) -> None:
    """CRIU reads most of an image after it has become the root of the container's user namespace.

    It passes through an open directory, so whoever cannot reach that from outside cannot read them either.
    """
    try:
        os.chmod(directory, 0o711)  # noqa: S103
        for name in os.listdir(directory):
            if name.endswith(".img"):
                os.chmod(f"{directory}/{name}", 0o644)
    except OSError as error:
        raise failed(error, "preparing", directory) from error


def _nothing() -> None:
    return
