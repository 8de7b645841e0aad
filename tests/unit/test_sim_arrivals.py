"""What arrives in a simulation, from its log: gaps, rates over time, sessions, works."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from sim_rig import Tables, column, logged

Array = np.ndarray[Any, np.dtype[np.float64]]


def arrived(seconds: float = 100.0, rate_rps: float = 1000.0, **workload: Any) -> Tables:
    """Requests that take next to nothing, on a node that is never full."""
    return {
        "run": {"seconds": seconds},
        "node": [{"name": "n", "slots": 16}],
        "model": [{"name": "m"}],
        "latency": [{"model": "m", "node": "n", "base_s": 1e-6}],
        "workload": [{"model": "m", "rate_rps": rate_rps, **workload}],
    }


def times_of(tables: Tables, seed: int = 1) -> Array:
    return column(logged(tables, seed=seed)[1], "arrival_s")


@pytest.mark.parametrize(
    ("workload", "cv"),
    [
        ({}, 1.0),
        ({"arrivals": "regular"}, 0.0),
        *(({"arrivals": "gamma", "arrival_cv": cv}, cv) for cv in (0.3, 1.0, 3.0)),
    ],
)
def test_gaps(workload: dict[str, Any], cv: float) -> None:
    gaps_s = np.diff(times_of(arrived(**workload)))
    # The standard error of a mean of n is cv / sqrt(n); that of gamma's cv about its own times sqrt((2 + 6 cv^2) / 4n).
    n = len(gaps_s)
    assert gaps_s.mean() == pytest.approx(1e-3, rel=4.0 * cv / n**0.5 + 1e-5)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(cv, rel=4.0 * ((2.0 + 6.0 * cv**2) / 4.0 / n) ** 0.5, abs=1e-5)
    assert abs(np.corrcoef(gaps_s[1:], gaps_s[:-1])[0, 1]) < 4.0 / n**0.5 or cv == 0.0


def test_bursts() -> None:
    """On and off in turn; on_factor: the rate while on over the rate while off; rate_rps is the mean of both."""
    tables = arrived(arrivals="onoff", on_s=0.2, off_s=0.8, on_factor=10.0)
    counts, _ = np.histogram(times_of(tables) % 1.0, bins=10, range=(0.0, 1.0))
    assert counts.sum() == pytest.approx(100_000, rel=4.0 / 100_000**0.5)
    off = counts[2:].mean()
    assert off == pytest.approx(10_000 / (0.2 * 10 + 0.8), rel=0.03)
    assert counts[:2].mean() / off == pytest.approx(10.0, rel=0.03)
    assert np.ptp(counts[2:]) < 8.0 * off**0.5


def test_day_and_night() -> None:
    """Over a period the mean is rate_rps, its peak peak_to_mean times that."""
    tables = arrived(arrivals="diurnal", period_s=50.0, peak_to_mean=3.0)
    at = times_of(tables)
    first, second = np.sum(at < 50.0), np.sum(at >= 50.0)
    assert len(at) == pytest.approx(100_000, rel=4.0 / 100_000**0.5)
    assert abs(first - second) < 4.0 * 100_000**0.5
    counts, _ = np.histogram(at % 50.0, bins=50, range=(0.0, 50.0))
    assert counts.max() / counts.mean() == pytest.approx(3.0, rel=0.05)
    assert counts.min() < 0.05 * counts.mean()


def test_flash_sale() -> None:
    """peak_factor times as many from the ramp's end on; outside the sale rate_rps."""
    tables = arrived(arrivals="flash_sale", at_s=40.0, ramp_s=10.0, for_s=20.0, peak_factor=20.0, rate_rps=100.0)
    counts, _ = np.histogram(times_of(tables), bins=10, range=(0.0, 100.0))
    expected = np.array([1, 1, 1, 1, 10.5, 20, 20, 10.5, 1, 1]) * 1000.0
    assert np.all(np.abs(counts - expected) < 4.5 * expected**0.5), counts


def test_between_start_and_end() -> None:
    at = times_of(arrived(start_s=10.0, end_s=30.0))
    assert 10.0 <= at.min() < 10.1 and 29.9 < at.max() < 30.0
    assert len(at) == pytest.approx(20_000, rel=4.0 / 20_000**0.5)


