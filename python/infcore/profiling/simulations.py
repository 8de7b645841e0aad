"""`infcore simulate`: policies in one scenario, side by side, with their capacities; and many seeds under faults."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from infcore.errors import InvalidArgument
from infcore.profiling.capacity import WITHIN_SLO_MIN, Capacity, Probe, highest_load
from infcore.profiling.progress import Progress, Silent
from infcore.profiling.summary import ratio
from infcore.request import PolicyOption
from infcore.sim.bound import capacity_bound
from infcore.sim.scenario_schema import RandomFault, Scenario
from infcore.sim.simulate import BOUND, COST_BASIS, FAULTS, simulate
from infcore.sim.traces import Trace

SCHEMA_VERSION = 1
DEFAULT_POLICIES = (
    "round_robin",
    "least_outstanding",
    "power_of_two",
    "peak_ewma",
    "fastest_finish",
    "slo_cost",
    BOUND,
)
# What a document of this schema holds at least; `infcore report` refuses one that lacks any.
REQUIRED = ("schema_version", "scenario", "seed", "load", "runs", "valid", "invalid_reasons", "env")
REQUIRED_RUN = ("policy", "latency_s", "within_slo", "cost_usd", "digest", "nodes", "parts", "faults")
# Loads that a capacity is looked for between, times the scenario's.
LOAD_MIN, LOAD_MAX = 1 / 64, 256.0
CAPACITY_RATIO = 1.02


def run_policies(
    scenario: Scenario,
    policies: Sequence[str],
    *,
    seed: int,
    load: float,
    trace: Trace | None,
    log: BinaryIO | None,
    capacity: bool,
    env: Mapping[str, Any],
    progress: Progress,
    on_run: Callable[[dict[str, Any]], None] = lambda row: None,
    options: Mapping[str, PolicyOption] | None = None,
) -> dict[str, Any]:
    """Run each policy, and search its capacity where asked for; the JSON document."""
    runs: list[dict[str, Any]] = []
    capacities: dict[str, list[dict[str, Any]]] = {}
    for policy in policies:
        progress.stage(f"{policy}: load {load:g}")
        run = partial(
            simulate,
            scenario,
            policy=policy,
            seed=seed,
            trace=trace,
            progress=progress.advance,
            policy_options=None if policy == BOUND else options,
        )
        row = run(load=load, log=log)
        if capacity and policy == BOUND:
            row["capacity_load"], capacities[policy] = _bound(scenario, trace), []
        elif capacity:
            row["capacity_load"], capacities[policy] = _capacity(policy, run, load, progress)
        runs.append(row)
        on_run(row)
    base = next((row for row in runs if row["policy"] == "round_robin"), runs[0] if runs else None)
    for row in runs:
        row["ratio_to_baseline"] = _ratios(row, base) if base is not None else {}
    reasons = invalid_reasons(runs)
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "simulate",
        "scenario": scenario.name,
        "scenario_detail": _detail(scenario),
        "seed": seed,
        "load": load,
        "trace": None if trace is None else str(trace.path),
        "baseline": None if base is None else base["policy"],
        "cost_basis": COST_BASIS,
        "runs": runs,
        "capacity": capacities or None,
        "valid": not reasons,
        "invalid_reasons": reasons,
        "env": dict(env),
    }


def invalid_reasons(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a run must never do, in words."""
    reasons = []
    for row in runs:
        name = f"{row['policy']}, seed {row['seed']}"
        if row["lost"]:
            reasons.append(f"{name}: {row['lost']} accepted requests never ended")
        if row["duplicated"]:
            reasons.append(f"{name}: {row['duplicated']} requests ended more than once")
        if row["violations"]:
            reasons.append(f"{name}: {row['violations']} invariants broken, the first: {row['first_violation']}")
    return reasons


def _ratios(row: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        **{q: ratio(row["latency_s"][q], base["latency_s"][q]) for q in ("mean", "p50", "p99", "p999")},
        "goodput_rps": ratio(row["goodput_rps"], base["goodput_rps"]),
        "cost_usd_per_1k": ratio(row["cost_usd_per_1k"], base["cost_usd_per_1k"]),
        "capacity_load": ratio(row["capacity_load"], base["capacity_load"]),
    }


