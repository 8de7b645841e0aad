"""What engine.stats() says of how long models take; and how soon that follows a device that has changed."""

import pytest
from engine_rig import answer, double, engine_of, model, x_of

from infcore import CallableDevice, EmulatedDevice
from infcore._core.latency import LatencyModel


def test_what_is_known_of_each_model_on_each_device():
    told = EmulatedDevice("told", base_s=0.25, models=["m"])
    blank = CallableDevice("blank", double, models=["m", "n"])
    with engine_of(told, blank, models=[model(), model("n")]) as engine:
        answer(engine.submit("n", x_of(1)))
        known = {name: device["latency"] for name, device in engine.stats()["devices"].items()}
    assert known["told"].keys() == {"m"} and known["blank"].keys() == {"m", "n"}
    assert known["told"]["m"] == {
        "known": "expected",
        "batches": 0,
        "mean_s": 0.25,
        "p99_s": pytest.approx(0.25 * 1.233),
        "spread": pytest.approx(0.1),
        "curve": (0.25, 0.0, 0.0, 0.0),
    }
    assert known["blank"]["m"]["known"] == "unknown" and known["blank"]["m"]["mean_s"] == 1e-3
    assert (known["blank"]["n"]["known"], known["blank"]["n"]["batches"]) == ("measured", 1)


def test_versions_are_told_apart():
    device = CallableDevice("a", double)
    with engine_of(device, models=[model(), model(version=2)]) as engine:
        assert engine.stats()["devices"]["a"]["latency"].keys() == {"m:1", "m:2"}


def learned(n=200, service_s=0.01):
    known = LatencyModel()
    for i in range(n):
        known.observe(1, 1.0, 1.0, service_s * (1.0 + 0.02 * (-1) ** i))
    return known


def after(known, service_s, *, within):
    """How many answers of the new time until the prediction is that near to it."""
    for n in range(1, 101):
        known.observe(1, 1.0, 1.0, service_s)
        if abs(known.service_s(1, 1.0, 1.0) / service_s - 1.0) <= within:
            return n
    return None


def test_one_answer_a_thousand_times_too_late_moves_the_mean_and_the_tail_by_next_to_nothing():
    known = learned()
    mean_s, upper_s = known.service_s(1, 1.0, 1.0), known.upper_s(1, 1.0, 1.0)
    known.observe(1, 1.0, 1.0, 10.0)
    assert known.service_s(1, 1.0, 1.0) == pytest.approx(mean_s, rel=0.01)
    assert known.upper_s(1, 1.0, 1.0) < 1.05 * upper_s
    known.observe(1, 1.0, 1.0, 0.01)
    known.observe(1, 1.0, 1.0, 10.0)
    assert known.service_s(1, 1.0, 1.0) == pytest.approx(mean_s, rel=0.01)


@pytest.mark.parametrize("factor", [3.0, 1.0 / 3.0])
def test_a_device_that_became_three_times_as_slow_or_fast_is_followed_within_four_answers(factor):
    assert after(learned(), 0.01 * factor, within=0.1) == 4


@pytest.mark.parametrize("factor", [1.3, 1.0 / 1.3])
def test_a_small_change_is_followed_too(factor):
    assert after(learned(), 0.01 * factor, within=0.05) <= 12
