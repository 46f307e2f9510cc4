"""From the text of one file to the containers it asks for. Pure."""

from __future__ import annotations

from controller.errors import Problem, SpecInvalid
from controller.model.container import Container
from controller.spec import check, document, schema


def parse(text: bytes, file: str) -> tuple[Container, ...]:
    """Pure. Every document of one file; raises SpecInvalid with every problem found."""
    documents = document.read(text, file)
    problems: list[Problem] = []
    containers: list[Container] = []
    for each in documents:
        found = schema.validate(each)
        if not found:
            container = _container(each)
            found = check.container(each, container)
            containers.append(container)
        problems.extend(found)
    problems.extend(check.unique_in_file(documents))
    if problems:
        raise SpecInvalid(tuple(sorted(set(problems))))
    return tuple(containers)


def _container(each: document.Document) -> Container:
    metadata, at = each.value["metadata"], each.problem(("metadata", "name"), "")
    labels = metadata.get("labels", {})
    return Container(metadata["name"], each.file, labels, each.value["spec"], at.line, at.column)
