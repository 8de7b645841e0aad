"""What the subcommands share: one-line errors, numbers with bounds, files known to be writable before a run."""

import argparse
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from infcore.errors import InvalidArgument


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line, and no guessing at shortened options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Print the message on one line and exit with status 2."""
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {line}\n")


def number(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """An argparse type: a finite number in [low, high], or in (low, high] with `above`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < low or value > high or (above and value == low):
            limit = f" and <= {high:g}" if high < math.inf else ""
            raise argparse.ArgumentTypeError(f"must be a number {'>' if above else '>='} {low:g}{limit}, got {text!r}")
        return value

    return parse


def integer(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: an integer in [low, high]."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be an integer from {low} to {high}, got {text!r}")
        return value

    return parse


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    """Add --policy-option NAME=VALUE."""
    parser.add_argument(
        "--policy-option",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="options of the one policy that runs: a number, a text, or texts with commas between",
    )


def policy_options(arguments: argparse.Namespace, policies: Sequence[str]) -> dict[str, Any] | None:
    """What --policy-option says; None where it says nothing. Raises InvalidArgument."""
    options: dict[str, Any] = {}
    if arguments.policy_option and len(policies) != 1:
        raise InvalidArgument(f"--policy-option is for one policy, got --policy {' '.join(policies)}")
    for given in arguments.policy_option:
        name, equals, value = given.partition("=")
        if not (name and equals):
            raise InvalidArgument(f"--policy-option must be NAME=VALUE, got {given!r}")
        try:
            options[name] = float(value)
        except ValueError:
            options[name] = value.split(",") if "," in value else value
    return options or None


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json FILE."""
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="write the result as JSON to FILE ('-': standard output)"
    )


def check_writable(argument: str, path: Path | None) -> None:
    """Raise InvalidArgument unless a file can be written at `path`, by making one beside it; nothing is left behind."""
    if path is None or str(path) == "-":
        return
    if path.is_dir():
        raise InvalidArgument(f"{argument} must be a file, got the folder {str(path)!r}")
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".infcore-"):
            pass
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError("the file is read-only")
    except OSError as error:
        raise InvalidArgument(f"{argument} must be a path that can be written, got {str(path)!r}: {error}") from error


def write_text(path: Path, text: str) -> None:
    """Write the file whole or not at all: a reader never sees half of it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".infcore-", encoding="utf-8", delete=False) as file:
        try:
            file.write(text)
            file.close()
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def write_json(path: Path | None, values: Mapping[str, Any]) -> None:
    """Write `values` to `path`, "-" being standard output; nothing without a path."""
    if path is None:
        return
    text = json.dumps(values, indent=1, allow_nan=False) + "\n"
    if str(path) == "-":
        print(text, end="")
    else:
        write_text(path, text)


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now
