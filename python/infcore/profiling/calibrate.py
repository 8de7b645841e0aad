"""round_robin's own capacity on this machine, so that `--load 0.5` is the same strain everywhere."""

from infcore.profiling.capacity import Capacity, search
from infcore.profiling.contract import Fleet
from infcore.profiling.drive import Interrupt
from infcore.profiling.progress import Progress
from infcore.profiling.suite import Suite

BASELINE = "round_robin"
# Coarse on purpose: the run at half of it is not sensitive to a tenth, and each probe costs a second.
RATIO = 1.12
# --capacity quotes its figure, so it looks closer and longer.
CAPACITY_RATIO, CAPACITY_PROBE_FACTOR = 1.05, 2.5


def calibrate(fleet: Fleet, suite: Suite, *, seed: int, interrupt: Interrupt, progress: Progress) -> Capacity:
    """A quick search of the baseline's capacity, a few seconds."""
    return search(
        fleet,
        suite,
        BASELINE,
        start_rps=suite.run.start_rps,
        probe_s=suite.run.probe_s,
        ratio=RATIO,
        seed=seed,
        interrupt=interrupt,
        progress=progress,
    )


def policy_capacity(
    fleet: Fleet,
    suite: Suite,
    policy: str,
    *,
    start_rps: float,
    seed: int,
    interrupt: Interrupt,
    progress: Progress,
) -> Capacity:
    """A policy's capacity, searched from start_rps with longer probes than calibrate()."""
    return search(
        fleet,
        suite,
        policy,
        start_rps=start_rps,
        probe_s=suite.run.probe_s * CAPACITY_PROBE_FACTOR,
        ratio=CAPACITY_RATIO,
        seed=seed,
        interrupt=interrupt,
        progress=progress,
    )
