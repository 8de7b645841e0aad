"""Whatever the scenario, the policy and the faults: every arrival ends once, the log says what the figures say, and a
second run is the first one again."""

import os
from typing import Any

from hypothesis import given, note, settings
from hypothesis import strategies as st
from sim_rig import check_figures, check_log, logged, scenario, toml

from infcore.sim import policies

SECONDS = 2.0
KINDS = ("crash", "slow", "hang", "errors", "lost_completions", "partition", "freeze_signals")


def times(low: float, high: float) -> st.SearchStrategy[float]:
    """Of milliseconds, so that failing scenarios read well."""
    return st.integers(round(low * 1000), round(high * 1000)).map(lambda ms: ms / 1000)


works = st.one_of(
    st.sampled_from([0.0, 1.0, 50.0]),
    st.fixed_dictionaries(
        {"dist": st.sampled_from(["lognormal", "gamma", "pareto"]), "mean": times(0.5, 40), "cv": times(0.1, 3)}
    ),
    st.fixed_dictionaries({"dist": st.just("exponential"), "mean": times(0.5, 40)}),
    st.fixed_dictionaries({"dist": st.just("uniform"), "low": times(0, 5), "high": times(5, 50)}),
)
arrivals = st.one_of(
    st.fixed_dictionaries({"arrivals": st.sampled_from(["poisson", "regular"])}),
    st.fixed_dictionaries({"arrivals": st.just("gamma"), "arrival_cv": times(0.1, 4)}),
    st.fixed_dictionaries(
        {"arrivals": st.just("onoff"), "on_s": times(0.01, 1), "off_s": times(0.01, 1), "on_factor": times(0.1, 20)}
    ),
    st.fixed_dictionaries({"arrivals": st.just("diurnal"), "period_s": times(0.1, 5), "peak_to_mean": times(1, 5)}),
    st.fixed_dictionaries(
        {"arrivals": st.just("flash_sale"), "at_s": times(0, 2), "for_s": times(0.01, 1), "ramp_s": times(0, 0.5)}
    ),
)


@st.composite
def faults(draw: Any, groups: list[str], zones: list[str], *, at_random: bool) -> dict[str, Any]:
    kind = draw(st.sampled_from(KINDS))
    fault: dict[str, Any] = {"kind": kind}
    if kind == "slow":
        fault["factor"] = draw(times(0.1, 20))
    if kind in ("errors", "lost_completions"):
        fault["rate"] = draw(times(0.01, 1))
    if at_random:
        fault |= {"rate_per_node_hour": draw(st.integers(100, 20_000)), "for_s": draw(times(0.001, 1))}
    else:
        fault |= {"at_s": draw(times(0, 2.5)), "for_s": draw(times(0, 2))}
    place = draw(st.sampled_from([*(("node", group) for group in groups), *(("zone", zone) for zone in zones)]))
    return fault | dict([place])


@st.composite
def runs(draw: Any) -> dict[str, Any]:
    return {
        "seconds": SECONDS,
        "warmup_s": draw(times(0, 1)),
        "batching": draw(st.sampled_from(["dynamic", "greedy"])),
        "max_requests": draw(st.sampled_from([1, 5, 50, 65536])),
        "attempts_max": draw(st.integers(1, 3)),
        "detect_s": draw(times(0, 1)),
        "probe_s": draw(times(0.01, 1)),
        "signal_period_s": draw(times(0, 0.2)),
        "signal_loss": draw(times(0, 1)),
        **({"run_limit_s": draw(times(0.01, 1))} if draw(st.booleans()) else {}),
        **({"ageing_s": draw(times(0.01, 1))} if draw(st.booleans()) else {}),
    }


