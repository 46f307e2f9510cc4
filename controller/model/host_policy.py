"""A `kind: HostPolicy`: what specs may ask of this host. Pure.

Each rule takes what one part of a spec says, and returns why that is not allowed, in words; "": it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import Any, Literal, Protocol

from controller.frozen import dataclass
from controller.model.addresses import Published, parse_ports
from controller.model.names import plain_path
from controller.model.quantity import format_bytes, parse_bytes, parse_cpu

HOST_POLICY = "HostPolicy"
LimitKey = Literal["memory", "swap", "cpu", "pids"]
PLACES: Mapping[LimitKey, str] = {
    "memory": "limits.memory.max",
    "swap": "limits.memory.swap",
    "cpu": "limits.cpu.max",
    "pids": "limits.pids.max",
}
"""Key of the rule → where a spec writes that limit."""
WILD = frozenset("*?[")


class Paths(Protocol):
    """What the host knows of paths. Looks only."""

    def real(self, path: str) -> str:
        """Where its symbolic links lead, as far as it is there."""
        ...

    def loose(self, top: str, path: str) -> str:
        """Why others than root may exchange what is at `path`, below `top`; "": nobody may."""
        ...


class AsWritten:
    """Of a host that is not there to be asked."""

    def real(self, path: str) -> str:
        return path

    def loose(self, top: str, path: str) -> str:
        del top, path
        return ""


@dataclass(frozen=True, slots=True)
class Place:
    """A path of the host with all below it, symbolic links followed."""

    path: str
    writable: bool = False

    def holds(self, path: str) -> bool:
        return path == self.path or path.startswith(f"{self.path.rstrip('/')}/")


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """`file`: where it stands. A rule that is not written is empty."""

    file: str
    rootfs: tuple[Place, ...] = ()
    mounts: tuple[Place, ...] = ()
    credentials: tuple[Place, ...] = ()
    secrets: tuple[str, ...] = ()
    devices: tuple[Mapping[str, Any], ...] = ()
    capabilities: frozenset[str] = frozenset()
    privileged: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()
    ports: tuple[Mapping[str, Any], ...] = ()
    images: tuple[Mapping[str, Any], ...] = ()
    limits: Mapping[LimitKey, Any] = field(default_factory=dict)
    checkpoints: frozenset[str] = frozenset()

    @classmethod
    def of(cls, written: Mapping[str, Any], file: str, paths: Paths) -> HostPolicy:
        """`written`: the validated JSON of the spec."""

        def places(key: str) -> tuple[Place, ...]:
            return tuple(
                Place(paths.real(plain_path(each["path"])), bool(each.get("writable", False)))
                for each in written.get(key, ())
            )

        return cls(
            file=file,
            rootfs=places("rootfs"),
            mounts=places("mounts"),
            credentials=tuple(Place(paths.real(plain_path(each))) for each in written.get("credentials", ())),
            secrets=tuple(written.get("secrets", ())),
            devices=tuple(written.get("devices", ())),
            capabilities=frozenset(map(bare, written.get("capabilities", ()))),
            privileged=frozenset(written.get("privileged", ())),
            namespaces=frozenset(written.get("namespaces", ())),
            networks=frozenset(written.get("networks", ())),
            ports=tuple(written.get("ports", ())),
            images=tuple(written.get("images", ())),
            limits=dict(written.get("limits", {})),
            checkpoints=frozenset(written.get("checkpoints", ())),
        )

    def place(
        self, rule: Literal["rootfs", "mounts", "credentials"], written: str, paths: Paths, *, write: bool
    ) -> str:
        path = paths.real(plain_path(written))
        found = [each for each in getattr(self, rule) if each.holds(path)]
        if not found:
            return f"{path} is not below a path that it lists"
        if write and not any(each.writable for each in found):
            return f"{path} may only be read"
        return min(paths.loose(each.path, path) for each in found if each.writable or not write)

    def secret(self, name: str) -> str:
        fits = any(fnmatchcase(name, each) for each in self.secrets)
        return "" if fits else f"secret {name} is not among those that it lists"

    def device(self, wanted: Mapping[str, Any]) -> str:
        access = set(wanted.get("access", "rw"))
        fitting = [each for each in self.devices if _covers(each, wanted)]
        if not fitting:
            named = str(wanted["path"]) if "path" in wanted else "whatever is like that"
            return f"{named} is not among the devices that it lists"
        if not any(access <= set(each.get("access", "rw")) for each in fitting):
            return f"access {''.join(sorted(access))} is more than it gives"
        return ""

    def capability(self, name: str) -> str:
        allowed = bare(name) in self.capabilities or "ALL" in self.capabilities
        return "" if allowed else f"{bare(name)} is not among those that it lists"

    def port(self, wanted: Published) -> str:
        if any(_publishes(each, wanted) for each in self.ports):
            return ""
        return f"{wanted.text} is not among the ports that it lists"

    def image(self, reference: str) -> str:
        found = [each for each in self.images if _is_from(reference, str(each["from"]))]
        if not found:
            return f"{reference} is not from where it lists"
        if "@sha256:" not in reference and not any(each.get("tags", False) for each in found):
            return f"{reference} has no digest: write …@sha256:…"
        return ""

    def archives(self, sort: Literal["import", "foreign"]) -> str:
        """Those that other programs made are archives to import, too."""
        allowed = sort in self.checkpoints or (sort == "import" and "foreign" in self.checkpoints)
        return "" if allowed else f"it does not list {sort}"

    def limit(self, key: LimitKey, written: Any) -> str:
        """`written`: as the spec has it; None: not at all."""
        if key not in self.limits:
            return ""
        most, shown = _amount(key, self.limits[key]), _shown(key, self.limits[key])
        if written is None or written == "max":
            return f"without {PLACES[key]} it has no limit: at most {shown}"
        return f"{written} is above {shown}" if _amount(key, written) > most else ""


def bare(capability: str) -> str:
    """Without CAP_ in front."""
    return capability.upper().removeprefix("CAP_")


def _covers(rule: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether whatever `wanted` finds is meant by the rule, too."""
    if "path" in wanted:
        return "path" in rule and _fits(plain_path(wanted["path"]), plain_path(rule["path"]))
    needed, said = rule.get("match", {}), wanted["match"]
    return bool(needed) and all(key in said and _same(key, said[key], value) for key, value in needed.items())


