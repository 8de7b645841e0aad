"""A recorded day, told again in another way: a live engine's log as a scenario, for other policies and other fleets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infcore.errors import InvalidArgument
from infcore.sim.recording import Recorded, recorded_arrivals
from infcore.sim.scenario_schema import Fault, Latency, Model, Node, Run, Scenario, Workload
from infcore.sim.traces import CHUNK_ROWS, Trace, TraceChunk, open_trace

__all__ = ["RecordedTrace", "choice_regret_s", "is_event_log", "open_arrivals", "recorded_scenario"]

MAGIC = b"infclog"
FORMAT = "infcore_events"


def is_event_log(path: str | os.PathLike[str]) -> bool:
    """Whether the file begins as a live engine's log does; False where it can't be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


class RecordedTrace(Trace):
    """The arrivals of a live engine's log, for simulate(trace=...). About 50 bytes a request stay in memory."""

    def __init__(self, path: str | os.PathLike[str], recorded: Recorded | None = None) -> None:
        super().__init__(str(path), FORMAT, None)
        self.recorded = recorded_arrivals(path) if recorded is None else recorded
        self.models = tuple(dict.fromkeys(model["name"] for model in self.recorded.models))
        if not len(self.recorded.arrivals):
            raise InvalidArgument(f"{path} must hold at least one request, got none")

    def __iter__(self) -> Iterator[TraceChunk]:
        index = np.array([self.models.index(model["name"]) for model in self.recorded.models], np.int32)
        for at in range(0, len(self.recorded.arrivals), CHUNK_ROWS):
            rows = self.recorded.arrivals[at : at + CHUNK_ROWS]
            yield TraceChunk(
                at_s=rows["at_ns"] * 1e-9,
                model=index[rows["model"]],
                work=rows["work"].astype(np.float64),
                output_work=np.zeros(len(rows)),
                tier=rows["tier"].astype(np.int32),
                deadline_s=np.where(rows["deadline_ns"] < 0, np.nan, rows["deadline_ns"] * 1e-9),
                session=np.zeros(len(rows), np.uint64),
                tenant=rows["tenant"].astype(np.uint32),
            )


def open_arrivals(path: str | os.PathLike[str]) -> Trace:
    """A trace of any kind: what open_trace() reads, or a live engine's log. Raises InvalidArgument as these do."""
    return RecordedTrace(path) if is_event_log(path) else open_trace(Path(path))


def recorded_scenario(trace: RecordedTrace, *, slo_s: Mapping[str, float] | None = None) -> Scenario:
    """The recorded fleet, models and curves as a scenario, for simulate(scenario, trace=trace).

    trace    of a live engine's log
    slo_s    model -> goal in seconds; without one a request's goal is its deadline
    Returns  a Scenario. A node's service times are the curves that the engine had learned of it by the end, with their
             spread, and known from the start; a node that was removed is gone from then on, one that was added later is
             there from the start; under residency= memories are empty then. Versions of a model are one model;
             requests that asked for labels may go anywhere.
    Raises   InvalidArgument where nothing was learned of a model that requests were for
    """
    recorded = trace.recorded
    goals = dict(slo_s or {})
    names = [model["name"] for model in recorded.models]
    if unknown := sorted(set(goals) - set(names)):
        raise InvalidArgument(f"slo_s has {unknown[0]!r}; allowed: {', '.join(sorted(set(names)))}")
    latencies = _latencies(recorded, names)
    learned = {row.model for row in latencies}
    for name in trace.models:
        if name not in learned:
            raise InvalidArgument(f"{trace.path} has requests for model {name!r}, which never ran there to its end")
    models = {
        model["name"]: Model(
            name=model["name"],
            slo_s=goals.get(model["name"], 0.0),
            max_batch_size=model["max_batch_size"],
            idempotent=model["idempotent"],
            batch_delay_s=model["batch_delay_ns_max"] * 1e-9,
            length_buckets=tuple(model["length_buckets"]),
            preferred_batch_sizes=tuple(model["preferred_batch_sizes"]),
            weights_bytes=model["weights_bytes"],
            load_s=model["load_s"],
        )
        for model in recorded.models
    }
    residency = recorded.config["residency"] or None
    nodes = [_node(node, latencies, is_filled=residency is None) for node in recorded.nodes]
    last_s = float(recorded.arrivals["at_ns"][-1]) * 1e-9
    return Scenario(
        name=Path(trace.path).name,
        description=f"Recorded by a live engine under {recorded.config['policy']}.",
        run=Run(seconds=last_s + 1e-6, batching=recorded.config["batching"], curves_known=True, residency=residency),
        nodes=tuple(nodes),
        models=tuple(models.values()),
        latencies=tuple(latencies),
        workloads=tuple(_workloads(recorded, names, last_s)),
        faults=tuple(
            Fault(at_s=node["removed_ns"] * 1e-9, kind="crash", node=_name(node))
            for node in recorded.nodes
            if node["removed_ns"] is not None and 0 <= node["removed_ns"] * 1e-9 <= last_s
        ),
    )


