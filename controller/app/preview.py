"""`masu plan`: what `apply` would do. Read-only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from controller.app.parsing import parse
from controller.app.trust import untrusted, why_barred
from controller.app.wiring import App
from controller.app.wishes import node_of, wishes_of
from controller.model.desired import DesiredSet
from controller.model.host_policy import HostPolicy
from controller.model.status import LIMITED
from controller.reconcile.capacity import foresee, in_force
from controller.reconcile.desired import Desired, desire, guarantee
from controller.reconcile.guard import refusal
from controller.reconcile.images import foresee_images
from controller.reconcile.plan import Plan, plan, present, recorded, removal
from controller.report.preview import Preview
from controller.spec.accept import accept, whole
from controller.spec.host_policy import forbidden
from controller.steps._base import Stage
from controller.steps.runtime import DOES_NOT_FIT, IMAGE_UNKNOWN, NOT_ALLOWED


def preview(app: App, source: str) -> Preview:
    """Read-only. What `apply` would do."""
    from controller.sources.choice import passing_source_of  # noqa: PLC0415

    refused = untrusted(app, source)
    if refused:
        return Preview((), (), (), "", refused, ())
    before = app.store.load()
    root_only = not app.settings.unsafe_source
    found = passing_source_of(source, app.settings, root_only=root_only).snapshot()
    policy = app.policy.read()
    judge = partial(forbidden, policy=policy, paths=app.policy)
    after = accept(before, found, parse, app.host.facts.layout, judge, app.settings.node)
    if app.settings.atomic or found.atomic:
        after = whole(before, after)
    left = present(app.places.group, app.host)
    known = recorded(app.host) | set(before.containers)
    images, unknown = foresee_images(after.resources, app.pins.load, app.host)
    wishes = wishes_of(app, after, left, {name: each.choice for name, each in images.items()})
    removed = frozenset[str]() if after.frozen else left - set(wishes)
    wanted = [desire(each, app.host.facts) for _, each in sorted(wishes.items())]
    plans = {each.name: _planned(app, each) for each in wanted}
    let_in = foresee(after.resources, plans, app.grants.load(), app.host.facts)
    for name in let_in.kept:
        granted = in_force(wishes[name], let_in.grants[name])
        plans[name] = _planned(app, desire(granted, app.host.facts))
    guaranteed = guarantee(app.named(), after.resources, let_in.waiting)
    plans[guaranteed.key] = _planned(app, desire(guaranteed, app.host.facts))
    forbidden_births = _forbidden(app, after, plans, policy)
    born = [
        each for name, each in plans.items() if name not in let_in.waiting and name not in forbidden_births
    ]
    removals = [removal(name, app.places.group_of(name), app.host) for name in sorted(removed)]
    return Preview(
        plans=tuple(each for each in (*born, *removals) if each.changes),
        removed=tuple(sorted(removed)),
        rejected=after.rejected,
        frozen=after.silence,
        refused=refusal(
            known,
            removed & known,
            allowed=app.settings.allow_removals,
            moved=(before.source, after.source),
        ),
        lacks=tuple((each.name, lack) for each in wanted for lack in (*each.lacks, *plans[each.name].lacks)),
        limited=tuple(
            (name, said)
            for name, each in plans.items()
            for said in (*each.remarks, *let_in.remarks(name))
            if said.type == LIMITED
        ),
        waits=(
            *((name, why) for name, each in plans.items() for why in each.hindrances),
            *((name, f"{DOES_NOT_FIT}: {why}") for name, why in let_in.unfit.items()),
            *((name, f"{NOT_ALLOWED}: {why}") for name, why in forbidden_births.items()),
            *(
                (name, f"{said.reason}: {said.message}")
                for name, each in images.items()
                if (said := each.hindrance)
            ),
            *((name, f"{IMAGE_UNKNOWN}: {why}") for name, why in unknown.items()),
        ),
        unfit=(*let_in.unfit, *forbidden_births),
        node=node_of(app, after, let_in.grants, let_in.unfit),
    )


def _forbidden(
    app: App, desired: DesiredSet, plans: Mapping[str, Plan], policy: HostPolicy | None
) -> dict[str, str]:
    """Read-only. Who would be born and may not be, and why."""
    born = [name for name, each in plans.items() if any(one.stage is Stage.BIRTH for one in each.steps)]
    found = {name: why_barred(app, name, desired, policy) for name in born}
    return {name: why for name, why in found.items() if why}


def _planned(app: App, desired: Desired) -> Plan:
    return plan(desired, app.places.group_of(desired.name), app.host)
