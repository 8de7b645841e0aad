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
    hedge_quantile, hedge_budget, retry_budget  infcore.Engine's
    health             whether nodes whose answers are worse than others' get nothing for a while: infcore.Engine's
    admission          policies at the door, in the order in which they are asked: infcore.Engine's
    overload_wait_s    a wait for devices that counts as overload; None: by batches and deadlines
    tier_capacity      accepted and not yet ended, at most, by tier; empty: not bounded
    overflow           "reject" or "shed_lowest": full, the least urgent that waits makes room for a more urgent one
    run_limit_s        a run longer than that marks its node lost, one of a token model if its node makes no step for so
                       long; None: chosen by the simulator
    detect_s           how long until a node that cannot be reached is taken for lost
    probe_s            a lost node that is alive again is back at the next multiple of it
    signal_period_s    nodes report that often; 0: never. signal_delay_s: how old a report is when it comes in;
                       signal_loss: the share of reports that does not
    handoff_s          of a live engine's threads: from the call of an idle node until its worker is awake and has the
                       batch, which others may join meanwhile; a node whose run has just ended takes its next at once
    answer_s           likewise, from a run's end until the engine knows its answer; the node is not free before
    curves_known       True: the engine is told each latency curve at the start, as by devices that declare theirs;
                       False: it learns them
    residency          an eviction policy: which models are loaded where, and what goes for them, is the engine's to
                       decide; None: each node holds what `resident` says
    """

    seconds: float
    warmup_s: float = 0.0
    batching: str = "dynamic"
    max_requests: int = 65536
    ageing_s: float | None = None
    attempts_max: int = 3
    hedge_quantile: float | None = None
    hedge_budget: float = 0.05
    retry_budget: float = 0.2
    health: bool = True
    admission: tuple[str, ...] = ("infeasible",)
    overload_wait_s: float | None = None
    tier_capacity: tuple[int, ...] = ()
    overflow: Literal["reject", "shed_lowest"] = "reject"
    run_limit_s: float | None = None
    detect_s: float = 1.0
    probe_s: float = 1.0
    signal_period_s: float = 0.0
    signal_delay_s: float = 0.0
    signal_loss: float = 0.0
    handoff_s: float = 0.0
    answer_s: float = 0.0
    curves_known: bool = False
    residency: str | None = None


@dataclass(frozen=True)
class Node:
    """One node. US dollars an hour; rtt_s to it and back; memory_bytes 0: not bounded.

    group           the name of its [[node]] table: of `count = 4` the nodes a100-0 .. a100-3 have group a100
    models          names of those it may run; None: each that has a latency row for it
    initial_models  names of those that are loaded at the start, in the file's order
    loads_beside_runs  loading a model there and running batches do not wait for each other
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
    loads_beside_runs: bool = True