def choice_regret_s(recorded: Recorded) -> NDArray[np.float64]:
    """For each batch of recorded.batches: seconds that it ran longer than the same batch is expected to on the node
    that is fastest for it. What a choice of device cost, waiting aside; below 0 where the batch was luckier than that.
    """
    batches = recorded.batches
    best_s = np.full(len(batches), np.inf)
    n = batches["n"].astype(np.float64)
    for (model, _), (base_s, per_request_s, per_work_s, per_padded_s, _, _) in recorded.curves.items():
        mine = batches["model"] == model
        # The largest work of a batch is not recorded: the mean stands for it, so the figure is a lower bound.
        expected_s = base_s + per_request_s * n + (per_work_s + per_padded_s) * batches["work_sum"]
        best_s = np.where(mine, np.minimum(best_s, expected_s), best_s)
    return np.asarray((batches["end_ns"] - batches["start_ns"]) * 1e-9 - best_s, np.float64)


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['name']}-{node['id']}"  # a name may come again after its node was removed


def _latencies(recorded: Recorded, names: list[str]) -> list[Latency]:
    by_id = {node["id"]: node for node in recorded.nodes}
    rows = {}
    for (model, node), (base_s, per_request_s, per_work_s, per_padded_s, spread, _) in recorded.curves.items():
        if node not in by_id:
            continue
        rtt_s = by_id[node]["rtt_s"]  # what was measured has it inside
        rows[names[model], node] = Latency(
            model=names[model],
            node=_name(by_id[node]),
            base_s=max(0.0, base_s - rtt_s),
            per_request_s=per_request_s,
            per_work_s=per_work_s,
            per_padded_work_s=per_padded_s,
            cv=spread,
        )
    return list(rows.values())


def _node(node: Mapping[str, Any], latencies: list[Latency], *, is_filled: bool) -> Node:
    held = tuple(row.model for row in latencies if row.node == _name(node))
    return Node(
        name=_name(node),
        group=_name(node),
        kind=node["kind"],
        location=node["location"],
        zone=node["zone"],
        slots=node["slots"],
        memory_bytes=node["memory_bytes"],
        price_per_hour=node["price_per_hour"],
        rtt_s=node["rtt_s"],
        labels=dict(node["labels"]),
        models=held,
        initial_models=held if is_filled else (),
        loads_beside_runs=False,  # a live device's thread does both
    )


def _workloads(recorded: Recorded, names: list[str], last_s: float) -> Iterator[Workload]:
    """One for each model and tier that was asked for, at the rate at which it came."""
    arrivals = recorded.arrivals
    asked = np.array(names)[arrivals["model"]]
    for name in dict.fromkeys(names):
        of_model = arrivals[asked == name]
        for tier in sorted(set(of_model["tier"].tolist())):
            rate_rps = float((of_model["tier"] == tier).sum()) / max(last_s, 1e-9)
            yield Workload(model=name, rate_rps=rate_rps, arrivals="trace", tier=tier)
