"""`infcore report`: the JSON of a bench or of a simulation as one HTML page that needs nothing else."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from infcore.cli.common import Parser, add_json, check_writable, write_json, write_text
from infcore.errors import InvalidArgument

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(commands: "_SubParsersAction[Parser]") -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "report",
        help="turn the JSON of a bench or a simulation into one self-contained HTML page",
        description="Turn the JSON of `infcore bench --json` or `infcore simulate --json` into one HTML page with "
        "plots and tables.",
    )
    parser.add_argument(
        "input",
        metavar="IN.json",
        type=Path,
        help="a file written by `infcore bench --json` or `infcore simulate --json`",
    )
    parser.add_argument("-o", "--output", metavar="OUT.html", type=Path, help="the page (default: IN.html)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read, check, render, write."""
    from infcore.profiling import report, report_simulation
    from infcore.profiling.documents import check

    source: Path = arguments.input
    target: Path = arguments.output or source.with_suffix(".html")
    check_writable("--output", target)
    check_writable("--json", arguments.json)
    try:
        values = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"IN.json must be a readable JSON file, got {str(source)!r}: {error}") from error
    document = check(values, where=str(source))
    html = (report_simulation if document["command"] == "simulate" else report).page(document)
    write_text(target, html)
    written = {
        "schema_version": 1,
        "command": "report",
        "input": str(source),
        "output": str(target),
        "bytes": len(html.encode()),
    }
    write_json(arguments.json, written)
    print(f"wrote {target}", file=sys.stderr if str(arguments.json) == "-" else sys.stdout)
    return 0
