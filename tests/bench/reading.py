"""`python -m tests.bench.reading INSTANCE SOURCE`: what a first reload does, stage by stage, and then once more.

→ JSON: stage → seconds of the clock. Changes nothing but masu's copy of a repository.
"""

from __future__ import annotations

import json
import sys
import time

import jsonschema

from controller.app.parsing import parse
from controller.app.wiring import App
from controller.model.desired import DesiredSet
from controller.reconcile.desired import Known, desire, resolve
from controller.reconcile.plan import plan
from controller.settings import Settings
from controller.sources import git
from controller.sources.choice import source_of
from controller.spec import parse as parsing
from controller.spec.accept import accept

LATE = (jsonschema, git, parsing)
"""What masu itself imports when it is needed."""


class Watch:
    """Seconds from lap to lap."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def lap(self) -> float:
        before, self._at = self._at, time.monotonic()
        return self._at - before


def main(instance: str, source: str) -> dict[str, float]:
    took = {"imports": time.process_time()}
    settings = Settings(instance=instance)
    app = App.build(settings, runtime=False)
    layout, where = app.host.facts.layout, source_of(source, settings, app.places.git, lambda: "")
    known: Known = {}
    watch = Watch()
    found = where.snapshot()
    took["read"] = watch.lap()
    first = accept(DesiredSet(), found, parse, layout)
    took["accepted"] = watch.lap()
    wishes, leases = resolve(app.named(), first.resources, {}, (), known)
    wanted = [desire(each, app.host.facts) for each in wishes.values() if each.digest]
    took["resolved"] = watch.lap()
    steps = [plan(each, app.places.group_of(each.name), app.host).steps for each in wanted]
    took["compared"] = watch.lap()
    second = accept(first, where.snapshot(), parse, layout)
    again, _ = resolve(app.named(), second.resources, leases, (), known)
    took["again"] = watch.lap()
    if second != first or again != wishes or first.rejected or not any(steps):
        raise AssertionError(f"not the same again, or nothing to do, or rejected: {first.rejected[:3]}")
    return took


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
