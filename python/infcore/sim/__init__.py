"""The simulator: the engine's own state machine under a virtual clock, in a scenario's world."""

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
from infcore.sim.simulate import policies, simulate
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
    "policies",
    "scaled",
    "shipped",
    "simulate",
]
