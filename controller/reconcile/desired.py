"""From what is written to what each aspect wants. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, NamedTuple

from controller.aspects import ASPECTS_OF
from controller.aspects._bundle import compose
from controller.errors import HostLacks
from controller.frozen import dataclass
from controller.model.attachment import NAME_FILES, Attachment, Leases, Names
from controller.model.cgroups import SUBSYSTEMS
from controller.model.facts import Facts
from controller.model.firewall import Publication
from controller.model.frame import Frame
from controller.model.health import Health
from controller.model.image import Choice, process_of
from controller.model.names import plain_path
from controller.model.network import group_of
from controller.model.notice import Notice
from controller.model.resource import (
    CONTAINER,
    FIREWALL,
    GROUP,
    INSTANCE,
    NETWORK,
    VOLUME,
    Resource,
    digest,
    key_of,
)
from controller.model.secret import places_of, variables_of
from controller.model.space import VOLUME_SORT, Space, content_path
from controller.model.status import HOST_LACKS, Condition
from controller.model.sysctl import sysctl_path
from controller.model.volume import is_host_user, volumes_of, writes_as_host, written_by
from controller.reconcile.leases import lease
from controller.reconcile.topology import Topology, networks_in, topology

LIFE = "life"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of one key: the sections that its aspects read, with all that hangs together worked out.

    `needs`: keys of what must have converged before it can be born.
    """

    key: str
    kind: str
    sections: Mapping[str, Any]
    needs: frozenset[str] = frozenset()

    def section(self, path: str) -> Any:
        return self.sections.get(path)

    @property
    def digest(self) -> str:
        return digest(_plain(self.sections))


@dataclass(frozen=True, slots=True)
class Desired:
    """By aspect: what it wants. An aspect that is missing here owns nothing.

    `lacks`: what this host cannot do of it; the rest converges all the same.
    """

    name: str
    parts: Mapping[str, Any]
    frame: Frame
    lacks: tuple[Condition, ...]
    kind: str = CONTAINER
    needs: frozenset[str] = frozenset()

    @property
    def watches_mounts(self) -> bool:
        """Whether a change of the container's mount table may be drift."""
        return "mounts" in self.parts or self.watches_devices

    @property
    def watches_devices(self) -> bool:
        """Whether it wants a device that may come and go."""
        return bool(self.parts.get("devices"))

    @property
    def watches_network(self) -> bool:
        """Whether a change of its links, addresses or routes may be drift."""
        return self.kind != CONTAINER or bool(self.parts.get("interfaces"))

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What is to be told before it hurts."""
        found = self.parts.get("notify")
        return found.notices if found else ()

    @property
    def health(self) -> Health | None:
        """What it is to be asked: who is to be frozen or stopped cannot answer."""
        found: Health | None = self.parts.get("health")
        return found if found and self.parts[LIFE].state == "running" else None

    @property
    def throttles(self) -> bool:
        """Whether it may be held back for want of a cpu that it may not use."""
        return "cpu" in self.parts

    @property
    def starves(self) -> bool:
        """Whether there is no address left for it, until another container gives one back."""
        return any(each.exhausted or each.taken for each in self.parts.get("addresses", ()))

    @property
    def links(self) -> tuple[str, ...]:
        """Names of the host's links that are this one's."""
        bridge = self.parts.get("bridge")
        return (
            *((bridge.link,) if bridge else ()),
            *(each.link for each in self.parts.get("funnels", ())),
            *(each.link or each.parent for each in self.parts.get("interfaces", ())),
        )


@dataclass(frozen=True, slots=True)
class Named:
    """What an instance is called, and the directories of what it makes: files of names, spaces, secrets."""

    instance: str
    names: str
    spaces: str
    secrets: str = ""


class Made(NamedTuple):
    """A container's wish, and all that it was made of."""

    container: Resource
    rest: tuple[Any, ...]
    wish: Wish


