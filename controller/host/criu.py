"""The Criu port: dumps and restores processes by calling CRIU itself, which takes half of what the runtimes take.

A dump goes through CRIU's own protocol (`criu_rpc`), from a thread that is in the container's network namespace: CRIU
then finds nothing there that it would have to keep, and the addresses stay masu's. A restore is a launch by the
keeper with CRIU in the runtime's place. Sources: criu(8), criu.org.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from controller.errors import HostLacks, LaunchFailed, StepFailed
from controller.host import command, criu_layout, criu_rpc, oci_state
from controller.host.criu_mended import Ice, mend
from controller.host.criu_mounts import staging
from controller.host.departure import FEATURE_CACHE, depart, is_on_tmpfs
from controller.host.facts import find
from controller.host.oci import OciRuntime
from controller.host.proc_stat import stat_of
from controller.host.text import failed, make_directories, read_text, remove_file, write_atomic
from controller.model.dump import (
    LAYOUT_FILE,
    CriuAbilities,
    Dumped,
    DumpOrder,
    Layout,
    RestoreOrder,
)
from controller.model.launch import Init, LaunchRecipe

CHECK_TIMEOUT_S: Final = 20.0
END_TIMEOUT_S: Final = 5.0
UNDO_S: Final = 2.0
SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOG: Final = "dump.log"
_LOG_LEVEL: Final = "2"
_ERROR: Final = re.compile(r"Error \([^)]*\): (.*)")
_HARMLESS: Final = ("RLIMIT_NOFILE",)


class _Changed(Exception):
    """While the container was being frozen, it came to be something else than what the dump was asked for."""


@dataclass(frozen=True, slots=True)
class CriuProgram:
    """Stateless apart from where things are; every method may be called from any thread."""

    runtime: OciRuntime

    def abilities(self) -> CriuAbilities:
        """Asked of CRIU once per boot and version; afterwards from a file. Never raises."""
        path = find("criu")
        if path is None:
            return CriuAbilities(said="CRIU is not installed")
        known = _read_json(self._known)
        key = self._key(path)
        if known.get("key") == key:
            return CriuAbilities(**known["found"])
        found = self._ask(path)
        write_atomic(self._known, json.dumps({"key": key, "found": asdict(found)}), durable=False)
        return found

    def dump(self, order: DumpOrder, while_frozen: Callable[[], None]) -> Dumped:
        """The processes of a container into `order.directory`. Raises StepFailed, HostLacks.

        `while_frozen` is called when the images are complete and nothing runs yet: what it does is of the very moment
        of the dump. Whatever fails, the container goes on running.
        """
        for keep_all in (False, True):
            with contextlib.suppress(_Changed):
                return self._dump(order, while_frozen, keep_all=keep_all)
        raise StepFailed(f"{order.container} changed its mounts during the dump", path=order.directory)

    def pre_dump(self, order: DumpOrder) -> Dumped:
        """Only memory, and only a moment of standing still; a dump with this directory as `parent` follows."""
        if not self.abilities().tracks_memory:
            raise HostLacks("this kernel does not track dirty pages (CONFIG_MEM_SOFT_DIRTY)")
        return self._converse(replace(order, track=True), criu_rpc.SINGLE_PRE_DUMP, [], _nothing)

    def restore(self, order: RestoreOrder) -> Init | None:
        """In the place of a launch. None: it takes its time, ask `restored`. Raises LaunchFailed, KeeperGone."""
        recipe = self.recipe(order)
        remove_file(f"{recipe.cwd}/restore.log")
        oci_state.prepare(self.runtime.places, order.container, order.directory)
        with self._explained(order.container):
            return self.runtime.launch(recipe)

    def restored(self, name: str) -> Init | None:
        """What became of such a restore; None as long as it is under way. Raises LaunchFailed, KeeperGone."""
        with self._explained(name):
            return self.runtime.launched(name)

    def mend(self, name: str, group: str) -> tuple[str, ...]:
        """Undo what a CRIU that was killed has left in a running container; → what was found, in words."""
        return mend(self._network(name), self.runtime.homes.join_files(group))

    # --- dumping ---

    def _dump(self, order: DumpOrder, while_frozen: Callable[[], None], *, keep_all: bool) -> Dumped:
        config = _read_json(f"{self._bundle(order.container)}/config.json")
        pipes = f"{self.runtime.places.keeper}/pipes/{order.container}.json"
        layout = criu_layout.observe(order.init.pid, config, pipes, keep_all=keep_all)
        has_changed = criu_layout.changed(order.init.pid, layout)
        order = replace(order, tcp=_possible_tcp(order))
        locked = order.tcp == "established" and (keep_all or criu_layout.has_connections(order.init.pid))

        def frozen() -> None:
            connected = order.tcp == "established" and not locked
            if has_changed() or (connected and criu_layout.has_connections(order.init.pid)):
                raise _Changed
            while_frozen()

        write_atomic(f"{order.directory}/{LAYOUT_FILE}", json.dumps(layout.to_json()), durable=False)
        oci_state.keep(self.runtime.places, order.container, order.directory)
        options: list[tuple[str, criu_rpc.Value]] = [
            ("external", f"mnt[{each.at}]:{each.at}") for each in layout.mounts if each.external
        ]
        options += [
            ("leave_running", int(not order.kill)),
            ("tcp_established", int(order.tcp == "established")),
            ("tcp_close", int(order.tcp == "close")),
            ("file_locks", 1),
            ("link_remap", 1),
            ("ghost_limit", order.ghost_limit),
            ("notify_scripts", 1),
            ("network_lock", criu_rpc.NFTABLES if locked else criu_rpc.SKIP_LOCK),
        ]
        return self._converse(order, criu_rpc.DUMP, options, frozen)

    def _converse(
        self,
        order: DumpOrder,
        kind: int,
        options: list[tuple[str, criu_rpc.Value]],
        frozen: Callable[[], None],
    ) -> Dumped:
        """One CRIU from its start to its end. Raises StepFailed and what `frozen` raises."""
        found = self._usable()
        _check_still_there(order.init)
        before = time.monotonic()
        network = f"/proc/{order.init.pid}/ns/net"
        ice = Ice(self.runtime.homes, self.runtime.places.group_of(order.container))
        if ice.frozen:
            raise StepFailed(f"{order.container} is frozen: CRIU needs its processes to run for a moment")
        try:
            depart(network, self._cache(), lambda: _talk(found.path, order, kind, options, frozen, ice))
        except OSError as error:
            raise failed(error, f"dumping {order.container} to", order.directory) from error
        except _Killed as killed:
            raise StepFailed("; ".join((str(killed), *self._recover(order, ice)))) from killed
        stats = criu_rpc.stats(_read_bytes(f"{order.directory}/stats-dump"))
        return Dumped(
            criu_rpc.number(stats, 2),
            round((time.monotonic() - before) * 1000),
            criu_rpc.number(stats, 7),
            criu_rpc.number(stats, 6),
            order.tcp,
        )

    def _recover(self, order: DumpOrder, ice: Ice) -> tuple[str, ...]:
        """Whatever happens, the container goes on."""
        try:
            return self.mend(order.container, ice.group)
        finally:
            ice.thaw()

    # --- restoring ---

    def recipe(self, order: RestoreOrder) -> LaunchRecipe:
        """How CRIU is called here for this restore; changes nothing but who may read the images' clocks."""
        found = self._usable()
        base = self.runtime.recipe(order.container, order.group, order.root)
        config = _read_json(f"{base.cwd}/config.json")
        layout = _layout(order.directory)
        network = _network_of(config)
        stage = f"{base.cwd}/stage"
        make_directories(stage, 0o711)
        operations, places = staging(layout, config, order.root, stage, network or "/proc/self/ns/net")
        if "ids" in order.root:
            _open_images(order.directory)
        around: list[dict[str, Any]] = [{"op": "cgroups", "target": "cgroup"}] if _private(config, "cgroup") else []
        if network:
            around.append({"op": "network", "source": network, "target": network})
        if self._cache():
            around.insert(0, {"op": "features", "source": self._kdat, "target": FEATURE_CACHE})
        return replace(
            base,
            argv=tuple(_restore_argv(found.path, order, base, layout, places, config)),
            env={"PATH": SEARCH_PATH},
            join=self.runtime.homes.join_files(order.group),
            mounts=(*self.runtime.root_mounts(order.container, order.root), *operations, *around),
            offsets={},
            timeout_ms=order.timeout_ms,
        )

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except LaunchFailed as error:
            said = _last_error(f"{self._bundle(name)}/restore.log")
            raise LaunchFailed(said or str(error), path=error.path, errno=error.errno) from error

    # --- what CRIU can do here ---

    def _usable(self) -> CriuAbilities:
        found = self.abilities()
        if not found.usable:
            raise HostLacks(f"CRIU cannot be used here: {found.said}")
        return found

    def _key(self, path: str) -> str:
        seen = os.stat(path)
        return f"{self.runtime.facts.boot_id} {path} {seen.st_size} {seen.st_mtime_ns}"

    def _ask(self, path: str) -> CriuAbilities:
        """Three runs of CRIU, in which it also writes down what it finds out about the kernel."""
        hidden = None if is_on_tmpfs("/run") else b""

        def ask() -> tuple[CriuAbilities, bytes]:
            _, said = command.output([path, "--version"], CHECK_TIMEOUT_S)
            version = next(iter(re.findall(r"Version: (\S+)", said)), "")
            status, said = command.output([path, "check"], CHECK_TIMEOUT_S)
            tracks, _ = command.output([path, "check", "--feature", "mem_dirty_track"], CHECK_TIMEOUT_S)
            words = "" if status == 0 else _errors(said) or said.strip()[-500:]
            known = b"" if hidden is None else _read_bytes(FEATURE_CACHE)
            return CriuAbilities(path, version, status == 0, tracks == 0, words), known

        try:
            found, known = depart("", hidden, ask)
        except OSError as error:
            return CriuAbilities(path, said=f"{path} cannot be tried: {os.strerror(error.errno or 0)}")
        if known:
            write_atomic(self._kdat, known.decode("utf-8", "surrogateescape"), durable=False)
        return found

    def _cache(self) -> bytes | None:
        """What CRIU is to find on a /run of its own; None: the real one keeps it."""
        return None if is_on_tmpfs("/run") else _read_bytes(self._kdat)

    @property
    def _known(self) -> str:
        return f"{self.runtime.places.run}/criu.json"

    @property
    def _kdat(self) -> str:
        return f"{self.runtime.places.run}/criu.kdat"

    def _bundle(self, name: str) -> str:
        return f"{self.runtime.places.bundles}/{name}"

    def _network(self, name: str) -> str:
        return _network_of(_read_json(f"{self._bundle(name)}/config.json"))


