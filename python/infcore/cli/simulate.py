"""`infcore simulate`: policies in a modelled world, under a virtual clock."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infcore.cli.bench import chosen_policies
from infcore.cli.common import (
    Parser,
    add_json,
    add_policy_options,
    check_writable,
    integer,
    number,
    policy_options,
    write_json,
)
from infcore.cli.terminal import progress
from infcore.errors import InvalidArgument

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(commands: "_SubParsersAction[Parser]") -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "simulate",
        help="run policies in a scenario under a virtual clock, with the engine's own code",
        description="Run routing policies in a scenario: modelled devices, drawn or recorded arrivals, faults, and the "
        "engine's own state machine. Exit status 1 if a request was lost or an invariant broken.",
    )
    parser.add_argument(
        "scenario", metavar="SCENARIO", help="a shipped scenario's name, a path to a .toml file, or a live engine's log"
    )
    parser.add_argument(
        "--policy", action="extend", nargs="+", metavar="P", help="policies to run, in this order (default: all)"
    )
    add_policy_options(parser)
    parser.add_argument("--seed", type=integer(0, 2**63 - 1), default=0, metavar="N", help="(default: 0)")
    parser.add_argument(
        "--load", type=number(0.0, 1e6, above=True), default=1.0, metavar="X", help="times the arrivals (default: 1)"
    )
    parser.add_argument(
        "--capacity", action="store_true", help="search each policy's highest load with 99 %% inside the SLO"
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="recorded arrivals instead of the scenario's: Azure LLM 2023, Mooncake, a --log, or a live engine's log",
    )
    parser.add_argument("--log", metavar="F", type=Path, help="write a JSON line per request to F")
    parser.add_argument(
        "--swarm",
        type=integer(1, 10**9),
        metavar="N",
        help="N seeds from --seed on, with faults at random; name the first bad",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Everything that can be refused is refused before anything is started."""
    from infcore.profiling.simulations import DEFAULT_POLICIES
    from infcore.sim import policies

    check_writable("--json", arguments.json)
    check_writable("--log", arguments.log)
    scenario, trace = _world(arguments)
    chosen = chosen_policies(arguments.policy, DEFAULT_POLICIES, policies())
    if arguments.swarm is not None:
        for option in ("capacity", "trace", "log"):
            if getattr(arguments, option):
                raise InvalidArgument(f"--{option} must not be given with --swarm")
        return _swarm(arguments, scenario, chosen)
    return _runs(arguments, scenario, chosen, trace)


def _world(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The scenario and the trace that are asked for; a live engine's log is both."""
    from infcore.sim import load
    from infcore.sim.what_if import RecordedTrace, is_event_log, open_arrivals, recorded_scenario

    trace = None if arguments.trace is None else open_arrivals(arguments.trace)
    if not is_event_log(arguments.scenario):
        return load(arguments.scenario), trace
    recorded = RecordedTrace(arguments.scenario)
    return recorded_scenario(recorded), recorded if trace is None else trace


def _runs(arguments: argparse.Namespace, scenario: Any, chosen: list[str], trace: Any) -> int:
    from infcore.profiling.env import environment
    from infcore.profiling.simulations import open_log, run_policies

    quiet = arguments.json == Path("-")
    log = open_log(arguments.log)
    try:
        with progress() as shown:
            document = run_policies(
                scenario,
                chosen,
                seed=arguments.seed,
                load=arguments.load,
                trace=trace,
                log=log,
                capacity=arguments.capacity,
                env=environment(),
                progress=shown,
                options=policy_options(arguments, chosen),
            )
    finally:
        if log is not None:
            log.close()
    write_json(arguments.json, document)
    if not quiet:
        print(summary_text(document))
    for reason in document["invalid_reasons"]:
        print(f"infcore simulate: {reason}", file=sys.stderr)
    return 0 if document["valid"] else 1


def _swarm(arguments: argparse.Namespace, scenario: Any, chosen: list[str]) -> int:
    from infcore.profiling.simulations import swarm

    seeds = range(arguments.seed, arguments.seed + arguments.swarm)
    with progress() as shown:
        document = swarm(
            scenario, chosen, seeds, load=arguments.load, progress=shown, options=policy_options(arguments, chosen)
        )
    write_json(arguments.json, document)
    if arguments.json != Path("-"):
        counts = (f"{document[name]:,} {name}" for name in ("runs", "requests", "faults", "lost", "duplicated"))
        print(f"{document['scenario']}: {', '.join(counts)}, {document['violations']:,} invariants broken")
    for bad in document["failed"]:
        for reason in bad["reasons"]:
            print(f"infcore simulate: {reason}", file=sys.stderr)
        print(
            f"infcore simulate: to see it again: --swarm 1 --seed {bad['seed']} --policy {bad['policy']} "
            f"--load {arguments.load:g}",
            file=sys.stderr,
        )
    return 0 if document["valid"] else 1


def summary_text(document: Mapping[str, Any]) -> str:
    """The policies side by side."""
    from infcore.profiling import tables

    return "\n".join([tables.simulation_table(document), *tables.simulation_notes(document)])
