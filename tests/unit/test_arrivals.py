"""Arrivals: exact means and peaks, the same for the same seed."""

import numpy as np
import pytest

from infcore.errors import InvalidArgument
from infcore.profiling.arrivals import arrivals, burst_windows, model_mix, onoff, poisson, stream
from infcore.profiling.suite import ArrivalSpec, load

BURSTY = ArrivalSpec(process="onoff", peak_to_mean=10.0, on_s=0.02, off_s=0.38)


@pytest.mark.parametrize("make", [poisson, lambda rate, s, rng: onoff(rate, s, BURSTY, rng)], ids=["poisson", "onoff"])
def test_mean_is_exact_and_times_ascend(make) -> None:
    times = make(137.0, 20.0, stream(3))
    assert len(times) == 137 * 20
    assert np.all(np.diff(times) >= 0)
    assert times[0] >= 0.0
    assert times[-1] < 20.0


def test_poisson_gaps_have_the_spread_of_a_poisson_process() -> None:
    gaps = np.diff(poisson(1000.0, 50.0, stream(1)))
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("on_s", "off_s"), [(0.02, 0.38), (0.04, 0.36), (0.1, 1.9)])
def test_bursts_carry_exactly_the_peak_rate(on_s: float, off_s: float) -> None:
    spec = ArrivalSpec("onoff", 10.0, on_s, off_s)
    rate, seconds = 400.0, 20.0
    starts, length = burst_windows(seconds, spec, stream(7))
    times = onoff(rate, seconds, spec, stream(7))
    inside = sum(int(((times >= s) & (times < s + length)).sum()) for s in starts)
    # One request for the rounding of the count, and those that a float's last bit moves over a window's edge.
    assert inside / (length * len(starts)) / rate == pytest.approx(10.0, abs=2.5 / (rate * length * len(starts)))


def test_bursts_at_the_limit_leave_the_quiet_empty() -> None:
    spec = ArrivalSpec("onoff", 10.0, 0.1, 0.9)
    starts, length = burst_windows(10.0, spec, stream(2))
    times = onoff(50.0, 10.0, spec, stream(2))
    assert all(any(s <= t <= s + length for s in starts) for t in times)


def test_windows_do_not_overlap_and_lie_in_the_run() -> None:
    starts, length = burst_windows(3.3, BURSTY, stream(5))
    assert starts[0] >= 0.0
    assert starts[-1] + length <= 3.3 + 1e-12
    assert np.all(np.diff(starts) >= length)


def test_same_seed_same_arrivals_and_other_parts_differ() -> None:
    suite = load("smoke")
    one, two = (arrivals(suite, 300.0, 2.0, seed=11, n_examples=16) for _ in range(2))
    for a, b in ((one.times_s, two.times_s), (one.model, two.model), (one.example, two.example)):
        assert np.array_equal(a, b)
    assert not np.array_equal(one.times_s, arrivals(suite, 300.0, 2.0, seed=12, n_examples=16).times_s)
    assert not np.array_equal(one.times_s, arrivals(suite, 300.0, 2.0, seed=11, n_examples=16, part=1).times_s)


def test_model_mix_has_the_shares_exactly() -> None:
    mix = model_mix(1000, [0.4, 0.2, 0.25, 0.15], stream(0))
    assert np.bincount(mix).tolist() == [400, 200, 250, 150]
    assert np.bincount(model_mix(7, [0.5, 0.5], stream(0))).sum() == 7
    assert not np.array_equal(mix, np.sort(mix))


@pytest.mark.parametrize(
    ("rate", "seconds"), [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, 0.0), (1.0, float("inf"))]
)
def test_bad_numbers_are_refused(rate: float, seconds: float) -> None:
    with pytest.raises(InvalidArgument, match=r"must be a number > 0, got"):
        poisson(rate, seconds, stream(0))