class _Killed(Exception):
    """CRIU did not end by itself."""


def _talk(
    path: str,
    order: DumpOrder,
    kind: int,
    options: list[tuple[str, criu_rpc.Value]],
    frozen: Callable[[], None],
    ice: Ice,
) -> None:
    """Start it, ask it, wait for it. Raises StepFailed, _Killed, and what `frozen` raises."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    directory = os.open(order.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    remove_file(f"{order.directory}/{_LOG}")
    asked = criu_rpc.request(kind, [*_always(order, directory), *options])
    process = subprocess.Popen(
        [*_in_time_of(order.init.pid), path, "swrk", str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
        umask=0o077,
        env={"PATH": SEARCH_PATH, "GZIP": "-1"},  # it has tar compress every tmpfs while everything stands still
        restore_signals=False,  # SIGXFSZ and SIGPIPE stay ignored: what CRIU cannot write is an error to it
    )
    theirs.close()
    try:
        answer = criu_rpc.converse(ours, asked, order.timeout_ms / 1000, frozen)
    except (TimeoutError, OSError, ValueError) as error:
        ours.close()  # should it be waiting for a word just now
        _stop(process, ice)
        said = _last_error(f"{order.directory}/{_LOG}")
        why = f"did not finish within {order.timeout_ms} ms" if isinstance(error, TimeoutError) else f"broke off: {error}"
        raise _Killed(f"criu {why}{': ' + said if said else ''}") from error
    finally:
        os.close(directory)
        ours.close()
        _end(process)
    if not answer.success:
        said = _last_error(f"{order.directory}/{_LOG}") or answer.message or "it does not say why"
        raise StepFailed(f"criu could not dump {order.container}: {said}", path=order.directory)


def _always(order: DumpOrder, directory: int) -> list[tuple[str, criu_rpc.Value]]:
    parent = [("parent_img", order.parent)] if order.parent else []
    return [
        ("images_dir_fd", directory),
        ("pid", order.init.pid),
        ("log_file", _LOG),
        ("log_level", int(_LOG_LEVEL)),
        ("manage_cgroups_mode", criu_rpc.IGNORE_CGROUPS),
        ("timeout", max(1, order.timeout_ms // 1000)),
        ("track_mem", int(order.track)),
        *parent,
    ]


def _in_time_of(pid: int) -> list[str]:
    """CRIU asks that every namespace belongs to the container's own user namespace, which masu's time namespaces do
    not; it leaves alone the one that it is in itself, and keeps what the clocks say there. A process with threads
    cannot enter a time namespace: setns(2)."""
    theirs = f"/proc/{pid}/ns/time"
    if not os.path.exists(theirs) or os.path.samefile(theirs, "/proc/self/ns/time"):
        return []
    return [find("nsenter") or "nsenter", f"--time={theirs}", "--"]


def _possible_tcp(order: DumpOrder) -> Literal["established", "close"]:
    """Nobody in a user namespace of its own may make a connection anew in a network namespace of masu's: tcp(7),
    TCP_REPAIR, wants CAP_NET_ADMIN over it."""
    theirs = f"/proc/{order.init.pid}/ns/user"
    return order.tcp if os.path.samefile(theirs, "/proc/self/ns/user") else "close"


def _stop(process: subprocess.Popen[bytes], ice: Ice) -> None:
    """Have it give up: its next write to an image fails, and it undoes everything itself.

    Only if that takes too long it is killed: in its first moments that can end the container, because a thread that
    CRIU has made call something comes back to a breakpoint, and nobody waits for it.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
    try:
        process.wait(UNDO_S)
    except subprocess.TimeoutExpired:
        ice.freeze()
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With what it has started; it is the leader of its group as long as it is not waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        _kill(process)
        process.wait()