@st.composite
def worlds(draw: Any) -> dict[str, Any]:
    models = [f"m{i}" for i in range(draw(st.integers(1, 3)))]
    groups = [f"g{i}" for i in range(draw(st.integers(1, 3)))]
    zones = [draw(st.sampled_from(["a", "b"])) for _ in groups]
    # Each model runs on the first group at least, and on any of the others.
    pairs = [(m, g) for m in models for g in groups if g == groups[0] or draw(st.booleans())]

    def workload(model: str) -> dict[str, Any]:
        made = {"model": model, "rate_rps": draw(st.integers(1, 300)), "work": draw(works), **draw(arrivals)}
        made["tier"] = draw(st.integers(0, 2))
        if draw(st.booleans()):
            made["deadline_s"] = draw(times(0.001, 1))
        if draw(st.booleans()):
            made["session"] = {"turns_mean": draw(times(1, 5)), "think_s_mean": draw(times(0, 0.5))}
        return made

    return {
        "run": draw(runs()),
        "model": [
            {
                "name": model,
                "slo_s": draw(times(0, 0.2)),
                "max_batch_size": draw(st.integers(1, 8)),
                **{key: draw(times(0, 0.3)) for key in ("load_s", "warmup_s")},
                "idempotent": draw(st.booleans()),
                "batch_delay_s": draw(times(0, 0.02)),
            }
            for model in models
        ],
        "node": [
            {
                "name": group,
                "count": draw(st.integers(1, 3)),
                "slots": draw(st.integers(1, 3)),
                "zone": zone,
                "rtt_s": draw(times(0, 0.02)),
                "price_per_hour": draw(times(0, 3)),
                **({"resident": False} if draw(st.integers(0, 4)) == 0 else {}),
            }
            for group, zone in zip(groups, zones, strict=True)
        ],
        "latency": [
            {
                "model": model,
                "node": group,
                "base_s": draw(times(0.001, 0.02)),
                "per_request_s": draw(times(0, 0.005)),
                "per_work_s": draw(times(0, 0.002)),
                "per_padded_work_s": draw(times(0, 0.001)),
                "cv": draw(times(0, 1)),
            }
            for model, group in pairs
        ],
        "workload": [workload(draw(st.sampled_from(models))) for _ in range(draw(st.integers(1, 3)))],
        "fault": draw(st.lists(faults(groups, zones, at_random=False), max_size=3)),
        "random_fault": draw(st.lists(faults(groups, zones, at_random=True), max_size=2)),
        "antagonist": draw(
            st.lists(
                st.fixed_dictionaries(
                    {
                        "node": st.sampled_from(groups),
                        "factor": times(0.5, 5),
                        "on_s": times(0.01, 1),
                        "off_s": times(0.01, 1),
                    }
                ),
                max_size=1,
            )
        ),
    }


tokens = st.one_of(
    st.integers(1, 150),
    st.fixed_dictionaries({"dist": st.just("lognormal"), "mean": times(1, 80), "cv": times(0.1, 2)}),
    st.fixed_dictionaries({"dist": st.just("exponential"), "mean": times(1, 50), "max": times(60, 200)}),
)