Known = dict[str, Made]
NO_IMAGES: Mapping[str, Choice] = {}


def resolve(
    named: Named,
    resources: Mapping[str, Resource],
    before: Leases,
    leaving: Collection[str],
    known: Known | None = None,
    images: Mapping[str, Choice] = NO_IMAGES,
) -> tuple[dict[str, Wish], Leases]:
    """What is asked of every key, and the addresses that were given for it.

    `leaving`: containers that are still there but not wanted any more. `known`: what was made the last time, and is
    taken again where nothing has changed; else pure. `images`: which each container has.
    """
    containers = {each.name: each for each in resources.values() if each.kind == CONTAINER}
    leases = lease(containers, networks_in(resources), before, leaving)
    found = topology(named.instance, resources, leases)
    return wishes(named, resources, found, {} if known is None else known, images), leases


def wishes(
    named: Named,
    resources: Mapping[str, Resource],
    found: Topology,
    known: Known,
    images: Mapping[str, Choice] = NO_IMAGES,
) -> dict[str, Wish]:
    """By key: every container and volume, and every network that has something on the host; see `resolve`."""
    publications: dict[str, list[Publication]] = {}
    for publication in found.firewall.publications:
        publications.setdefault(publication.container, []).append(publication)
    for gone in known.keys() - resources.keys():
        del known[gone]
    wanted: dict[str, Wish] = {}
    mounted = Counter(
        name for each in resources.values() if each.kind == CONTAINER for name in volumes_of(each)
    )
    for key, each in resources.items():
        if each.kind != CONTAINER:
            continue
        written = written_by(each)
        rest = (
            _budgets(each, resources),
            found.attachments.get(each.name, ()),
            found.names.get(each.name),
            tuple(publications.get(each.name, ())),
            tuple(name for name in written if mounted[name] > 1),
            images.get(each.name),
        )
        last = known.get(key)
        if last is None or last.container is not each or last.rest != rest:
            last = known[key] = Made(each, rest, _container_wish(named, each, *rest))
        wanted[key] = last.wish
    for name, bridge in found.bridges.items():
        key = key_of(NETWORK, name)
        wanted[key] = Wish(key, NETWORK, {"bridge": bridge, "funnels": found.funnels.get(name, ())})
    wanted.update(_volume_wishes(resources))
    if not found.firewall.empty:
        key = key_of(FIREWALL, named.instance)
        wanted[key] = Wish(key, FIREWALL, {"firewall": found.firewall, "forwarding": found.forwarding})
    wanted.update({each.key: each for each in map(_group_wish, resources.values()) if each})
    guaranteed = guarantee(named, resources, ())
    wanted[guaranteed.key] = guaranteed
    return wanted


def guarantee(named: Named, resources: Mapping[str, Resource], waiting: Collection[str]) -> Wish:
    """Pure. What the groups above all containers are asked for. `waiting`: those for whom there is no room."""
    key = key_of(INSTANCE, named.instance)
    return Wish(key, INSTANCE, {"guarantees": _guarantees(resources, waiting)})


def _guarantees(resources: Mapping[str, Resource], waiting: Collection[str]) -> dict[str, Any]:
    """Who is guaranteed memory, and in which budget it is on a host with a single hierarchy."""
    containers = [
        each
        for each in resources.values()
        if each.kind == CONTAINER and each.state != "stopped" and each.name not in waiting
    ]
    groups = [each for each in resources.values() if each.kind == GROUP]
    return {
        "members": [
            (next(iter(_budgets(each, resources).values()), ""), each.section("limits.memory"))
            for each in containers
            if each.section("limits.memory")
        ],
        "budgets": {each.name: each.section("memory") for each in groups if each.section("memory")},
    }


def _volume_wishes(resources: Mapping[str, Resource]) -> dict[str, Wish]:
    users: dict[str, list[Resource]] = {}
    for each in sorted(resources.values(), key=lambda each: each.name):
        for name in volumes_of(each) if each.kind == CONTAINER else ():
            users.setdefault(name, []).append(each)
    return {
        key: Wish(key, VOLUME, {"volume": _volume(each, users.get(each.name, ()))})
        for key, each in resources.items()
        if each.kind == VOLUME
    }


