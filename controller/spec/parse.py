"""From the text of one file to the resources it asks for. Pure."""

from __future__ import annotations

from controller.errors import Problem, SpecInvalid
from controller.model.host_policy import HOST_POLICY
from controller.model.resource import Resource
from controller.spec import check, document, schema

SHARED = frozenset(
    {"networks", "ports", "group", "mounts", "namespaces", "subnets", "gateways", "mtu", "policy", "device"}
    | {"parent", "egress", "ingress", "rootfs", "devices", "limits", "type", "files", "checkpoint"}
)
"""Sections that can be at odds with other documents, or with the policy of the host."""
RIGHTS = frozenset({"env", "capabilities", "seccomp", "maskedPaths", "noNewPrivileges"})
"""The same of `process`, which has much else in it."""


def parse(text: bytes, file: str) -> tuple[Resource, ...]:
    """Pure. Every document of one file; raises SpecInvalid with every problem found."""
    return resources_of(document.read(text, file))


def resources_of(documents: tuple[document.Document, ...]) -> tuple[Resource, ...]:
    """Pure. Raises SpecInvalid with every problem found."""
    problems: list[Problem] = []
    resources: list[Resource] = []
    for each in documents:
        found = schema.validate(each) or _misplaced(each)
        if not found:
            resource = _resource(each)
            found = check.inside(each, resource)
            resources.append(resource)
        problems.extend(found)
    problems.extend(check.unique_in_file(documents))
    if problems:
        raise SpecInvalid(tuple(sorted(set(problems))))
    return tuple(resources)


def _misplaced(each: document.Document) -> tuple[Problem, ...]:
    if each.value["kind"] != HOST_POLICY:
        return ()
    message = (
        "is not for a source: whoever writes specs would allow himself what he likes; see masu run --policy"
    )
    return (each.problem(("kind",), message),)


def _resource(each: document.Document) -> Resource:
    metadata, at = each.value["metadata"], each.problem(("metadata", "name"), "")
    name, labels = metadata["name"], metadata.get("labels", {})
    marks = {
        document.path_text(path): place
        for path, place in each.marks.items()
        if len(path) > 1 and path[0] == "spec" and (path[1] in SHARED or _is_right(path))
    }
    return Resource(
        name,
        each.file,
        labels,
        each.value["spec"],
        at.line,
        at.column,
        each.value["kind"],
        marks,
        {document.path_text(path): file for path, file in each.files.items()},
        each.value.get("placement"),
    )


def _is_right(path: document.Path) -> bool:
    return len(path) > 2 and path[1] == "process" and path[2] in RIGHTS
