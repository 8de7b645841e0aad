"""The [run], [[node]], [[model]], [[latency]] and [[token_latency]] tables of a scenario."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from infcore import _checks
from infcore._core.admission import admission_policies
from infcore._core.kv import eviction_policies
from infcore._toml_table import Table, shown
from infcore.errors import InvalidArgument
from infcore.sim.scenario_schema import Latency, Model, Node, Run, TokenLatency

# Bounds that keep every time inside 2**63 nanoseconds and every table inside memory; far beyond any use.
SECONDS_MAX = 1e8
# What comes again and again: shorter is an event for each few nanoseconds, or none that moves the clock on at all.
SECONDS_MIN = 1e-6
NODES_MAX = 1 << 16
MODELS_MAX = 1 << 13
TIERS_MAX = 64
BYTES_MAX = 1 << 62
TOKENS_MAX = 1 << 24  # of a request's context, and of a step
BLOCKS_MAX = 1 << 22
BLOCK_SIZE_MAX = 4096
RUNNING_MAX = 4096
BATCHINGS = ("dynamic", "greedy")
OVERFLOWS = ("reject", "shed_lowest")


def run_of(table: Table) -> Run:
    """[run]."""
    run = Run(
        seconds=table.number("seconds", above=True, high=SECONDS_MAX),
        warmup_s=table.number("warmup_s", 0.0, high=SECONDS_MAX),
        batching=table.text("batching", "dynamic", allowed=BATCHINGS),
        max_requests=table.integer("max_requests", 65536, low=1, high=1 << 24),
        ageing_s=table.optional("ageing_s", high=SECONDS_MAX),
        attempts_max=table.integer("attempts_max", 3, low=1, high=255),
        hedge_quantile=table.optional("hedge_quantile", high=0.9999) or None,
        hedge_budget=table.number("hedge_budget", 0.05, high=1.0),
        retry_budget=table.number("retry_budget", 0.2, high=255.0),
        health=table.flag("health", True),
        admission=_admission(table),
        overload_wait_s=table.optional("overload_wait_s", high=SECONDS_MAX),
        tier_capacity=_tier_capacity(table),
        overflow=cast(Literal["reject", "shed_lowest"], table.text("overflow", "reject", allowed=OVERFLOWS)),
        run_limit_s=table.optional("run_limit_s", high=SECONDS_MAX),
        detect_s=table.number("detect_s", 1.0, high=SECONDS_MAX),
        probe_s=table.number("probe_s", 1.0, low=SECONDS_MIN, high=SECONDS_MAX),
        signal_period_s=table.number("signal_period_s", 0.0, high=SECONDS_MAX),
        signal_delay_s=table.number("signal_delay_s", 0.0, high=SECONDS_MAX),
        signal_loss=table.number("signal_loss", 0.0, high=1.0),
        handoff_s=table.number("handoff_s", 0.0, high=SECONDS_MAX),
        answer_s=table.number("answer_s", 0.0, high=SECONDS_MAX),
        curves_known=table.flag("curves_known", False),
        residency=_residency(table),
    )
    table.done()
    if 0.0 < run.signal_period_s < SECONDS_MIN:
        raise InvalidArgument(
            f"{table.at('signal_period_s')} must be 0 (never) or >= {SECONDS_MIN:g}, got {run.signal_period_s:g}"
        )
    if run.warmup_s >= run.seconds:
        raise InvalidArgument(f"{table.at('warmup_s')} must be < seconds = {run.seconds:g}, got {run.warmup_s:g}")
    return run


def _residency(table: Table) -> str | None:
    if "residency" not in table:
        return None
    return table.text("residency", allowed=[name for name in eviction_policies() if name != "belady"])


def _admission(table: Table) -> tuple[str, ...]:
    if "admission" not in table:
        return Run.admission
    known = [name for name, _ in admission_policies()]
    names = table.names("admission")
    for name in names:
        if name not in known or names.count(name) > 1:
            raise InvalidArgument(
                f"{table.at('admission')} must be some of {known}, each once, got {shown(list(names))}"
            )
    return names


def _tier_capacity(table: Table) -> tuple[int, ...]:
    given = table.take("tier_capacity", [])
    whole = isinstance(given, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in given)
    if not whole or len(given) > TIERS_MAX or any(n > 1 << 24 for n in given):
        at = table.at("tier_capacity")
        raise InvalidArgument(f"{at} must be at most {TIERS_MAX} whole numbers from 1 to {1 << 24}, got {shown(given)}")
    return tuple(given)


def _bytes(table: Table, key: str) -> int:
    """Whole bytes; 16e9 is as good as 16000000000."""
    value = table.number(key, 0.0, high=float(BYTES_MAX))
    if value != math.floor(value):
        raise InvalidArgument(f"{table.at(key)} must be a whole number of bytes, got {value!r}")
    return int(value)


def models_of(table: Table) -> list[Model]:
    """One [[model]]: of `count` n the models NAME-0 .. NAME-(n-1), whose figures are reported together. A token model's requests are batched on the node, token by token: for the engine each is alone."""
    tokens = table.flag("tokens", False)
    max_batch_size = table.integer("max_batch_size", 1 if tokens else 64, low=1, high=1 if tokens else 4096)
    sizes = table.ascending("preferred_batch_sizes", low=1, high=max_batch_size)
    count = table.integer("count", 1, low=1, high=1 if tokens else MODELS_MAX)
    name = table.text("name")
    model = Model(
        name=name,
        group=name,
        slo_s=table.number("slo_s", 0.0, high=SECONDS_MAX),
        max_batch_size=max_batch_size,
        length_buckets=table.ascending("length_buckets"),
        preferred_batch_sizes=tuple(_checks.whole(table.at("preferred_batch_sizes"), n) for n in sizes),
        weights_bytes=_bytes(table, "weights_bytes"),
        load_s=table.number("load_s", 0.0, high=SECONDS_MAX),
        warmup_s=table.number("warmup_s", 0.0, high=SECONDS_MAX),
        idempotent=table.flag("idempotent", True),
        batch_delay_s=table.number("batch_delay_s", 0.002, high=SECONDS_MAX),
        output_weight=table.number("output_weight", 0.0, high=1e6),
        tokens=tokens,
        **_token_goals(table, tokens),
        fallback=table.text("fallback", ""),
    )
    table.done()
    return [model] if count == 1 else [replace(model, name=f"{name}-{i}") for i in range(count)]


