"""What the simulator's tests share: scenarios from a few tables, runs with their log, what must hold of any log."""

import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infcore.sim import Scenario, Trace, parse, simulate

OUTCOMES = {"ok", "rejected", "expired", "shed", "failed", "cancelled"}
# Times in the log are whole nanoseconds, written as seconds: differences of two are off by a rounding each.
NS = 2e-9
# One policy that binds a request to a node when it comes, one that lets requests wait together, and the default, which
# weighs money and work besides. What is tested of the simulator is the same for those that take the same path.
PATHS = ("round_robin", "fastest_finish", "slo_cost")

Tables = Mapping[str, Any]
Line = dict[str, Any]


def toml(tables: Tables) -> str:
    """A scenario's text. A mapping is a table, a sequence of mappings an array of tables; values as in JSON."""
    lines: list[str] = []
    for name, value in tables.items():
        rows = [value] if isinstance(value, Mapping) else value
        for row in rows:
            lines.append(f"[{name}]" if isinstance(value, Mapping) else f"[[{name}]]")
            lines += [f"{key} = {_value(each)}" for key, each in row.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


def scenario(tables: Tables) -> Scenario:
    """The scenario of these tables."""
    return parse(toml(tables), "test.toml")


def logged(
    world: Scenario | Tables,
    policy: str = "fastest_finish",
    *,
    seed: int = 0,
    load: float = 1.0,
    trace: Trace | None = None,
) -> tuple[dict[str, Any], list[Line]]:
    """The figures and the log's lines, in order of arrival."""
    file = io.BytesIO()
    world = world if isinstance(world, Scenario) else scenario(world)
    row = simulate(world, policy=policy, seed=seed, load=load, trace=trace, log=file)
    return row, by_arrival(file.getvalue().splitlines())


def by_arrival(lines: Iterable[bytes | str]) -> list[Line]:
    """The lines of a log in order of their ids, which is that of arrival."""
    return sorted((json.loads(line) for line in lines), key=lambda line: int(line["id"]))


def column(lines: Sequence[Line], key: str) -> NDArray[np.float64]:
    """One field of each line; null is nan."""
    return np.array([line[key] for line in lines], np.float64)


def check_log(world: Scenario, lines: Sequence[Line], *, policy: str | None = None) -> None:
    """What holds of every run's log, whatever the policy and the faults."""
    models = {model.name: model for model in world.models}
    nodes = {node.name: node for node in world.nodes}
    assert len({line["id"] for line in lines}) == len(lines)
    active: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in lines:
        assert line["outcome"] in OUTCOMES, line
        assert policy is None or line["policy"] == policy, line
        assert line["end_s"] >= line["arrival_s"], line
        assert line["node"] is None or line["node"] in nodes, line
        if line["outcome"] in ("rejected", "shed", "expired"):
            assert line["start_s"] is None, line
        if line["outcome"] == "expired":
            assert line["deadline_s"] is not None, line
        if line["outcome"] == "ok":
            assert line["node"] is not None and line["start_s"] is not None, line
            row = world.token_latency if models[line["model"]].tokens else world.latency
            assert row(line["model"], nodes[line["node"]]) is not None, line
        if line["start_s"] is None:
            continue
        rtt_s = nodes[line["node"]].rtt_s
        assert line["arrival_s"] <= line["start_s"] + NS and line["start_s"] <= line["end_s"] + NS, line
        assert 1 <= line["batch"] <= models[line["model"]].max_batch_size, line
        if line["deadline_s"] is not None:
            # Work is not begun after its deadline; half a round trip passes on its way to the node.
            assert line["start_s"] - rtt_s / 2 <= line["arrival_s"] + line["deadline_s"] + NS, line
        # Each of a batch stands for its share of it, so that a slot counts once.
        share = 1.0 / line["batch"]
        active[line["node"]] += [(line["start_s"], share), (max(line["start_s"], line["end_s"] - rtt_s / 2), -share)]
    for name, changes in active.items():
        # At one time ends come first. A nanosecond of rounding must not count as an overlap.
        changes.sort(key=lambda change: (round(change[0], 8), change[1]))
        most = float(np.cumsum([change for _, change in changes]).max(initial=0.0))
        assert most <= nodes[name].slots + 1e-6, (name, most)


def check_figures(world: Scenario, row: Mapping[str, Any], lines: Sequence[Line], *, log_is_whole: bool = True) -> None:
    """The figures, counted again from the log: arrivals in the warm-up are left out, all others are in."""
    if log_is_whole:
        assert row["requests_total"] == len(lines)
    goals = {model.name: model.slo_s for model in world.models}
    counted = [line for line in lines if line["arrival_s"] >= world.run.warmup_s]
    ok = [line for line in counted if line["outcome"] == "ok"]
    assert row["requests"] == len(counted)
    assert +Counter(row["outcomes"]) == Counter(line["outcome"] for line in counted)
    # A goal of 0 is none; then a deadline, where there is one, is the goal.
    within = sum(
        line["end_s"] - line["arrival_s"] <= (goals[line["model"]] or line["deadline_s"] or np.inf) + NS for line in ok
    )
    span_s = max([world.run.seconds, *(line["end_s"] for line in ok)]) - world.run.warmup_s
    assert abs(row["throughput_rps"] - len(ok) / span_s) <= 1e-6 * len(ok) / span_s
    assert abs(row["goodput_rps"] - within / span_s) <= 1e-6 * len(ok) / span_s + 1e-12
    if not counted:
        assert row["within_slo"] is None and row["availability"] is None
        return
    assert abs(row["within_slo"] - within / len(counted)) < 1e-9
    assert abs(row["availability"] - len(ok) / len(counted)) < 1e-9
    latency_s = np.sort([line["end_s"] - line["arrival_s"] for line in ok])
    if not len(latency_s):
        assert all(row["latency_s"][name] is None for name in ("p50", "p99", "mean"))
        return
    assert abs(row["latency_s"]["mean"] - latency_s.mean()) <= 1e-9 + 1e-9 * latency_s.mean()
    for name, q in {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}.items():
        # Between the order statistics about the quantile, whichever rule was used, and 1 % for the histogram.
        at = q * (len(latency_s) - 1)
        low, high = latency_s[int(np.floor(at))], latency_s[min(len(latency_s) - 1, int(np.ceil(at)) + 1)]
        assert 0.99 * low - 1e-7 <= row["latency_s"][name] <= 1.01 * high + 1e-7, (name, low, high)
