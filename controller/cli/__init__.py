"""The command line: parses words, calls the app, prints, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from controller.cli import checkpoints, converging, describing, looking, sealing
from controller.cli.words import DONE, FAILED, Parser
from controller.errors import MasuError, SpecInvalid
from controller.model.names import printable
from controller.version import VERSION

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


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
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
    converging.add(verbs)
    looking.add(verbs)
    checkpoints.add(verbs)
    sealing.add(verbs)
    describing.add(verbs)
    return parser
