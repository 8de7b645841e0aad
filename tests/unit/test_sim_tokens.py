"""Token models in the simulator: against a plain Python model and by hand, with faults, short of blocks, and as
another simulator tells the same day."""

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import token_node as reference
from sim_rig import NS, PATHS, Line, Tables, check_figures, check_log, logged, scenario, toml

from infcore import sim
from infcore.cli import main
from infcore.sim import policies, simulate

CURVE = {
    "base_s": 0.002, "prefill_base_s": 0.0005, "per_prefill_token_s": 2e-5, "per_prefill_token2_s": 1e-9,
    "decode_base_s": 0.0001, "per_decode_s": 1e-5, "per_context_token_s": 1e-7, "per_context_token2_s": -1e-13,
}  # fmt: skip
RTT_S = 0.004
DIGESTS = Path(__file__).parents[1] / "golden" / "token_digests.json"


def world(
    *, nodes: int = 1, run: Any = None, node: Any = None, model: Any = None, row: Any = None, **load: Any
) -> Tables:
    workload = {"model": "m", "rate_rps": 40.0, "prompt_tokens": 100, "output_tokens": 10, **load}
    return {
        "run": {"seconds": 4.0, "probe_s": 0.05, **(run or {})},
        "node": [{"name": "n", "count": nodes, "slots": 64, "rtt_s": RTT_S, "price_per_hour": 3.6, **(node or {})}],
        "model": [{"name": "m", "tokens": True, **(model or {})}],
        "token_latency": [
            {
                "model": "m",
                "node": "n",
                "n_blocks": 4096,
                "token_budget": 256,
                "max_running": 32,
                **CURVE,
                **(row or {}),
            }
        ],
        "workload": [{key: value for key, value in workload.items() if value is not None}],
    }


def run(
    tables: Tables, policy: str = "round_robin", seed: int = 0, trace: sim.Trace | None = None
) -> tuple[dict[str, Any], list[Line]]:
    """The figures and the log, after what holds of all of them."""
    row, lines = logged(tables, policy, seed=seed, trace=trace)
    if trace is None:
        check_figures(scenario(tables), row, lines)
    check_log(scenario(tables), lines, policy=policy)
    assert (row["lost"], row["duplicated"], row["violations"]) == (0, 0, 0), row["first_violation"]
    return row, lines


def mooncake(folder: Path, rows: list[tuple[float, int, int, list[int]]]) -> sim.Trace:
    path = folder / "t.jsonl"
    keys = ("timestamp", "input_length", "output_length", "hash_ids")
    path.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows))
    return sim.open_trace(path)


# ---- by hand


def test_one_request_alone_takes_what_the_curve_says() -> None:
    """600 prompt tokens in chunks of 256, 256 and 88; the last makes the first token; then 9 steps of one token."""
    tables = world(rate_rps=0.4, arrivals="regular", prompt_tokens=600, output_tokens=10)
    row, (line,) = run(tables)
    first_s = RTT_S + sum(reference.step_s(CURVE, chunk, 0, 0) for chunk in (256, 256, 88))
    last_s = first_s + sum(reference.step_s(CURVE, 0, 1, context) for context in range(601, 610))
    assert line["ttft_s"] == pytest.approx(first_s, abs=1e-8)
    assert line["end_s"] - line["arrival_s"] == pytest.approx(last_s, abs=2e-8)
    assert line["regret_s"] == pytest.approx(0.0, abs=2e-8)  # the bound is exact for it
    assert (line["prompt_tokens"], line["output_tokens"], line["cached_tokens"], line["work"]) == (600, 10, 0, 610)
    assert row["itl_s"]["mean"] == pytest.approx((last_s - first_s) / 9, rel=1e-6)
    assert row["tokens"] == {"steps": 12, "prefill_tokens": 600, "output_tokens": 10, "preempted": 0}
    assert row["nodes"][0]["busy_s"] / 64 == pytest.approx(last_s - RTT_S, abs=2e-8)
    assert row["nodes"][0]["cost_usd"] == pytest.approx((last_s - RTT_S) * 3.6 / 3600)


