"""Words that several commands have, and what is made of them."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from controller.errors import Problem, SpecInvalid
from controller.settings import IDENTITY, POLICY, Settings, testing

if TYPE_CHECKING:
    from controller.app.wiring import App


SOURCE = (
    "a directory of spec files (*.yaml, *.yml, also in directories below), or one file;"
    " or of a repository: git+https://…, git+ssh://…, git+file:///…, with #REF:DIRECTORY"
)

DONE, FAILED, CHANGES, INVALID, REFUSED = 0, 1, 2, 3, 4


class Parser(argparse.ArgumentParser):
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


def add_verb(verbs: Any, name: str, call: Any, text: str) -> Parser:
    """`call`: takes what was understood, and returns the exit code. `text`: what it does, in one line."""
    parser: Parser = verbs.add_parser(name, help=text, description=text[:1].upper() + text[1:] + ".")
    parser.add_argument("--instance", default=argparse.SUPPRESS, metavar="N", help=argparse.SUPPRESS)
    parser.set_defaults(call=call)
    return parser


def add_source(verb: argparse.ArgumentParser) -> None:
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


def add_policy(verb: argparse.ArgumentParser, usual: str = POLICY) -> None:
    """`usual`: the policy where none is named; empty: none."""
    verb.add_argument(
        "--policy",
        default=os.environ.get("MASU_POLICY", ""),
        metavar="FILE",
        help=f"what specs may ask of this host (default: {usual or 'none'})",
    )


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Raises SpecInvalid."""
    fail_at, trace_steps = testing(os.environ)
    return Settings(
        instance=name_of(arguments.instance, "--instance"),
        verbose=arguments.verbose,
        log_format=arguments.log_format,
        runtime=arguments.runtime,
        allow_removals=getattr(arguments, "allow_removals", False),
        resync_s=duration_s(getattr(arguments, "resync", "30s"), "--resync"),
        policy=getattr(arguments, "policy", ""),
        unsafe_source=getattr(arguments, "allow_unsafe_source", False),
        identity=os.environ.get("MASU_AGE_IDENTITY") or IDENTITY,
        last_wait_s=duration_s(getattr(arguments, "last_wait", "60s"), "--last-wait"),
        fetch_s=max(1.0, duration_s(getattr(arguments, "fetch_every", "60s"), "--fetch-every")),
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
    hostless = getattr(arguments, "hostless", False) or bool(getattr(arguments, "against", ""))
    return ("" if hostless else os.uname().nodename) if said is None else said


def app_of(arguments: argparse.Namespace, *, runtime: bool) -> App:
    """`runtime`: with an OCI runtime that works here. Raises SpecInvalid, HostLacks."""
    from controller.app.wiring import App  # noqa: PLC0415

    return App.build(settings_of(arguments), runtime=runtime)


def name_of(text: str, argument: str = "NAME") -> str:
    """The text, if it can name a container or an instance: names become parts of paths. Raises SpecInvalid."""
    from controller.model.names import check_name  # noqa: PLC0415

    try:
        return check_name(text)
    except ValueError as error:
        raise SpecInvalid((Problem(argument, 0, 0, "", str(error)),)) from error


def named(text: str) -> str:
    """A name, or the one after kind/. Raises SpecInvalid."""
    from controller.model.resource import KINDS  # noqa: PLC0415

    kind, slash, name = text.rpartition("/")
    return name_of(name if not slash or kind.capitalize() in KINDS else text)


def duration_s(text: str, option: str) -> float:
    """Seconds. Raises SpecInvalid."""
    from controller.model.quantity import parse_duration  # noqa: PLC0415

    try:
        return parse_duration(text) / 1000
    except ValueError as error:
        raise SpecInvalid((Problem(option, 0, 0, "", str(error)),)) from error
