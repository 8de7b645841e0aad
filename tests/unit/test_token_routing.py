"""Who is sent where of token models: prefixes and sessions at submit, in the log, and under load in the simulator."""

import numpy as np
import pytest
from engine_rig import WAIT_S
from sim_rig import logged
from token_device_rig import GatedTokens, emulated, engine_of_tokens, inputs_of, prompt_of, token_model

import infcore
from infcore import InfcoreError, InvalidArgument, InvalidType, sim

CURVE = {"base_s": 0.002, "per_prefill_token_s": 2e-5, "per_decode_s": 1e-4}


def wait(futures):
    for future in futures:
        future.result(timeout_s=WAIT_S)


@pytest.mark.parametrize("given", [False, True])
def test_a_prompt_goes_where_its_beginning_is(given):
    """Two prefixes, each brought to a device of its own, since the first is busy; then whoever asks for them."""
    devices = [emulated(f"d{i}", kind=GatedTokens, n_blocks=2048, max_running=8) for i in range(2)]
    with engine_of_tokens(*devices, models=[token_model(max_new_tokens=2)], policy="slo_cost") as engine:

        def submit(which, rest):
            prompt = np.concatenate([prompt_of(400, which), prompt_of(4, 100 + rest)])
            blocks = infcore.block_hashes(prompt, 4) if given else None
            return engine.submit("t", inputs_of(prompt), blocks=blocks)

        futures = [submit(0, 0), submit(1, 1)]
        for device in devices:
            device.wait_entered()
            device.open()
        wait(futures)
        computed = [sum(step.n_prefill_tokens for step in device.steps) for device in devices]
        assert computed == [404, 404]
        for rest in range(2, 10):
            wait([submit(rest % 2, rest)])
        # Of each of the eight, the last block alone.
        assert [sum(step.n_prefill_tokens for step in device.steps) for device in devices] == [404 + 4 * 4] * 2


def test_the_log_has_prompts_and_sessions(tmp_path):
    log = tmp_path / "engine.log"
    prompt = prompt_of(50)
    with engine_of_tokens(emulated(), policy="slo_cost", log=str(log)) as engine:
        wait([engine.submit("t", inputs_of(prompt)), engine.submit("t", inputs_of(prompt_of(3)), session="ann")])
    assert sim.replay(log).equal
    told = [event.fields for event in sim.events(log) if event.kind == "prompt"]
    assert [each["prompt_tokens"] for each in told] == [50, 3]
    assert told[0]["blocks"] == infcore.block_hashes(prompt, 4).tolist()
    assert told[1]["blocks"] == []
    assert told[0]["session"] == 0 != told[1]["session"]


def test_a_policy_that_reads_no_prompts_is_told_none(tmp_path):
    log = tmp_path / "engine.log"
    with engine_of_tokens(emulated(), policy="round_robin", log=str(log)) as engine:
        wait([engine.submit("t", inputs_of(prompt_of(50)))])
    assert "prompt" not in {event.kind for event in sim.events(log)}


def test_sessions_are_names(tmp_path):
    log = tmp_path / "engine.log"
    names = ["ann", "ann", "bob", "", "a" * 1000, "\udc80", 7, 7, -1, 2**70]
    with engine_of_tokens(emulated(), log=str(log)) as engine:
        wait([engine.submit("t", inputs_of(prompt_of(3)), session=name) for name in names])
    told = [event.fields["session"] for event in sim.events(log) if event.kind == "prompt"]
    assert 0 not in told
    assert [told.index(each) for each in told] == [names.index(name) for name in names]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"session": 1.5}, InvalidType, ["session", "float"]),
        ({"session": True}, InvalidType, ["session", "bool"]),
        ({"blocks": [1, 2]}, InvalidType, ["blocks", "list"]),
        ({"blocks": np.zeros(2, np.int64)}, InvalidArgument, ["blocks", "int64"]),
        ({"blocks": np.zeros((2, 1), np.uint64)}, InvalidArgument, ["blocks", "(2, 1)"]),
        ({"blocks": np.zeros(4, np.uint64)[::2]}, InvalidArgument, ["blocks", "contiguous"]),
        ({"blocks": np.zeros(3, np.uint64)}, InvalidArgument, ["blocks", "3", "at most 2"]),
    ],
)
def test_what_is_refused(options, error, words):
    with engine_of_tokens(emulated()) as engine:
        with pytest.raises(InfcoreError) as caught:
            engine.submit("t", inputs_of(prompt_of(11)), **options)
        assert type(caught.value) is error
        for word in words:
            assert word in str(caught.value)
        assert engine.n_open == 0


# ---- in the simulator


def world(*workloads, nodes=8):
    return {
        "run": {"seconds": 20.0},
        "node": [{"name": "n", "count": nodes, "slots": 64}],
        "model": [{"name": "m", "tokens": True, "slo_ttft_s": 1.0}],
        "token_latency": [{"model": "m", "node": "n", "n_blocks": 2048, "token_budget": 2048, **CURVE}],
        "workload": [
            {"model": "m", "prompt_tokens": 2000, "output_tokens": 20, "prefix": {"share": 0.8, **prefix}, **rest}
            for prefix, rest in workloads
        ],
    }


def test_a_hot_prefix_does_not_overload_its_node():
    """Four of five requests begin alike, and one node could not compute half of what comes behind that."""
    hot = ({"groups": 1}, {"rate_rps": 240.0})
    rest = ({"groups": 40}, {"rate_rps": 60.0})
    figures = {}
    for policy in ("slo_cost", "round_robin"):
        row, lines = logged(world(hot, rest), policy)
        assert (row["lost"], row["duplicated"], row["violations"]) == (0, 0, 0), row["first_violation"]
        counts = np.bincount([int(line["node"].split("-")[1]) for line in lines], minlength=8)
        figures[policy] = row["ttft_s"]["p99"], row["prefix_reuse"], counts.max() / counts.mean()
    assert figures["slo_cost"][2] < 2.0
    assert figures["slo_cost"][0] < 1.2 * figures["round_robin"][0]
    assert figures["slo_cost"][1] > figures["round_robin"][1] - 0.01


def test_prefixes_find_their_nodes():
    """More prefixes than a node has room for, in all as many as the nodes together."""
    others = ["round_robin", "least_outstanding", "power_of_two", "fastest_finish"]
    tables = world(({"groups": 100}, {"rate_rps": 100.0}))
    row = {policy: logged(tables, policy)[0] for policy in ["slo_cost", *others]}
    assert row["slo_cost"]["prefix_reuse"] > 1.2 * max(row[policy]["prefix_reuse"] for policy in others)
    assert row["slo_cost"]["ttft_s"]["p99"] < 0.9 * min(row[policy]["ttft_s"]["p99"] for policy in others)


def test_dynamos_offline_simulation():
    """NVIDIA Dynamo's own kv_router there: p99 225 ms to the first token, .700 of the prompts found."""
    row = sim.simulate(sim.load("dynamo-mocker"), policy="slo_cost")
    assert row["ttft_s"]["p99"] <= 0.180
    assert row["prefix_reuse"] >= 0.72
