"""What there is of the host, what of it is promised, and what a plan would come to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from controller.model.facts import Facts
from controller.model.grant import Grant, Grants
from controller.model.node import Node, NodeStatus, Promise
from controller.model.resource import CONTAINER, Resource
from controller.reconcile.admission import KEYS_OF, Asked, House, Verdict, admit, asked_by
from controller.reconcile.desired import Wish
from controller.reconcile.dimensions import Room
from controller.reconcile.ledger import Ledger
from controller.reconcile.plan import Plan
from controller.steps._base import Stage


def in_force(wish: Wish, grant: Grant) -> Wish:
    """The wish with the limits that it was granted."""
    rest = {path: each for path, each in wish.sections.items() if path not in KEYS_OF}
    return replace(wish, sections={**rest, **grant.sections})


def foresee(
    resources: Mapping[str, Resource], plans: Mapping[str, Plan], grants: Grants, facts: Facts
) -> Verdict:
    """Who will be let in once everything else that is planned has been done: what is given back by then is free."""
    resting = {
        each.name
        for each in resources.values()
        if each.kind == CONTAINER and (each.state == "stopped" or _rests(plans[each.name]))
    }
    asked = asked_by(resources, resting, {}, facts)
    before = {name: _given_back(each, asked[name]) for name, each in grants.items() if name in asked}
    running = {name for name in asked if plans[name].subject.pid}
    return admit(asked, before, running, House.of(resources, facts))


def _rests(plan: Plan) -> bool:
    return not plan.subject.pid and all(step.stage is not Stage.BIRTH for step in plan.steps)


def _given_back(grant: Grant, asked: Asked) -> Grant:
    least = {
        key: min(amount, asked.amounts[key]) for key, amount in grant.amounts.items() if key in asked.amounts
    }
    return replace(grant, amounts=least)


def node_status(node: Node, house: House, grants: Grants, waiting: Iterable[str]) -> NodeStatus:
    """`grants`: of those who are there. `waiting`: for whom there is no room."""
    ledgers = _promised(house, grants)
    promises = tuple(_promise(each, ledgers[key], len(grants)) for key, each in house.rooms.items())
    return NodeStatus(node.name, {**node.overcommit}, promises, tuple(sorted(waiting)))


def _promised(house: House, grants: Grants) -> dict[str, Ledger]:
    """The sums of what was given."""
    ledgers = house.ledgers()
    for key, ledger in ledgers.items():
        for name, grant in grants.items():
            ledger.put(name, grant.amounts.get(key))
    return ledgers


def _promise(room: Room, ledger: Ledger, among: int) -> Promise:
    return Promise(
        key=room.dimension.key,
        total=room.total,
        reserved=room.reserved,
        promised=ledger.total,
        containers=len(ledger.shares),
        unlimited=among - len(ledger.amounts) if room.dimension.rule == "limits" else 0,
        policy=room.policy,
        shown=tuple(room.dimension.show(*each) for each in _amounts(room, ledger)),
    )


def _amounts(room: Room, ledger: Ledger) -> tuple[tuple[int, bool], ...]:
    return (room.total, False), (room.reserved, False), (ledger.total, True)
