"""Images: how they are called, which of them a container has, and what they say of its process. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from controller.frozen import dataclass
from controller.model.names import check_host_path, quote
from controller.model.signals import signal_number

OCI, DOCKER = "oci", "docker"
PULL = ("always", "missing", "never")
Pull = Literal["always", "missing", "never"]

MOST_MANIFEST: Final = 4 << 20
"""Bytes of a manifest, an index or a config: what registries take themselves (distribution-spec, 4 MiB)."""
INDEXES: Final = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MACHINES: Final[Mapping[str, tuple[str, str]]] = {
    "x86_64": ("amd64", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
}
"""uname(2)'s name for a machine → Go's (architecture, variant), where they differ."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NO_ARGUMENT = re.compile("[\0\ud800-\udfff]")
_REGISTRY = re.compile(r"(?:\[[0-9a-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*)(?::[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")


@dataclass(frozen=True, slots=True)
class Reference:
    """`name`: the path of an OCI layout, or REGISTRY/REPOSITORY. `digest`: of a manifest or an index; or empty."""

    transport: str
    name: str
    tag: str
    digest: str

    @property
    def registry(self) -> str:
        """Host and port; empty for a layout."""
        return self.name.partition("/")[0] if self.transport == DOCKER else ""

    @property
    def is_loopback(self) -> bool:
        """Whether its registry is on this host, and on no network: there alone plain http will do."""
        host = self.registry.removeprefix("[").partition("]")[0] if self.registry.startswith("[") else ""
        host = host or self.registry.partition(":")[0]
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def moves(self) -> bool:
        """Whether it may mean another image tomorrow."""
        return not self.digest


def parse_reference(text: str) -> Reference:
    """Pure. Raises ValueError with what is wrong."""
    transport, colon, rest = text.partition(":")
    if transport not in {OCI, DOCKER} or not colon:
        raise ValueError(
            f"{quote(text)} is no image: write oci:/PATH:TAG or docker://REGISTRY/REPOSITORY@sha256:…"
        )
    rest, _, digest = rest.partition("@")
    if (digest or "@" in text) and not _DIGEST.fullmatch(digest):
        raise ValueError(f"{quote(digest)} is no digest: sha256: and 64 hexadecimal digits")
    if transport == DOCKER:
        name, tag = _in_registry(text, rest)
    else:
        name, _, tag = rest.partition(":")
        check_host_path(name)
    if tag and not _TAG.fullmatch(tag):
        raise ValueError(f"{quote(tag)} is no tag: letters, digits, _, . and -, at most 128")
    if not (tag or digest):
        raise ValueError(f"{quote(text)} does not say which one: add a :TAG, or better @sha256:…")
    return Reference(transport, name, tag, digest)


def _in_registry(text: str, rest: str) -> tuple[str, str]:
    if not rest.startswith("//"):
        raise ValueError(f"{quote(text)} is no image: write docker://REGISTRY/REPOSITORY")
    registry, _, path = rest.removeprefix("//").partition("/")
    repository, _, tag = path.partition(":")
    if not _REGISTRY.fullmatch(registry) or not (
        registry.startswith("[") or registry == "localhost" or set(".:") & set(registry)
    ):
        raise ValueError(f"{quote(registry)} is no registry: write its host, as in docker.io/library/busybox")
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(
            f"{quote(repository)} is no repository: small letters and digits, with / . _ - between"
        )
    return f"{registry}/{repository}", tag


def short(digest: str) -> str:
    """As people tell them apart: sha256:6a6999a743e9."""
    return digest[: len("sha256:") + 12]


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Source:
    """Where an image comes from. `authfile`: a path, or empty for the host's own."""

    reference: str
    authfile: str = ""


@dataclass(frozen=True, slots=True)
class Want:
    """What a container asks for. `spec`: digest of all that its file says, which tells an edit."""

    source: Source
    pull: Pull
    spec: str

    @property
    def asks(self) -> bool:
        """Whether its registry is asked again what the tag means, although that is known."""
        return self.pull == "always" and parse_reference(self.source.reference).moves