def _check_still_there(init: Init) -> None:
    stat = stat_of(init.pid)
    if stat is None or stat.start_time != init.start_time:
        raise StepFailed(f"process {init.pid} has ended")


def _restore_argv(
    path: str,
    order: RestoreOrder,
    base: LaunchRecipe,
    layout: Layout,
    places: Mapping[str, str],
    config: Mapping[str, Any],
) -> Iterator[str]:
    yield from (path, "restore", "--restore-detached", "--images-dir", order.directory)
    yield from ("--work-dir", base.cwd, "--log-file", "restore.log", f"-v{_LOG_LEVEL}")
    yield from ("--root", f"{base.cwd}/rootfs", "--pidfile", base.pid_file)
    yield from ("--manage-cgroups=ignore", "--file-locks", "--link-remap")
    yield "--tcp-close" if order.tcp == "close" or "ids" in order.root else "--tcp-established"
    for at, place in places.items():
        yield from ("--external", f"mnt[{at}]:{place}")
    for number, inode in enumerate(layout.pipes, start=1):
        yield from ("--inherit-fd", f"fd[{number}]:pipe:[{inode}]")
    for each in config["linux"]["namespaces"]:
        if "path" not in each or each["type"] == "network":
            continue
        if each["type"] not in {"ipc", "uts"}:
            raise LaunchFailed(f"a container in somebody else's {each['type']} namespace cannot be restored")
        yield from ("--join-ns", f"{each['type']}:{each['path']}")


