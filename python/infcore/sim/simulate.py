"""One policy in one scenario: runs the compiled simulator and makes the figures of its row."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from infcore._core.simulation import FAULTS, OUTCOMES, Simulation
from infcore.request import PolicyOption
from infcore.router import Router
from infcore.sim.rows import Rows, Source, replaying, rows_of
from infcore.sim.scenario import scaled
from infcore.sim.scenario_schema import Scenario
from infcore.sim.traces import Trace, open_trace

__all__ = ["BOUND", "FAULTS", "OUTCOMES", "policies", "simulate"]

BOUND = "clairvoyant"
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
CURVE_POINTS = 200  # of the latency curve in a row: half of them below p90, half in the tail
# Events between looks at the clock and at Ctrl-C: some tens of milliseconds.
STEPS = 1 << 16
# Of token models, None for others: first token, time between tokens, share of prompts found in a node's cache.
TOKEN_FIGURES = ("ttft_s", "itl_s", "prefix_reuse", "prompt_tokens_per_s", "output_tokens_per_s")
COST_BASIS = "busy time: sum(price_per_hour / 3600 * busy_s)"


def policies() -> list[str]:
    """What simulate() knows: the routing policies, and the clairvoyant bound."""
    return [*Router.policies(), BOUND]


def simulate(
    scenario: Scenario,
    *,
    policy: str,
    seed: int = 0,
    load: float = 1.0,
    trace: Trace | None = None,
    log: BinaryIO | None = None,
    progress: Callable[[float], None] | None = None,
    policy_options: Mapping[str, PolicyOption] | None = None,
) -> dict[str, Any]:
    """Run a scenario under a policy and return its figures.

    scenario  infcore.sim.load(name or path), or one made by hand
    policy    one of policies(); "clairvoyant" is no policy but the least that any could take: each request at once,
              alone, on the node that is fastest for it, at the mean of its curve: spread and slow-downs aside
    seed      of arrivals, works, service times, faults and of the policy's own draws; the first four do not depend on
              the policy
    load      times the scenario's arrivals
    trace     its arrivals instead of the scenario's
    log       a binary file: one JSON object a line and request, in the order of their ends
    progress  called with the part done, 0 to 1
    policy_options  of the policy, by name: numbers, texts or sequences of texts
    Returns   the row that `infcore simulate --json` has in runs[]; histograms are within 0.4 %
    Raises    InvalidArgument, UnknownName
    Cost      O(nodes) a request: 1.8 million a second and core at 64 nodes, .8 at 1,024, .08 at 10,000; memory does
              not grow with the number of requests
    """
    if trace is not None:
        scenario = replaying(scenario, trace, load)
        sources = [Source(trace, range(len(scenario.workloads)), load)]
    else:
        scenario = scaled(scenario, load)
        sources = [
            Source(open_trace(workload.file), [i], workload.rate_factor)
            for i, workload in enumerate(scenario.workloads)
            if workload.arrivals == "trace"
        ]
    began_s = time.perf_counter()
    core = Simulation(scenario, policy=policy, seed=seed, log=log is not None, policy_options=policy_options)
    _run(core, rows_of(scenario, sources, seed), scenario.run.seconds, log, progress)
    return _row(core, scenario, policy, seed, load, time.perf_counter() - began_s)


def _run(
    core: Simulation,
    rows: Iterator[Rows],
    seconds: float,
    log: BinaryIO | None,
    progress: Callable[[float], None] | None,
) -> None:
    pause = "steps"
    while pause != "end":
        pause = core.run(STEPS)
        if log is not None and pause in ("log", "end"):
            log.write(core.take_log())
        if pause == "rows":
            more = next(rows, None)
            if more is None:
                core.close_rows()
            else:
                core.feed(*more.fed())
        if progress is not None:
            progress(min(1.0, core.now_s / seconds))


def _quantiles_s(histogram: Any) -> dict[str, float | None]:
    if histogram.count == 0:
        return dict.fromkeys(QUANTILES)
    return {name: histogram.quantile(q) for name, q in QUANTILES.items()}


def _curve(histogram: Any) -> dict[str, list[float]]:
    """The distribution as pairs: q, a part of the requests, and s, the latency that it stays within."""
    if histogram.count == 0:
        return {"q": [], "s": []}
    half = CURVE_POINTS // 2
    least = max(1.0 / histogram.count, 1e-6)
    tail = [1.0 - 0.1 * (min(least, 0.1) / 0.1) ** (i / (half - 1)) for i in range(1, half)]
    q = [0.9 * i / (half - 1) for i in range(half)] + tail + [1.0]
    return {"q": [round(each, 7) for each in q], "s": [histogram.quantile(each) for each in q]}


def _figures(totals: Mapping[str, Any], span_s: float) -> dict[str, Any]:
    """What all requests and each model's have alike."""
    arrivals, outcomes, tokens = totals["arrivals"], totals["outcomes"], totals["tokens"]
    return {
        "requests": arrivals,
        "outcomes": outcomes,
        "reasons": totals["reasons"],
        "degraded": totals["degraded"],
        "latency_s": {**_quantiles_s(totals["latency_s"]), "mean": totals["latency_mean_s"]},
        "wait_s": _quantiles_s(totals["wait_s"]),
        "within_slo": totals["within_slo"] / arrivals if arrivals else None,
        "throughput_rps": outcomes["ok"] / span_s,
        "goodput_rps": totals["within_slo"] / span_s,
        "availability": outcomes["ok"] / arrivals if arrivals else None,
        **(dict.fromkeys(TOKEN_FIGURES) if tokens is None else _token_figures(tokens, span_s)),
    }


