"""What mocker.py asks of Dynamo's mocker and of infcore's simulator, each in its own environment."""

import json
from pathlib import Path

import numpy as np

LOAD = {"shared_prefix_ratio": 0.75, "num_prefix_groups": 64, "request_rate": 120.0}
INPUT, OUTPUT, REQUESTS, WORKERS, NAME_TOKENS = 4096, 128, 3000, 8, 512


def _told(result) -> dict:
    said = result.summary
    return {
        "mean_ttft_ms": said["mean_ttft_ms"],
        "p50_ttft_ms": said["median_ttft_ms"],
        "p99_ttft_ms": said["p99_ttft_ms"],
        "mean_itl_ms": said["mean_itl_ms"],
        "reuse": said["prefix_cache_reused_ratio"],
        "requests": said["completed_requests"],
    }


def fit(x: list[float], y: list[float]) -> tuple[list[float], float]:
    """Coefficients of the parabola through the points, lowest first, and the largest distance of one from it."""
    parabola = np.polynomial.Polynomial.fit(x, y, 2).convert()
    return [float(c) for c in parabola.coef], float(np.abs(parabola(np.array(x)) - np.array(y)).max())


def _fitted(step: str, n_points: int, high: int) -> dict:
    """Requests by themselves: of the first step the prompt's tokens, of the second all tokens are what counts."""
    from dynamo import _core

    x, y = [], []
    for n in np.linspace(64, high if step == "prefill" else 0.9 * high, n_points).astype(int).tolist():
        alone = _core.run_mocker_synthetic_trace_replay(n, 3, 1, arrival_interval_ms=1.0, capture_per_request=True)
        x.append(n if step == "prefill" else (n + 1) / high)  # the first token is in the second step's context
        y.append(alone.per_request[0]["ttft_ms" if step == "prefill" else "ttst_ms"])
    coefficients, off = fit(x, y)
    return {"coefficients": coefficients, "off": off}


def dynamo(task: dict) -> dict:
    from dynamo import _core

    what = task["what"]
    if what == "settings":
        return _core._normalize_mocker_config({})["engine"]
    if what == "fit":
        return _fitted(task["step"], task["points"], task["high"])
    if what == "synthetic":
        return _told(
            _core.run_mocker_synthetic_trace_replay(
                INPUT,
                OUTPUT,
                REQUESTS,
                num_workers=WORKERS,
                router_mode=task["router"],
                arrival_seed=task["seed"],
                **LOAD,
            )
        )
    result = _core.run_mocker_trace_replay(
        [task["path"]],
        num_workers=WORKERS,
        router_mode=task["router"],
        trace_block_size=NAME_TOKENS,
        capture_per_request=True,
    )
    each = [[one["ttft_ms"], one["e2e_latency_ms"], one["reused_input_tokens"]] for one in result.per_request]
    return _told(result) | {"each": each if task.get("each") else []}


def infcore(task: dict) -> dict:
    from dataclasses import replace

    from infcore import Router, sim

    if task["what"] == "policies":
        return {"names": Router.policies()}
    scenario, trace = sim.load("dynamo-mocker"), None
    if task["what"] == "trace":
        trace = sim.open_trace(Path(task["path"]))
        longest = max(one["input_length"] + one["output_length"] for one in map(json.loads, open(task["path"])))
        scenario = replace(scenario, models=[replace(m, context_tokens_max=longest) for m in scenario.models])
    row = sim.simulate(scenario, policy=task["router"], trace=trace)
    ttft = row["ttft_s"]
    return {
        "mean_ttft_ms": 1e3 * ttft["mean"],
        "p50_ttft_ms": 1e3 * ttft["p50"],
        "p99_ttft_ms": 1e3 * ttft["p99"],
        "mean_itl_ms": 1e3 * row["itl_s"]["mean"],
        "reuse": row["prefix_reuse"],
        "requests": row["outcomes"]["ok"],
    }
