"""Event logs of live engines: read, replayed, and as the arrays that a simulation of the same day starts from.

infcore.Engine(..., log=path) writes one. Its format is in csrc/infcore/engine/event_format.hpp.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from infcore import _checks
from infcore._core.replay import Events as _Events
from infcore._core.replay import Replay as _Replay

__all__ = ["Event", "Recorded", "ReplayResult", "events", "recorded_arrivals", "replay"]

Path = str | os.PathLike[str]
Curve = tuple[float, float, float, float, float, int]


class Event(NamedTuple):
    """One record of a log: something the engine was told, or (is_action) something it decided."""

    kind: str
    at_ns: int  # on the engine's clock
    is_action: bool
    fields: dict[str, Any]  # requests are numbered from 1 as they arrive; nodes and models by the fleet's ids


class ReplayResult(NamedTuple):
    """What came of telling a log to a state machine again."""

    digest: int  # of what was decided now, with its times
    recorded_digest: int  # of what the log says was decided
    equal: bool
    n_events: int
    n_requests: int
    n_actions: int
    first_difference: dict[str, Any] | None  # byte, record, at_ns, recorded, replayed
    complete: bool  # False: the log ended early, and `partial` allowed it


class Recorded(NamedTuple):
    """A recorded day, for simulations of it. Times in seconds from the first arrival; places are indices into lists."""

    arrivals: npt.NDArray[np.void]  # at_ns from the first one, model, work, tier, deadline_ns after it or -1, require
    batches: npt.NDArray[
        np.void
    ]  # those that ran to their end: model, node, n, work_sum, work_max, start_ns, end_ns, ok
    models: list[dict[str, Any]]  # as infcore.Model has it, batch_delay_ns_max for its delay
    nodes: list[dict[str, Any]]  # id, added_ns, removed_ns or None, run_limit_ns, and Fleet.add's arguments
    labels: list[tuple[str, str]]  # of each bit of `require`
    curves: dict[
        tuple[int, int], Curve
    ]  # (model, node) -> base_s, per_request_s, per_work_s, per_padded_work_s, spread, n
    config: dict[str, Any]  # policy, batching, seed, bounds
    start_ns: int  # the first arrival on the engine's clock


def replay(path: Path, *, partial: bool = False) -> ReplayResult:
    """Tell a log to a state machine built as the recorded one was, and compare every decision.

    partial  take a log that ends early, a crashed engine's, up to its last whole block
    Raises   InvalidArgument naming file, byte, record and field: no log, damaged, cut off, of another version
    Costs    about as much as the engine's own decisions did; memory as the engine's, whatever the log's length
    """
    found = _Replay(_checks.path("path", path), _checks.flag("partial", partial), False).result()
    return ReplayResult(
        digest=found["digest"],
        recorded_digest=found["recorded_digest"],
        equal=found["digest"] == found["recorded_digest"] and found["first_difference"] is None,
        n_events=found["n_events"],
        n_requests=found["n_requests"],
        n_actions=found["n_actions"],
        first_difference=found["first_difference"],
        complete=found["complete"],
    )


def events(path: Path, *, partial: bool = False) -> Iterator[Event]:
    """The records of a log in order, one at a time. Arguments and errors as replay's, the latter when they are met."""
    return map(Event._make, _Events(_checks.path("path", path), _checks.flag("partial", partial)))


def recorded_arrivals(path: Path, *, partial: bool = False) -> Recorded:
    """What came in, on which devices it ran and how long they took, from a replay of the log.

    Returns  Recorded; arrivals in order of their time. curves are what the latency models had learned by the end, or
             when the device went: every (model, node) that was given a curve or ran something
    Raises   as replay()
    Costs    as replay(), and about 100 bytes a request
    """
    log = _Replay(_checks.path("path", path), _checks.flag("partial", partial), True)
    raw = log.arrivals()
    raw = raw[np.argsort(raw["arrival_ns"], kind="stable")]
    start_ns = int(raw["arrival_ns"][0]) if len(raw) else 0
    arrivals = np.empty(
        len(raw),
        [("at_ns", "i8"), ("model", "u4"), ("work", "f8"), ("tier", "u2"), ("deadline_ns", "i8"), ("require", "u8")],
    )
    arrivals["at_ns"] = raw["arrival_ns"] - start_ns
    arrivals["deadline_ns"] = np.where(raw["deadline_ns"] < 0, -1, raw["deadline_ns"] - raw["arrival_ns"])
    for name in ("model", "work", "tier", "require"):
        arrivals[name] = raw[name]
    batches = log.batches()
    for name in ("start_ns", "end_ns"):
        batches[name] -= start_ns
    nodes = log.nodes()
    for node in nodes:
        node["added_ns"] -= start_ns
        node["removed_ns"] = None if node["removed_ns"] is None else node["removed_ns"] - start_ns
    return Recorded(
        arrivals=arrivals,
        batches=batches,
        models=log.models(),
        nodes=nodes,
        labels=log.labels(),
        curves={(model, node): tuple(figures) for model, node, *figures in log.curves()},  # type: ignore[misc]
        config=log.config(),
        start_ns=start_ns,
    )
