"""The highest load that a policy still carries: doubling until it fails, then halving the gap on a log scale."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from infcore.errors import InvalidArgument
from infcore.profiling.arrivals import arrivals, count
from infcore.profiling.contract import Engine, Fleet
from infcore.profiling.drive import Drive, Interrupt, drive
from infcore.profiling.progress import Progress
from infcore.profiling.suite import Suite

# The part of all requests that must be answered inside the SLO for a load to count as carried.
WITHIN_SLO_MIN = 0.99
# A search ends outside this range: below, nothing can be carried; above, the load generator is what is measured.
RATE_RPS_MIN, RATE_RPS_MAX = 0.5, 200_000.0
# Fewer requests than this say little about 99 %: the probe is lengthened, to three times its length at most.
PROBE_REQUESTS_MIN, PROBE_STRETCH_MAX = 200, 3.0
# Numbers of the seed's parts, so that probes, warm-up and run have different arrivals (and all policies the same).
PART_RUN, PART_WARMUP, PART_PROBE = 0, 1, 2


@dataclass(frozen=True)
class Probe:
    """One load that was tried."""

    rate_rps: float
    within_slo: float
    lateness_p99_s: float
    carried: bool


@dataclass
class Capacity:
    """The result of a search: the highest load carried (0 if none was) and every load tried."""

    capacity_rps: float = 0.0
    probes: list[Probe] = field(default_factory=list)
    interrupted: bool = False


class StoppedByUser(Exception):
    """The user ended the run during a probe."""


def highest_load(
    probe: Callable[[float], Probe],
    start_rps: float,
    *,
    ratio: float,
    least: float = RATE_RPS_MIN,
    most: float = RATE_RPS_MAX,
) -> Capacity:
    """The highest rate at which probe(rate).carried, to within a factor of `ratio`; searched from `least` to `most`.

    About log2(capacity / start_rps) + 3 probes: doubling (or halving) to a bracket, then bisecting its logarithm.
    Assumes that what is carried at a rate is carried at each lower one. Raises InvalidArgument if ratio <= 1.
    """
    if not ratio > 1.0:
        raise InvalidArgument(f"ratio must be > 1, got {ratio!r}")
    found = Capacity()
    low, high = 0.0, math.inf
    rate = start_rps
    try:
        while least <= rate <= most and (low == 0.0 or high / low > ratio):
            tried = probe(rate)
            found.probes.append(tried)
            if tried.carried:
                low = rate
            else:
                high = rate
            rate = low * 2.0 if high == math.inf else high / 2.0 if low == 0.0 else math.sqrt(low * high)
    except StoppedByUser:
        found.interrupted = True
    found.capacity_rps = low
    return found


def probe_engine(
    engine: Engine, fleet: Fleet, suite: Suite, rate_rps: float, *, probe_s: float, seed: int, interrupt: Interrupt
) -> Probe:
    """Try one load, and once more with other arrivals if it fails: one hiccup of the machine fails a short probe."""
    best: Probe | None = None
    for part in (PART_PROBE, PART_PROBE + 1):
        seconds = min(max(probe_s, PROBE_REQUESTS_MIN / rate_rps), PROBE_STRETCH_MAX * probe_s)
        planned = arrivals(suite, rate_rps, seconds, seed=seed, n_examples=_n_examples(fleet), part=part)
        misses_max = int((1.0 - WITHIN_SLO_MIN) * count(rate_rps, seconds))
        result = drive(engine, fleet, planned, drain_s=suite.run.drain_s, interrupt=interrupt, misses_max=misses_max)
        if result.interrupted:
            raise StoppedByUser
        tried = _judged(result, rate_rps, suite.lateness_limit_s)
        best = tried if best is None or tried.within_slo > best.within_slo else best
        if best.carried:
            break
    assert best is not None
    return best


def _judged(result: Drive, rate_rps: float, lateness_limit_s: float) -> Probe:
    within = float(result.collector.within_slo().mean())
    late_s = float(_p99(result))
    return Probe(
        rate_rps, within, late_s, not result.stopped_early and within >= WITHIN_SLO_MIN and late_s <= lateness_limit_s
    )


def _p99(result: Drive) -> float:
    late = sorted(result.late_s.tolist())
    return late[min(len(late) - 1, int(0.99 * len(late)))] if late else 0.0


def _n_examples(fleet: Fleet) -> int:
    return min(len(fleet.examples(model.name)) for model in fleet.models)


def search(
    fleet: Fleet,
    suite: Suite,
    policy: str,
    *,
    start_rps: float,
    probe_s: float,
    ratio: float,
    seed: int,
    interrupt: Interrupt,
    progress: Progress,
) -> Capacity:
    """One policy's capacity on one engine, warmed up at start_rps: the highest mean load with 99 % inside the SLO."""
    if interrupt.requested:
        return Capacity(interrupted=True)
    progress.stage(f"{policy}: warm-up")
    with fleet.engine(policy) as engine:
        warm_up(engine, fleet, suite, start_rps, seed=seed, interrupt=interrupt, progress=progress)
        if interrupt.requested:
            return Capacity(interrupted=True)

        def probe(rate_rps: float) -> Probe:
            progress.stage(f"{policy}: does it carry {rate_rps:.0f} req/s?")
            return probe_engine(engine, fleet, suite, rate_rps, probe_s=probe_s, seed=seed, interrupt=interrupt)

        return highest_load(probe, start_rps, ratio=ratio)


def warm_up(
    engine: Engine, fleet: Fleet, suite: Suite, rate_rps: float, *, seed: int, interrupt: Interrupt, progress: Progress
) -> None:
    """Send the suite's load for warmup_s: sessions allocate, latency models learn; nothing is counted."""
    if suite.run.warmup_s > 0:
        planned = arrivals(
            suite, rate_rps, suite.run.warmup_s, seed=seed, n_examples=_n_examples(fleet), part=PART_WARMUP
        )
        drive(engine, fleet, planned, drain_s=suite.run.drain_s, interrupt=interrupt, on_tick=progress.advance)
