"""When requests arrive and for which model: seeded, and the same for every policy that is compared.

The count is fixed to rate * seconds and the times are drawn from the process given that count (order statistics of
uniform draws: Lewis and Shedler 1979 for the inhomogeneous case), so the mean is exact, and so is the share of bursts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infcore.errors import InvalidArgument
from infcore.profiling.suite import ArrivalSpec, Suite

Times = NDArray[np.float64]

# Streams of one seed that must not share draws.
_STREAM_TIMES, _STREAM_MODELS, _STREAM_EXAMPLES = 1, 2, 3


@dataclass(frozen=True)
class Arrivals:
    """The requests of one run: (n,) each, seconds from the start, ascending; the model's index; the example's."""

    times_s: Times
    model: NDArray[np.int64]
    example: NDArray[np.int64]
    seconds: float

    def __len__(self) -> int:
        return len(self.times_s)


def stream(seed: int, *keys: int) -> np.random.Generator:
    """The random stream of `seed` for one purpose: same keys, same numbers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *keys])))


def count(rate_rps: float, seconds: float) -> int:
    """Requests in a run: rate times seconds, rounded, at least 1."""
    if not (rate_rps > 0 and np.isfinite(rate_rps)):
        raise InvalidArgument(f"rate_rps must be a number > 0, got {rate_rps!r}")
    if not (seconds > 0 and np.isfinite(seconds)):
        raise InvalidArgument(f"seconds must be a number > 0, got {seconds!r}")
    return max(1, round(rate_rps * seconds))


def poisson(rate_rps: float, seconds: float, rng: np.random.Generator) -> Times:
    """A Poisson process given its count: (round(rate_rps * seconds),) float64 seconds in [0, seconds), ascending."""
    return np.sort(rng.random(count(rate_rps, seconds)) * seconds)


def burst_windows(seconds: float, spec: ArrivalSpec, rng: np.random.Generator) -> tuple[Times, float]:
    """Starts of the bursts (one in each cycle, at a random place in it) and their length; only whole cycles."""
    cycles = max(1, round(seconds / (spec.on_s + spec.off_s)))
    cycle_s = seconds / cycles
    on_s = cycle_s * spec.on_s / (spec.on_s + spec.off_s)
    return np.arange(cycles) * cycle_s + rng.random(cycles) * (cycle_s - on_s), on_s


def onoff(rate_rps: float, seconds: float, spec: ArrivalSpec, rng: np.random.Generator) -> Times:
    """Bursts at peak_to_mean times the mean rate, the rest of the requests evenly between them.

    Returns (round(rate_rps * seconds),) float64 seconds in [0, seconds), ascending.
    The rate inside bursts is peak_to_mean * rate_rps up to one request in all.
    """
    total = count(rate_rps, seconds)
    starts, on_s = burst_windows(seconds, spec, rng)
    on_total_s = on_s * len(starts)
    n_on = min(total, round(total * spec.peak_to_mean * on_total_s / seconds))
    in_bursts = rng.random(n_on) * on_total_s
    window = np.minimum((in_bursts / on_s).astype(np.int64), len(starts) - 1)
    times_on = starts[window] + (in_bursts - window * on_s)
    # Quiet time, laid end to end; each draw is moved past the bursts that lie before it.
    quiet = np.sort(rng.random(total - n_on) * (seconds - on_total_s))
    quiet_before = starts - np.arange(len(starts)) * on_s
    times_off = quiet + np.searchsorted(quiet_before, quiet, side="right") * on_s
    return np.sort(np.minimum(np.concatenate([times_on, times_off]), np.nextafter(seconds, 0.0)))


def model_mix(n_requests: int, shares: Sequence[float], rng: np.random.Generator) -> NDArray[np.int64]:
    """Which model each request is for: (n,) indices in random order, counts exact by largest remainder."""
    exact = np.asarray(shares, dtype=np.float64) / np.sum(shares) * n_requests
    counts = np.floor(exact).astype(np.int64)
    short = n_requests - int(counts.sum())
    counts[np.argsort(-(exact - counts), kind="stable")[:short]] += 1
    return rng.permutation(np.repeat(np.arange(len(counts)), counts))


def arrivals(suite: Suite, rate_rps: float, seconds: float, *, seed: int, n_examples: int, part: int = 0) -> Arrivals:
    """The requests of one run of `suite` at a mean of rate_rps; `part` separates warm-up, probes and the run itself."""
    rng = stream(seed, part, _STREAM_TIMES)
    bursty = suite.arrivals.process == "onoff"
    times = onoff(rate_rps, seconds, suite.arrivals, rng) if bursty else poisson(rate_rps, seconds, rng)
    models = model_mix(len(times), [model.share for model in suite.models], stream(seed, part, _STREAM_MODELS))
    examples = stream(seed, part, _STREAM_EXAMPLES).integers(0, n_examples, len(times))
    return Arrivals(times, models, examples, seconds)
