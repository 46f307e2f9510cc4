"""The command line: parses words, calls the app, prints, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

from controller.errors import MasuError, Problem, SpecInvalid, StepFailed
from controller.model.names import printable
from controller.settings import IDENTITY, POLICY, Settings, testing
from controller.version import VERSION

if TYPE_CHECKING:
    from controller.app import App
    from controller.checkpoints.request import Request
    from controller.report.preview import Preview

SOURCE = (
    "a directory of spec files (*.yaml, *.yml, also in directories below), or one file;"
    " or of a repository: git+https://…, git+ssh://…, git+file:///…, with #REF:DIRECTORY"
)
DONE, FAILED, CHANGES, INVALID, REFUSED = 0, 1, 2, 3, 4

EPILOG = """\
exit codes: 0 done or in sync · 1 failed · 2 changes pending (plan) · 3 a spec is invalid · 4 refused by a guard
            5 the host lacks something

first steps: masu doctor              what this host can do
             masu schema Container    every field, with its meaning
             masu plan specs/         what would change, without changing anything
             masu run specs/          converge, and keep converged
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script's entry. Returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.call(arguments) or DONE)
    except MasuError as error:
        said = str(error) if isinstance(error, SpecInvalid) else printable(str(error))
        print(f"masu: {said}", file=sys.stderr)
        return error.exit_code
    except PermissionError as error:
        print(f"masu: {error.filename}: not permitted; masu must run as root", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return 130


class _Parser(argparse.ArgumentParser):
    """argparse ends with 2 when it does not understand, which here means that changes are pending.

    What is not understood of a command is told with the usage of that command.
    """

    scattered: str = ""
    """Which words may also stand after options, as argparse does not have it in a command."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"{self.prog}: {message}\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, left = super().parse_known_args(args, namespace)
        if self.scattered and not any(each.startswith("-") for each in left):
            getattr(found, self.scattered).extend(left)
        elif left:
            self.error(f"not understood: {' '.join(left)}")
        return found, []


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="masu",
        description="Turns YAML files into running Linux containers and keeps them exactly as written.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"masu {VERSION}")
    parser.add_argument(
        "--instance",
        default=os.environ.get("MASU_INSTANCE", "default"),
        metavar="N",
        help="a world of its own on this host (default: default)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="also log what was only looked at")
    parser.add_argument("--log-format", choices=("console", "json"), default="console")
    parser.add_argument(
        "--runtime",
        choices=("auto", "crun", "runc"),
        default=os.environ.get("MASU_RUNTIME", "auto"),
        help="the OCI runtime (default: the fastest that works here)",
    )
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_converging(verbs)
    _add_looking(verbs)
    _add_checkpoints(verbs)
    _add_describing(verbs)
    return parser


def _add_converging(verbs: Any) -> None:
    run = _verb(
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
    plan = _verb(verbs, "plan", _plan, "say what would change, and change nothing (exit 2: changes pending)")
    plan.add_argument("source", metavar="SOURCE", help=SOURCE)
    plan.add_argument("-o", "--output", choices=("text", "json", "markdown"), default="text")
    plan.add_argument(
        "--against",
        default="",
        metavar="SOURCE",
        help="say what SOURCE changes where this one is in force, without looking at any host",
    )
    apply = _verb(verbs, "apply", _apply, "converge once: what SOURCE does not define is removed")
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
        _add_source(verb)
        _add_policy(verb)
        verb.add_argument(
            "--atomic", action="store_true", help="take a revision with anything wrong in it not at all"
        )
        verb.add_argument(
            "--allow-removals",
            action="store_true",
            help="remove even more than three and more than half of all containers at once",
        )
    _verb(verbs, "sync", _sync, "have the daemon fetch and look at its source now")
    down = _verb(verbs, "down", _down, "remove containers of this instance with every trace")
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


def _add_source(verb: argparse.ArgumentParser) -> None:
    """What goes for repositories alone."""
    verb.add_argument(
        "--require-signature",
        default="",
        metavar="FILE",
        help="take no commit that is not signed by one of these: ssh's allowed signers, or a directory of GPG's",
    )
    verb.add_argument(
        "--ssh-known-hosts",
        default="",
        metavar="FILE",
        help="keys of the hosts of git+ssh, of which no other is believed (default: /etc/ssh/ssh_known_hosts)",
    )
    verb.add_argument("--ssh-key", default="", metavar="FILE", help="the private key for git+ssh")
    verb.add_argument(
        "--node",
        metavar="NAME",
        help="the host's name, for `placement` (default: hostname; where no host is looked at: none)",
    )


def _add_looking(verbs: Any) -> None:
    status = _verb(verbs, "status", _status, "desired and live state of every container, read now")
    status.add_argument("name", nargs="?", default="", metavar="NAME", help="of whatever kind, or kind/NAME")
    status.add_argument("-o", "--output", choices=("text", "wide", "json", "metrics"), default="text")
    events = _verb(verbs, "events", _events, "what masu did and saw")
    events.add_argument("name", nargs="?", default="", metavar="NAME")
    events.add_argument("-f", "--follow", action="store_true", help="and what comes")
    events.add_argument(
        "-n", "--tail", type=int, default=-1, metavar="EVENTS", help="of the past only so many"
    )
    events.add_argument("-o", "--output", choices=("text", "json"), default="text")
    logs = _verb(verbs, "logs", _logs, "what a container wrote to its standard output and error")
    logs.add_argument("name", metavar="NAME")
    logs.add_argument("-f", "--follow", action="store_true")
    logs.add_argument("-t", "--timestamps", action="store_true")
    logs.add_argument("-n", "--tail", type=int, default=-1, metavar="LINES")
    execute = _verb(verbs, "exec", _exec, "run a command inside: all namespaces, the cgroup, the same rights")
    execute.add_argument("name", metavar="NAME")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND …")


def _add_checkpoints(verbs: Any) -> None:
    checkpoint = _verb(
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
    _add_policy(checkpoint)
    listing = _verb(verbs, "checkpoints", _checkpoints, "list checkpoints, oldest first")
    listing.add_argument("name", nargs="?", default="", metavar="NAME")
    listing.add_argument("-o", "--output", choices=("text", "json"), default="text")
    listing.add_argument("--verify", action="store_true", help="read each of them to the last byte")
    preflight = _verb(
        verbs, "preflight", _preflight, "whether a checkpoint would work now, and what is in the way"
    )
    preflight.add_argument("name", nargs="?", default="", metavar="NAME", help="default: every container")
    preflight.add_argument("-o", "--output", choices=("text", "json"), default="text")
    restore = _verb(verbs, "restore", _restore, "put a container back to where it was at a checkpoint")
    restore.add_argument("name", metavar="NAME")
    _add_policy(restore)
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


def _add_describing(verbs: Any) -> None:
    validate = _verb(verbs, "validate", _validate, "check spec files: file:line:col: path: what is wrong")
    validate.add_argument("paths", nargs="+", metavar="PATH", help=SOURCE)
    _add_source(validate)
    _add_policy(validate, usual="")
    validate.add_argument("-o", "--output", choices=("text", "json"), default="text")
    doctor = _verb(verbs, "doctor", _doctor, "what this host can do, and how to fix what it cannot")
    doctor.add_argument("-o", "--output", choices=("text", "json"), default="text")
    schema = _verb(verbs, "schema", _schema, "print the JSON schema of a kind")
    schema.add_argument("kind", nargs="?", default="Container", metavar="KIND")
    schema.add_argument(
        "-o",
        "--output",
        choices=("json", "markdown", "bundle"),
        default="json",
        help="bundle: one for every kind",
    )
    _verb(verbs, "aspects", _aspects, "list what masu converges, key by key: live, restart or recreate")


def _add_policy(verb: argparse.ArgumentParser, usual: str = POLICY) -> None:
    verb.add_argument(
        "--policy",
        default=os.environ.get("MASU_POLICY", ""),
        metavar="FILE",
        help=f"what specs may ask of this host (default: {usual or 'none'})",
    )


def _verb(verbs: Any, name: str, call: Any, text: str) -> _Parser:
    parser: _Parser = verbs.add_parser(name, help=text, description=text[:1].upper() + text[1:] + ".")
    parser.add_argument("--instance", default=argparse.SUPPRESS, metavar="N", help=argparse.SUPPRESS)
    parser.set_defaults(call=call)
    return parser


def _settings(arguments: argparse.Namespace) -> Settings:
    fail_at, trace_steps = testing(os.environ)
    return Settings(
        instance=_name(arguments.instance, "--instance"),
        verbose=arguments.verbose,
        log_format=arguments.log_format,
        runtime=arguments.runtime,
        allow_removals=getattr(arguments, "allow_removals", False),
        resync_s=_duration_s(getattr(arguments, "resync", "30s"), "--resync"),
        policy=getattr(arguments, "policy", ""),
        unsafe_source=getattr(arguments, "allow_unsafe_source", False),
        identity=os.environ.get("MASU_AGE_IDENTITY") or IDENTITY,
        last_wait_s=_duration_s(getattr(arguments, "last_wait", "60s"), "--last-wait"),
        fetch_s=max(1.0, _duration_s(getattr(arguments, "fetch_every", "60s"), "--fetch-every")),
        atomic=getattr(arguments, "atomic", False),
        signers=getattr(arguments, "require_signature", ""),
        known_hosts=getattr(arguments, "ssh_known_hosts", ""),
        ssh_key=getattr(arguments, "ssh_key", ""),
        node=_node(arguments),
        fail_at=fail_at,
        trace_steps=trace_steps,
    )


def _node(arguments: argparse.Namespace) -> str:
    """Without a word, none where no host is looked at: what counts on one alone is then checked by itself."""
    said: str | None = getattr(arguments, "node", None)
    hostless = arguments.call is _validate or bool(getattr(arguments, "against", ""))
    return ("" if hostless else os.uname().nodename) if said is None else said


def _app(arguments: argparse.Namespace, *, runtime: bool) -> App:
    from controller.app import App  # noqa: PLC0415

    return App.build(_settings(arguments), runtime=runtime)


def _act(arguments: argparse.Namespace, request: Request) -> Mapping[str, Any]:
    """By the daemon, if one answers: it knows the host, and to find out about it takes longer than a restore."""
    from controller.host.control import ask  # noqa: PLC0415
    from controller.host.places import Places  # noqa: PLC0415
    from controller.host.scratch import ScratchDirectories  # noqa: PLC0415
    from controller.model.checkpoint import PROGRESS  # noqa: PLC0415
    from controller.report.progress import shown  # noqa: PLC0415

    settings = _settings(arguments)
    places = Places(settings.instance, settings.run_root, settings.state_root)
    scratches = ScratchDirectories(places.scratch)
    with shown(sys.stderr, lambda: scratches.noted(request.container, PROGRESS)):
        done = ask(places.control, request.to_json())
        return _app(arguments, runtime=True).act(request) if done is None else done


def _name(text: str, argument: str = "NAME") -> str:
    """The text, if it can name a container or an instance: names become parts of paths. Raises SpecInvalid."""
    from controller.model.names import check_name  # noqa: PLC0415

    try:
        return check_name(text)
    except ValueError as error:
        raise SpecInvalid((Problem(argument, 0, 0, "", str(error)),)) from error


def _named(text: str) -> str:
    """A name, or the one after kind/. Raises SpecInvalid."""
    from controller.model.resource import KINDS  # noqa: PLC0415

    kind, slash, name = text.rpartition("/")
    return _name(name if not slash or kind.capitalize() in KINDS else text)


def _duration_s(text: str, option: str) -> float:
    from controller.model.quantity import parse_duration  # noqa: PLC0415

    try:
        return parse_duration(text) / 1000
    except ValueError as error:
        raise SpecInvalid((Problem(option, 0, 0, "", str(error)),)) from error


def _run(arguments: argparse.Namespace) -> int:
    _app(arguments, runtime=True).run(arguments.source)
    return DONE


def _plan(arguments: argparse.Namespace) -> int:
    from controller.host import service  # noqa: PLC0415
    from controller.report import text  # noqa: PLC0415

    service.end_on_signals()
    if arguments.against:
        return _against(arguments)
    if arguments.output == "markdown":
        print("masu plan: -o markdown is for --against SOURCE", file=sys.stderr)
        return FAILED
    found = _app(arguments, runtime=False).plan(arguments.source)
    if arguments.output == "json":
        print(json.dumps(text.plan_json(found), indent=2, ensure_ascii=False))
    else:
        print(text.plan_text(found, colours=sys.stdout.isatty()), end="")
    return _plan_code(found)


def _against(arguments: argparse.Namespace) -> int:
    from controller.app import against  # noqa: PLC0415
    from controller.report import comparison  # noqa: PLC0415

    found = against(arguments.against, arguments.source, _settings(arguments))
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
    app = _app(arguments, runtime=True)
    converged, controller = app.apply(arguments.source, _duration_s(arguments.wait, "--wait"))
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

    settings = _settings(arguments)
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
    if not arguments.all and not arguments.names:
        print("masu down: name the containers to remove, or say --all", file=sys.stderr)
        return REFUSED
    names = () if arguments.all else tuple(_key(each) for each in arguments.names)
    app, wait_s = _app(arguments, runtime=False), _duration_s(arguments.wait, "--wait")
    removed, left = app.down(names, wait_s, now=arguments.now, volumes=arguments.volumes)
    absent = set(names) - removed - set(left)
    for name in sorted(absent):
        print(f"masu: {_nobody(name, arguments)}", file=sys.stderr)
    for name, conditions in sorted(left.items()):
        print(printable(f"masu: {name}: " + "; ".join(each.message for each in conditions)), file=sys.stderr)
    print("removed " + (", ".join(sorted(removed)) or "nothing"))
    if arguments.all and (kept := app.put_by()):
        print(
            f"kept {', '.join(f'volume/{each}' for each in sorted(kept))}: --volumes removes their data, too"
        )
    return FAILED if left or absent else DONE


def _key(text: str) -> str:
    """A container's name, or volume/NAME. Raises SpecInvalid."""
    kind, slash, name = text.rpartition("/")
    return f"{kind}/{_name(name)}" if kind + slash == "volume/" else _name(text)


def _nobody(name: str, arguments: argparse.Namespace) -> str:
    if "/" in name:
        return f"there is no {name.replace('/', ' ')} in instance {arguments.instance}"
    return f"there is no container {name} in instance {arguments.instance}; a volume is volume/{name}"


def _status(arguments: argparse.Namespace) -> int:
    from controller.report import text  # noqa: PLC0415

    gc.disable()  # it ends soon: what is garbage may stay
    found = _app(arguments, runtime=False).status(arguments.name and _named(arguments.name))
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

    journal = Journal(Places(_settings(arguments).instance).events)
    for event in journal.read(tail=arguments.tail, follow=arguments.follow):
        if arguments.name in {"", event.container}:
            line = event.to_line().rstrip() if arguments.output == "json" else text.event_text(event)
            print(line, flush=arguments.follow)
    return DONE


def _logs(arguments: argparse.Namespace) -> int:
    from controller.host.logs import lines  # noqa: PLC0415
    from controller.host.places import Places  # noqa: PLC0415

    places = Places(_settings(arguments).instance)
    found = lines(places.logs, _name(arguments.name), tail=arguments.tail, follow=arguments.follow)
    for line in found:
        stream = sys.stderr if line.stream == "stderr" else sys.stdout
        stream.write(f"{line.at} {line.text}" if arguments.timestamps and line.begins else line.text)
        if arguments.follow:
            stream.flush()
    return DONE


def _exec(arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        print("masu exec: say what to run: masu exec NAME -- COMMAND …", file=sys.stderr)
        return FAILED
    return _app(arguments, runtime=True).execute(_name(arguments.name), tuple(command))


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
    from controller.checkpoints.request import Request  # noqa: PLC0415
    from controller.report.checkpoints import stored  # noqa: PLC0415

    name = _name(words[0])
    if arguments.file:
        _app(arguments, runtime=True).check_export(name, arguments.file)
    done = _act(arguments, Request("checkpoint", name, ends=arguments.stop))
    print(f"{done['id']}: {stored(done['size'], done['stored'])}; {done['cost']}")
    return _export(arguments, done["id"], arguments.file) if arguments.file else DONE


def _export(arguments: argparse.Namespace, identity: str, path: str) -> int:
    for each in _app(arguments, runtime=False).export_checkpoint(identity, path):
        print(printable(f"masu: left out: {each}"), file=sys.stderr)
    return DONE


def _remove(arguments: argparse.Namespace, identity: str) -> int:
    found = _app(arguments, runtime=False).remove_checkpoint(identity)
    print(f"removed {found.id}" + (f" of container {found.container}" if found.container else ""))
    return DONE


def _import(arguments: argparse.Namespace, path: str) -> int:
    found = _app(arguments, runtime=False).import_checkpoint(path, arguments.to and _name(arguments.to))
    print(f"{found.id}: of container {found.container}")
    return DONE


def _checkpoints(arguments: argparse.Namespace) -> int:
    from controller.report.checkpoints import checkpoint_json, checkpoints_text  # noqa: PLC0415

    name = arguments.name and _name(arguments.name)
    found = _app(arguments, runtime=False).checkpoints(name, verify=arguments.verify)
    if arguments.output == "json":
        print(json.dumps([checkpoint_json(each) for each in found], indent=2, ensure_ascii=False))
    else:
        print(checkpoints_text(found, time.time_ns() // 1_000_000), end="")
    return FAILED if arguments.verify and any(each.damage for each in found) else DONE


def _preflight(arguments: argparse.Namespace) -> int:
    found = _app(arguments, runtime=False).preflight(arguments.name and _name(arguments.name))
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

    name, identity = _name(arguments.name), nullcontext(arguments.identity)
    source = _app(arguments, runtime=True).imported(arguments.file, name) if arguments.file else identity
    with source as found:
        done = _act(arguments, Request("restore", name, found))
    print(f"{arguments.name} goes on from checkpoint {done['id']}")
    return DONE


def _validate(arguments: argparse.Namespace) -> int:
    from controller.app import validate  # noqa: PLC0415
    from controller.host import service  # noqa: PLC0415

    service.end_on_signals()
    problems, documents, files = validate(tuple(arguments.paths), _settings(arguments))
    if arguments.output == "json":
        fields = ("file", "line", "column", "path", "message")
        print(json.dumps([{key: getattr(each, key) for key in fields} for each in problems], indent=2))
    else:
        for problem in problems:
            print(problem)
    if not problems:
        print(_valid(documents, files), file=sys.stderr)
    return INVALID if problems else DONE


def _valid(documents: int, files: int) -> str:
    """On standard error: pipes get problems, and nothing else."""
    which = "document" if documents == 1 else "documents"
    where = "file" if files == 1 else "files"
    return f"{documents} {which} in {files} {where} {'is' if documents == 1 else 'are'} valid"


def _doctor(arguments: argparse.Namespace) -> int:
    from controller.host.doctor import examine  # noqa: PLC0415
    from controller.report import text  # noqa: PLC0415

    findings = examine(arguments.runtime)
    if arguments.output == "json":
        print(json.dumps([each.to_json() for each in findings], indent=2, ensure_ascii=False))
    else:
        print(text.doctor_text(findings, colours=sys.stdout.isatty()), end="")
    return 5 if any(each.level == "missing" for each in findings) else DONE


def _schema(arguments: argparse.Namespace) -> int:
    from controller.report.reference import markdown  # noqa: PLC0415
    from controller.spec.schema import bundle, kinds, schema  # noqa: PLC0415

    if arguments.kind not in kinds():
        print(f"masu schema: there is no kind {arguments.kind!r}, only {', '.join(kinds())}", file=sys.stderr)
        return FAILED
    found = bundle() if arguments.output == "bundle" else schema(arguments.kind)
    if arguments.output == "markdown":
        print(markdown(arguments.kind, found), end="")
    else:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    return DONE


def _aspects(arguments: argparse.Namespace) -> int:
    from controller.aspects import ASPECTS_OF  # noqa: PLC0415

    del arguments
    for kind, aspects in ASPECTS_OF.items():
        for aspect in aspects:
            for key, effect in aspect.keys.items():
                print(f"{kind:<12}{aspect.name:<20}{key:<32}{effect}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