def _token_goals(table: Table, tokens: bool) -> dict[str, Any]:
    """What only a token model has."""
    if not tokens:
        return {}
    return {
        "context_tokens_max": table.integer("context_tokens_max", 0, low=0, high=TOKENS_MAX),
        "slo_ttft_s": table.number("slo_ttft_s", 0.0, high=SECONDS_MAX),
        "slo_itl_s": table.number("slo_itl_s", 0.0, high=SECONDS_MAX),
    }


def latency_of(table: Table) -> Latency:
    """One [[latency]]."""
    row = Latency(
        model=table.text("model"),
        node=table.text("node"),
        base_s=table.number("base_s", 0.0, high=SECONDS_MAX),
        per_request_s=table.number("per_request_s", 0.0, high=SECONDS_MAX),
        per_work_s=table.number("per_work_s", 0.0, high=SECONDS_MAX),
        per_padded_work_s=table.number("per_padded_work_s", 0.0, high=SECONDS_MAX),
        cv=table.number("cv", 0.0, high=10.0),
    )
    table.done()
    if row.base_s + row.per_request_s + row.per_work_s + row.per_padded_work_s == 0.0:
        raise InvalidArgument(
            f"{table.at('base_s')}, per_request_s, per_work_s or per_padded_work_s must be > 0, got 0 for each"
        )
    return row


def token_latency_of(table: Table) -> TokenLatency:
    """One [[token_latency]]. Every term is >= 0 but the one of C^2: a curve may bend down, yet must not fall."""
    terms = ("base_s", "prefill_base_s", "per_prefill_token_s", "per_prefill_token2_s", "decode_base_s", "per_decode_s")
    row = TokenLatency(
        model=table.text("model"),
        node=table.text("node"),
        n_blocks=table.integer("n_blocks", 0, low=1, high=BLOCKS_MAX),
        block_size=table.integer("block_size", 16, low=1, high=BLOCK_SIZE_MAX),
        token_budget=table.integer("token_budget", 2048, low=1, high=TOKENS_MAX),
        max_running=table.integer("max_running", 256, low=1, high=RUNNING_MAX),
        host_blocks=table.integer("host_blocks", 0, low=0, high=BLOCKS_MAX),
        per_context_token_s=table.number("per_context_token_s", 0.0, high=SECONDS_MAX),
        per_context_token2_s=table.number("per_context_token2_s", 0.0, low=-SECONDS_MAX, high=SECONDS_MAX),
        swap_block_s=table.number("swap_block_s", 0.0, high=SECONDS_MAX),
        cv=table.number("cv", 0.0, high=10.0),
        **{term: table.number(term, 0.0, high=SECONDS_MAX) for term in terms},
    )
    table.done()
    for what, at in (("prefill", ("base_s", "prefill_base_s")), ("decode", ("base_s", "decode_base_s"))):
        slopes = (f"per_{what}_token_s",) if what == "prefill" else ("per_decode_s",)
        if all(getattr(row, term) == 0.0 for term in (*at, *slopes)):
            raise InvalidArgument(
                f"{table.at(at[1])}, {slopes[0]} or base_s must be > 0: a step of {what} takes time, got 0 for each"
            )
    return row


