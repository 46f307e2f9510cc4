"""Which image each container has, which nobody has any more, and what a plan would find. Looks, never touches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from controller.errors import MasuError
from controller.frozen import dataclass
from controller.host.ports import Host
from controller.model.image import (
    Choice,
    Image,
    Pins,
    Source,
    Want,
    choose,
    is_digest,
    unfit,
    want_in,
)
from controller.model.resource import CONTAINER, Resource
from controller.steps.runtime import IMAGE_ABSENT, IMAGE_UNFIT, IMAGE_UNKNOWN

ASK_S = 10.0
"""A plan does not wait longer for a registry."""

Load = Callable[[], Pins]
"""Raises StepFailed."""


class Misfit(NamedTuple):
    """Why nobody is born, although there is nothing to wait for."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Found:
    """What one container has. `misfit`: why it cannot have it; `doubt`: why that may not be what its file means."""

    want: Want
    choice: Choice
    misfit: Misfit | None = None
    doubt: Misfit | None = None

    @property
    def hindrance(self) -> Misfit | None:
        return self.misfit or self.doubt


def wants_in(resources: Mapping[str, Resource]) -> dict[str, Want]:
    """Pure. By container, of those that have an image."""
    found = {
        each.name: want_in(each.section("rootfs") or {}, each.digest)
        for each in resources.values()
        if each.kind == CONTAINER and "image" in (each.section("rootfs") or {})
    }
    return {name: want for name, want in found.items() if want}


def look_up(
    resources: Mapping[str, Resource], load: Load, host: Host, without: Collection[str] = ()
) -> dict[str, Found]:
    """Read-only. As `find`; pins that cannot be read are the trouble of who has an image, and of nobody else."""
    if not wants_in(resources):
        return {}
    try:
        pins = load()
    except MasuError as error:
        return _unpinned(resources, str(error), host, without)
    return find(resources, pins, host, without)


def _unpinned(
    resources: Mapping[str, Resource], why: str, host: Host, without: Collection[str]
) -> dict[str, Found]:
    """Read-only. Who has run has what he ran from; whether his file means another one by now, nobody can tell."""
    present = host.images.names().difference(without)

    def one(name: str, want: Want) -> Found:
        sure = choose(want, name, {}, present)
        record = None if sure else host.records.read(name)
        digest = sure or (record.image if record else "")
        doubt = None if sure else Misfit(IMAGE_UNKNOWN, why)
        found = settle(resources[name], want, digest, present, host) if digest else Found(want, Choice())
        return replace(found, doubt=doubt)

    return {name: one(name, want) for name, want in wants_in(resources).items()}


def find(
    resources: Mapping[str, Resource], pins: Pins, host: Host, without: Collection[str] = ()
) -> dict[str, Found]:
    """Read-only, and offline. `without`: digests that do not count as being here."""
    wants = wants_in(resources)
    present = host.images.names().difference(without) if wants else frozenset[str]()
    return {
        name: settle(resources[name], want, choose(want, name, pins, present), present, host)
        for name, want in wants.items()
    }


def settle(container: Resource, want: Want, digest: str, present: Collection[str], host: Host) -> Found:
    """Read-only. With what there is to be said of that digest here."""
    image = host.images.look(digest) if digest in present else None
    misfit = _misfit(container, want, image)
    return Found(want, Choice(digest, None if misfit else image), misfit)


def _misfit(container: Resource, want: Want, image: Image | None) -> Misfit | None:
    reference = want.source.reference
    if image:
        why = unfit(container.section("process") or {}, image)
        return Misfit(IMAGE_UNFIT, f"{reference}: {why}") if why else None
    if want.pull == "never":
        return Misfit(IMAGE_ABSENT, f"{reference} is not on this host, and its pull is never")
    return None


def foresee_images(
    resources: Mapping[str, Resource], load: Load, host: Host
) -> tuple[dict[str, Found], dict[str, str]]:
    """Read-only. As `look_up`, but registries are asked as `apply` would. → also whose could not be, and why."""
    found, unknown = look_up(resources, load, host), dict[str, str]()
    due = {name: each for name, each in found.items() if _is_due(each)}
    present = host.images.names() if due else frozenset[str]()
    asked = _asked({each.want.source for each in due.values()}, host) if due else {}
    for name, each in due.items():
        said = asked[each.want.source]
        if is_digest(said):
            found[name] = settle(resources[name], each.want, said, present, host)
        else:
            unknown[name] = f"its image is not known: {said}"
    return found, unknown


def _is_due(each: Found) -> bool:
    unknown = not each.choice.digest and each.want.pull != "never"
    return not each.doubt and (each.want.asks or unknown)


def _asked(sources: Iterable[Source], host: Host) -> dict[Source, str]:
    """Read-only. All at once: the digest, or why it could not be told."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  which no other command waits for

    def ask(source: Source) -> str:
        try:
            return host.images.resolve(source, ASK_S)
        except MasuError as error:
            return str(error)

    chosen = list(sources)
    with ThreadPoolExecutor(8) as threads:
        return dict(zip(chosen, threads.map(ask, chosen), strict=True))


def unused(pins: Pins, host: Host) -> frozenset[str]:
    """Read-only. Those that no container has, none runs from, and no listed checkpoint was made above.

    Raises StepFailed where that cannot be told.
    """
    present = host.images.names()
    if not present:
        return present
    records = filter(None, map(host.records.read, host.records.names()))
    origins = (each.origin for each in host.checkpoints.checkpoints(""))
    return present.difference(
        (each.digest for each in pins.values()),
        (each.image for each in records),
        (each.rootfs for each in origins if each),
    )
