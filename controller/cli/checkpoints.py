"""`checkpoint`, `checkpoints`, `preflight`, `restore`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from controller.cli.words import DONE, FAILED, add_policy, add_verb, app_of, name_of, settings_of
from controller.model.names import printable

if TYPE_CHECKING:
    from controller.checkpoints.request import Request


def add(verbs: Any) -> None:
    """The words of these commands."""
    checkpoint = add_verb(
        verbs,
        "checkpoint",
        _checkpoint,
        "make a checkpoint of a running container, take one out of the store or into it, or remove one",
    )
    checkpoint.usage = (
        "masu checkpoint [-h] [--stop] [--export FILE] NAME\n"
        "       masu checkpoint export ID FILE\n"
        "       masu checkpoint remove ID\n"
        "       masu checkpoint import [--as NAME] FILE"
    )
    checkpoint.scattered = "words"
    checkpoint.set_defaults(usage=checkpoint.format_usage)
    checkpoint.add_argument(
        "words", nargs="+", metavar="NAME", help="or: export ID FILE, remove ID, import FILE"
    )
    checkpoint.add_argument(
        "--stop", action="store_true", help="end the container with it (not while a daemon runs)"
    )
    checkpoint.add_argument(
        "--export", dest="file", default="", metavar="FILE", help="and write it to one file"
    )
    checkpoint.add_argument(
        "--as", dest="to", default="", metavar="NAME", help="import it for this container"
    )
    add_policy(checkpoint)
    listing = add_verb(verbs, "checkpoints", _checkpoints, "list checkpoints, oldest first")
    listing.add_argument("name", nargs="?", default="", metavar="NAME")
    listing.add_argument("-o", "--output", choices=("text", "json"), default="text")
    listing.add_argument("--verify", action="store_true", help="read each of them to the last byte")
    preflight = add_verb(
        verbs, "preflight", _preflight, "whether a checkpoint would work now, and what is in the way"
    )
    preflight.add_argument("name", nargs="?", default="", metavar="NAME", help="default: every container")
    preflight.add_argument("-o", "--output", choices=("text", "json"), default="text")
    restore = add_verb(verbs, "restore", _restore, "put a container back to where it was at a checkpoint")
    restore.add_argument("name", metavar="NAME")
    add_policy(restore)
    which = restore.add_mutually_exclusive_group()
    which.add_argument(
        "--from", dest="identity", default="", metavar="ID", help="default: the newest that is whole"
    )
    which.add_argument(
        "--import",
        dest="file",
        default="",
        metavar="FILE",
        help="one that was exported elsewhere, and is trusted",
    )


def _act(arguments: argparse.Namespace, request: Request) -> Mapping[str, Any]:
    """By the daemon, if one answers: it knows the host, and to find out about it takes longer than a restore."""
    from controller.host.control import ask  # noqa: PLC0415
    from controller.host.places import Places  # noqa: PLC0415
    from controller.host.scratch import ScratchDirectories  # noqa: PLC0415
    from controller.model.checkpoint import PROGRESS  # noqa: PLC0415
    from controller.report.progress import shown  # noqa: PLC0415

    settings = settings_of(arguments)
    places = Places(settings.instance, settings.run_root, settings.state_root)
    scratches = ScratchDirectories(places.scratch)
    with shown(sys.stderr, lambda: scratches.noted(request.container, PROGRESS)):
        done = ask(places.control, request.to_json())
        if done is not None:
            return done
        from controller.app.requested import act  # noqa: PLC0415

        return act(app_of(arguments, runtime=True), request)


def _checkpoint(arguments: argparse.Namespace) -> int:
    words = arguments.words
    if words[0] == "export" and len(words) == 3:
        return _export(arguments, *words[1:])
    if words[0] == "import" and len(words) == 2:
        return _import(arguments, words[1])
    if words[0] == "remove" and len(words) == 2:
        return _remove(arguments, words[1])
    if len(words) != 1:
        said = "masu checkpoint: say NAME, export ID FILE, remove ID, or import FILE"
        print(f"{arguments.usage()}{said}", file=sys.stderr)
        return FAILED
    from controller.app import checkpoints  # noqa: PLC0415
    from controller.checkpoints.request import Request  # noqa: PLC0415
    from controller.report.checkpoints import stored  # noqa: PLC0415

    name = name_of(words[0])
    if arguments.file:
        checkpoints.check_export(app_of(arguments, runtime=True), name, arguments.file)
    done = _act(arguments, Request("checkpoint", name, ends=arguments.stop))
    print(f"{done['id']}: {stored(done['size'], done['stored'])}; {done['cost']}")
    return _export(arguments, done["id"], arguments.file) if arguments.file else DONE


def _export(arguments: argparse.Namespace, identity: str, path: str) -> int:
    from controller.app import checkpoints  # noqa: PLC0415

    for each in checkpoints.export(app_of(arguments, runtime=False), identity, path):
        print(printable(f"masu: left out: {each}"), file=sys.stderr)
    return DONE


def _remove(arguments: argparse.Namespace, identity: str) -> int:
    from controller.app import checkpoints  # noqa: PLC0415

    found = checkpoints.remove(app_of(arguments, runtime=False), identity)
    print(f"removed {found.id}" + (f" of container {found.container}" if found.container else ""))
    return DONE


def _import(arguments: argparse.Namespace, path: str) -> int:
    from controller.app import checkpoints  # noqa: PLC0415

    name = arguments.to and name_of(arguments.to)
    found = checkpoints.take_in(app_of(arguments, runtime=False), path, name)
    print(f"{found.id}: of container {found.container}")
    return DONE


def _checkpoints(arguments: argparse.Namespace) -> int:
    from controller.app import checkpoints  # noqa: PLC0415
    from controller.report.checkpoints import checkpoint_json, checkpoints_text  # noqa: PLC0415

    name = arguments.name and name_of(arguments.name)
    found = checkpoints.listed(app_of(arguments, runtime=False), name, verify=arguments.verify)
    if arguments.output == "json":
        print(json.dumps([checkpoint_json(each) for each in found], indent=2, ensure_ascii=False))
    else:
        print(checkpoints_text(found, time.time_ns() // 1_000_000), end="")
    return FAILED if arguments.verify and any(each.damage for each in found) else DONE


def _preflight(arguments: argparse.Namespace) -> int:
    from controller.app.overview import preflight  # noqa: PLC0415

    found = preflight(app_of(arguments, runtime=False), arguments.name and name_of(arguments.name))
    if arguments.output == "json":
        shown = [
            {
                "container": name,
                "ready": not each.reasons,
                "reasons": [str(one) for one in each.reasons],
                "left": list(each.left),
            }
            for name, each in found.items()
        ]
        print(json.dumps(shown, indent=2))
    else:
        for name, each in found.items():
            print(f"{name}: {'no checkpoint now' if each.reasons else 'ready'}")
            for one in (*each.reasons, *each.left):
                print(printable(f"  {one}"))
    return max((one.exit_code for each in found.values() for one in each.reasons), default=DONE)


def _restore(arguments: argparse.Namespace) -> int:
    from controller.checkpoints.request import Request  # noqa: PLC0415

    name = name_of(arguments.name)
    with _chosen(arguments, name) as found:
        done = _act(arguments, Request("restore", name, found))
    print(f"{arguments.name} goes on from checkpoint {done['id']}")
    return DONE


def _chosen(arguments: argparse.Namespace, name: str) -> AbstractContextManager[str]:
    """The id of the checkpoint that is meant; empty: the newest."""
    if not arguments.file:
        return nullcontext(arguments.identity)
    from controller.app.checkpoints import imported  # noqa: PLC0415

    return imported(app_of(arguments, runtime=True), arguments.file, name)
