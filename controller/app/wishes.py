"""What is desired, worked out against what this instance has given and noted. Read-only."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from controller.app.wiring import App
from controller.model.desired import DesiredSet
from controller.model.grant import Grants
from controller.model.image import Choice
from controller.model.node import NodeStatus, node_in
from controller.model.resource import CONTAINER, Resource, kind_of
from controller.model.space import VOLUME_SORT, Space
from controller.reconcile.admission import House
from controller.reconcile.capacity import in_force, node_status
from controller.reconcile.desired import NO_IMAGES, Desired, Wish, desire, resolve
from controller.reconcile.images import look_up, wants_in
from controller.reconcile.plan import existing


def wishes_of(
    app: App, desired: DesiredSet, left: Collection[str], images: Mapping[str, Choice] | None = None
) -> Mapping[str, Wish]:
    """With the addresses that were given, and those that would be; `images`: not those of now."""
    resources = desired.resources
    leaving = {*left} - set(resources)
    chosen = _images(app, resources) if images is None else images
    return resolve(app.named(), resources, app.leases.load(), leaving, images=chosen)[0]


def _images(app: App, resources: Mapping[str, Resource]) -> Mapping[str, Choice]:
    if not wants_in(resources):
        return NO_IMAGES
    found = look_up(resources, app.pins.load, app.host)
    return {name: each.choice for name, each in found.items()}


def wanted_of(app: App, name: str) -> tuple[Desired, str] | None:
    """What a container is to be, with the limits that it was granted."""
    desired = app.store.load()
    wish = wishes_of(app, desired, existing(app.places.group, app.host)).get(name)
    if wish is None or kind_of(name) != CONTAINER:
        return None
    grant = app.grants.load().get(name)
    wanted = desire(in_force(wish, grant) if grant else wish, app.host.facts)
    return wanted, app.places.group_of(name)


def node_of(app: App, desired: DesiredSet, grants: Grants, waiting: Collection[str]) -> NodeStatus:
    """What of this host is promised to whom. `waiting`: for whom there is no room."""
    house = House.of(desired.resources, app.host.facts)
    return node_status(node_in(desired.resources), house, grants, waiting)


def put_by(app: App, only: str = "") -> frozenset[str]:
    """Names of the volumes that are there, defined by a file or not; `only`: look at no other."""
    names = app.host.spaces.names(VOLUME_SORT)
    chosen = names & {only} if only else names
    found = {each: app.host.spaces.look(Space(VOLUME_SORT, each)) for each in chosen}
    return frozenset(name for name, each in found.items() if each and each.exists)