def _token_figures(tokens: Mapping[str, Any], span_s: float) -> dict[str, Any]:
    """Of token requests that were answered; itl_s: the time from a token to the next, of all tokens but the first."""
    return {
        "ttft_s": {**_quantiles_s(tokens["ttft_s"]), "mean": tokens["ttft_mean_s"]},
        "itl_s": {**_quantiles_s(tokens["itl_s"]), "mean": tokens["itl_mean_s"]},
        "prefix_reuse": tokens["cached_tokens"] / tokens["prompt_tokens"] if tokens["prompt_tokens"] else None,
        "prompt_tokens_per_s": tokens["prompt_tokens"] / span_s,
        "output_tokens_per_s": tokens["output_tokens"] / span_s,
    }


def _row(core: Simulation, scenario: Scenario, policy: str, seed: int, load: float, wall_s: float) -> dict[str, Any]:
    totals, state = core.totals(), core.state()
    # From the warm-up's end to the last answer, at least to the end of arrivals.
    span_s = max(scenario.run.seconds, state["last_ok_s"]) - scenario.run.warmup_s
    # Runs that failed may end later than any answer, and count as use.
    nodes = _nodes(core.nodes(), scenario, max(span_s, state["last_run_s"] - scenario.run.warmup_s))
    busy_usd = state["bound_cost_usd"] if policy == BOUND else math.fsum(node["cost_usd"] for node in nodes)
    n_ok = totals["outcomes"]["ok"]
    n_faults, events = core.faults()
    figures = _figures(totals, span_s)
    if policy == BOUND:
        figures["prefix_reuse"] = None  # it has no cache: what may be known is taken for found
    return {
        "policy": policy,
        "seed": seed,
        "load": load,
        "requests_total": core.n_requests,
        "simulated_s": core.now_s,
        "wall_s": wall_s,
        **figures,
        "latency_curve_s": _curve(totals["latency_s"]),
        "ttft_curve_s": None if totals["tokens"] is None else _curve(totals["tokens"]["ttft_s"]),
        "regret_s": None if policy == BOUND else _quantiles_s(totals["regret_s"]),
        "capacity_load": None,
        "cost_usd": busy_usd,
        "cost_usd_per_1k": busy_usd / n_ok * 1000.0 if n_ok else None,
        "cost_usd_up": math.fsum(node.price_per_hour for node in scenario.nodes) / 3600.0 * span_s,
        "second_runs": {
            name: state[name] for name in ("retried", "unretried", "hedged", "hedge_won", "hedge_wasted_s")
        },
        "lost": state["lost"],
        "duplicated": state["duplicated"],
        "violations": state["violations"],
        "first_violation": state["first_violation"] or None,
        "tokens": core.tokens() if any(model.tokens for model in scenario.models) else None,
        "digest": state["digest"],
        "models": [
            {"name": name, "slo_s": model.slo_s or None, **_figures(core.totals(i), span_s)}
            for i, (name, model) in enumerate({m.group or m.name: m for m in scenario.models}.items())
        ],
        "nodes": nodes,
        "parts": core.parts(),
        "faults": {
            "count": n_faults,
            "events": [
                {"at_s": at_s, "node": scenario.nodes[node].name, "kind": kind, "begins": begins}
                for at_s, node, kind, begins in events
            ],
        },
    }


def _nodes(uses: Sequence[Mapping[str, Any]], scenario: Scenario, span_s: float) -> list[dict[str, Any]]:
    return [
        {
            "name": node.name,
            "group": node.group,
            "kind": node.kind,
            "zone": node.zone,
            "price_per_hour": node.price_per_hour,
            "slots": node.slots,
            **use,
            "utilization": use["busy_s"] / span_s / node.slots,
            "cost_usd": node.price_per_hour / 3600.0 * use["busy_s"] / node.slots,
        }
        for node, use in zip(scenario.nodes, uses, strict=True)
    ]