def _network_of(config: Mapping[str, Any]) -> str:
    """The file of the network namespace that the container is in; "": the host's."""
    spaces = config.get("linux", {}).get("namespaces", ())
    return next((str(each.get("path", "")) for each in spaces if each["type"] == "network"), "")


def _private(config: Mapping[str, Any], kind: str) -> bool:
    return any(each["type"] == kind and "path" not in each for each in config["linux"]["namespaces"])


def _layout(directory: str) -> Layout:
    path = f"{directory}/{LAYOUT_FILE}"
    try:
        return Layout.from_json(json.loads(read_text(path) or "{}"))
    except (ValueError, TypeError, KeyError) as error:
        raise LaunchFailed(f"{path} is not what masu wrote: {error}", path=path) from error


def _open_images(directory: str) -> None:
    """CRIU reads most of an image after it has become the root of the container's user namespace.

    It passes through an open directory, so whoever cannot reach that from outside cannot read them either.
    """
    try:
        os.chmod(directory, 0o711)
        for name in os.listdir(directory):
            if name.endswith(".img"):
                os.chmod(f"{directory}/{name}", 0o644)
    except OSError as error:
        raise failed(error, "preparing", directory) from error


def _nothing() -> None:
    return


def _last_error(path: str) -> str:
    return _errors(read_text(path) or "")


def _errors(text: str) -> str:
    """The first error that CRIU tells of is the cause; the others follow from it."""
    found = (each for each in _ERROR.findall(text) if not any(word in each for word in _HARMLESS))
    return next(found, "").strip()


def _read_json(path: str) -> dict[str, Any]:
    try:
        value = json.loads(read_text(path) or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


