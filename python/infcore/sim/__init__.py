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
    "WorkDist",
    "Workload",
    "load",
    "parse",
    "scaled",
    "shipped",
]
