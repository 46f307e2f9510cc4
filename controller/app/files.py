"""`masu validate` and `plan --against`: of the files alone, looking at no host. Read-only."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from controller.app.parsing import parse, parse_policy
from controller.errors import Problem, SpecInvalid
from controller.host.text import read_text
from controller.model.desired import DesiredSet
from controller.model.host_policy import AsWritten, HostPolicy
from controller.reconcile.guard import refusal
from controller.settings import Settings
from controller.spec.accept import Judge, accept, across, whole
from controller.spec.host_policy import forbidden

if TYPE_CHECKING:  # a command that reads no source waits for none of this
    from controller.report.comparison import Comparison


def validate(paths: tuple[str, ...], settings: Settings) -> tuple[tuple[Problem, ...], int, int]:
    """Read-only, and of the files alone: every problem in every spec file below `paths`; how many documents there
    are, those of a base each time that something is laid over it; and in how many files.

    The policy, if one is named, is that of a host that they are meant for, whoever this copy of it belongs to.
    Symbolic links are not followed then: those there are not known here. Raises SpecInvalid where it is wrong.
    """
    from controller.sources.choice import passing_source_of  # noqa: PLC0415
    from controller.spec.explain import without_overlays  # noqa: PLC0415

    problems: list[Problem] = []
    known, documents = DesiredSet(), 0
    judge = _judge_of(settings)
    for path in paths:
        found = passing_source_of(path, settings).snapshot()
        accepted = accept(DesiredSet(), found, parse, "", node=settings.node)
        problems.extend(without_overlays(accepted.rejected))
        known = replace(known, files={**known.files, **accepted.files})
        documents += sum(len(each.resources) + len(each.elsewhere) for each in accepted.files.values())
    problems.extend(across(known, judge))
    return tuple(sorted(set(problems))), documents, len(known.files)


def against(base: str, source: str, settings: Settings) -> Comparison:
    """Read-only, and of the files alone: what `source` changes where `base` is in force."""
    from controller.model.snapshot import moved_to  # noqa: PLC0415
    from controller.reconcile.compare import compare  # noqa: PLC0415
    from controller.report.comparison import Comparison  # noqa: PLC0415
    from controller.sources.choice import passing_source_of, root_of  # noqa: PLC0415

    known = passing_source_of(base, settings).snapshot()
    found = passing_source_of(source, settings).snapshot()
    judge = _judge_of(settings)
    moved = moved_to(known, root_of(base), root_of(source))
    before = accept(DesiredSet(), moved, parse, "", judge, settings.node)
    after = accept(before, found, parse, "", judge, settings.node)
    if settings.atomic or found.atomic:
        after = whole(before, after)
    removed = set(before.containers) - set(after.containers)
    refused = refusal(set(before.containers), removed, allowed=settings.allow_removals)
    rejected = {*after.rejected, *across(after, judge)}
    elsewhere = {each.key for state in after.files.values() for each in state.elsewhere} - set(
        after.resources
    )
    changes = compare(before.resources, after.resources)
    return Comparison(changes, tuple(sorted(rejected)), after.silence, refused, len(elsewhere))


def _judge_of(settings: Settings) -> Judge:
    """By the policy that is named, of a host that is not here. Raises SpecInvalid."""
    policy = _policy_at(settings.policy) if settings.policy else None
    return partial(forbidden, policy=policy, paths=AsWritten())


def _policy_at(path: str) -> HostPolicy:
    text = read_text(path)
    if text is None:
        raise SpecInvalid((Problem(path, 0, 0, "", "No such file"),))
    return parse_policy(text.encode("utf-8", "surrogateescape"), path, AsWritten())