def want_in(rootfs: Mapping[str, Any], spec: str) -> Want | None:
    """Pure. Of a section of a valid spec; None: it is no image."""
    if "image" not in rootfs:
        return None
    return Want(Source(rootfs["image"], rootfs.get("authfile", "")), rootfs.get("pull", "missing"), spec)


@dataclass(frozen=True, slots=True)
class Pin:
    """Which image a container has for what its file says. `spec`: for which the registry was last asked."""

    reference: str
    digest: str
    spec: str = ""


Pins = Mapping[str, Pin]
"""By container."""


@dataclass(frozen=True, slots=True)
class Image:
    """One that is unpacked here, and what it says of the process.

    `digest`: of its manifest. `path`: its root file system. `user`: uid:gid, or empty. `unknown_user`: what it
    calls its user, where nobody of that name is in its /etc/passwd.
    """

    digest: str
    path: str
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    user: str = ""
    unknown_user: str = ""
    stop: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """`digest`: which image it is, or empty; `image`: None as long as that is not here."""

    digest: str = ""
    image: Image | None = None


@dataclass(frozen=True, slots=True)
class Amount:
    """How far a pull has come: bytes, of so many; 0: that is not known."""

    doing: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """`layers`: (digest, bytes), the lowest first."""

    config: str
    layers: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        return sum(size for _, size in self.layers)


def parse_manifest(value: Any) -> Manifest:
    """Pure. Raises ValueError."""
    try:
        layers = tuple((_digest(each["digest"]), _size(each["size"])) for each in value["layers"])
        return Manifest(_digest(value["config"]["digest"]), layers)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not the manifest of an image") from error