@st.composite
def token_worlds(draw: Any) -> dict[str, Any]:
    """Token models on nodes that are short of everything: blocks, places, tokens a step, slots."""
    groups = [f"g{i}" for i in range(draw(st.integers(1, 2)))]

    def latency(group: str) -> dict[str, Any]:
        terms = {term: draw(times(0, 0.002)) for term in ("prefill_base_s", "decode_base_s")}
        return {
            "model": "m",
            "node": group,
            "n_blocks": draw(st.integers(256 // 16, 64)),
            "token_budget": draw(st.sampled_from([1, 16, 300])),
            "max_running": draw(st.integers(1, 16)),
            "host_blocks": draw(st.sampled_from([0, 5, 100])),
            "base_s": draw(times(0.001, 0.01)),
            **terms,
            "per_prefill_token_s": 1e-5,
            "per_decode_s": draw(st.sampled_from([0.0, 1e-4])),
            "per_context_token_s": draw(st.sampled_from([0.0, 1e-6])),
            "swap_block_s": draw(st.sampled_from([0.0, 1e-6])),
            "cv": draw(st.sampled_from([0.0, 0.5])),
        }

    def workload() -> dict[str, Any]:
        made = {"model": "m", "rate_rps": draw(st.integers(1, 100)), "tier": draw(st.integers(0, 2))}
        made |= {"prompt_tokens": draw(tokens), "output_tokens": draw(tokens), **draw(arrivals)}
        if draw(st.booleans()):
            made["deadline_s"] = draw(times(0.001, 1))
        if draw(st.booleans()):
            made["session"] = {"turns_mean": draw(times(1, 5)), "think_s_mean": draw(times(0, 0.5))}
        if draw(st.booleans()):
            how = draw(st.sampled_from([{"share": 0.5}, {"share": 1.0}, {"tokens": 40}]))
            made["prefix"] = {"groups": draw(st.integers(1, 5)), "zipf": draw(times(0, 2)), **how}
        return made

    return {
        "run": draw(runs()),
        "model": [{"name": "m", "tokens": True, "context_tokens_max": 256, "load_s": draw(times(0, 0.3))}],
        "node": [
            {"name": group, "count": draw(st.integers(1, 2)), "slots": draw(st.integers(1, 24)), "zone": "a",
             "rtt_s": draw(times(0, 0.02))}
            for group in groups
        ],
        "token_latency": [latency(group) for group in groups],
        "workload": [workload() for _ in range(draw(st.integers(1, 2)))],
        "fault": draw(st.lists(faults(groups, ["a"], at_random=False), max_size=2)),
        "random_fault": draw(st.lists(faults(groups, ["a"], at_random=True), max_size=2)),
    }  # fmt: skip


@settings(max_examples=15 if "INFCORE_SANITIZED" in os.environ else 60)
@given(tables=token_worlds(), policy=st.sampled_from(policies()), seed=st.integers(0, 2**63 - 1))
def test_any_token_scenario(tables: dict[str, Any], policy: str, seed: int) -> None:
    """Blocks are conserved at each step (the simulator looks), each request ends once, with all its tokens."""
    note(toml(tables))
    world = scenario(tables)
    row, lines = logged(world, policy, seed=seed)
    assert (row["lost"], row["duplicated"], row["violations"]) == (0, 0, 0), row["first_violation"]
    assert [line["id"] for line in lines] == list(range(len(lines)))
    if policy != "clairvoyant":
        check_log(world, lines, policy=policy)
    check_figures(world, row, lines)
    for line in lines:
        assert 1 <= line["prompt_tokens"] and line["prompt_tokens"] + line["output_tokens"] <= 256
        if line["outcome"] == "ok":
            assert 0.0 < line["ttft_s"] <= line["end_s"] - line["arrival_s"] + 2e-9
            assert line["cached_tokens"] < line["prompt_tokens"]
    again, same = logged(world, policy, seed=seed)
    assert (again["digest"], same) == (row["digest"], lines)


@settings(max_examples=30 if "INFCORE_SANITIZED" in os.environ else 150)
@given(
    tables=worlds(),
    policy=st.sampled_from(policies()),
    seed=st.integers(0, 2**63 - 1),
    load=st.sampled_from([0.5, 1, 4]),
)
def test_any_scenario(tables: dict[str, Any], policy: str, seed: int, load: float) -> None:
    note(toml(tables))
    world = scenario(tables)
    row, lines = logged(world, policy, seed=seed, load=load)
    assert (row["lost"], row["duplicated"], row["violations"]) == (0, 0, 0), row["first_violation"]
    assert [line["id"] for line in lines] == list(range(len(lines)))
    assert all(0.0 <= line["arrival_s"] < SECONDS for line in lines)
    assert [line["arrival_s"] for line in lines] == sorted(line["arrival_s"] for line in lines)
    if policy != "clairvoyant":  # which serves each as if it were alone
        check_log(world, lines, policy=policy)
    check_figures(world, row, lines)
    again, same = logged(world, policy, seed=seed, load=load)
    assert again["digest"] == row["digest"]
    assert same == lines
