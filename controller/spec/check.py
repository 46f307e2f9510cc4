"""Rules that a schema cannot say, inside one document. Pure. Those between documents are in `across`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from controller.checkpoints import policy
from controller.errors import Problem
from controller.model.names import plain_path, quote
from controller.model.quantity import parse_bytes, parse_duration
from controller.model.resource import Resource
from controller.model.secret import place_of
from controller.model.space import parse_size
from controller.spec import check_devices, check_network, check_notify

if TYPE_CHECKING:  # `masu status` needs these rules, but no YAML
    from controller.spec.document import Document

IPC_SYSCTLS = frozenset(
    {
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    }
)
PARTNER = "container:"
TIMES = ("interval", "timeout")
LEAST_INTERVAL_MS = 100
MOST_TIMEOUT_MS = 60_000


def inside(document: Document, wanted: Resource) -> tuple[Problem, ...]:
    """Pure. Problems inside one document that already fits its schema."""
    match wanted.kind:
        case "Container":
            return _container(document, wanted)
        case "Network":
            return tuple(check_network.network(document, wanted))
        case "Volume":
            return tuple(_size(document, wanted.spec, ()))
        case "Node":
            return tuple(_placed(document, wanted))
    return ()


def _placed(document: Document, wanted: Resource) -> Iterator[Problem]:
    if wanted.placement and "labels" in wanted.placement:
        why = "a Node is placed by its name: its own labels are what others are placed by"
        yield document.problem(("placement", "labels"), why)


def _container(document: Document, wanted: Resource) -> tuple[Problem, ...]:
    spaces = wanted.section("namespaces") or {}
    return (
        *_sysctls(document, wanted.section("sysctls") or {}, spaces),
        *_hostname(document, wanted, spaces),
        *_restart(document, wanted.section("restart") or {}),
        *_health(document, wanted.section("health") or {}),
        *_memory(document, wanted.section("limits.memory") or {}),
        *_io(document, wanted.section("limits.io") or ()),
        *_partners(document, wanted.name, spaces),
        *_rootfs(document, wanted.section("rootfs") or {}),
        *_process(document, wanted),
        *_targets(document, wanted.section("mounts") or ()),
        *_files(document, wanted),
        *check_devices.devices(document, wanted),
        *check_network.interfaces(document, wanted, spaces),
        *_hugepages(document, wanted.section("limits.hugepages") or {}),
        *_checkpoint(document, wanted.section("checkpoint") or {}),
        *check_notify.entries(document, wanted),
    )


def unique_in_file(documents: Iterable[Document]) -> list[Problem]:
    """Pure. The same name twice in one file. Who has a `placement` may count on different hosts."""
    seen: dict[tuple[str, str], Document] = {}
    problems = []
    for each in (each for each in documents if "placement" not in each.value):
        kind, metadata = each.value.get("kind"), each.value.get("metadata")
        name = metadata.get("name") if isinstance(metadata, Mapping) else None
        if not isinstance(kind, str) or not isinstance(name, str):
            continue
        before = seen.setdefault((kind, name), each)
        if before is not each:
            line = before.problem(("metadata", "name"), "").line
            message = f"{quote(name)} is already defined in this file at line {line}"
            problems.append(each.problem(("metadata", "name"), message))
    return problems


def _sysctls(document: Document, values: Mapping[str, Any], spaces: Mapping[str, Any]) -> Iterator[Problem]:
    for key in values:
        space = _space_of(key)
        path = ("spec", "sysctls", key)
        if space is None:
            yield document.problem(path, f"{key} is not namespaced: it would change the whole host")
        elif spaces.get(space, "private") != "private":
            yield document.problem(
                path, f"{key} needs a private {space} namespace, or it changes somebody else's"
            )


def _space_of(key: str) -> str | None:
    """Pure. Which namespace a sysctl belongs to; None: to the host (Documentation/admin-guide/sysctl)."""
    if key.startswith("net."):
        return "net"
    if key in IPC_SYSCTLS or key.startswith("fs.mqueue."):
        return "ipc"
    return "uts" if key == "kernel.domainname" else None


def _hostname(document: Document, wanted: Resource, spaces: Mapping[str, Any]) -> Iterator[Problem]:
    if wanted.section("hostname") is not None and spaces.get("uts", "private") != "private":
        yield document.problem(("spec", "hostname"), "a hostname needs a private uts namespace")


def _memory(document: Document, memory: Mapping[str, Any]) -> Iterator[Problem]:
    amounts = {key: _bytes(memory[key]) for key in ("min", "low", "high", "max") if key in memory}
    for lower, upper in (("high", "max"), ("low", "max"), ("min", "max")):
        if lower in amounts and upper in amounts and amounts[lower] > amounts[upper]:
            path = ("spec", "limits", "memory", lower)
            yield document.problem(path, f"{lower} is above {upper}: {memory[lower]} > {memory[upper]}")


def _io(document: Document, entries: Iterable[Mapping[str, Any]]) -> Iterator[Problem]:
    for index, entry in enumerate(entries):
        path = ("spec", "limits", "io", index)
        if entry.keys() == {"path"}:
            yield document.problem(
                path, "limits nothing: add read, write, readIops, writeIops, weight or latency"
            )
        for key in entry if "path" not in entry else ():
            if key != "weight":
                yield document.problem((*path, key), f"{key} is that of a disk: write the path, too")


def _restart(document: Document, restart: Mapping[str, Any]) -> Iterator[Problem]:
    backoff = restart.get("backoff", {})
    initial, longest = (str(backoff.get(key, "0")) for key in ("initial", "max"))
    if "max" in backoff and parse_duration(initial) > parse_duration(longest):
        path = ("spec", "restart", "backoff", "initial")
        yield document.problem(path, f"the first pause is above the longest: {initial} > {longest}")


def _health(document: Document, health: Mapping[str, Any]) -> Iterator[Problem]:
    path, times = (
        ("spec", "health"),
        {key: parse_duration(str(health[key])) for key in TIMES if key in health},
    )
    if times.get("interval", LEAST_INTERVAL_MS) < LEAST_INTERVAL_MS:
        yield document.problem((*path, "interval"), f"{health['interval']} is too often: at least 100ms")
    if not 0 < times.get("timeout", 1) <= MOST_TIMEOUT_MS:
        message = f"{health['timeout']} is no time for a command: above 0 and at most 1m"
        yield document.problem((*path, "timeout"), message)


def _hugepages(document: Document, written: Mapping[str, Any]) -> Iterator[Problem]:
    sizes: dict[int, str] = {}
    for each in written:
        path, page = ("spec", "limits", "hugepages", each), parse_bytes(each)
        if page & (page - 1):
            yield document.problem(path, f"{each} is not the size of a page: sizes are powers of two")
        if sizes.setdefault(page, each) != each:
            yield document.problem(path, f"{each} is the same size as {sizes[page]}")


def _checkpoint(document: Document, checkpoint: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        policy.parse(checkpoint)
    except ValueError as error:
        yield document.problem(("spec", "checkpoint", "schedule"), str(error))


def _rootfs(document: Document, rootfs: Mapping[str, Any]) -> Iterator[Problem]:
    path, writable = ("spec", "rootfs"), rootfs.get("writable", "overlay")
    if not rootfs.keys() & {"path", "image"}:
        yield document.problem(path, '"path" or "image" is missing')
    if "path" in rootfs:
        for key in sorted(rootfs.keys() & {"image", "pull", "authfile"}):
            message = "path is a directory" if key == "image" else f"{key} is about an image"
            yield document.problem((*path, key), f"{message}: remove one of path and {key}")
    elif writable == "direct":
        yield document.problem((*path, "writable"), "an image is not written into: write overlay or readOnly")
    if "authfile" in rootfs and rootfs.get("image", "").startswith("oci:"):
        yield document.problem((*path, "authfile"), "an OCI layout on the host asks for no credentials")
    if "size" in rootfs and writable != "overlay":
        message = f"size is for a layer of the container's own: write writable: overlay instead of {writable}"
        yield document.problem(("spec", "rootfs", "size"), message)
    yield from _size(document, rootfs, ("rootfs",))


def _process(document: Document, wanted: Resource) -> Iterator[Problem]:
    """An image may say what runs; a directory does not."""
    process = wanted.section("process")
    if "path" not in (wanted.section("rootfs") or {}):
        return
    if process is None:
        yield document.problem(("spec",), '"process" is missing')
    elif not process.keys() & {"args", "command"}:
        yield document.problem(("spec", "process"), '"args" is missing')


def _size(document: Document, owner: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Problem]:
    if "size" in owner:
        try:
            parse_size(owner["size"])
        except ValueError as error:
            yield document.problem(("spec", *path, "size"), str(error))


def _bytes(value: Any) -> float:
    return float("inf") if value == "max" else parse_bytes(str(value))


def _partners(document: Document, name: str, spaces: Mapping[str, Any]) -> Iterator[Problem]:
    for kind, value in spaces.items():
        if isinstance(value, str) and value == PARTNER + name:
            yield document.problem(("spec", "namespaces", kind), "a container cannot share with itself")


def _targets(document: Document, mounts: Iterable[Mapping[str, Any]]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, each in enumerate(mounts):
        target = plain_path(str(each.get("tmpfs") or each.get("target")))
        if target in seen:
            yield document.problem(
                ("spec", "mounts", index), f"{target} is already a mount of this container"
            )
        if target == "/":
            yield document.problem(("spec", "mounts", index), "/ is the root file system: see spec.rootfs")
        seen.add(target)


def _files(document: Document, wanted: Resource) -> Iterator[Problem]:
    """The directory of a secret is masu's: what else is there would not be seen."""
    mounted = {
        plain_path(str(each.get("tmpfs") or each["target"])) for each in wanted.section("mounts") or ()
    }
    seen: set[str] = set()
    for index, each in enumerate(wanted.section("files") or ()):
        target, place = plain_path(each["target"]), place_of(each["target"])
        path = ("spec", "files", index, "target")
        if place in {"", "/etc", "/dev", "/proc", "/sys", "/bin", "/usr", "/lib"} or place in mounted:
            message = f"{place or '/'} cannot be a directory for secrets alone: use for example /run/secrets"
            yield document.problem(path, message)
        if target in seen:
            yield document.problem(path, f"{target} is already a file of this container")
        seen.add(target)
        if len(each.keys() & {"secret", "age"}) != 1:
            yield document.problem(path[:-1], 'one of "secret" and "age" says what is in it')
