"""A trace's rows as a scenario's arrivals: which workload each is, how much work, until when."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infcore.errors import InvalidArgument
from infcore.sim.scenario_fleet import SECONDS_MAX
from infcore.sim.scenario_schema import Scenario, Workload
from infcore.sim.traces import Trace, TraceChunk

_NONE_NS = -1
_TIME_MAX_NS = 1 << 62  # a century and a half: no run lasts as long


@dataclass(frozen=True)
class Rows:
    """Arrivals as the simulator takes them; columns of one length, in order of time. deadline_ns < 0: none.

    tenant          a number; 0: the workload's
    prompt, output  tokens of a token model's request; 0: the model makes none
    names           tuples: of the prompt's blocks of 512 tokens
    """

    at_ns: NDArray[np.int64]
    workload: NDArray[np.uint32]
    work: NDArray[np.float64]
    deadline_ns: NDArray[np.int64]
    tier: NDArray[np.uint16]
    tenant: NDArray[np.uint32]
    session: NDArray[np.uint64]
    prompt: NDArray[np.uint32]
    output: NDArray[np.uint32]
    names: NDArray[np.object_]

    def columns(self) -> tuple[NDArray[Any], ...]:
        """In the order of the fields."""
        return tuple(getattr(self, each.name) for each in fields(self))

    def fed(self) -> tuple[NDArray[Any], ...]:
        """As the core is fed: for names how many each row has, and all of them one after another."""
        lengths = np.fromiter((len(names) for names in self.names), np.uint32, len(self))
        flat = np.fromiter(chain.from_iterable(self.names), np.uint64, int(lengths.sum()))
        return (*self.columns()[:-1], lengths, flat)

    def __getitem__(self, part: slice | NDArray[np.int64]) -> "Rows":
        return Rows(*(column[part] for column in self.columns()))

    def __len__(self) -> int:
        return len(self.at_ns)


@dataclass(frozen=True)
class Source:
    """A trace and the workloads that its rows are spread over.

    workloads  indices into the scenario's: of the model that a row names, else of all, by the shares of their rates
    speed      how many times as fast as it was recorded
    """

    trace: Trace
    workloads: Sequence[int]
    speed: float


def length_s(trace: Trace) -> float:
    """Seconds from the trace's first row to its last. Reads it once, in bounded memory."""
    last_s = 0.0
    for chunk in trace:
        last_s = float(chunk.at_s[-1])
    return last_s


def replaying(scenario: Scenario, trace: Trace, load: float) -> Scenario:
    """The scenario with the trace's arrivals instead of its own: for as long as the trace lasts at that speed.

    Raises InvalidArgument where the trace names a model that has no workload, or is over before the warm-up is.
    """
    seconds = length_s(trace) / load
    if seconds > SECONDS_MAX:
        raise InvalidArgument(f"{trace.path} lasts {seconds:g} s at load {load:g}; allowed: at most {SECONDS_MAX:g} s")
    known = {workload.model for workload in scenario.workloads}
    for name in trace.models:
        if name not in known:
            raise InvalidArgument(
                f"{trace.path} has requests for model {name!r}; the workloads of {scenario.name} are for: "
                f"{', '.join(sorted(known))}"
            )
    if seconds < scenario.run.warmup_s:
        raise InvalidArgument(
            f"{trace.path} lasts {seconds:g} s; allowed: longer than {scenario.name}'s warmup_s, "
            f"{scenario.run.warmup_s:g} s"
        )
    workloads = tuple(
        replace(workload, arrivals="trace", file=trace.path, start_s=0.0, end_s=None) for workload in scenario.workloads
    )
    # A microsecond more, so that the last row is inside whatever its rounding.
    return replace(scenario, workloads=workloads, run=replace(scenario.run, seconds=seconds + 1e-6))


def rows_of(scenario: Scenario, sources: Sequence[Source], seed: int) -> Iterator[Rows]:
    """The arrivals of all sources in order of time, in pieces of bounded size, up to the scenario's end."""
    end_ns = round(scenario.run.seconds * 1e9)
    streams = [_converted(scenario, source, np.random.PCG64([seed, i])) for i, source in enumerate(sources)]
    heads: list[Rows | None] = [next(stream, None) for stream in streams]
    while any(head is not None for head in heads):
        # All up to the earliest of the last known times is complete.
        until_ns = min(int(head.at_ns[-1]) for head in heads if head is not None)
        ready: list[Rows] = []
        for i, head in enumerate(heads):
            if head is None:
                continue
            n = int(np.searchsorted(head.at_ns, until_ns, side="right"))
            ready.append(head[:n])
            heads[i] = head[n:] if n < len(head) else next(streams[i], None)
        rows = ready[0] if len(ready) == 1 else _together(ready)
        inside = rows[: int(np.searchsorted(rows.at_ns, end_ns, side="left"))]
        if len(inside):
            yield inside
        if len(inside) < len(rows):
            return


def _together(parts: Sequence[Rows]) -> Rows:
    columns = zip(*(part.columns() for part in parts), strict=True)
    joined = Rows(*(np.concatenate(column) for column in columns))
    return joined[np.argsort(joined.at_ns, kind="stable")]