def _size(value: Any) -> int:
    """Of a blob (image-spec, descriptor.md: an int64)."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{quote(str(value))} is no number of bytes")
    return value


def in_index(value: Any, machine: str) -> str | None:
    """Pure. The digest of the image for such a machine; None: it is no index. Raises ValueError."""
    try:
        manifests = value.get("manifests")
        if manifests is None and value.get("mediaType") not in INDEXES:
            return None
        architecture, variant = MACHINES.get(machine, (machine, ""))
        known = [(each.get("platform") or {}, _digest(each["digest"])) for each in manifests]
        fit = [
            (variant not in {"", platform.get("variant", variant)}, digest)
            for platform, digest in known
            if platform.get("os", "linux") == "linux" and platform.get("architecture", "") == architecture
        ]
        if fit:
            return min(fit)[1]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not an index of images") from error
    if len(known) == 1 and not known[0][0]:
        return known[0][1]
    raise ValueError(f"it has no image for {architecture}")


def tagged(value: Any, tag: str) -> str:
    """Pure. What an OCI layout's index.json has under a tag. Raises ValueError."""
    try:
        found = [
            _digest(each["digest"])
            for each in value["manifests"]
            if (each.get("annotations") or {}).get("org.opencontainers.image.ref.name") == tag
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not the index of an OCI layout") from error
    if len(found) != 1:
        raise ValueError(
            f"it has no tag {quote(tag)}" if not found else f"it has tag {quote(tag)} more than once"
        )
    return found[0]


def _digest(text: Any) -> str:
    if not isinstance(text, str) or not is_digest(text):
        raise ValueError(f"{quote(str(text))} is no digest of sha256")
    return text


def image_of(digest: str, path: str, config: Any, users: str, groups: str) -> Image:
    """Pure. From the image's config (image-spec, config.md), its /etc/passwd and /etc/group. Raises ValueError."""
    try:
        found = config.get("config") or {}
        entrypoint, cmd, env = (_texts(found.get(key)) for key in ("Entrypoint", "Cmd", "Env"))
        said, stop, cwd = _texts([found.get(key) or "" for key in ("User", "StopSignal", "WorkingDir")])
        user = _user(said, users, groups)
        if stop:
            signal_number(stop)
        return Image(
            digest=digest,
            path=path,
            entrypoint=entrypoint,
            cmd=cmd,
            env=tuple((name, value) for name, _, value in (each.partition("=") for each in env) if name),
            cwd=f"/{cwd.lstrip('/')}" if cwd else "",
            user=user or "",
            unknown_user=said if user is None else "",
            stop=stop,
        )
    except (TypeError, AttributeError) as error:
        raise ValueError("not the config of an image") from error


def _texts(value: Any) -> tuple[str, ...]:
    """What a process can be given: execve(2) takes no NUL, and half a character is none. Raises ValueError."""
    texts = value or []
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise ValueError("not the config of an image")
    unfit = next((each for each in texts if _NO_ARGUMENT.search(each)), None)
    if unfit is not None:
        raise ValueError(f"{quote(unfit)} in its config is no text that a process can be given")
    return tuple(texts)


def _user(said: str, users: str, groups: str) -> str | None:
    """uid:gid; None: nobody is called so. Without a group, it is the user's own, or 0 (image-spec, config.md)."""
    if not said:
        return ""
    user, colon, group = said.partition(":")
    own = next((each for each in _entries(users, 4) if user in {each[0], each[2]}), None)
    uid = user if user.isdigit() else own[2] if own else None
    gid = own[3] if own else "0"
    if colon:
        named = next((each[2] for each in _entries(groups, 3) if each[0] == group), None)
        gid = group if group.isdigit() else named or ""
    fits = uid is not None and uid.isdigit() and gid.isdigit() and max(int(uid), int(gid)) < (1 << 32) - 1
    return f"{int(uid or 0)}:{int(gid)}" if fits else None


def _entries(text: str, least: int) -> Iterable[list[str]]:
    """Lines of passwd(5) and group(5)."""
    fields = (line.split(":") for line in text.splitlines())
    return (each for each in fields if len(each) >= least)


OF_THE_IMAGE = "(what the image says)"


def process_of(written: Mapping[str, Any], choice: Choice | None) -> dict[str, Any]:
    """Pure. The process with what the image says of it; what is written wins. None: there is no image.

    `command` takes the place of the entrypoint and of cmd, `args` that of cmd alone, as in Kubernetes.
    """
    process = {key: value for key, value in written.items() if key != "command"}
    command, args = (tuple(written.get(key, ())) for key in ("command", "args"))
    image = choice.image if choice else None
    if image is None:
        process["args"] = [*command, *args] or [OF_THE_IMAGE]
        return process
    process["args"] = [*(command or image.entrypoint), *(args or (() if command else image.cmd))]
    process["env"] = {**dict(image.env), **written.get("env", {})}
    for key, value in (("cwd", image.cwd), ("user", image.user)):
        if value:
            process.setdefault(key, value)
    if image.stop:
        process["stop"] = {"signal": image.stop, **written.get("stop", {})}
    return process


def unfit(written: Mapping[str, Any], image: Image) -> str:
    """Pure. Why a container with such a process cannot be made of it; empty: it can."""
    if image.unknown_user and "user" not in written:
        return f"its user {quote(image.unknown_user)} is not in its /etc/passwd and /etc/group: write process.user"
    if not process_of(written, Choice(image.digest, image))["args"]:
        return "it does not say what to run: write process.args"
    return ""


def choose(want: Want, name: str, pins: Pins, present: Iterable[str]) -> str:
    """Pure. The digest of the image that a container has for what its file says now; empty: that has to be asked.

    `present`: digests of those that are here.
    """
    own, reference = pins.get(name), parse_reference(want.source.reference)
    if own and own.reference == want.source.reference:
        return own.digest
    if reference.digest and reference.digest in present:
        return reference.digest
    if want.asks:
        return ""
    same = [each.digest for each in pins.values() if each.reference == want.source.reference]
    return next((each for each in reversed(same) if each in present), "")
