"""Whose word counts: whoever decides what is desired is root, or bound by a policy, or signs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from controller.app.wiring import App
from controller.errors import GuardRefused, MasuError
from controller.host.trust import AS_GOOD_AS_ROOT, distrust
from controller.loop.warden import barred
from controller.model.desired import DesiredSet
from controller.model.host_policy import HostPolicy
from controller.spec.host_policy import excesses

if TYPE_CHECKING:  # a command that reads no source waits for none of this
    from controller.sources.git import GitSource
    from controller.sources.layers import LayeredDirectory

    Source = LayeredDirectory | GitSource


def check(app: App, source: str) -> None:
    """Raises GuardRefused, NotPermitted, SpecInvalid."""
    refused = untrusted(app, source)
    if refused:
        raise refused


def untrusted(app: App, source: str) -> GuardRefused | None:
    """Read-only. Whoever decides what is desired is root, or bound by a policy. One that is not there may come.

    Raises NotPermitted and SpecInvalid.
    """
    from controller.sources.choice import path_of  # noqa: PLC0415

    policy, path = app.policy.read(), path_of(source)
    if _is_trusted(app):
        return None
    if not path and policy is None:
        ways = f"write {app.policy.path}, or say --require-signature or --allow-unsafe-source"
        return GuardRefused(f"whoever may push to {source} is as good as root: {ways}")
    with suppress(OSError):
        if path and (why := distrust(path)):
            return GuardRefused(f"source {source} is not root's alone: {why}; {AS_GOOD_AS_ROOT}")
    why = _doubt(app, source)
    return GuardRefused(f"source {source} {why}") if why else None


def why_barred(app: App, name: str, desired: DesiredSet, policy: HostPolicy | None) -> str:
    """Read-only. Why a container may not be born on this host, in words; "": it may."""
    wanted = desired.resources.get(name)
    if policy is None or wanted is None:
        return ""
    return barred(excesses(wanted, desired.resources, policy, app.policy))


def _doubt(app: App, source: str) -> str:
    """Read-only. Why a repository on this host is not to be fetched: others write it, and are not bound."""
    from controller.sources.choice import path_of  # noqa: PLC0415
    from controller.sources.git_trust import distrusted  # noqa: PLC0415
    from controller.sources.git_url import is_git  # noqa: PLC0415

    if not is_git(source) or _is_trusted(app) or _is_bound(app):
        return ""
    path = path_of(source)
    why = distrusted(path) if path else ""
    return f"is not root's alone: {why}; {AS_GOOD_AS_ROOT}" if why else ""


def _is_trusted(app: App) -> bool:
    """Whoever writes the source may, or what he writes has to be signed."""
    return app.settings.unsafe_source or bool(app.settings.signers)


def _is_bound(app: App) -> bool:
    """Read-only. Not by a policy that cannot be read."""
    with suppress(MasuError):
        return app.policy.read() is not None
    return False


def source_for(app: App, source: str) -> Source:
    """Raises SpecInvalid."""
    from controller.sources.choice import source_of  # noqa: PLC0415

    return source_of(source, app.settings, app.places.git, lambda: _doubt(app, source))
