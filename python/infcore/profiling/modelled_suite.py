"""A bench suite's emulated devices as a scenario of the simulator, and its arrivals as a trace: to serve the same load
live and in simulation.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import infcore
from infcore.errors import InvalidArgument
from infcore.profiling.arrivals import Arrivals
from infcore.profiling.fleet import OpenFleet
from infcore.profiling.suite import DeviceSpec, Suite
from infcore.sim.scenario_schema import Latency, Model, Node, Run, Scenario, Workload

# What an Engine and a Device are told where, as in the harness, nobody says otherwise.
ENGINE_MAX_REQUESTS = 8192
DEVICE_RUN_LIMIT_S = 30.0


@dataclass(frozen=True)
class Overheads:
    """Seconds that a live engine's threads add to a batch: [run]'s keys of the same names in a scenario."""

    handoff_s: float = 0.0
    answer_s: float = 0.0


def emulated_part(suite: Suite) -> Suite:
    """The suite without its real devices, and without the models that no emulated one has a curve for.

    The other models' shares are stretched to add up to 1. Raises InvalidArgument where no device is emulated.
    """
    devices = tuple(device for device in suite.devices if device.emulated)
    if not devices:
        names = ", ".join(device.name for device in suite.devices)
        raise InvalidArgument(f"suite {suite.name!r} must have at least one emulated device, got {names}")
    served = {curve.model for device in devices for curve in device.curves}
    models = [model for model in suite.models if model.name in served]
    total = sum(model.share for model in models)
    stretched = tuple(replace(model, share=model.share / total) for model in models)
    return replace(suite, models=stretched, devices=devices)


def scenario_of(
    fleet: OpenFleet, *, name: str, seconds: float, warmup_s: float = 0.0, overheads: Overheads | None = None
) -> Scenario:
    """What OpenFleet.engine() serves, as a scenario; its arrivals are fed: see write_trace.

    The network is part of a run's curve, and not the node's rtt_s: an emulated device adds rtt_s to base_s before it
    spreads the time, and no routing policy of an engine looks at a node's rtt_s. Raises InvalidArgument for a device
    that is not emulated: what that one takes is not known.
    """
    for device in fleet.devices:
        if not device.emulated:
            raise InvalidArgument(f"device {device.name!r} is of kind {device.kind!r}; allowed: 'emulated'")
    added = overheads or Overheads()
    return Scenario(
        name=name,
        description="A bench suite on emulated devices",
        run=Run(
            seconds=seconds,
            warmup_s=warmup_s,
            max_requests=ENGINE_MAX_REQUESTS,
            run_limit_s=DEVICE_RUN_LIMIT_S,
            handoff_s=added.handoff_s,
            answer_s=added.answer_s,
            curves_known=True,
        ),
        nodes=tuple(_node(device, [model.name for model in fleet.models]) for device in fleet.devices),
        models=tuple(_model(fleet, load.name, load.slo_s) for load in fleet.models),
        latencies=tuple(row for device in fleet.devices for row in _latencies(device)),
        workloads=tuple(
            Workload(load.name, 0.0, arrivals="trace", tier=load.tier, deadline_s=load.deadline_s)
            for load in fleet.models
        ),
    )


def _node(device: DeviceSpec, models: Sequence[str]) -> Node:
    return Node(
        name=device.name,
        group=device.name,
        price_per_hour=device.price_per_hour,
        initial_models=tuple(models),
    )


def _model(fleet: OpenFleet, name: str, slo_s: float) -> Model:
    model = fleet.served[name].model
    return Model(
        name=name,
        slo_s=slo_s,
        max_batch_size=model.max_batch_size,
        idempotent=model.idempotent,
        batch_delay_s=model.max_batch_delay_s,
        length_buckets=model.length_buckets,
        preferred_batch_sizes=model.preferred_batch_sizes,
    )


def _latencies(device: DeviceSpec) -> list[Latency]:
    return [
        Latency(
            model=curve.model,
            node=device.name,
            base_s=curve.base_s + device.rtt_s,
            per_request_s=curve.per_request_s,
            per_work_s=curve.per_work_s,
            per_padded_work_s=curve.per_padded_work_s,
            cv=device.cv,
        )
        for curve in device.curves
    ]


def works(fleet: OpenFleet, arrivals: Arrivals) -> NDArray[np.float64]:
    """(n,) how much work each request is, in the unit of its model's curves."""
    of_example = [
        np.array([fleet.served[load.name].model.work_of(inputs) for inputs in fleet.examples(load.name)])
        for load in fleet.models
    ]
    found = np.empty(len(arrivals), np.float64)
    for index, values in enumerate(of_example):
        mine = arrivals.model == index
        found[mine] = values[arrivals.example[mine]]
    return found


def write_trace(path: Path, fleet: OpenFleet, arrivals: Arrivals) -> None:
    """The arrivals as a trace of the format infcore_requests, a line each: model, tier, work, deadline, time."""
    models: Sequence[Mapping[str, object]] = [
        {"policy": "", "model": load.name, "tier": load.tier, "deadline_s": load.deadline_s} for load in fleet.models
    ]
    columns = (arrivals.model.tolist(), arrivals.times_s.tolist(), works(fleet, arrivals).tolist())
    with path.open("w") as file:
        for model, at_s, work in zip(*columns, strict=True):
            file.write(json.dumps({**models[model], "arrival_s": at_s, "work": work}) + "\n")


def after(first: Arrivals, then: Arrivals) -> Arrivals:
    """Both plans as one, the second from the first's end on: a warm-up and what is measured."""
    return Arrivals(
        np.concatenate([first.times_s, then.times_s + first.seconds]),
        np.concatenate([first.model, then.model]),
        np.concatenate([first.example, then.example]),
        first.seconds + then.seconds,
    )


# ---- what an engine's threads add


def measured_overheads(*, calls: int = 300, service_s: float = 1e-3, pause_s: float = 3e-3) -> Overheads:
    """What a live engine's threads add to a batch on this machine at present: medians over a lone caller's requests.

    The caller pauses before each, so that dispatcher and worker sleep when it comes. The device is emulated and takes
    service_s; handoff_s is from the call until its run begins, answer_s what the run took longer. Wall time: about
    calls * (service_s + pause_s).
    """
    model = infcore.Model("lone", inputs={"x": ("float32", (1,))}, outputs={"y": ("float32", (1,))})
    device = infcore.EmulatedDevice("lone", base_s=service_s)
    inputs = {"x": np.zeros(1, np.float32)}
    with infcore.Engine([device], [model]) as engine:
        for _ in range(calls):
            time.sleep(pause_s)
            engine.submit("lone", inputs).result()
        figures = engine.stats()["devices"]["lone"]
    handoff_s = figures["queue_s"]["p50"] + figures["batch_wait_s"]["p50"]
    return Overheads(handoff_s=handoff_s, answer_s=max(0.0, figures["service_s"]["p50"] - service_s))
