"""One policy's run: a fresh engine, warm-up, the load, the answers checked, the devices' own counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infcore.profiling import energy
from infcore.profiling.arrivals import arrivals
from infcore.profiling.capacity import PART_RUN, warm_up
from infcore.profiling.contract import Fleet
from infcore.profiling.drive import Drive, Interrupt, drive
from infcore.profiling.progress import Progress
from infcore.profiling.suite import Suite


@dataclass(frozen=True)
class DeviceUse:
    """What a device did between two looks at its counters."""

    batches: int
    requests: int
    busy_s: float
    energy_j: float | None = None  # of its card, by the card's counter


@dataclass(frozen=True)
class Checked:
    """Answers of one model that were compared with what is right, and how many of them were not."""

    checked: int
    wrong: int


@dataclass(frozen=True)
class PolicyRun:
    """What one policy did with the load."""

    policy: str
    rate_rps: float
    driven: Drive
    devices: Mapping[str, DeviceUse]
    checks: Mapping[str, Checked]


def device_use(stats: Mapping[str, Any], name: str) -> DeviceUse:
    """A device's counters out of engine.stats()."""
    row = stats.get("devices", {}).get(name, {})
    return DeviceUse(int(row.get("batches", 0)), int(row.get("requests", 0)), float(row.get("busy_s", 0.0)))


def run_policy(
    fleet: Fleet,
    suite: Suite,
    policy: str,
    *,
    rate_rps: float,
    seconds: float,
    seed: int,
    interrupt: Interrupt,
    progress: Progress,
) -> PolicyRun | None:
    """Serve the suite's load at a mean of rate_rps for `seconds` under `policy`; None if ended before it began."""
    if interrupt.requested:
        return None
    n_examples = min(len(fleet.examples(model.name)) for model in fleet.models)
    planned = arrivals(suite, rate_rps, seconds, seed=seed, n_examples=n_examples, part=PART_RUN)
    progress.stage(f"{policy}: warm-up")
    with fleet.engine(policy) as engine:
        warm_up(engine, fleet, suite, rate_rps, seed=seed, interrupt=interrupt, progress=progress)
        if interrupt.requested:
            return None
        progress.stage(f"{policy}: {rate_rps:.0f} req/s for {seconds:.0f} s")
        joules_before, before = energy.read_counters(fleet.devices), engine.stats()
        driven = drive(
            engine,
            fleet,
            planned,
            drain_s=suite.run.drain_s,
            interrupt=interrupt,
            keep_each=suite.run.check_samples,
            on_tick=progress.advance,
        )
        after, joules_after = engine.stats(), energy.read_counters(fleet.devices)
    joules = energy.between(joules_before, joules_after)
    uses = {}
    for device in fleet.devices:
        then, now = device_use(before, device.name), device_use(after, device.name)
        uses[device.name] = DeviceUse(
            now.batches - then.batches, now.requests - then.requests, now.busy_s - then.busy_s, joules.get(device.name)
        )
    return PolicyRun(policy, rate_rps, driven, uses, check_answers(fleet, driven))


def check_answers(fleet: Fleet, driven: Drive) -> dict[str, Checked]:
    """Compare the kept answers, after the load is over, with what is right. Emulated devices compute none."""
    counts = {model.name: [0, 0] for model in fleet.models}
    for kept in driven.collector.kept:
        name = fleet.models[kept.model].name
        counts[name][0] += 1
        counts[name][1] += not fleet.check(name, kept.example, kept.outputs)
    return {name: Checked(checked, wrong) for name, (checked, wrong) in counts.items()}