def _detail(scenario: Scenario) -> dict[str, Any]:
    return {
        "description": scenario.description,
        "seconds": scenario.run.seconds,
        "warmup_s": scenario.run.warmup_s,
        "batching": scenario.run.batching,
        "nodes": len(scenario.nodes),
        "models": [model.name for model in scenario.models],
        "rate_rps": sum(workload.rate_rps for workload in scenario.workloads),
    }


def capacity_of(scenario: Scenario, policy: str, *, seed: int) -> float | None:
    """The highest load, times the scenario's, with 99 % of all arrivals inside their goal; 0 where none is carried."""
    if policy == BOUND:
        return _bound(scenario, None)
    return _capacity(policy, partial(simulate, scenario, policy=policy, seed=seed), 1.0, Silent())[0]


def _bound(scenario: Scenario, trace: Trace | None) -> float | None:
    """What nobody can carry; None where there is no bound, or none is known."""
    bound = capacity_bound(scenario) if trace is None else math.inf
    return bound if bound < math.inf else None


def _capacity(
    policy: str, run: Callable[..., dict[str, Any]], start: float, progress: Progress
) -> tuple[float | None, list[dict[str, Any]]]:
    """The highest load with 99 % inside the goal, and every load tried. run: simulates the load= it is given."""

    def probe(load: float) -> Probe:
        progress.stage(f"{policy}: does it carry load {load:.3g}?")
        row = run(load=load)
        within = 1.0 if row["within_slo"] is None else row["within_slo"]  # nothing came: nothing was late
        return Probe(load, within, 0.0, within >= WITHIN_SLO_MIN)

    start = min(max(start, LOAD_MIN), LOAD_MAX)
    found: Capacity = highest_load(probe, start, ratio=CAPACITY_RATIO, least=LOAD_MIN, most=LOAD_MAX)
    probes = [{"load": p.rate_rps, "within_slo": p.within_slo, "carried": p.carried} for p in found.probes]
    return found.capacity_rps, probes


# ---- many seeds


def swarmed(scenario: Scenario) -> Scenario:
    """The scenario with faults of every kind at random, on every node, unless it has random ones of its own."""
    if scenario.random_faults:
        return scenario
    # On each node one of each kind in four minutes, for three seconds: at any time one node in twelve is at fault.
    faults = tuple(
        RandomFault(kind=kind, rate_per_node_hour=15.0, for_s=3.0, factor=8.0, rate=0.3)  # type: ignore[arg-type]
        for kind in FAULTS
    )
    return replace(scenario, random_faults=faults)


def swarm(
    scenario: Scenario,
    policies: Sequence[str],
    seeds: Sequence[int],
    *,
    load: float,
    progress: Progress,
    options: Mapping[str, PolicyOption] | None = None,
) -> dict[str, Any]:
    """Run each seed under a policy, in turn, with faults at random; stops at the first that breaks an invariant."""
    scenario = swarmed(scenario)
    usable = [policy for policy in policies if policy != BOUND]
    if not usable:
        raise InvalidArgument(f"--policy must name one that decides something for --swarm, got {BOUND!r} alone")
    counts = dict.fromkeys(("runs", "requests", "faults", "lost", "duplicated", "violations"), 0)
    outcomes: dict[str, int] = {}
    failed: list[dict[str, Any]] = []
    progress.stage(f"{len(seeds)} seeds")
    for done, seed in enumerate(seeds):
        row = simulate(scenario, policy=usable[seed % len(usable)], seed=seed, load=load, policy_options=options)
        counts["runs"] += 1
        counts["requests"] += row["requests_total"]
        counts["faults"] += row["faults"]["count"]
        for name in ("lost", "duplicated", "violations"):
            counts[name] += row[name]
        for name, n in row["outcomes"].items():
            outcomes[name] = outcomes.get(name, 0) + n
        if reasons := invalid_reasons([row]):
            failed.append({"seed": seed, "policy": row["policy"], "reasons": reasons})
            break
        progress.advance((done + 1) / len(seeds))
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "simulate",
        "swarm": True,
        "scenario": scenario.name,
        "first_seed": seeds[0] if seeds else None,
        "seeds": len(seeds),
        "load": load,
        **counts,
        "outcomes": outcomes,
        "failed": failed,
        "valid": not failed,
    }


def open_log(path: Path | None) -> BinaryIO | None:
    """The log's file, written from its start."""
    if path is None:
        return None
    try:
        return path.open("wb")
    except OSError as error:
        raise InvalidArgument(f"--log must be a path that can be written, got {str(path)!r}: {error}") from error
