"""`masu down`: containers, and volumes, with every trace."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from controller.app.hearing import asked
from controller.app.telling import Tellers
from controller.app.tidying import forget_images, mend_what_is_left
from controller.app.turns import alone
from controller.app.wiring import App
from controller.app.wishes import put_by
from controller.errors import GuardRefused
from controller.loop.take_down import deny_grace, set_rules, take_down
from controller.model.resource import VOLUME, key_of, kind_of
from controller.model.status import Condition
from controller.reconcile import inventory
from controller.reconcile.leases import without
from controller.reconcile.plan import present
from controller.reconcile.reconciler import Reconciler
from controller.spec.across import users

Left = Mapping[str, tuple[Condition, ...]]
"""What could not be removed, and why."""

STILL_USED = Condition(
    "Waiting", status=True, reason="StillUsed", message="not touched: somebody is left who may be using it"
)


def down(
    app: App, keys: tuple[str, ...], wait_s: float, *, now: bool, volumes: bool
) -> tuple[set[str], Left]:
    """Remove what this instance has by these keys, or all of it. → what was removed, and what could not be.

    `now`: without the grace that the containers' specs give them. `volumes`: with all the data in them; a
    volume whose key is among `keys` goes with its data in any case.
    """
    with alone(app), asked(app, "down", " ".join(keys)) as undone:
        told = Tellers(app.journal.append)
        mend_what_is_left(app, told)
        reconciler = Reconciler(app.host, app.places.group, app.failpoint())
        there = present(app.places.group, app.host)
        kept = {key_of(VOLUME, each) for each in put_by(app)}
        every = there | kept | inventory.owners(app.host)
        chosen = set(keys) & every if keys else every
        _refuse_used(app, chosen, there)
        if now:
            deny_grace(chosen, app.host)
        last, until_ms = {each for each in chosen if kind_of(each) == VOLUME}, int(wait_s * 1000)
        left: Left = take_down(chosen - last, reconciler, app.host, told, deadline_ms=until_ms)
        if left:  # they may be using them
            left = {**left, **dict.fromkeys(last, (STILL_USED,))}
        else:
            set_rules(last, app.host, keep=not (keys or volumes))
            left = take_down(last, reconciler, app.host, told, deadline_ms=until_ms)
        undone.extend(f"{each} is left" for each in sorted(left))
        gone = chosen - set(left)
        granted = app.grants.load()
        stay = granted.keys() - gone if keys else set(left)  # else also what never came so far as to be there
        app.grants.save({name: each for name, each in granted.items() if name in stay})
        for each in gone:
            app.conditions.remove(each)
            if keys or left:
                app.leases.save(without(app.leases.load(), each))
        forget_images(app, gone, last=not keys and not left)
        if not keys and not left:
            app.leases.save({})  # also those of a damaged file
            app.store.clear()
            inventory.clear(app.host, app.failpoint())
        if not present(app.places.group, app.host):
            app.keeper.stop()
            app.places.sweep()
        return {*chosen} - {*left} - {key_of(VOLUME, each) for each in put_by(app)}, left


def _refuse_used(app: App, chosen: Collection[str], there: Collection[str]) -> None:
    """A volume is not taken away under a container. Raises GuardRefused."""
    resources = app.store.load().resources
    for key in chosen:
        used_by = users(resources[key], resources.values()) if key in resources else ()
        left = [each for each in used_by if each.key in there and each.key not in chosen]
        if left and kind_of(key) == VOLUME:
            raise GuardRefused(f"{key} is used by {left[0].title}: remove that first")
