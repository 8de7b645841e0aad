"""`infcore bench`: real models on unlike devices under bursty load, policy by policy."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infcore.cli.common import Parser, add_json, check_writable, integer, number, write_json
from infcore.cli.terminal import progress
from infcore.errors import UnknownName

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from infcore.profiling.suite import Suite


def add_parser(commands: "_SubParsersAction[Parser]") -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "bench",
        help="profile real models on unlike devices, policy by policy",
        description="Serve a suite's models through the core under open-loop load and show throughput, latency "
        "quantiles and cost per device and per policy. Exit status 1 if the run is not valid.",
    )
    parser.add_argument(
        "--suite", default="mixed", help="a shipped suite's name or a path to a .toml file (default: mixed)"
    )
    parser.add_argument(
        "--load",
        type=number(0.0, 100.0, above=True),
        default=0.5,
        metavar="X",
        help="mean load as a part of round_robin's own capacity, which is measured first (default: 0.5)",
    )
    parser.add_argument(
        "--rate", type=number(0.0, 1e6, above=True), metavar="RPS", help="mean requests per second, instead of --load"
    )
    parser.add_argument(
        "--capacity", action="store_true", help="search each policy's highest load with 99 %% in the SLO"
    )
    parser.add_argument(
        "--seconds",
        type=number(0.0, 86_400.0, above=True),
        metavar="S",
        help="length of each policy's run (default: the suite's)",
    )
    parser.add_argument(
        "--policy", action="extend", nargs="+", metavar="P", help="routing policies to run, in this order"
    )
    parser.add_argument(
        "--seed", type=integer(0, 2**63 - 1), default=0, metavar="N", help="seed of arrivals and inputs (default: 0)"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def chosen_policies(asked: Sequence[str] | None, default: Sequence[str], known: Sequence[str]) -> list[str]:
    """The policies to run, each once; raises UnknownName naming the first that is not known."""
    for name in asked or ():
        if name not in known:
            raise UnknownName(f"--policy must be one of {', '.join(known)}, got {name!r}")
    return list(dict.fromkeys(asked or default))


def with_seconds(suite: "Suite", seconds: float | None) -> "Suite":
    """The suite with the command line's length instead of its own."""
    return suite if seconds is None else replace(suite, run=replace(suite.run, seconds=seconds))


def run(arguments: argparse.Namespace) -> int:
    """Everything that can be refused is refused before anything is started."""
    from infcore.profiling import suite as suites
    from infcore.profiling.bench import DEFAULT_POLICIES, Options, run_bench
    from infcore.profiling.drive import Interrupt
    from infcore.profiling.env import environment
    from infcore.profiling.fleet import known_policies, open_fleet

    check_writable("--json", arguments.json)
    suite = with_seconds(suites.load(arguments.suite), arguments.seconds)
    policies = chosen_policies(arguments.policy, DEFAULT_POLICIES, known_policies())
    options = Options(
        policies=policies,
        load=arguments.load,
        rate_rps=arguments.rate,
        seconds=suite.run.seconds,
        capacity=arguments.capacity,
        seed=arguments.seed,
    )
    env = environment()
    quiet = arguments.json == Path("-")
    with progress() as shown:
        shown.stage(f"suite {suite.name}: opening models and devices")
        with open_fleet(suite, seed=arguments.seed) as fleet:
            document = run_bench(
                suite,
                fleet,
                options,
                env=env,
                interrupt=Interrupt(),
                progress=shown,
                on_policy=lambda row: None if quiet else shown.result(policy_text(row)),
            )
    write_json(arguments.json, document)
    if not quiet:
        print(summary_text(document))
    for reason in document["invalid_reasons"]:
        print(f"infcore bench: not valid: {reason}", file=sys.stderr)
    return 0 if document["valid"] else 1


def policy_text(row: Mapping[str, Any]) -> str:
    """One policy's table per device."""
    from infcore.profiling import tables

    head = f"{row['policy']}: {row['rate_rps']:.0f} req/s for {row['seconds']:.1f} s"
    return f"\n{head}\n{tables.device_table(row)}\n{tables.answers_line(row)}"


def summary_text(document: Mapping[str, Any]) -> str:
    """The policies side by side and the lines under it."""
    from infcore.profiling import tables

    if not document["policies"]:
        return "no policy finished"
    return "\n".join(["", tables.policy_table(document["policies"]), *tables.notes(document)])
