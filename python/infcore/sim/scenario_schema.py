"""What a scenario holds: nodes, models, latency curves, workloads and faults, as plain frozen data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ArrivalKind = Literal[
    "poisson", "gamma", "onoff", "diurnal", "weekly", "flash_sale", "follow_the_sun", "regular", "trace"
]
WorkKind = Literal["constant", "lognormal", "exponential", "uniform", "gamma", "pareto"]
FaultKind = Literal["crash", "slow", "hang", "errors", "lost_completions", "partition", "freeze_signals"]
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """How long, and what the engine is told.

    seconds, warmup_s  arrivals come in [0, seconds); the figures leave out those before warmup_s
    batching           a batching policy of the engine
    max_requests       accepted and not yet ended, at most
    ageing_s           after how long a waiting request counts one tier more urgent; None: never
    attempts_max       how often a request is run before it fails
    run_limit_s        a run longer than that marks its node lost; None: chosen by the simulator
    detect_s           how long until a node that cannot be reached is taken for lost
    probe_s            a lost node that is alive again is back at the next multiple of it
    signal_period_s    nodes report that often; 0: never. signal_delay_s: how old a report is when it comes in;
                       signal_loss: the share of reports that does not
    handoff_s          of a live engine's threads: from the call of an idle node until its worker is awake and has the
                       batch, which others may join meanwhile; a node whose run has just ended takes its next at once
    answer_s           likewise, from a run's end until the engine knows its answer; the node is not free before
    curves_known       True: the engine is told each latency curve at the start, as by devices that declare theirs;
                       False: it learns them
    """

    seconds: float
    warmup_s: float = 0.0
    batching: str = "dynamic"
    max_requests: int = 65536
    ageing_s: float | None = None
    attempts_max: int = 3
    run_limit_s: float | None = None
    detect_s: float = 1.0
    probe_s: float = 1.0
    signal_period_s: float = 0.0
    signal_delay_s: float = 0.0
    signal_loss: float = 0.0
    handoff_s: float = 0.0
    answer_s: float = 0.0
    curves_known: bool = False


@dataclass(frozen=True)
class Node:
    """One node. US dollars an hour; rtt_s to it and back; memory_bytes 0: not bounded.

    group           the name of its [[node]] table: of `count = 4` the nodes a100-0 .. a100-3 have group a100
    models          names of those it may run; None: each that has a latency row for it
    initial_models  names of those that are loaded at the start, in the file's order
    """

    name: str
    group: str
    kind: str = "gpu"
    location: str = "cloud"
    zone: str = ""
    slots: int = 1
    memory_bytes: int = 0
    price_per_hour: float = 0.0
    rtt_s: float = 0.0
    labels: Labels = field(default_factory=dict)
    models: tuple[str, ...] | None = None
    initial_models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """One model.

    slo_s          the goal of its answers; 0: none
    load_s         to bring its weights onto a node
    warmup_s       how much longer its first batch there takes
    batch_delay_s  how long a batch may wait for company
    length_buckets, preferred_batch_sizes  as infcore.Model has them
    output_weight  of a recorded request, the work that one unit of its output (a generated token) adds
    """

    name: str
    slo_s: float = 0.0
    max_batch_size: int = 64
    weights_bytes: int = 0
    load_s: float = 0.0
    warmup_s: float = 0.0
    idempotent: bool = True
    batch_delay_s: float = 0.002
    length_buckets: tuple[float, ...] = ()
    preferred_batch_sizes: tuple[int, ...] = ()
    output_weight: float = 0.0


@dataclass(frozen=True)
class Latency:
    """Seconds of a batch of n requests with works w of a model on a node, or on every node of a group:
    (base_s + per_request_s*n + per_work_s*sum(w) + per_padded_work_s*n*max(w)) * lognormal(mean 1, cv)."""

    model: str
    node: str
    base_s: float = 0.0
    per_request_s: float = 0.0
    per_work_s: float = 0.0
    per_padded_work_s: float = 0.0
    cv: float = 0.0


@dataclass(frozen=True)
class WorkDist:
    """How much work a request is. cv: standard deviation over mean (lognormal, gamma, pareto); uniform: in [low, high],
    with its mean; min, max: a draw outside is set to the bound (None: no bound)."""

    dist: WorkKind = "constant"
    mean: float = 1.0
    cv: float = 0.0
    low: float = 0.0
    high: float = 0.0
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True)
class Session:
    """Requests of one user: a geometric number of turns, and an exponential time from one question to the next,
    whenever its answer comes, so that every policy is given the same requests. Both by their means."""

    turns_mean: float
    think_s_mean: float


@dataclass(frozen=True)
class Workload:
    """Requests for one model.

    rate_rps     the mean rate; of "flash_sale" the rate outside the sale; of "trace" 0
    arrivals     "poisson" | "regular" | "gamma": gaps with arrival_cv
                 "onoff": bursts of mean length on_s, off_s apart; on_factor: rate while on over the rate while off
                 "diurnal", "follow_the_sun": period_s, peak_to_mean, phase_s
                 "weekly": a day's shape by peak_to_mean, times weekend_factor on days 6 and 7
                 "flash_sale": from at_s the rate rises for ramp_s to peak_factor times, stays for_s, falls for ramp_s
                 "trace": the rows of `file` (a path), rate_factor times as fast
    work         of a request; a trace's own rows come first
    tenant       whose they are; "": nobody's in particular
    deadline_s   after arrival; None: none
    start_s      arrivals come in [start_s, end_s) alone; end_s None: to the end
    require      labels that a node must have
    session      requests of users; then sessions arrive by the process, at rate_rps / turns_mean
    """

    model: str
    rate_rps: float
    arrivals: ArrivalKind = "poisson"
    work: WorkDist = field(default_factory=WorkDist)
    tier: int = 0
    tenant: str = ""
    deadline_s: float | None = None
    phase_s: float = 0.0
    start_s: float = 0.0
    end_s: float | None = None
    require: Labels = field(default_factory=dict)
    session: Session | None = None
    arrival_cv: float = 1.0
    on_s: float = 0.0
    off_s: float = 0.0
    on_factor: float = 1.0
    period_s: float = 86400.0
    peak_to_mean: float = 1.0
    weekend_factor: float = 1.0
    at_s: float = 0.0
    ramp_s: float = 0.0
    for_s: float = 0.0
    peak_factor: float = 1.0
    file: str = ""
    rate_factor: float = 1.0


@dataclass(frozen=True)
class Fault:
    """Something that happens at a time to a node, a group of nodes, or a whole zone (one of `node` and `zone` is "").

    for_s 0: to the end. factor: of "slow", how many times as long the runs that begin meanwhile take; rate: of "errors"
    and "lost_completions", the share of the batches that begin meanwhile. What runs when a "hang" begins goes on at its
    end.
    """

    at_s: float
    kind: FaultKind
    node: str = ""
    zone: str = ""
    for_s: float = 0.0
    factor: float = 1.0
    rate: float = 0.0


@dataclass(frozen=True)
class RandomFault:
    """Faults at random, on each node by itself: exponential gaps by the rate per node and hour, exponential lengths of
    mean for_s. node and zone narrow down where; both "": everywhere."""

    kind: FaultKind
    rate_per_node_hour: float
    for_s: float
    node: str = ""
    zone: str = ""
    factor: float = 1.0
    rate: float = 0.0


@dataclass(frozen=True)
class Antagonist:
    """Neighbours on a node's machine: while one is on, service takes `factor` times as long. On and off in turn, of
    exponential length with means on_s and off_s, on each node by itself."""

    node: str
    factor: float
    on_s: float
    off_s: float


@dataclass(frozen=True)
class Scenario:
    """A whole scenario. Nodes are expanded; names inside it are known to exist."""

    name: str
    description: str
    run: Run
    nodes: tuple[Node, ...]
    models: tuple[Model, ...]
    latencies: tuple[Latency, ...]
    workloads: tuple[Workload, ...]
    faults: tuple[Fault, ...] = ()
    random_faults: tuple[RandomFault, ...] = ()
    antagonists: tuple[Antagonist, ...] = ()

    def latency(self, model: str, node: Node) -> Latency | None:
        """The curve of a model on a node: the node's own row before its group's; None: it does not run there.

        Complexity: linear in the rows; for many nodes build a table by (model, node) first.
        """
        rows = {row.node: row for row in self.latencies if row.model == model}
        if node.models is not None and model not in node.models:
            return None
        return rows.get(node.name) or rows.get(node.group)
