"""The harness end to end on a fleet of plain Python threads, with and without planted faults."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from unit.small_fleet import SmallFleet

from infcore.profiling.arrivals import arrivals
from infcore.profiling.bench import Options, run_bench
from infcore.profiling.documents import check
from infcore.profiling.drive import Interrupt, drive
from infcore.profiling.progress import Silent
from infcore.profiling.schema import REQUIRED, REQUIRED_POLICY
from infcore.profiling.suite import Suite, load
from infcore.profiling.tables import device_table, notes, policy_table


def patient_suite(**changes: Any) -> Suite:
    """The smoke suite with goals so wide that a slow machine does not matter."""
    suite = load("smoke")
    models = tuple(replace(model, slo_s=30.0, deadline_s=None) for model in suite.models)
    run = replace(suite.run, warmup_s=0.1, lateness_slo_part=1.0, min_samples=10, probe_s=0.2, **changes)
    return replace(suite, models=models, run=run)


def bench(fleet: SmallFleet, suite: Suite, **options: Any) -> dict[str, Any]:
    options = {"policies": ("round_robin",), "rate_rps": 200.0, "seconds": 0.4, **options}
    return run_bench(suite, fleet, Options(**options), env={}, interrupt=Interrupt(), progress=Silent())


def test_document_has_all_that_the_schema_names() -> None:
    suite = patient_suite()
    document = bench(SmallFleet(suite), suite, policies=("round_robin", "fastest_finish"))
    assert (document["valid"], document["invalid_reasons"]) == (True, [])
    assert [key for key in REQUIRED if key not in document] == []
    for row in document["policies"]:
        assert [key for key in REQUIRED_POLICY if key not in row] == []
        assert set(row["latency_s"]) == {"p50", "p90", "p99", "p999"}
        assert row["outcomes"]["ok"] == row["requests"] == 80
        assert sum(device["requests"] for device in row["devices"]) == 80
        assert [device["emulated"] for device in row["devices"]] == [False, True, True]
        assert row["latency_s"]["p50"] <= row["latency_s"]["p99"] <= row["latency_s"]["p999"]
        assert row["latency_curve_s"]["s"] == sorted(row["latency_curve_s"]["s"])
        assert row["goodput_rps"] == row["throughput_rps"] > 0
        assert {model["name"]: model["requests"] for model in row["models"]} == {"small": 56, "wide": 24}
        assert all(model["wrong"] == 0 for model in row["models"])
        assert sum(model["checked"] for model in row["models"]) > 0
    assert document["policies"][0]["ratio_to_baseline"]["p99"] == 1.0
    assert check(json.loads(json.dumps(document, allow_nan=False)), where="x") == document
    assert isinstance(document["lateness_s"], float)


def test_cost_is_the_price_of_busy_time() -> None:
    suite = patient_suite()
    row = bench(SmallFleet(suite), suite)["policies"][0]
    usd = 0.0
    for device in row["devices"]:
        paid = device["price_per_hour_usd"] / 3600 * device["busy_s"]
        assert device["cost_usd_per_1k"] == pytest.approx(paid / device["requests"] * 1000)
        usd += paid
    assert row["cost_usd_per_1k"] == pytest.approx(usd / row["requests"] * 1000)
    fast = row["devices"][1]
    assert fast["energy_j_per_request"] == pytest.approx(300.0 * fast["busy_s"] / fast["requests"])
    assert row["devices"][0]["energy_j_per_request"] is None


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"numpy": "wrong"}, "wrong answers: "),
        ({"slow": "hang"}, "requests lost: no answer 0.5 s after the load"),
        ({"fast": "error"}, "requests failed, the first with: fast: planted"),
    ],
)
def test_faults_make_the_run_invalid(fault: dict[str, str], reason: str) -> None:
    suite = patient_suite(drain_s=0.5)
    document = bench(SmallFleet(suite, fault), suite)
    assert not document["valid"]
    assert any(reason in line for line in document["invalid_reasons"]), document["invalid_reasons"]


def test_emulated_answers_are_not_checked() -> None:
    suite = patient_suite()
    document = bench(SmallFleet(suite, {"fast": "wrong", "slow": "wrong"}), suite)
    assert document["valid"]


def test_too_few_samples_and_refusals_are_told() -> None:
    suite = patient_suite()
    suite = replace(suite, run=replace(suite.run, min_samples=1000))
    document = bench(SmallFleet(suite), suite, policies=("refuse",))
    assert document["policies"][0]["outcomes"]["rejected"] == 80
    assert document["policies"][0]["within_slo"] == 0.0
    assert document["policies"][0]["latency_s"]["p99"] is None
    assert document["invalid_reasons"] == ["refuse: too few samples: 0 answered, at least 1000 needed"]
    assert device_table(document["policies"][0])
    assert policy_table(document["policies"])


def test_a_late_generator_is_told() -> None:
    suite = patient_suite()
    suite = replace(suite, run=replace(suite.run, lateness_slo_part=1e-12))
    document = bench(SmallFleet(suite), suite)
    assert any("load generator late: p99" in line for line in document["invalid_reasons"])


def test_calibrated_load_is_a_part_of_round_robins_capacity() -> None:
    suite = load("smoke")
    suite = replace(suite, run=replace(suite.run, warmup_s=0.0, probe_s=0.2, min_samples=1, lateness_slo_part=1.0))
    document = bench(SmallFleet(suite), suite, rate_rps=None, load=0.25, capacity=True)
    calibration = document["load_detail"]["calibration"]
    assert calibration["policy"] == "round_robin"
    tried = [probe["rate_rps"] for probe in calibration["probes"] if probe["carried"]]
    assert document["load_detail"]["rate_rps"] == pytest.approx(
        0.25 * max(tried, default=calibration["probes"][-1]["rate_rps"])
    )
    assert document["capacity"]["round_robin"]["capacity_rps"] == document["policies"][0]["capacity_rps"]


def test_policies_see_the_same_arrivals() -> None:
    seen: list[list[Any]] = []

    class Recording(SmallFleet):
        def examples(self, model: str) -> Any:
            made = super().examples(model)
            seen.append([model, *(float(example["x"][0]) for example in made)])
            return made

    suite = patient_suite()
    fleet = Recording(suite)
    first = bench(fleet, suite, policies=("round_robin",), seed=5)
    second = bench(fleet, suite, policies=("fastest_finish",), seed=5)
    for a, b in zip(first["policies"][0]["models"], second["policies"][0]["models"], strict=True):
        assert (a["name"], a["requests"]) == (b["name"], b["requests"])


def test_interrupt_ends_with_the_table_so_far() -> None:
    suite = patient_suite()
    started = time.monotonic()
    threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGINT)).start()
    document = bench(SmallFleet(suite), suite, seconds=60.0, policies=("round_robin", "fastest_finish"))
    assert time.monotonic() - started < 20.0
    assert [row["policy"] for row in document["policies"]] == ["round_robin"]
    assert document["invalid_reasons"][0].startswith("interrupted")
    row = document["policies"][0]
    assert 0 < row["requests"] < 60 * 200
    assert row["outcomes"]["cancelled"] == row["outcomes"]["unanswered"] == 0
    assert notes(document)


def test_the_second_interrupt_is_an_exception() -> None:
    interrupt = Interrupt()
    with interrupt.handled():
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)


def test_interrupted_before_the_first_policy() -> None:
    suite = patient_suite()
    fleet = SmallFleet(suite)
    interrupt = Interrupt()
    interrupt.requested = True
    for rate_rps in (200.0, None):
        document = run_bench(suite, fleet, Options(rate_rps=rate_rps), env={}, interrupt=interrupt, progress=Silent())
        assert document["policies"] == []
        assert [reason.partition(":")[0] for reason in document["invalid_reasons"]] == ["interrupted"]
    assert fleet.opened == []


def test_a_hopeless_probe_stops_early() -> None:
    suite = load("smoke")
    fleet = SmallFleet(suite, {"numpy": "hang", "fast": "hang", "slow": "hang"})
    planned = arrivals(suite, 100.0, 60.0, seed=0, n_examples=4)
    started = time.monotonic()
    with fleet.engine("round_robin") as engine:
        result = drive(engine, fleet, planned, drain_s=0.2, interrupt=Interrupt(), misses_max=3)
    assert result.stopped_early
    assert time.monotonic() - started < 30.0


def test_a_broken_generator_is_an_error_not_a_result() -> None:
    suite = patient_suite()
    fleet = SmallFleet(suite)
    planned = arrivals(suite, 50.0, 0.2, seed=0, n_examples=4)

    class Broken:
        def submit(self, *_: Any, **__: Any) -> Any:
            raise ZeroDivisionError("planted")

        def stats(self) -> dict[str, Any]:
            return {}

    with pytest.raises(ZeroDivisionError, match="planted"):
        drive(Broken(), fleet, planned, drain_s=0.2, interrupt=Interrupt())