def test_a_conversation_finds_what_it_said_before() -> None:
    """Of each turn's prompt all is known but the question, up to the last full block computed."""
    tables = world(
        rate_rps=4.0, prompt_tokens=50, output_tokens=20, session={"turns_mean": 6.0, "think_s_mean": 0.4},
        prefix={"groups": 1, "tokens": 33}, run={"seconds": 12.0},
    )  # fmt: skip
    row, lines = run(tables)
    by_session: dict[int, list[Line]] = {}
    for line in lines:
        by_session.setdefault(line["session"], []).append(line)
    assert max(len(turns) for turns in by_session.values()) >= 4
    n_turns = 0
    for turns in by_session.values():
        for before, line in pairwise(turns):
            assert line["prompt_tokens"] == before["prompt_tokens"] + 20 + 50
            if before["end_s"] > line["start_s"]:
                continue  # asked again before the answer was there
            # The last token of an answer was made, and not computed with.
            assert line["cached_tokens"] == (before["prompt_tokens"] + 20 - 1) // 16 * 16
            n_turns += 1
    assert n_turns > 15
    first = [turns[0]["cached_tokens"] for turns in by_session.values()]
    assert set(first) == {0, 32}  # the two full blocks that everybody begins with
    assert row["prefix_reuse"] == sum(line["cached_tokens"] for line in lines) / sum(
        line["prompt_tokens"] for line in lines
    )


# ---- against the plain model


