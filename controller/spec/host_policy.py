"""From the text of a policy file to the policy, and what of a desired set it does not allow. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.errors import Problem, SpecInvalid
from controller.model.addresses import parse_published
from controller.model.host_policy import HOST_POLICY, PLACES, HostPolicy, Paths
from controller.model.network import networks_of
from controller.model.resource import CONTAINER, NETWORK, Resource, key_of
from controller.model.secret import SECRET
from controller.spec.misfit import Misfit

HOST = "host"
SHARED = ("pid", "ipc", "uts", "cgroup")
BRIDGE = "bridge"
PROTECTIONS: Mapping[str, tuple[str, Any]] = {
    "seccomp": ("seccomp", "unconfined"),
    "maskedPaths": ("maskedPaths", "none"),
    "newPrivileges": ("noNewPrivileges", False),
}
"""Word of the rule → the key of `process` and the value that does without it."""


def parse_policy(text: bytes, file: str, paths: Paths) -> HostPolicy:
    """Pure. Raises SpecInvalid with every problem found."""
    from controller.spec import document, schema  # noqa: PLC0415 - a host without a policy needs no YAML here

    documents = document.read(text, file)
    if len(documents) != 1:
        message = f"holds {len(documents)} documents: it has to be one of kind: {HOST_POLICY}"
        raise SpecInvalid((Problem(file, 0, 0, "", message),))
    (written,) = documents
    kind = written.value.get("kind")
    if isinstance(kind, str) and kind != HOST_POLICY:
        raise SpecInvalid((written.problem(("kind",), f"is not {HOST_POLICY}"),))
    problems = schema.validate(written)
    if problems:
        raise SpecInvalid(problems)
    return HostPolicy.of(written.value["spec"] or {}, file, paths)


def forbidden(resources: Mapping[str, Resource], policy: HostPolicy | None, paths: Paths) -> list[Misfit]:
    """Pure. By key, what each asks for too much; nothing where there is no policy."""
    if policy is None:
        return []
    return [each for resource in resources.values() for each in excesses(resource, resources, policy, paths)]


def excesses(
    resource: Resource, resources: Mapping[str, Resource], policy: HostPolicy, paths: Paths
) -> list[Misfit]:
    """Pure. What one of them asks for too much."""
    if resource.kind == NETWORK:
        found = _network(resource, policy)
    elif resource.kind == CONTAINER:
        found = _container(resource, resources, policy, paths)
    else:
        return []
    return [
        Misfit(resource, path, f"is not allowed by rule {rule} of {policy.file}: {why}")
        for rule, path, why in found
        if why
    ]


Found = Iterator[tuple[str, str, str]]
"""(rule, path in the spec, why not; "": it is allowed)."""


def _container(
    wanted: Resource, resources: Mapping[str, Resource], policy: HostPolicy, paths: Paths
) -> Found:
    yield from _rootfs(wanted.section("rootfs") or {}, policy, paths)
    for index, each in enumerate(wanted.section("mounts") or ()):
        if "source" in each:
            write = not each.get("readOnly", False)
            why = policy.place("mounts", each["source"], paths, write=write)
            yield "mounts", f"spec.mounts[{index}].source", why
    for index, each in enumerate(wanted.section("devices") or ()):
        yield "devices", f"spec.devices[{index}]", policy.device(each)
    yield from _secrets(wanted, policy)
    key_file = (wanted.section("checkpoint.encryption") or {}).get("keyFile")
    if key_file:
        why = policy.place("credentials", key_file, paths, write=False)
        yield "credentials", "spec.checkpoint.encryption.keyFile", why
    yield from _rights(wanted.section("process") or {}, policy)
    yield from _namespaces(wanted.section("namespaces") or {}, policy)
    for index, name in enumerate(networks_of(wanted)):
        network = resources.get(key_of(NETWORK, name))
        kind = network.spec.get("type", BRIDGE) if network else BRIDGE
        yield "networks", f"spec.networks[{index}]", _type(kind, policy)
    for index, text in enumerate(wanted.section("ports") or ()):
        yield "ports", f"spec.ports[{index}]", policy.port(parse_published(text))
    for key, path in PLACES.items():
        yield "limits", f"spec.{path}", policy.limit(key, wanted.section(path))


def _rootfs(rootfs: Mapping[str, Any], policy: HostPolicy, paths: Paths) -> Found:
    if "path" in rootfs:
        write = rootfs.get("writable") == "direct"
        yield (
            "rootfs",
            "spec.rootfs.path",
            policy.place("rootfs", rootfs["path"], paths, write=write),
        )
    if "image" in rootfs:
        yield "images", "spec.rootfs.image", policy.image(str(rootfs["image"]))
    if "authfile" in rootfs:
        why = policy.place("credentials", rootfs["authfile"], paths, write=False)
        yield "credentials", "spec.rootfs.authfile", why


def _secrets(wanted: Resource, policy: HostPolicy) -> Found:
    """Of the host; what is sealed in the spec was given by whoever wrote it."""
    for name, value in (wanted.section("process.env") or {}).items():
        if isinstance(value, Mapping) and SECRET in value:
            yield "secrets", f"spec.process.env.{name}", policy.secret(value[SECRET])
    for index, each in enumerate(wanted.section("files") or ()):
        if SECRET in each:
            yield "secrets", f"spec.files[{index}].secret", policy.secret(each[SECRET])


def _rights(process: Mapping[str, Any], policy: HostPolicy) -> Found:
    for index, name in enumerate(process.get("capabilities", {}).get("add", ())):
        yield "capabilities", f"spec.process.capabilities.add[{index}]", policy.capability(name)
    for word, (key, value) in PROTECTIONS.items():
        if process.get(key) == value and word not in policy.privileged:
            yield "privileged", f"spec.process.{key}", f"it does not list {word}"


def _namespaces(spaces: Mapping[str, Any], policy: HostPolicy) -> Found:
    for kind in SHARED:
        if spaces.get(kind) == HOST and kind not in policy.namespaces:
            yield "namespaces", f"spec.namespaces.{kind}", f"the {kind} namespace of the host is not listed"
    if spaces.get("net") == HOST and HOST not in policy.networks:
        yield "networks", "spec.namespaces.net", "the host's own network is not listed"
    if spaces.get("user", HOST) != "auto" and "user" not in policy.namespaces:
        why = "users of the host are not listed: write namespaces: {user: auto}"
        yield "namespaces", "spec.namespaces.user", why


def _network(wanted: Resource, policy: HostPolicy) -> Found:
    yield "networks", "spec.type", _type(str(wanted.spec.get("type", BRIDGE)), policy)


def _type(kind: str, policy: HostPolicy) -> str:
    return "" if kind == BRIDGE or kind in policy.networks else f"networks of type {kind} are not listed"
