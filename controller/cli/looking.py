"""`status`, `events`, `logs`, `exec`: what there is."""

from __future__ import annotations

import argparse
import gc
import json
import sys
from typing import Any

from controller.cli.words import DONE, FAILED, add_verb, app_of, name_of, named, settings_of
from controller.model.names import printable


def add(verbs: Any) -> None:
    """The words of these commands."""
    status = add_verb(verbs, "status", _status, "desired and live state of every container, read now")
    status.add_argument("name", nargs="?", default="", metavar="NAME", help="of whatever kind, or kind/NAME")
    status.add_argument("-o", "--output", choices=("text", "wide", "json", "metrics"), default="text")
    events = add_verb(verbs, "events", _events, "what masu did and saw")
    events.add_argument("name", nargs="?", default="", metavar="NAME")
    events.add_argument("-f", "--follow", action="store_true", help="and what comes")
    events.add_argument(
        "-n", "--tail", type=int, default=-1, metavar="EVENTS", help="of the past only so many"
    )
    events.add_argument("-o", "--output", choices=("text", "json"), default="text")
    logs = add_verb(verbs, "logs", _logs, "what a container wrote to its standard output and error")
    logs.add_argument("name", metavar="NAME")
    logs.add_argument("-f", "--follow", action="store_true")
    logs.add_argument("-t", "--timestamps", action="store_true")
    logs.add_argument("-n", "--tail", type=int, default=-1, metavar="LINES")
    execute = add_verb(
        verbs, "exec", _exec, "run a command inside: all namespaces, the cgroup, the same rights"
    )
    execute.add_argument("name", metavar="NAME")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND …")


def _status(arguments: argparse.Namespace) -> int:
    from controller.app.overview import status  # noqa: PLC0415
    from controller.report import text  # noqa: PLC0415

    gc.disable()  # it ends soon: what is garbage may stay
    found = status(app_of(arguments, runtime=False), arguments.name and named(arguments.name))
    if arguments.name and not (found.containers or found.networks or found.groups or found.volumes):
        why = f"no container, network, group or volume {arguments.name} in instance {arguments.instance}"
        print(f"masu: there is {why}", file=sys.stderr)
        return FAILED
    if arguments.output == "metrics":
        from controller.report.metrics import metrics  # noqa: PLC0415

        print(metrics(arguments.instance, found), end="")
    elif arguments.output == "json":
        print(json.dumps(text.status_json(arguments.instance, found), indent=2, ensure_ascii=False))
    else:
        wide = arguments.output == "wide" or bool(arguments.name)
        print(text.status_text(found, wide=wide, colours=sys.stdout.isatty()), end="")
    return DONE


def _events(arguments: argparse.Namespace) -> int:
    from controller.host.journal import Journal  # noqa: PLC0415
    from controller.host.places import Places  # noqa: PLC0415
    from controller.report import text  # noqa: PLC0415

    journal = Journal(Places(settings_of(arguments).instance).events)
    some = False
    for event in journal.read(container=arguments.name, tail=arguments.tail, follow=arguments.follow):
        some = True
        line = event.to_line().rstrip() if arguments.output == "json" else text.event_text(event)
        print(line, flush=arguments.follow)
    if arguments.name and arguments.tail and not some:
        print(printable(f"masu: there are no events of {arguments.name}"), file=sys.stderr)
        return FAILED
    return DONE


def _logs(arguments: argparse.Namespace) -> int:
    from controller.host.logs import lines  # noqa: PLC0415
    from controller.host.places import Places  # noqa: PLC0415

    places = Places(settings_of(arguments).instance)
    found = lines(places.logs, name_of(arguments.name), tail=arguments.tail, follow=arguments.follow)
    for line in found:
        stream = sys.stderr if line.stream == "stderr" else sys.stdout
        stream.write(f"{line.at} {line.text}" if arguments.timestamps and line.begins else line.text)
        if arguments.follow:
            stream.flush()
    return DONE


def _exec(arguments: argparse.Namespace) -> int:
    from controller.app.inside import execute  # noqa: PLC0415

    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        print("masu exec: say what to run: masu exec NAME -- COMMAND …", file=sys.stderr)
        return FAILED
    return execute(app_of(arguments, runtime=True), name_of(arguments.name), tuple(command))