def test_sessions() -> None:
    """A geometric number of turns of the mean asked for, an exponential time to think; rate_rps counts requests."""
    turns_mean, think_s = 4.0, 0.5
    tables = arrived(session={"turns_mean": turns_mean, "think_s_mean": think_s}, seconds=200.0, rate_rps=500.0)
    _, lines = logged(tables, seed=1)
    sessions: dict[int, list[float]] = defaultdict(list)
    for line in lines:
        sessions[line["session"]].append(line["arrival_s"])
    # Of those that began long before the end, so that none is cut off.
    turns = np.array([len(at) for at in sessions.values() if at[0] < 180.0], float)
    n = len(turns)
    assert turns.mean() == pytest.approx(turns_mean, abs=4.0 * (turns_mean * (turns_mean - 1.0) / n) ** 0.5)
    share = np.mean(turns == 1.0)
    assert share == pytest.approx(1.0 / turns_mean, abs=4.0 * (0.25 * 0.75 / n) ** 0.5)
    gaps_s = np.concatenate([np.diff(at) for at in sessions.values() if at[0] < 180.0])
    assert gaps_s.mean() == pytest.approx(think_s, rel=4.0 / len(gaps_s) ** 0.5)
    assert gaps_s.std() == pytest.approx(think_s, rel=0.03)
    steady = column(lines, "arrival_s")
    assert np.sum((steady > 20.0) & (steady < 180.0)) / 160.0 == pytest.approx(500.0, rel=0.03)


@pytest.mark.parametrize(
    ("work", "mean", "cv", "low", "high"),
    [
        (3.0, 3.0, 0.0, 3.0, 3.0),
        ({"dist": "constant", "mean": 64.0}, 64.0, 0.0, 64.0, 64.0),
        ({"dist": "exponential", "mean": 64.0}, 64.0, 1.0, 0.0, np.inf),
        ({"dist": "lognormal", "mean": 64.0, "cv": 1.2}, 64.0, 1.2, 0.0, np.inf),
        ({"dist": "gamma", "mean": 64.0, "cv": 2.0}, 64.0, 2.0, 0.0, np.inf),
        ({"dist": "uniform", "low": 10.0, "high": 40.0}, 25.0, 30.0 / 12**0.5 / 25.0, 10.0, 40.0),
        # Pareto's cv wanders for ever, its tail is so heavy: the mean and the least, alpha = 1 + sqrt(1 + 1 / cv^2).
        ({"dist": "pareto", "mean": 64.0, "cv": 0.5}, 64.0, None, 64.0 * 5**0.5 / (1 + 5**0.5), np.inf),
    ],
)
def test_works(work: Any, mean: float, cv: float | None, low: float, high: float) -> None:
    works = column(logged(arrived(work=work), seed=1)[1], "work")
    spread = 0.5 if cv is None else cv
    assert works.mean() == pytest.approx(mean, rel=4.5 * spread / len(works) ** 0.5 + 1e-12)
    if cv is not None:
        assert works.std() / works.mean() == pytest.approx(cv, rel=0.04, abs=1e-12)
    assert low * (1 - 1e-9) <= works.min() and works.max() <= high
    if cv is None:
        assert works.min() < low * 1.001


def test_works_within_bounds() -> None:
    """min and max: what is drawn beyond is moved there."""
    work = {"dist": "lognormal", "mean": 64.0, "cv": 1.2, "min": 20.0, "max": 100.0}
    works = column(logged(arrived(work=work), seed=1)[1], "work")
    assert (works.min(), works.max()) == (20.0, 100.0)
    assert 0.05 < np.mean(works == 20.0) < 0.4


@pytest.mark.parametrize(
    "workload",
    [
        {"arrivals": "onoff", "on_s": 1e-6, "off_s": 1e-6, "on_factor": 3.0},
        {"arrivals": "diurnal", "period_s": 1e-6, "peak_to_mean": 3.0},
    ],
)
def test_a_shape_far_shorter_than_the_gaps_is_its_mean(workload: dict[str, Any]) -> None:
    """Whole rounds are passed at once: walked through one by one they would take hours."""
    at = times_of(arrived(rate_rps=10.0, seconds=1000.0, **workload))
    assert len(at) == pytest.approx(10_000, rel=4.0 / 10_000**0.5)
    gaps_s = np.diff(at)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(1.0, rel=0.05)