def _converted(scenario: Scenario, source: Source, bits: np.random.PCG64) -> Iterator[Rows]:
    workloads = [scenario.workloads[i] for i in source.workloads]
    models = {model.name: model for model in scenario.models}
    weights = np.array([models[workload.model].output_weight for workload in workloads])
    contexts = np.array([models[workload.model].context_tokens_max for workload in workloads], np.float64)
    begins_s = np.array([workload.start_s for workload in workloads])
    ends_s = np.array([np.inf if workload.end_s is None else workload.end_s for workload in workloads])
    draw = np.random.Generator(bits)
    for chunk in source.trace:
        chosen = _workloads(chunk, source.trace, workloads, draw)
        rows = _rows(chunk, chosen, workloads, np.array(source.workloads, np.uint32), source.speed)
        rows = replace(rows, work=rows.work + weights[chosen] * chunk.output_work)
        rows = _with_tokens(rows, chunk, workloads, chosen, contexts[chosen])
        at_s = rows.at_ns * 1e-9
        inside = np.flatnonzero((at_s >= begins_s[chosen]) & (at_s < ends_s[chosen]))
        if len(inside):
            yield rows[inside]


def _with_tokens(
    rows: Rows, chunk: TraceChunk, workloads: Sequence[Workload], chosen: NDArray[np.int64], room: NDArray[np.float64]
) -> Rows:
    """Prompts and outputs of token models' requests, cut to the model's context (`room`; 0: the model makes none)."""
    own_prompt = np.array([workload.prompt_tokens.mean for workload in workloads])[chosen]
    own_output = np.array([workload.output_tokens.mean for workload in workloads])[chosen]
    output = np.where(chunk.output_work > 0.0, chunk.output_work, own_output)
    prompt = np.where(chunk.work > 0.0, chunk.work, own_prompt)
    makes = room > 0.0
    output = np.where(makes, np.clip(np.round(output), 1.0, np.maximum(1.0, room - 1.0)), 0.0)
    prompt = np.where(makes, np.clip(np.round(prompt), 1.0, np.maximum(1.0, room - output)), 0.0)
    names = rows.names
    if not makes.all():
        names = np.fromiter((n if m else () for n, m in zip(names, makes, strict=True)), object, len(rows))
    return replace(
        rows,
        work=np.where(makes, prompt + output, rows.work),
        prompt=prompt.astype(np.uint32),
        output=output.astype(np.uint32),
        names=names,
    )


def _workloads(
    chunk: TraceChunk, trace: Trace, workloads: Sequence[Workload], draw: np.random.Generator
) -> NDArray[np.int64]:
    """For each row the place in `workloads` of the one that it belongs to, drawn by the shares of their rates."""
    chosen = np.zeros(len(chunk), np.int64)
    uniform = draw.random(len(chunk))
    for model in np.unique(chunk.model).tolist():
        fit = [i for i, workload in enumerate(workloads) if model < 0 or workload.model == trace.models[model]]
        if not fit:
            raise InvalidArgument(
                f"{trace.path} has requests for model {trace.models[model]!r}; the workload is for: "
                f"{workloads[0].model}"
            )
        rates = np.array([workloads[i].rate_rps for i in fit])
        shares = rates / rates.sum() if rates.sum() > 0 else np.full(len(fit), 1.0 / len(fit))
        mine = chunk.model == model
        chosen[mine] = np.array(fit)[np.minimum(np.searchsorted(np.cumsum(shares), uniform[mine]), len(fit) - 1)]
    return chosen


def _rows(
    chunk: TraceChunk,
    chosen: NDArray[np.int64],
    workloads: Sequence[Workload],
    indices: NDArray[np.uint32],
    speed: float,
) -> Rows:
    """What the trace does not say of a request is the workload's."""
    own_deadline_s = np.array([np.nan if w.deadline_s is None else w.deadline_s for w in workloads])[chosen]
    deadline_s = np.where(np.isnan(chunk.deadline_s), own_deadline_s, chunk.deadline_s)
    own_work = np.array([workload.work.mean for workload in workloads])[chosen]
    own_tier = np.array([workload.tier for workload in workloads])[chosen]
    return Rows(
        at_ns=_ns(chunk.at_s / speed),
        workload=indices[chosen],
        work=np.where(np.isnan(chunk.work), own_work, chunk.work),
        deadline_ns=np.where(np.isnan(deadline_s), _NONE_NS, _ns(np.nan_to_num(deadline_s))),
        tier=np.where(chunk.model < 0, own_tier, np.minimum(chunk.tier, max(w.tier for w in workloads))).astype(
            np.uint16
        ),
        tenant=np.zeros(len(chunk), np.uint32) if chunk.tenant is None else chunk.tenant,
        session=chunk.session,
        prompt=np.zeros(len(chunk), np.uint32),
        output=np.zeros(len(chunk), np.uint32),
        names=np.fromiter(((),) * len(chunk), object, len(chunk)) if chunk.names is None else chunk.names,
    )


def _ns(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """To the nearest nanosecond; what is beyond every run stays beyond."""
    return np.minimum(np.round(seconds * 1e9), float(_TIME_MAX_NS)).astype(np.int64)