def _volume(volume: Resource, users: Iterable[Resource]) -> dict[str, Any]:
    return {
        "spec": volume.spec,
        "users": [each.name for each in users],
        "hostUsers": [each.name for each in users if writes_as_host(each, volume.name)],
    }


def _group_wish(group: Resource) -> Wish | None:
    """Of a group that has more than bandwidth to share: that is the networks'."""
    sorts = [each for each in SUBSYSTEMS if group.kind == GROUP and group.section(each) is not None]
    limits = {f"limits.{each}": group.section(each) for each in sorts}
    return Wish(group.key, GROUP, {"cgroup": {"counts": sorts}, **limits}) if sorts else None


def _budgets(container: Resource, resources: Mapping[str, Resource]) -> dict[str, str]:
    """Sort of budget → the group whose cgroup the container is in for it."""
    found = {each: group_of(container, each) for each in SUBSYSTEMS}
    written = {sort: resources.get(key_of(GROUP, name)) for sort, name in found.items() if name}
    return {sort: each.name for sort, each in written.items() if each and each.section(sort) is not None}


def _container_wish(
    named: Named,
    container: Resource,
    budgets: Mapping[str, str],
    attachments: tuple[Attachment, ...],
    names: Names | None,
    publications: tuple[Publication, ...],
    shared: tuple[str, ...],
    choice: Choice | None,
) -> Wish:
    """`shared`: volumes that others mount, too. `choice`: the image that it has."""
    sections = {
        path: value
        for aspect in ASPECTS_OF[CONTAINER]
        for path in ((*LIFE_SECTIONS, "") if aspect.name == LIFE else (aspect.section,))
        if path and (value := container.section(path)) is not None
    }
    if "rootfs" in sections:
        sections["rootfs"] = {**sections["rootfs"], "hostUser": is_host_user(container)}
        sections.update(_of_image(container, choice))
    sections["checkpoint"] = _checkpoint(container, shared)
    sections["cgroup"] = {"budgets": budgets}
    sections["networks"] = attachments or None
    sections.update(_settings(container, attachments))
    sections["ports"] = publications
    mounts = [_mount(named, each) for each in container.section("mounts") or ()]
    sections["secrets"] = _secrets(container)
    mounts += _secret_mounts(named, container)
    if names:
        sections["names"] = names
        mounts += _generated(named, container)
    sections["mounts"] = mounts or None
    needs = {key_of(NETWORK, each.network) for each in attachments if each.type == "bridge"}
    needs |= {key_of(FIREWALL, named.instance)} if needs else set()
    needs |= {key_of(GROUP, name) for name in budgets.values()}
    needs |= {key_of(VOLUME, each) for each in volumes_of(container)}
    return Wish(container.key, CONTAINER, sections, frozenset(needs))


def _of_image(container: Resource, choice: Choice | None) -> dict[str, Any]:
    """What an image has a say in: its own section, and the process."""
    rootfs, process = container.section("rootfs"), container.section("process") or {}
    if "image" not in rootfs and "command" not in process:
        return {}
    process = process_of(process, choice or Choice())
    merged = {"process": process, **({"process.stop": process["stop"]} if "stop" in process else {})}
    if "image" in rootfs:
        merged["rootfs"] = {**rootfs, "hostUser": is_host_user(container), "choice": choice or Choice()}
    return merged


def _checkpoint(container: Resource, shared: tuple[str, ...]) -> Mapping[str, Any] | None:
    """With what the spec says elsewhere and a checkpoint has to know."""
    section, written = container.section("checkpoint"), written_by(container)
    if section is None and not written:
        return None
    mounted = {"own": [each for each in written if each not in shared], "shared": list(shared)}
    return {**(section or {}), "mounted": mounted, "stopped": container.state == "stopped"}


