"""Scenarios of `infcore simulate`: read from TOML, checked, scaled.

A file has [run], and arrays of tables node, model, workload, and latency or, of models that make tokens,
token_latency; fault, random_fault and antagonist are optional.
infcore.sim.scenario_schema says what each field means; every key has its name, except that a [[node]] has `count` and
`resident`: true (as many models as fit into its memory, in the file's order), false, or the names of those it holds at
the start; a [[model]] has `count`, a [[latency]] and a [[workload]] may name such a group for all its models, and a
workload's rate is then spread over them by `zipf`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from infcore import _shipped
from infcore._toml_table import Table, parse_toml, shown
from infcore.errors import InvalidArgument
from infcore.sim.scenario_fleet import (
    MODELS_MAX,
    NODES_MAX,
    Curves,
    Group,
    group_of,
    latency_of,
    models_of,
    run_of,
    token_latency_of,
    with_residents,
)
from infcore.sim.scenario_load import antagonist_of, fault_of, random_fault_of, spread, workload_of
from infcore.sim.scenario_schema import (
    Fault,
    Latency,
    Model,
    Node,
    RandomFault,
    Scenario,
    TokenLatency,
    Workload,
)

AnyFault = TypeVar("AnyFault", Fault, RandomFault)
AnyLatency = TypeVar("AnyLatency", Latency, TokenLatency)
_NAMES_SHOWN_MAX = 12
_LOAD_MAX = 1e6
_KEYS = (
    "name", "description", "run", "node", "model", "latency", "token_latency", "workload", "fault", "random_fault",
    "antagonist",
)  # fmt: skip


def shipped() -> list[str]:
    """Names of the scenarios that come with infcore, sorted."""
    return _shipped.names("scenario")


def load(name_or_path: str) -> Scenario:
    """The shipped scenario of that name, or the one in that file.

    name_or_path  one of shipped(); with a "/" or the end ".toml" a path. A trace's file stands beside the scenario's
    Raises        UnknownName; InvalidArgument naming file, line, field, value and what is allowed
    """
    text, where = _shipped.read(name_or_path, "scenario")
    is_path = name_or_path.endswith(".toml") or "/" in name_or_path
    return parse(text, where, folder=Path(name_or_path).parent if is_path else _shipped.folder())


def parse(text: str, where: str, *, folder: Path | None = None) -> Scenario:
    """Read a scenario from TOML text.

    where   what messages call the text
    folder  where files that the scenario names stand; None: the current one
    Raises  InvalidArgument naming `where`, line, field, value and what is allowed
    """
    top = parse_toml(text, where=where)
    for key in ("device", "arrivals"):
        if key in top:
            raise InvalidArgument(
                f"{top.at(key)} belongs to a suite of `infcore bench`; a scenario has [[node]] and [[workload]]"
            )
    top.only(_KEYS)
    name = top.text("name", Path(where).name.removesuffix(".toml") or "scenario")
    description = top.text("description", "")
    run = run_of(top.table("run"))
    models = _models(top)
    groups, places = _groups(top)
    latencies = _latencies(top, "latency", latency_of, models, places)
    token_latencies = _latencies(top, "token_latency", token_latency_of, models, places)
    if not latencies and not token_latencies:
        raise InvalidArgument(f"{top.at('latency')} must have at least one row ([[latency]]), got none")
    curves = Curves([*latencies, *token_latencies])
    nodes = tuple(with_residents(group, node, models, curves) for group in groups for node in group.nodes())
    _contexts_fit(top, models, token_latencies)
    workloads = _workloads(top, models, nodes, curves, folder=folder or Path())
    zones = {node.zone for node in nodes} - {""}
    faults = [_placed(table, fault_of(table), places, zones) for table in top.rows("fault")]
    random_faults = [_placed(table, random_fault_of(table), places, zones) for table in top.rows("random_fault")]
    antagonists = [(table, antagonist_of(table)) for table in top.rows("antagonist")]
    for table, antagonist in antagonists:
        _known(table, "node", antagonist.node, places)
    return Scenario(
        name=name,
        description=description,
        run=run,
        nodes=nodes,
        models=tuple(_with_context(model, token_latencies) for model in models.values()),
        latencies=latencies,
        token_latencies=token_latencies,
        workloads=workloads,
        faults=tuple(faults),
        random_faults=tuple(random_faults),
        antagonists=tuple(row for _, row in antagonists),
    )


def scaled(scenario: Scenario, load: float) -> Scenario:
    """The scenario with `load` times the arrivals: rates are multiplied, a trace is played that many times as fast.

    Raises InvalidArgument unless load is a number > 0 and <= 1e6.
    """
    if isinstance(load, bool) or not isinstance(load, int | float) or not 0.0 < load <= _LOAD_MAX:
        raise InvalidArgument(f"load must be a number > 0 and <= {_LOAD_MAX:g}, got {shown(load)}")
    return replace(scenario, workloads=tuple(_scaled(workload, load) for workload in scenario.workloads))


def _scaled(workload: Workload, load: float) -> Workload:
    if workload.arrivals == "trace":
        return replace(workload, rate_factor=workload.rate_factor * load)
    return replace(workload, rate_rps=workload.rate_rps * load)


def _some(top: Table, key: str) -> list[Table]:
    tables = top.rows(key)
    if not tables:
        raise InvalidArgument(f"{top.at(key)} must have at least one row ([[{key}]]), got none")
    return tables


def _known(table: Table, key: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        listed = ", ".join(list(known)[:_NAMES_SHOWN_MAX]) + (", ..." if len(known) > _NAMES_SHOWN_MAX else "")
        raise InvalidArgument(f"{table.at(key)} must be one of {listed or 'none'}, got {shown(name)}")


def _models(top: Table) -> dict[str, Model]:
    models: dict[str, Model] = {}
    tables = _some(top, "model")
    taken: set[str] = set()
    for table in tables:
        rows = models_of(table)
        for name in dict.fromkeys([rows[0].group, *(model.name for model in rows)]):
            if name in taken:
                raise InvalidArgument(f"{table.at('name')} must be unique, got {shown(name)} for two models or groups")
            taken.add(name)
        models.update((model.name, model) for model in rows)
        if len(models) > MODELS_MAX:
            raise InvalidArgument(f"{table.at('count')}: the scenario may have {MODELS_MAX} models, got {len(models)}")
    for model, table in zip({m.group: m for m in models.values()}.values(), tables, strict=True):
        if model.fallback:
            _known(table, "fallback", model.fallback, models.keys() - {model.name})
    return models


def _by_group(models: Mapping[str, Model]) -> dict[str, list[str]]:
    """The models that a row may name, alone or as a group."""
    names: dict[str, list[str]] = {}
    for model in models.values():
        names.setdefault(model.group, []).append(model.name)
    return {**names, **{name: [name] for name in models}}


def _groups(top: Table) -> tuple[list[Group], dict[str, None]]:
    """The groups, and every name by which a node or a group of them may be called."""
    groups: list[Group] = []
    places: dict[str, None] = {}
    n_nodes = 0
    for table in _some(top, "node"):
        group = group_of(table)
        n_nodes += group.count
        if n_nodes > NODES_MAX:
            raise InvalidArgument(f"{table.at('count')}: the scenario may have {NODES_MAX} nodes, got {n_nodes}")
        for name in dict.fromkeys([group.common.group, *(node.name for node in group.nodes())]):
            if name in places:
                raise InvalidArgument(f"{table.at('name')} must be unique, got {shown(name)} for two nodes or groups")
            places[name] = None
        groups.append(group)
    return groups, places


def _latencies(
    top: Table, key: str, row_of: Callable[[Table], AnyLatency], models: Mapping[str, Model], places: Collection[str]
) -> tuple[AnyLatency, ...]:
    rows: dict[tuple[str, str], AnyLatency] = {}
    groups = _by_group(models)
    for table in top.rows(key):
        row = row_of(table)
        _known(table, "model", row.model, groups)
        _known(table, "node", row.node, places)
        if models[groups[row.model][0]].tokens != (key == "token_latency"):
            other = (
                "one with tokens = true" if key == "token_latency" else "one without: token models have token_latency"
            )
            raise InvalidArgument(f"{table.at('model')} must be {other}, got {shown(row.model)}")
        for name in groups[row.model]:
            if (name, row.node) in rows:
                raise InvalidArgument(
                    f"{table.at('model')}: one row for each model and node, got a second for {name!r} on {row.node!r}"
                )
            rows[name, row.node] = replace(row, model=name)
    return tuple(rows.values())


def _room(model: Model, rows: Sequence[TokenLatency]) -> int:
    """Tokens that every node of a token model has KV blocks for."""
    return min((row.n_blocks * row.block_size for row in rows if row.model == model.name), default=0)


def _with_context(model: Model, rows: Sequence[TokenLatency]) -> Model:
    """A token model's context, where the file does not bound it, is what fits into the smallest of its nodes."""
    return replace(model, context_tokens_max=model.context_tokens_max or _room(model, rows)) if model.tokens else model