def _fits(path: str, pattern: str) -> bool:
    """No wildcard stands for a slash: below /dev are directories in which anybody may make links."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _same(key: str, said: str, needed: str) -> bool:
    if key in {"vendor", "product"}:
        return said.lower() == needed.lower()
    return said == needed or (key == "name" and not WILD & set(said) and fnmatchcase(said, needed))


def _publishes(rule: Mapping[str, Any], wanted: Published) -> bool:
    ports = parse_ports(str(rule["ports"]))
    fits = ports.protocol == wanted.protocol and ports.first <= wanted.host_port <= ports.last
    return fits and ("addresses" not in rule or _on(rule["addresses"], wanted.host_address))


def _on(addresses: Collection[str], address: str) -> bool:
    """An empty address is all of them, and that is more than any list."""
    if not address:
        return False
    return any(ip_address(address) in ip_network(each, strict=False) for each in addresses)


def _is_from(reference: str, origin: str) -> bool:
    rest = reference.removeprefix(origin) if reference.startswith(origin) else None
    return rest is not None and (origin[-1] in "/:" or rest[:1] in {"", "/", ":", "@"})


def _amount(key: LimitKey, written: Any) -> int:
    """Bytes, thousandths of cpus, or tasks."""
    if key == "cpu":
        return parse_cpu(str(written))
    return int(written) if key == "pids" else parse_bytes(str(written))


def _shown(key: LimitKey, written: Any) -> str:
    return format_bytes(parse_bytes(str(written))) if key in {"memory", "swap"} else str(written)