@dataclass(frozen=True)
class Group:
    """One [[node]] table: what its nodes have in common. resident None: as many as fit, in the order of the models."""

    table: Table
    common: Node
    count: int
    resident: tuple[str, ...] | None

    def nodes(self) -> Iterator[Node]:
        """Its nodes, their models not yet resident."""
        for i in range(self.count):
            yield replace(self.common, name=f"{self.common.group}-{i}" if self.count > 1 else self.common.group)


def group_of(table: Table) -> Group:
    """One [[node]]."""
    name = table.text("name")
    count = table.integer("count", 1, low=1, high=NODES_MAX)
    common = Node(
        name=name,
        group=name,
        kind=table.text("kind", "gpu"),
        location=table.text("location", "cloud"),
        zone=table.text("zone", ""),
        slots=table.integer("slots", 1, low=1, high=4096),
        memory_bytes=_bytes(table, "memory_bytes"),
        price_per_hour=table.number("price_per_hour", 0.0, high=1e9),
        rtt_s=table.number("rtt_s", 0.0, high=SECONDS_MAX),
        loads_beside_runs=table.flag("loads_beside_runs", True),
        labels=table.mapping("labels"),
        models=table.names("models") if "models" in table else table.take("models"),
    )
    resident: tuple[str, ...] | None = None
    value = table.take("resident", True)
    if value is False:
        resident = ()
    elif value is not True:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InvalidArgument(
                f"{table.at('resident')} must be true, false or an array of model names, got {shown(value)}"
            )
        resident = tuple(dict.fromkeys(value))
    table.done()
    return Group(table, common, count, resident)


class Curves:
    """Which row says how long a model takes on a node: the node's own before its group's."""

    def __init__(self, latencies: Sequence[Latency | TokenLatency]) -> None:
        self._rows = {(row.model, row.node): row for row in latencies}

    def row(self, model: str, node: Node) -> Latency | TokenLatency | None:
        """The row; None: the model does not run there."""
        if node.models is not None and model not in node.models:
            return None
        return self._rows.get((model, node.name)) or self._rows.get((model, node.group))


def with_residents(group: Group, node: Node, models: Mapping[str, Model], curves: Curves) -> Node:
    """The node with the models that it holds at the start. Raises InvalidArgument for what cannot run or fit there."""
    runs = [model for model in models.values() if curves.row(model.name, node) is not None]
    if len(runs) > 1 and any(model.tokens for model in runs):
        raise InvalidArgument(
            f"{group.table.at('models')} must be one model where that makes tokens, since its steps take the whole "
            f"node, got rows for {', '.join(repr(model.name) for model in runs)} on {node.name!r}"
        )
    held: list[str] = []
    room = node.memory_bytes or BYTES_MAX
    for name in node.models or ():
        if name not in models or curves.row(name, node) is None:
            raise InvalidArgument(
                f"{group.table.at('models')} must be names of models with a latency row for {node.name!r}, got {name!r}"
            )
    for model in runs:
        if model.weights_bytes > (node.memory_bytes or BYTES_MAX):
            raise InvalidArgument(
                f"{group.table.at('memory_bytes')} must be >= weights_bytes = {model.weights_bytes} of model "
                f"{model.name!r}, which has a latency row for it, got {node.memory_bytes}"
            )
        wanted = group.resident is None or model.name in group.resident
        if wanted and model.weights_bytes <= room:
            room -= model.weights_bytes
            held.append(model.name)
    for name in group.resident or ():
        if name not in held:
            why = "that fit into memory_bytes together" if any(name == m.name for m in runs) else "that run there"
            raise InvalidArgument(f"{group.table.at('resident')} must be names of models {why}, got {name!r}")
    return replace(node, initial_models=tuple(held))
