"""A bench suite's emulated devices as a scenario: the same curves, limits and arrivals as the live engine is given."""

import inspect
import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import infcore
from infcore.errors import InvalidArgument
from infcore.profiling import modelled_suite, suite
from infcore.profiling.arrivals import Arrivals, arrivals
from infcore.profiling.fleet import OpenFleet, Served, open_fleet
from infcore.profiling.modelled_suite import Overheads, after, emulated_part, scenario_of, write_trace
from infcore.sim.rows import Source, replaying, rows_of
from infcore.sim.simulate import simulate
from infcore.sim.traces import open_trace

BENCH = Path(__file__).parents[2] / "bench" / "replay" / "live_vs_simulated.py"


class Ragged(Served):
    """A model whose requests are of unlike work: the length of a row."""

    def __init__(self, name, lengths):
        self.model = infcore.Model(
            name,
            inputs={"x": ("float32", (None,))},
            outputs={"y": ("float32", (1,))},
            work="x",
            max_batch_size=7,
            max_batch_delay_s=0.003,
            idempotent=False,
        )
        self.inputs = [{"x": np.zeros(length, np.float32)} for length in lengths]

    def check(self, example, outputs):
        return True


@pytest.fixture
def fleet():
    """The two emulated devices of the suite `smoke`; one of its models with works of its own."""
    part = emulated_part(suite.load("smoke"))
    with open_fleet(part, seed=3) as opened:
        yield replace(opened, served={**opened.served, "wide": Ragged("wide", [1, 30, 500])})


def test_only_emulated_devices_and_their_models_are_left():
    whole = suite.load("mixed")
    part = emulated_part(whole)
    assert [device.name for device in part.devices] == ["gpu-a100", "gpu-t4", "gpu-t4-far"]
    assert part.models == whole.models
    assert (part.arrivals, part.run) == (whole.arrivals, whole.run)

    kept = whole.models[0].name
    fewer = replace(
        whole, devices=tuple(replace(d, curves=tuple(c for c in d.curves if c.model == kept)) for d in whole.devices)
    )
    assert [(model.name, model.share) for model in emulated_part(fewer).models] == [(kept, 1.0)]


def test_a_suite_without_emulated_devices_is_refused():
    whole = suite.load("mixed")
    real = replace(whole, devices=tuple(device for device in whole.devices if not device.emulated))
    with pytest.raises(
        InvalidArgument, match=r"'mixed' must have at least one emulated device, got cpu-fp32, cpu-int8"
    ):
        emulated_part(real)
    with pytest.raises(InvalidArgument, match=r"device 'cpu-fp32' is of kind 'onnx'; allowed: 'emulated'"):
        scenario_of(OpenFleet((), real.devices, [], 0, {}), name="x", seconds=1.0)


def test_the_scenario_says_what_the_engine_is_given(fleet):
    scenario = scenario_of(fleet, name="smoke", seconds=2.0, warmup_s=0.5, overheads=Overheads(1e-4, 2e-5))
    run = scenario.run
    assert (run.seconds, run.warmup_s, run.handoff_s, run.answer_s) == (2.0, 0.5, 1e-4, 2e-5)
    told = inspect.signature(infcore.Engine).parameters
    assert run.max_requests == told["max_requests"].default
    assert run.batching == told["batching"].default
    assert run.ageing_s == told["ageing_s"].default
    assert run.curves_known  # an emulated device declares its curve

    for node, spec in zip(scenario.nodes, fleet.devices, strict=True):
        device = fleet._device(spec)
        assert (node.name, node.kind, node.slots) == (device.name, device.kind, device.slots)
        assert node.price_per_hour == device.price_per_hour > 0
        assert run.run_limit_s == device.run_limit_s
        assert node.initial_models == ("small", "wide")
        for model in node.initial_models:
            row = scenario.latency(model, node)
            for shape in ((1, 5.0, 5.0), (7, 600.0, 500.0)):
                live_s = device.rtt_s + device.curve(model).seconds(*shape)
                n, work_sum, work_max = shape
                sim_s = row.base_s + row.per_request_s * n + row.per_work_s * work_sum
                assert sim_s + row.per_padded_work_s * n * work_max == pytest.approx(live_s, rel=1e-12)
            assert row.cv == spec.cv > 0
        assert node.rtt_s == 0.0 < device.rtt_s  # it stands in the curves

    for model, load, workload in zip(scenario.models, fleet.models, scenario.workloads, strict=True):
        given = fleet.served[load.name].model
        assert model.name == workload.model == load.name
        assert (model.max_batch_size, model.batch_delay_s, model.idempotent) == (
            given.max_batch_size,
            given.max_batch_delay_s,
            given.idempotent,
        )
        assert (model.slo_s, workload.tier, workload.deadline_s) == (load.slo_s, load.tier, load.deadline_s)


