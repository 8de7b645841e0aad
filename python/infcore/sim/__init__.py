"""Scenarios and traces of the simulator, which runs the engine's own state machine under a virtual clock."""

from infcore.sim.scenario import load, parse, scaled, shipped
from infcore.sim.scenario_schema import (
    Antagonist,
    Fault,
    Latency,
    Model,
    Node,
    RandomFault,
    Run,
    Scenario,
    Session,
    WorkDist,
    Workload,
)
from infcore.sim.traces import Trace, TraceChunk, open_trace

__all__ = [
    "Antagonist",
    "Fault",
    "Latency",
    "Model",
    "Node",
    "RandomFault",
    "Run",
    "Scenario",
    "Session",
    "Trace",
    "TraceChunk",
    "WorkDist",
    "Workload",
    "load",
    "open_trace",
    "parse",
    "scaled",
    "shipped",
]