def _secrets(container: Resource) -> Mapping[str, Any] | None:
    """With the user namespace, in which owners are meant."""
    variables = variables_of(container.section("process.env") or {})
    files = container.section("files") or ()
    if not variables and not files:
        return None
    user = (container.section("namespaces") or {}).get("user", "host")
    return {"variables": variables, "files": files, "user": user}


def _secret_mounts(named: Named, container: Resource) -> list[dict[str, Any]]:
    return [
        {"source": f"{named.secrets}/{container.name}/{digest(place)}", "target": place, "readOnly": True}
        for place in places_of(container.section("files") or ())
    ]


def _mount(named: Named, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """A volume is a directory of the host that masu has chosen."""
    if "volume" not in entry:
        return entry
    return {**entry, "source": content_path(named.spaces, Space(VOLUME_SORT, entry["volume"]))}


def _settings(container: Resource, attachments: Iterable[Attachment]) -> dict[str, Any]:
    """Those of a network namespace that masu keeps are written by masu, all others with the container's birth."""
    found = {path: setting for each in attachments for path, setting in each.settings.items()}
    written = container.section("sysctls") or {}
    kept = (container.section("namespaces") or {}).get("net", "private") == "private"
    ours = {key: value for key, value in written.items() if kept and key.startswith("net.")}
    found.update(
        {path: (f"sysctls.{key}", str(value)) for key, value in ours.items() if (path := sysctl_path(key))}
    )
    rest = {key: value for key, value in written.items() if key not in ours}
    return {"sysctls": rest or None, "net_settings": found or None}


def _generated(named: Named, container: Resource) -> list[dict[str, Any]]:
    """The files of names as mounts, but where the spec mounts something itself."""
    written = {
        plain_path(str(each.get("tmpfs") or each["target"])) for each in container.section("mounts") or ()
    }
    taken = {"/etc", *(f"/etc/{file}" for file in NAME_FILES)} & written
    return [
        {
            "source": f"{named.names}/{container.name}/{file}",
            "target": f"/etc/{file}",
            "readOnly": True,
            "generated": True,
        }
        for file in NAME_FILES
        if not {"/etc", f"/etc/{file}"} & taken
    ]


LIFE_SECTIONS = {"state": "state", "process.stop": "stop", "restart": "restart"}


def desire(wish: Wish, facts: Facts) -> Desired:
    """Pure. Parse every section; the parts of the birth are put together for `life`."""
    parts: dict[str, Any] = {}
    lacks: list[Condition] = []
    births = []
    for aspect in ASPECTS_OF[wish.kind]:
        if aspect.name == LIFE:
            continue
        try:
            part = aspect.parse(wish.section(aspect.section), facts)
        except HostLacks as lack:
            lacks.append(Condition(HOST_LACKS, status=True, reason=_camel(aspect.name), message=str(lack)))
            continue
        if part is None:
            continue
        parts[aspect.name] = part
        birth = aspect.birth(part)
        if birth:
            births.append((aspect.name, birth))
    frame = compose(births)
    if wish.kind == CONTAINER:
        parts[LIFE] = _life(wish, frame, facts)
    return Desired(wish.key, parts, frame, tuple(lacks), wish.kind, wish.needs)


def _life(wish: Wish, frame: Frame, facts: Facts) -> Any:
    life = next(aspect for aspect in ASPECTS_OF[CONTAINER] if aspect.name == LIFE)
    section = {short: wish.section(path) for path, short in LIFE_SECTIONS.items()}
    return life.parse({**section, "frame": frame}, facts)


def _plain(value: Any) -> Any:
    """As JSON has it, so that it can be digested."""
    if isinstance(value, (str, int)) or value is None:
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    return sorted(value) if isinstance(value, frozenset) else value


def _camel(name: str) -> str:
    return "No" + name[:1].upper() + name[1:]
