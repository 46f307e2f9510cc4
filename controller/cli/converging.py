"""`run`, `plan`, `apply`, `sync`, `down`: what makes the host as the source says, or says what that would be."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from controller.cli.words import (
    CHANGES,
    DONE,
    FAILED,
    INVALID,
    REFUSED,
    SOURCE,
    add_policy,
    add_source,
    add_verb,
    app_of,
    duration_s,
    name_of,
    settings_of,
)
from controller.errors import StepFailed
from controller.model.names import printable

if TYPE_CHECKING:
    from controller.report.preview import Preview


def add(verbs: Any) -> None:
    """The words of these commands."""
    run = add_verb(
        verbs, "run", _run, "converge and keep converged; SIGTERM stops it and leaves containers running"
    )
    run.add_argument("source", metavar="SOURCE", help=SOURCE)
    run.add_argument(
        "--resync", default="30s", metavar="DURATION", help="look at everything this often (default: 30s)"
    )
    run.add_argument(
        "--last-wait",
        default="60s",
        metavar="DURATION",
        help="how long checkpoints that specs ask for at the end may take (default: 60s)",
    )
    plan = add_verb(
        verbs, "plan", _plan, "say what would change, and change nothing (exit 2: changes pending)"
    )
    plan.add_argument("source", metavar="SOURCE", help=SOURCE)
    plan.add_argument("-o", "--output", choices=("text", "json", "markdown"), default="text")
    plan.add_argument(
        "--against",
        default="",
        metavar="SOURCE",
        help="say what SOURCE changes where this one is in force, without looking at any host",
    )
    apply = add_verb(verbs, "apply", _apply, "converge once: what SOURCE does not define is removed")
    apply.add_argument("source", metavar="SOURCE", help=SOURCE)
    apply.add_argument("--wait", default="30s", metavar="DURATION", help="how long to try (default 30s)")
    run.add_argument(
        "--fetch-every",
        default="60s",
        metavar="DURATION",
        help="how often a repository is asked (default: 60s)",
    )
    for verb in (run, plan, apply):
        verb.add_argument(
            "--allow-unsafe-source",
            action="store_true",
            help="take a source that others than root may write: they are then as good as root",
        )
        add_source(verb)
        add_policy(verb)
        verb.add_argument(
            "--atomic", action="store_true", help="take a revision with anything wrong in it not at all"
        )
        verb.add_argument(
            "--allow-removals",
            action="store_true",
            help="remove even more than three and more than half of all containers at once",
        )
    add_verb(verbs, "sync", _sync, "have the daemon fetch and look at its source now")
    down = add_verb(verbs, "down", _down, "remove containers of this instance with every trace")
    down.add_argument(
        "names", nargs="*", metavar="NAME", help="a container, or volume/NAME with all its data"
    )
    down.add_argument("--all", action="store_true", help="all of them")
    down.add_argument(
        "--wait", default="60s", metavar="DURATION", help="give up after this long (default: 60s)"
    )
    down.add_argument(
        "--volumes", action="store_true", help="with --all: also volumes, with all the data in them"
    )
    down.add_argument("--now", action="store_true", help="kill at once, without stop signal and grace")


def _run(arguments: argparse.Namespace) -> int:
    from controller.app.daemon import run  # noqa: PLC0415

    run(app_of(arguments, runtime=True), arguments.source)
    return DONE


def _plan(arguments: argparse.Namespace) -> int:
    from controller.app.preview import preview  # noqa: PLC0415
    from controller.host import service  # noqa: PLC0415
    from controller.report import text  # noqa: PLC0415

    service.end_on_signals()
    if arguments.against:
        return _against(arguments)
    if arguments.output == "markdown":
        print("masu plan: -o markdown is for --against SOURCE", file=sys.stderr)
        return FAILED
    found = preview(app_of(arguments, runtime=False), arguments.source)
    if arguments.output == "json":
        print(json.dumps(text.plan_json(found), indent=2, ensure_ascii=False))
    else:
        print(text.plan_text(found, colours=sys.stdout.isatty()), end="")
    return _plan_code(found)


def _against(arguments: argparse.Namespace) -> int:
    from controller.app.files import against  # noqa: PLC0415
    from controller.report import comparison  # noqa: PLC0415

    found = against(arguments.against, arguments.source, settings_of(arguments))
    if arguments.output == "json":
        print(json.dumps(comparison.comparison_json(found), indent=2, ensure_ascii=False))
    elif arguments.output == "markdown":
        print(comparison.comparison_markdown(found), end="")
    else:
        print(comparison.comparison_text(found, colours=sys.stdout.isatty()), end="")
    if found.rejected or found.refused:
        return INVALID if found.rejected else REFUSED
    return FAILED if found.frozen else CHANGES if found.changes else DONE


def _plan_code(found: Preview) -> int:
    if found.rejected:
        return INVALID
    if found.refused or found.unfit or any(step.risk for each in found.plans for step in each.steps):
        return REFUSED
    if found.frozen:
        return FAILED
    if found.plans:
        return CHANGES
    return FAILED if found.waits else DONE


def _apply(arguments: argparse.Namespace) -> int:
    from controller.app.once import apply  # noqa: PLC0415

    wait_s = duration_s(arguments.wait, "--wait")
    converged, controller = apply(app_of(arguments, runtime=True), arguments.source, wait_s)
    for problem in controller.rejected:
        print(problem, file=sys.stderr)
    if controller.refused:
        raise controller.refused
    if controller.frozen:
        said = "what was desired before stays" if controller.containers() else "nothing was changed"
        print(f"masu: {controller.frozen}; {said}", file=sys.stderr)
        return INVALID if arguments.atomic and controller.rejected else FAILED
    if controller.stale:
        print(f"masu: {controller.stale}; the last known revision was applied", file=sys.stderr)
    for name, conditions in sorted(controller.failures().items()):
        said = "; ".join(f"{each.reason}: {each.message}" for each in conditions) or "not converged in time"
        print(printable(f"masu: {name}: {said}"), file=sys.stderr)
    if controller.rejected:
        return INVALID
    if controller.stale:
        return FAILED
    return DONE if converged else controller.exit_code()


def _sync(arguments: argparse.Namespace) -> int:
    """Asks and waits; to know the host as well would take as long as what it waits for."""
    from controller.host.control import SYNC, ask  # noqa: PLC0415
    from controller.host.places import Places  # noqa: PLC0415

    settings = settings_of(arguments)
    found = ask(Places(settings.instance, settings.run_root).control, SYNC)
    if found is None:
        raise StepFailed(f"no daemon runs as instance {settings.instance}: masu run, or masu apply")
    if "commit" in found:
        print(f'{found["commit"]} "{found["subject"]}"')
    for each in found["rejected"]:
        print(f"masu: rejected: {each}", file=sys.stderr)
    if found["frozen"]:
        print(f"masu: source frozen: {found['frozen']}", file=sys.stderr)
        return FAILED
    return INVALID if found["rejected"] else DONE


def _down(arguments: argparse.Namespace) -> int:
    from controller.app.removal import down  # noqa: PLC0415
    from controller.app.wishes import put_by  # noqa: PLC0415

    if not arguments.all and not arguments.names:
        print("masu down: name the containers to remove, or say --all", file=sys.stderr)
        return REFUSED
    names = () if arguments.all else tuple(_key(each) for each in arguments.names)
    app, wait_s = app_of(arguments, runtime=False), duration_s(arguments.wait, "--wait")
    removed, left = down(app, names, wait_s, now=arguments.now, volumes=arguments.volumes)
    absent = set(names) - removed - set(left)
    for name in sorted(absent):
        print(f"masu: {_nobody(name, arguments)}", file=sys.stderr)
    for name, conditions in sorted(left.items()):
        print(printable(f"masu: {name}: " + "; ".join(each.message for each in conditions)), file=sys.stderr)
    print("removed " + (", ".join(sorted(removed)) or "nothing"))
    if arguments.all and (kept := put_by(app)):
        print(
            f"kept {', '.join(f'volume/{each}' for each in sorted(kept))}: --volumes removes their data, too"
        )
    return FAILED if left or absent else DONE


def _key(text: str) -> str:
    """A container's name, or volume/NAME. Raises SpecInvalid."""
    kind, slash, name = text.rpartition("/")
    return f"{kind}/{name_of(name)}" if kind + slash == "volume/" else name_of(text)


def _nobody(name: str, arguments: argparse.Namespace) -> str:
    if "/" in name:
        return f"there is no {name.replace('/', ' ')} in instance {arguments.instance}"
    return f"there is no container {name} in instance {arguments.instance}; a volume is volume/{name}"