def _contexts_fit(top: Table, models: Mapping[str, Model], rows: Sequence[TokenLatency]) -> None:
    for model in models.values():
        if model.context_tokens_max > _room(model, rows) > 0:
            raise InvalidArgument(
                f"{top.at('token_latency')}: n_blocks * block_size must be >= context_tokens_max = "
                f"{model.context_tokens_max} of model {model.name!r}, got {_room(model, rows)} on one of its nodes"
            )


def _workloads(
    top: Table, models: Mapping[str, Model], nodes: Sequence[Node], curves: Curves, *, folder: Path
) -> tuple[Workload, ...]:
    workloads: list[Workload] = []
    groups = _by_group(models)
    token_models = {model.name for model in models.values() if model.tokens}
    for table in _some(top, "workload"):
        workload = workload_of(table, folder=folder, token_models=token_models)
        _known(table, "model", workload.model, groups)
        for name in groups[workload.model]:
            _can_run(table, models[name], workload, [node for node in nodes if curves.row(name, node) is not None])
        workloads += spread(workload, groups[workload.model])
    return tuple(workloads)


def _can_run(table: Table, model: Model, workload: Workload, able: Sequence[Node]) -> None:
    if not able:
        kind = "token_latency" if model.tokens else "latency"
        raise InvalidArgument(
            f"{table.at('model')} must have a [[{kind}]] row for at least one node that may run it, "
            f"got none for {shown(model.name)}"
        )
    if not any(workload.require.items() <= _labels(node) for node in able):
        raise InvalidArgument(
            f"{table.at('require')} must be labels that some node which runs {model.name!r} has, "
            f"got {shown(workload.require)}"
        )


def _labels(node: Node) -> set[tuple[str, str]]:
    """A node's labels; as in the fleet, kind, zone and location count among them."""
    return {*node.labels.items(), ("kind", node.kind), ("zone", node.zone), ("location", node.location)}


def _placed(table: Table, fault: AnyFault, places: Collection[str], zones: Collection[str]) -> AnyFault:
    if fault.node:
        _known(table, "node", fault.node, places)
    if fault.zone:
        _known(table, "zone", fault.zone, sorted(zones))
    return fault