@dataclass(frozen=True)
class Model:
    """One model.

    group          the name of its [[model]] table: of `count = 3` the models bert-0 .. bert-2 have group bert, and the
                   report has their figures together; "": its own name
    slo_s          the goal of its answers; 0: none
    load_s         to bring its weights onto a node
    warmup_s       how much longer its first batch there takes
    batch_delay_s  how long a batch may wait for company
    fallback       name of the model that answers in its place under load; "": none
    length_buckets, preferred_batch_sizes  as infcore.Model has them
    output_weight  of a recorded request, the work that one unit of its output (a generated token) adds
    tokens         it makes tokens: it runs where a TokenLatency says so, and its workloads have prompts and outputs
    context_tokens_max  prompt and output of a request together, at most; 0: what fits into the smallest of its nodes
    slo_ttft_s, slo_itl_s  goals of a request's first token and of its mean time between tokens; 0: none
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
    tokens: bool = False
    context_tokens_max: int = 0
    slo_ttft_s: float = 0.0
    slo_itl_s: float = 0.0
    fallback: str = ""
    group: str = ""


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
class TokenLatency:
    """A node that runs a token model step by step, as its own continuous batcher decides.

    A step of P prompt tokens, of D sequences that make a token each, and of C tokens of context of those takes
    base_s + (prefill_base_s + per_prefill_token_s*P + per_prefill_token2_s*P^2, if P > 0) +
    (decode_base_s + per_decode_s*D + per_context_token_s*C + per_context_token2_s*C^2, if D > 0) + swap_block_s for
    each block moved between device and host; times lognormal(mean 1, cv).

    n_blocks, block_size  KV blocks on the device, and tokens in each; host_blocks: room for swapped ones
    token_budget          tokens in a step, at most; max_running: sequences under way, at most
    """

    model: str
    node: str
    n_blocks: int
    block_size: int = 16
    token_budget: int = 2048
    max_running: int = 256
    host_blocks: int = 0
    base_s: float = 0.0
    prefill_base_s: float = 0.0
    per_prefill_token_s: float = 0.0
    per_prefill_token2_s: float = 0.0
    decode_base_s: float = 0.0
    per_decode_s: float = 0.0
    per_context_token_s: float = 0.0
    per_context_token2_s: float = 0.0
    swap_block_s: float = 0.0
    cv: float = 0.0


@dataclass(frozen=True)
class Prefix:
    """What prompts begin with alike: each has one of `groups` beginnings, of popularity 1 / rank^zipf; it is that
    share of the prompt, or so many tokens (one of share and tokens is 0)."""

    groups: int
    share: float = 0.0
    tokens: int = 0
    zipf: float = 0.0


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
    whenever its answer comes, so that every policy is given the same requests. Both by their means. Of a token model
    each turn's prompt is the conversation so far, with its answers, and prompt_tokens more; where that no longer fits
    into the model's context, a new conversation begins."""

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
    tenant       whose they are: in a tier of a model's queue the tenant that was served least goes first; "": nobody's
    deadline_s   after arrival; None: none
    defer_s      how long requests may be put off under load; 0: not at all
    stale_share  of the requests that have an answer from before
    start_s      arrivals come in [start_s, end_s) alone; end_s None: to the end
    require      labels that a node must have
    zipf         of a group of models: the i-th has a share of the rate in proportion to 1 / i^zipf
    session      requests of users; then sessions arrive by the process, at rate_rps / turns_mean
    prompt_tokens, output_tokens  of a token model's requests, instead of work; a trace's own come first
    prefix       what their prompts begin with alike; None: nothing
    """

    model: str
    rate_rps: float
    arrivals: ArrivalKind = "poisson"
    work: WorkDist = field(default_factory=WorkDist)
    tier: int = 0
    tenant: str = ""
    deadline_s: float | None = None
    defer_s: float = 0.0
    stale_share: float = 0.0
    phase_s: float = 0.0
    start_s: float = 0.0
    end_s: float | None = None
    require: Labels = field(default_factory=dict)
    zipf: float = 0.0
    session: Session | None = None
    prompt_tokens: WorkDist = field(default_factory=WorkDist)
    output_tokens: WorkDist = field(default_factory=WorkDist)
    prefix: Prefix | None = None
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
    token_latencies: tuple[TokenLatency, ...] = ()

    def latency(self, model: str, node: Node) -> Latency | None:
        """The curve of a model on a node: the node's own row before its group's; None: it does not run there.

        Complexity: linear in the rows; for many nodes build a table by (model, node) first.
        """
        rows = {row.node: row for row in self.latencies if row.model == model}
        if node.models is not None and model not in node.models:
            return None
        return rows.get(node.name) or rows.get(node.group)

    def token_latency(self, model: str, node: Node) -> TokenLatency | None:
        """As latency(), of a token model."""
        rows = {row.node: row for row in self.token_latencies if row.model == model}
        if node.models is not None and model not in node.models:
            return None
        return rows.get(node.name) or rows.get(node.group)
