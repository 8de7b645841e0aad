"""The whole of `infcore bench`: calibrate, run each policy on the same arrivals, search capacities, document."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infcore.profiling.calibrate import BASELINE, calibrate, policy_capacity
from infcore.profiling.capacity import Capacity
from infcore.profiling.contract import Fleet
from infcore.profiling.drive import Interrupt
from infcore.profiling.progress import Progress
from infcore.profiling.run import run_policy
from infcore.profiling.schema import document
from infcore.profiling.suite import Suite
from infcore.profiling.summary import summarise

DEFAULT_POLICIES = ("round_robin", "least_outstanding", "fastest_finish", "slo_cost")


@dataclass(frozen=True)
class Options:
    """What the command line asks for. rate_rps overrides load, a part of the baseline's calibrated capacity."""

    policies: Sequence[str] = DEFAULT_POLICIES
    load: float = 0.5
    rate_rps: float | None = None
    seconds: float = 10.0
    capacity: bool = False
    seed: int = 0


@dataclass
class _State:
    rows: list[dict[str, Any]]
    capacities: dict[str, Capacity]
    load: dict[str, Any]


def run_bench(
    suite: Suite,
    fleet: Fleet,
    options: Options,
    *,
    env: Mapping[str, Any],
    interrupt: Interrupt,
    progress: Progress,
    on_policy: Callable[[Mapping[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Run it all and return the JSON document; on_policy sees each policy's row as soon as it is there.

    Ctrl-C ends it with what there is: valid is False then.
    """
    state = _State([], {}, {"load": options.load, "rate_rps": options.rate_rps, "calibration": None})
    try:
        with interrupt.handled():
            done = _run(suite, fleet, options, state, interrupt, progress, on_policy)
    except KeyboardInterrupt:
        done = False
    return document(
        suite,
        fleet,
        state.rows,
        seed=options.seed,
        seconds=options.seconds,
        load=state.load,
        capacities=state.capacities,
        interrupted=not done,
        env=env,
        baseline=BASELINE,
    )


def _run(
    suite: Suite,
    fleet: Fleet,
    options: Options,
    state: _State,
    interrupt: Interrupt,
    progress: Progress,
    on_policy: Callable[[Mapping[str, Any]], None],
) -> bool:
    """All steps in order, results into `state`; False if the user ended it."""
    rate_rps = _rate(suite, fleet, options, state, interrupt, progress)
    if rate_rps is None:
        return False
    for policy in options.policies:
        run = run_policy(
            fleet,
            suite,
            policy,
            rate_rps=rate_rps,
            seconds=options.seconds,
            seed=options.seed,
            interrupt=interrupt,
            progress=progress,
        )
        if run is None:
            return False
        state.rows.append(summarise(fleet, run))
        on_policy(state.rows[-1])
        if run.driven.interrupted:
            return False
    for policy in options.policies if options.capacity else ():
        found = policy_capacity(
            fleet, suite, policy, start_rps=rate_rps, seed=options.seed, interrupt=interrupt, progress=progress
        )
        if found.interrupted:
            return False
        state.capacities[policy] = found
        progress.line(f"{policy}: carries {found.capacity_rps:.0f} req/s with 99 % inside the SLO")
    return True


def _rate(
    suite: Suite, fleet: Fleet, options: Options, state: _State, interrupt: Interrupt, progress: Progress
) -> float | None:
    """The mean load to run at, calibrated unless it was given; None if the user ended it."""
    if options.rate_rps is not None:
        state.load.update(load=None)
        return options.rate_rps
    found = calibrate(fleet, suite, seed=options.seed, interrupt=interrupt, progress=progress)
    state.load["calibration"] = {
        "policy": BASELINE,
        "capacity_rps": found.capacity_rps,
        "probes": [dict(vars(probe)) for probe in found.probes],
    }
    if found.interrupted:
        return None
    # A machine on which even the smallest load is not carried still gets a run, which says so in its figures.
    base_rps = found.capacity_rps or min(probe.rate_rps for probe in found.probes)
    rate_rps = base_rps * options.load
    state.load["rate_rps"] = rate_rps
    progress.line(
        f"{BASELINE} carries {found.capacity_rps:.0f} req/s with 99 % inside the SLO; "
        f"load {options.load:g} of that: {rate_rps:.0f} req/s"
    )
    return rate_rps