def test_the_trace_has_the_plans_arrivals(fleet, tmp_path):
    whole = emulated_part(suite.load("smoke"))
    first, then = (arrivals(whole, 400.0, s, seed=5, n_examples=3, part=p) for s, p in ((0.5, 1), (1.5, 0)))
    plan = after(first, then)
    assert plan.seconds == 2.0
    assert np.array_equal(plan.times_s[len(first) :], then.times_s + 0.5)
    assert (np.diff(plan.times_s) >= 0).all()

    path = tmp_path / "arrivals.jsonl"
    write_trace(path, fleet, plan)
    trace = open_trace(path)
    scenario = replaying(scenario_of(fleet, name="smoke", seconds=2.0), trace, 1.0)
    parts = list(rows_of(scenario, [Source(trace, range(2), 1.0)], 0))
    at_ns, workload, work, deadline_ns, tier, *_ = (
        np.concatenate(column) for column in zip(*(part.columns() for part in parts), strict=True)
    )
    assert np.abs(at_ns - (plan.times_s - plan.times_s[0]) * 1e9).max() <= 1.0
    assert np.array_equal(workload, plan.model)
    assert np.array_equal(work, np.where(plan.model == 0, 1.0, np.array([1.0, 30.0, 500.0])[plan.example]))
    assert np.array_equal(tier, np.array([m.tier for m in fleet.models])[plan.model])
    assert np.array_equal(deadline_ns, np.array([round(m.deadline_s * 1e9) for m in fleet.models])[plan.model])


# ---- what the threads add, in the simulator


def served(fleet, tmp_path, times_s, *, policy="round_robin", devices=("slow",), change=lambda scenario: scenario):
    """Ends of `small`'s requests at times_s: (end_s, batch, node) of each, in order of arrival."""
    some = replace(
        fleet, devices=tuple(replace(d, cv=0.0, rtt_s=0.0) for name in devices for d in fleet.devices if d.name == name)
    )
    n = len(times_s)
    plan = Arrivals(np.array(times_s), np.zeros(n, np.int64), np.zeros(n, np.int64), times_s[-1] + 1.0)
    path = tmp_path / "arrivals.jsonl"
    write_trace(path, some, plan)
    scenario = change(scenario_of(some, name="lone", seconds=plan.seconds))
    log = io.BytesIO()
    simulate(scenario, policy=policy, trace=open_trace(path), log=log)
    ended = sorted(map(json.loads, log.getvalue().splitlines()), key=lambda row: row["id"])
    assert [row["outcome"] for row in ended] == ["ok"] * n
    return [(row["end_s"], row["batch"], row["node"]) for row in ended]


def with_times(handoff_s, answer_s):
    return lambda scenario: replace(
        scenario, run=replace(scenario.run, batching="greedy", handoff_s=handoff_s, answer_s=answer_s)
    )


def test_an_idle_node_wakes_up_first_and_its_answer_takes_a_while(fleet, tmp_path):
    one, later = served(fleet, tmp_path, [0.0, 0.05], change=with_times(0.003, 0.0005))
    assert one[1] == later[1] == 1
    assert [one[0], later[0] - 0.05] == pytest.approx([0.003 + 0.0042 + 0.0005] * 2, abs=1e-8)


def test_requests_join_a_batch_until_its_worker_is_awake(fleet, tmp_path):
    one, two, three = served(fleet, tmp_path, [0.0, 0.002, 0.0031], change=with_times(0.003, 0.0))
    assert (one[1], two[1], three[1]) == (2, 2, 1)
    assert one[0] == two[0] == pytest.approx(0.003 + 0.0044, abs=1e-8)
    # The third was waiting when the first run ended: its node was awake.
    assert three[0] == pytest.approx(one[0] + 0.0042, abs=1e-8)


def test_without_those_times_nothing_is_added(fleet, tmp_path):
    ends = served(fleet, tmp_path, [0.0, 0.002], change=with_times(0.0, 0.0))
    assert [end_s for end_s, _, _ in ends] == pytest.approx([0.0042, 0.0084], abs=1e-8)


@pytest.mark.parametrize(("known", "node"), [(True, "fast"), (False, "slow")])
def test_known_curves_choose_from_the_first_request_on(fleet, tmp_path, known, node):
    (_, _, chosen), _ = served(
        fleet,
        tmp_path,
        [0.0, 0.05],
        policy="fastest_finish",
        devices=("slow", "fast"),
        change=lambda scenario: replace(scenario, run=replace(scenario.run, curves_known=known)),
    )
    assert chosen == node  # of nodes that nothing is known of, the first


def test_overheads_are_measured_by_a_lone_caller():
    found = modelled_suite.measured_overheads(calls=5, pause_s=0.0)
    assert all(math.isfinite(s) and s >= 0.0 for s in (found.handoff_s, found.answer_s))


@pytest.mark.skipif(not BENCH.exists(), reason="the benches are not beside these tests")
def test_the_bench_runs(tmp_path):
    """How close both are is the bench's to say: here a busy machine would decide it."""
    command = [sys.executable, BENCH, "--suite", "smoke", "--policy", "fastest_finish", "--part", "0.2"]
    size = ["--seconds", "0.3", "--repetitions", "1", "--draws", "2", "--ordinary", "--json", tmp_path / "rows.json"]
    said = subprocess.run([*command, *size], capture_output=True, text=True, check=True).stdout
    document = json.loads((tmp_path / "rows.json").read_text())
    (row,) = document["rows"]
    assert (row["suite"], row["policy"], row["part"]) == ("smoke", "fastest_finish", 0.2)
    assert row["answered"]["simulated"] == 1.0
    assert row["live"]["p50_s"] >= 0.0015  # the quickest batch there is
    assert " of 1 rows inside" in said