@pytest.mark.parametrize("seed", range(4))
def test_as_the_plain_model_says(seed: int, tmp_path: Path) -> None:
    """Every token's time and every prefix found, of bursts whose prompts share blocks of 512 tokens."""
    draw = random.Random(seed)
    rows = []
    at_ms = 0.0
    for i in range(60):
        at_ms += draw.choice([0.0, 1.0, draw.expovariate(1 / 40)])
        ids = [draw.randrange(3)]
        ids += [10 * ids[0] + draw.randrange(2) + 10] if draw.random() < 0.7 else [1000 + i]
        prompt = draw.randrange(513, 1025)
        rows.append((at_ms, prompt, draw.randrange(1, 30), ids))
    tables = world(nodes=2, row={"token_budget": draw.choice([64, 700, 4096]), "max_running": draw.choice([3, 32])})
    row, lines = run(tables, trace=mooncake(tmp_path, rows))
    spec = tables["token_latency"][0]
    for node in ("n-0", "n-1"):
        own = [line for line in lines if line["node"] == node]
        requests = []
        for line in own:
            _, prompt, output, ids = rows[line["id"]]
            content = [(ids[i // 512], i % 512) for i in range(prompt)]
            requests.append(reference.Request(round((line["arrival_s"] + RTT_S / 2) * 1e9), content, output))
        reference.run(
            requests, CURVE, block_size=16, token_budget=spec["token_budget"], max_running=spec["max_running"]
        )
        for line, request in zip(own, requests, strict=True):
            first_s, last_s = (request.token_ns[i] * 1e-9 + RTT_S / 2 for i in (0, -1))
            assert line["cached_tokens"] == request.cached
            assert line["arrival_s"] + line["ttft_s"] == pytest.approx(first_s, abs=1e-8)
            assert line["end_s"] == pytest.approx(last_s, abs=1e-8)
    assert len(lines) == 60 and row["prefix_reuse"] > 0.2


def test_a_trace_of_azure_and_our_own_log_bring_tokens(tmp_path: Path) -> None:
    """Without names of blocks nothing is found again but a conversation's beginning; what is too long is cut."""
    path = tmp_path / "azure.csv"
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    rows += [f"2023-11-16 18:17:0{i}.0,{tokens},{2 + i}" for i, tokens in enumerate((100, 100, 5000, 0))]
    path.write_text("\n".join(rows))
    tables = world(model={"context_tokens_max": 1000})
    _, lines = run(tables, trace=sim.open_trace(path))
    sizes = [(line["prompt_tokens"], line["output_tokens"], line["cached_tokens"]) for line in lines]
    assert sizes == [(100, 2, 0), (100, 3, 0), (996, 4, 0), (100, 5, 0)]  # 0: not known, so the workload's own mean
    log = tmp_path / "log.jsonl"
    _, first = run(world(session={"turns_mean": 3.0, "think_s_mean": 0.3}))
    log.write_text("".join(json.dumps(line) + "\n" for line in first))
    row, again = run(world(), trace=sim.open_trace(log))
    asked = ("prompt_tokens", "output_tokens", "session")
    assert [[line[key] for key in asked] for line in again] == [[line[key] for key in asked] for line in first]
    assert row["prefix_reuse"] > 0.1


# ---- short of blocks, and with faults


@pytest.mark.parametrize("host_blocks", [0, 40])
def test_nothing_is_lost_where_blocks_are_short(host_blocks: int) -> None:
    """Twenty sequences want 12 blocks each of 64: they are pre-empted, and all their tokens are made all the same."""
    row, lines = run(
        world(
            rate_rps=60.0, prompt_tokens=100, output_tokens=90, model={"context_tokens_max": 512},
            row={"n_blocks": 64, "host_blocks": host_blocks, "swap_block_s": 1e-6 if host_blocks else 0.0},
        )
    )  # fmt: skip
    assert {line["outcome"] for line in lines} == {"ok"}
    assert row["tokens"]["preempted"] > 10
    assert row["tokens"]["output_tokens"] == 90 * len(lines)
    computed = 100 * len(lines) - sum(line["cached_tokens"] for line in lines)
    assert (row["tokens"]["prefill_tokens"] > computed) == (host_blocks == 0)  # what is not swapped is computed again


def test_late_ones_that_wait_on_the_node_expire() -> None:
    """One at a time, 0.1 s each, ten at once: who has not begun within 0.35 s is told so, once."""
    row, lines = run(
        world(
            rate_rps=20.0, arrivals="onoff", on_s=0.1, off_s=2.0, on_factor=50.0, prompt_tokens=100, output_tokens=40,
            deadline_s=0.35, row={"max_running": 1},
        )
    )  # fmt: skip
    assert row["outcomes"]["expired"] > 5 and row["outcomes"]["ok"] > 5
    assert row["outcomes"]["ok"] + row["outcomes"]["expired"] == row["requests"]
    assert all(line["start_s"] is None for line in lines if line["outcome"] == "expired")


FAULTS: list[dict[str, Any]] = [
    {"kind": "crash"}, {"kind": "hang"}, {"kind": "partition"}, {"kind": "slow", "factor": 3.0},
    {"kind": "errors", "rate": 0.3}, {"kind": "lost_completions", "rate": 0.3},
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault["kind"])
def test_faults(fault: dict[str, Any]) -> None:
    tables = {
        **world(
            nodes=2, rate_rps=120.0, prompt_tokens={"dist": "exponential", "mean": 100.0}, output_tokens=20,
            prefix={"groups": 4, "share": 0.5}, run={"run_limit_s": 0.5, "detect_s": 0.1, "attempts_max": 5},
        ),
        "fault": [{"at_s": 1.0, "for_s": 1.0, "node": "n-0", **fault}],
    }  # fmt: skip
    row, lines = run(tables)
    # A run that raises alone has failed alone: some 0.3 of what is there in the second of four.
    assert row["outcomes"]["ok"] > (0.93 if fault["kind"] == "errors" else 0.97) * len(lines)
    again, same = logged(tables, "round_robin")
    assert (again["digest"], same) == (row["digest"], lines)
    there = [line for line in lines if line["node"] == "n-0" and line["outcome"] == "ok"]
    kind = fault["kind"]
    if kind in ("crash", "hang", "partition"):
        assert not [line for line in there if 1.0 + RTT_S < line["end_s"] < 2.0]
        assert not [line for line in there if 1.0 + RTT_S < line["arrival_s"] + line["ttft_s"] < 2.0]
        assert [line for line in there if line["end_s"] > 2.0]
    if kind == "crash":  # and with it the cache: the first of each group there finds nothing
        after = [line["cached_tokens"] for line in there if line["start_s"] > 2.0]
        before = [line["cached_tokens"] for line in there if 0.5 < line["start_s"] < 1.0]
        assert after[0] == 0 and max(after) > 0 and max(before) > 0
    if kind == "slow":
        itl_s = {
            slow: np.mean(
                [
                    (li["end_s"] - li["arrival_s"] - li["ttft_s"]) / 19
                    for li in there
                    if slow == (1.1 < li["start_s"] < 1.8)
                ]
            )
            for slow in (False, True)
        }
        assert itl_s[True] > 2.0 * itl_s[False]


def test_moving_blocks_takes_time() -> None:
    """Steps are the same, as swapping is by far the cheaper way in both; they end later where a block takes longer."""
    ends = []
    for swap_block_s in (1e-9, 2e-4):
        row = {"n_blocks": 24, "host_blocks": 400, "swap_block_s": swap_block_s, "per_prefill_token_s": 0.002}
        figures, lines = run(world(prompt_tokens=60, output_tokens=60, row=row, run={"seconds": 1.0}))
        assert figures["tokens"]["preempted"] > 0
        ends.append(max(line["end_s"] for line in lines))
    assert ends[1] > ends[0]


def test_a_hang_stops_the_step_and_lets_it_go_on() -> None:
    """Nobody gives up so soon: the one request ends a second later than without, its first token came in time."""
    tables = world(rate_rps=0.4, arrivals="regular", prompt_tokens=600, output_tokens=10, run={"run_limit_s": 5.0})
    _, (line,) = run(tables)
    at_s = line["arrival_s"] + line["ttft_s"]  # in the middle of a decoding step
    _, (hung,) = run({**tables, "fault": [{"at_s": at_s, "for_s": 1.0, "kind": "hang", "node": "n"}]})
    assert hung["ttft_s"] - line["ttft_s"] == pytest.approx(0.0, abs=NS)
    assert hung["end_s"] - line["end_s"] == pytest.approx(1.0, abs=NS)


# ---- the same again


@pytest.mark.parametrize("policy", PATHS)
def test_every_policy_is_given_the_same_requests(policy: str) -> None:
    tables = world(
        nodes=3, rate_rps=100.0, prompt_tokens={"dist": "lognormal", "mean": 200.0, "cv": 1.0},
        output_tokens={"dist": "exponential", "mean": 15.0}, prefix={"groups": 20, "share": 0.7, "zipf": 1.0},
        row={"n_blocks": 300, "cv": 0.2}, model={"context_tokens_max": 2000},
    )  # fmt: skip
    row, lines = run(tables, policy, seed=3)
    asked = ("id", "arrival_s", "prompt_tokens", "output_tokens")
    bound, floor = logged(tables, "clairvoyant", seed=3)
    assert [[line[key] for key in asked] for line in lines] == [[line[key] for key in asked] for line in floor]
    assert bound["ttft_s"]["mean"] < row["ttft_s"]["mean"] and bound["cost_usd"] < row["cost_usd"]
    assert bound["prefix_reuse"] is None
    assert simulate(scenario(tables), policy=policy, seed=3)["digest"] == row["digest"]
    assert simulate(scenario(tables), policy=policy, seed=4)["digest"] != row["digest"]


def test_digests_are_those_recorded(request: pytest.FixtureRequest) -> None:
    """Another machine or Python decides the same. A change that is meant: --update-golden, and a look at the diff."""
    tables = world(
        nodes=2, rate_rps=150.0, prompt_tokens={"dist": "lognormal", "mean": 150.0, "cv": 1.0}, deadline_s=2.0,
        output_tokens={"dist": "gamma", "mean": 40.0, "cv": 1.0}, prefix={"groups": 9, "share": 0.6, "zipf": 0.8},
        session={"turns_mean": 2.0, "think_s_mean": 0.2}, model={"context_tokens_max": 1024},
        row={"n_blocks": 70, "host_blocks": 50, "swap_block_s": 1e-5, "cv": 0.1}, run={"attempts_max": 2},
    )  # fmt: skip
    tables = {**tables, "fault": [{"at_s": 1.0, "for_s": 0.5, "kind": "crash", "node": "n-1"}]}
    made = {}
    for policy in policies():
        row = simulate(scenario(tables), policy=policy, seed=7)
        assert row["violations"] == 0
        made[policy] = {"digest": row["digest"], "outcomes": row["outcomes"], "tokens": row["tokens"]}
    assert made["round_robin"]["tokens"]["preempted"] > 0
    if request.config.getoption("--update-golden"):
        DIGESTS.write_text(json.dumps(made, indent=1) + "\n")
    assert made == json.loads(DIGESTS.read_text())


def test_groups_are_as_popular_as_said() -> None:
    """With zipf 1 over 4 groups the first has 12/25: of the prompts that are nothing but their group's, all but the
    first of each find all but their last block."""
    row, lines = run(world(rate_rps=200.0, prompt_tokens=64, prefix={"groups": 4, "share": 1.0, "zipf": 1.0}))
    assert sum(line["cached_tokens"] != 48 for line in lines) <= 4 * 8  # some come while the first is under way
    assert row["prefix_reuse"] == pytest.approx(0.75, abs=0.03)


def test_the_command_line_and_the_report_show_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out, page = tmp_path / "t.toml", tmp_path / "t.json", tmp_path / "t.html"
    file.write_text(toml(world(prefix={"groups": 2, "share": 0.5}, run={"seconds": 0.5})))
    arguments = ["simulate", str(file), "--policy", "round_robin", "clairvoyant", "--capacity", "--json", str(out)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    document = json.loads(out.read_text())
    assert (document["runs"][0]["capacity_load"], document["runs"][1]["capacity_load"]) == (256.0, None)  # no goal: all
    reuse = document["runs"][0]["prefix_reuse"]
    assert 0.3 < reuse < 0.5 and f"{reuse * 100:.1f} %" in shown and "first p50 ms" in shown
    assert main(["report", str(out), "-o", str(page)]) == 0
    text = page.read_text()
    assert "<h2>Tokens</h2>" in text and "First tokens within a time" in text
    del document["runs"][0]["ttft_s"], document["runs"][1]["ttft_curve_s"], document["runs"][0]["itl_s"]
    out.write_text(json.dumps(document))  # as documents were before
    assert main(["report", str(out), "-o", str(page)]) == 0


# ---- another simulator's day


def test_dynamo_mocker() -> None:
    """Dynamo's own simulator says: mean 150.146 ms to the first token, p99 681.06 ms, 0.62225 found in caches."""
    row = simulate(sim.load("dynamo-mocker"), policy="round_robin")
    assert row["requests"] == row["outcomes"]["ok"] == 3000
    assert row["ttft_s"]["mean"] == pytest.approx(0.150146, rel=0.1)
    assert row["ttft_s"]["p99"] == pytest.approx(0.68106, rel=0.15)
    assert row["prefix_reuse"] == pytest.approx(0.62225, rel=0.01)
    assert row["itl_s"]["mean"] == pytest.approx(0.04826, rel=0.02)
    assert row["violations"] == 0
