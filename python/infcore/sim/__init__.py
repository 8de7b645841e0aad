"""The simulator: the engine's own state machine under a virtual clock, in a scenario's world."""

from infcore.sim.recording import Event, Recorded, ReplayResult, events, recorded_arrivals, replay
from infcore.sim.scenario import load, parse, scaled, shipped
from infcore.sim.scenario_schema import (
    Antagonist,
    Fault,
    Latency,
    Model,
    Node,
    Prefix,
    RandomFault,
    Run,
    Scenario,
    Session,
    TokenLatency,
    WorkDist,
    Workload,
)
from infcore.sim.simulate import policies, simulate
from infcore.sim.traces import Trace, TraceChunk, open_trace
from infcore.sim.what_if import RecordedTrace, choice_regret_s, open_arrivals, recorded_scenario

__all__ = [
    "Antagonist",
    "Event",
    "Fault",
    "Latency",
    "Model",
    "Node",
    "Prefix",
    "RandomFault",
    "Recorded",
    "RecordedTrace",
    "ReplayResult",
    "Run",
    "Scenario",
    "Session",
    "TokenLatency",
    "Trace",
    "TraceChunk",
    "WorkDist",
    "Workload",
    "choice_regret_s",
    "events",
    "load",
    "open_arrivals",
    "open_trace",
    "parse",
    "policies",
    "recorded_arrivals",
    "recorded_scenario",
    "replay",
    "scaled",
    "shipped",
    "simulate",
]
