"""`validate`, `doctor`, `schema`, `aspects`: of files, of this host in general, and of masu itself."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from controller.cli.words import DONE, FAILED, INVALID, SOURCE, add_policy, add_source, add_verb, settings_of


def add(verbs: Any) -> None:
    """The words of these commands."""
    validate = add_verb(verbs, "validate", _validate, "check spec files: file:line:col: path: what is wrong")
    validate.set_defaults(hostless=True)
    validate.add_argument("paths", nargs="+", metavar="PATH", help=SOURCE)
    add_source(validate)
    add_policy(validate, usual="")
    validate.add_argument("-o", "--output", choices=("text", "json"), default="text")
    doctor = add_verb(verbs, "doctor", _doctor, "what this host can do, and how to fix what it cannot")
    doctor.add_argument("-o", "--output", choices=("text", "json"), default="text")
    schema = add_verb(verbs, "schema", _schema, "print the JSON schema of a kind")
    schema.add_argument("kind", nargs="?", default="Container", metavar="KIND")
    schema.add_argument(
        "-o",
        "--output",
        choices=("json", "markdown", "bundle"),
        default="json",
        help="bundle: one for every kind",
    )
    add_verb(verbs, "aspects", _aspects, "list what masu converges, key by key: live, restart or recreate")


def _validate(arguments: argparse.Namespace) -> int:
    from controller.app.files import validate  # noqa: PLC0415
    from controller.host import service  # noqa: PLC0415

    service.end_on_signals()
    problems, documents, files = validate(tuple(arguments.paths), settings_of(arguments))
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
