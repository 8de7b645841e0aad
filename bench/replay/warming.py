"""What warming saves: python bench/replay/warming.py [--smoke] [--traces FOLDER]

Each trace goes through infcore.Cache with and without warming. Every 15 minutes of its time (or 1/500 of a trace
without hours), what was seen so far makes a plan for the next hour, and its loads take their time. A row: cost of the
misses over that of all requests, without and with; what the loads cost, which is work off the request's path; the same
where the forecasts' hours are shifted by 61 (what any use of spare bandwidth would give). The first third teaches, and
is not counted. Below, how far forecasts are off, a key and hour (Poisson deviance; lower is better): the histograms by
hour of the week against a ridge on Fourier terms of the day and the week.
"""

import argparse
import gzip
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import infcore
from infcore.cache import Demand, plan
from infcore.cache.demand import HOUR_S

DAY_S, WEEK_S = 24 * HOUR_S, 168 * HOUR_S
MONDAY_S = 4 * DAY_S


@dataclass
class Trace:
    """Columns of one length; period_s between plans."""

    name: str
    times_s: Any
    keys: Any
    sizes: Any
    costs: Any
    sessions: Any
    period_s: float
    horizon_s: float
    after_s: float = 0.0


def rates_of(rng: np.random.Generator, n_keys: int) -> Any:
    """Requests an hour of each key in each hour of the week: a third by day, a third on some days, a third always."""
    popularity = 1.0 / np.arange(1, n_keys + 1) ** 0.8
    popularity = rng.permutation(popularity / popularity.mean())
    kind, begin, days = rng.integers(0, 3, n_keys), rng.integers(0, 24, n_keys), rng.random((n_keys, 7)) < 0.3
    length = rng.integers(1, 4, n_keys)
    rates = np.zeros((n_keys, 168))
    for hour in range(168):
        busy = (hour % 24 - begin) % 24 < length
        on = np.where(kind == 0, busy, np.where(kind == 1, busy & days[:, hour // 24], True))
        rates[:, hour] = popularity * on * np.where(kind == 2, 0.05, 1.0)
    return rates


def weekly(name: str, seed: int, n_keys: int, n_weeks: int, *, shift: bool, noise: float) -> Trace:
    """Poisson counts of weekly rates; shift: after two thirds, a third of the keys move by some hours, a tenth are new.
    noise: that part of all requests is for keys that come once."""
    rng = np.random.default_rng(seed)
    rates = rates_of(rng, n_keys)
    sizes = np.exp(rng.normal(9.0, 1.5, n_keys)).astype(int) + 1
    costs = np.exp(rng.normal(10.0, 1.5, n_keys))
    ids = np.arange(n_keys)
    keys, times = [], []
    for hour in range(n_weeks * 168):
        if shift and hour == n_weeks * 168 * 2 // 3:
            moved = rng.random(n_keys) < 1 / 3
            rates[moved] = np.roll(rates[moved], int(rng.integers(3, 9)), axis=1)
            ids = np.where(rng.random(n_keys) < 0.1, ids + n_keys, ids)
        counts = rng.poisson(rates[:, hour % 168])
        keys.append(np.repeat(ids, counts))
        times.append(MONDAY_S + (hour + rng.random(counts.sum())) * HOUR_S)
    key, time = np.concatenate(keys), np.concatenate(times)
    once = rng.random(len(key)) < noise
    base = key % n_keys
    key = np.where(once, 10 * n_keys + np.arange(len(key)), key)
    order = np.argsort(time, kind="stable")
    rows = [column[order] for column in (time, key, sizes[base], costs[base])]
    return Trace(name, *rows, None, 900.0, HOUR_S)


def real(folder: Path, n_max: int) -> Iterator[Trace]:
    """The traces at hand; where one has no hours, a request is a second of its time."""
    path = folder / "mooncake_conversation_trace.jsonl.gz"
    if path.exists():
        keys, times, sessions, costs = [], [], [], []
        for at, line in enumerate(gzip.open(path, "rt")):
            row = json.loads(line)
            keys += row["hash_ids"]
            times += [row["timestamp"] / 1e3] * len(row["hash_ids"])
            sessions += [at] * len(row["hash_ids"])
            costs += [512.0 + 512.0 * 512.0 * (2 * depth + 1) / 61036.0 for depth in range(len(row["hash_ids"]))]
        cut = slice(0, n_max)
        times, keys = np.array(times)[cut], np.array(keys)[cut]
        yield Trace("mooncake", times, keys, np.full(len(keys), 1), np.array(costs)[cut], None, 10.0, 60.0, 30.0)
    path = folder / "caffeine_gcc_penalties.trace.xz"
    if path.exists():
        rows = [line.split() for line, _ in zip(lzma.open(path, "rt"), range(n_max), strict=False)]
        keys = np.array([int(row[1], 16) & (2**62 - 1) for row in rows])
        costs = np.array([float(row[4]) for row in rows])
        n = len(keys)
        yield Trace("gcc", np.arange(n) * 1.0, keys, np.full(n, 1), costs, None, n / 500, n / 100, 8.0)
    path = folder / "scarab_recs.trace.xz"
    if path.exists():
        keys = np.frombuffer(lzma.open(path).read(8 * n_max), ">i8").astype(np.int64)
        n = len(keys)
        yield Trace("scarab", np.arange(n) * 1.0, keys, np.full(n, 1), np.ones(n), None, n / 500, n / 100, 8.0)
    path = folder / "adaptsize_request.trace.xz"
    if path.exists():
        rows = np.array([line.split() for line, _ in zip(lzma.open(path, "rt"), range(n_max), strict=False)], np.int64)
        n = len(rows)
        yield Trace("adaptsize", np.arange(n) * 1.0, rows[:, 1], rows[:, 2], np.ones(n), None, n / 500, n / 100, 8.0)


class _Shuffled(Demand):
    """Control: as much is loaded, for other hours of the week."""

    def rates(self, now_s: float) -> Any:
        return super().rates(now_s + 61 * HOUR_S)


@dataclass
class Outcome:
    """Of the counted part: cost missed and requested, loads made and their cost."""

    missed: float = 0.0
    asked: float = 0.0
    loads: int = 0
    loads_cost: float = 0.0


def run(trace: Trace, capacity: int, policy: str, bandwidth: float, demand: Demand | None) -> Outcome:
    """One pass; a demand sees each request after it was answered."""
    clock = infcore.ManualClock(0.0)
    cache = infcore.Cache(capacity, policy=policy, clock=clock)
    outcome, coming = Outcome(), []
    next_s, counted_s = trace.times_s[0] + trace.period_s, trace.times_s[0] + (trace.times_s[-1] - trace.times_s[0]) / 3
    columns = (column.tolist() for column in (trace.times_s, trace.keys, trace.sizes, trace.costs))
    for now_s, key, size, cost in zip(*columns, strict=True):
        while demand is not None and now_s >= next_s:
            demand.advance(next_s)
            made = plan(demand, next_s, trace.horizon_s, bandwidth, cache=cache)
            coming = [load for load in made.loads if load.start_s < next_s + trace.period_s]
            next_s += trace.period_s
        while coming and coming[0].start_s + coming[0].size_bytes / bandwidth <= now_s:
            load = coming.pop(0)
            if load.key not in cache:
                for gone in load.evicts:
                    cache.evict(gone)
                if not cache.bring(load.key, 0, size_bytes=load.size_bytes, cost_us=load.cost_us):
                    continue
                if now_s >= counted_s:
                    outcome.loads += 1
                    outcome.loads_cost += load.cost_us
        hit = cache.get(key) is not None
        if not hit:
            cache.put(key, 0, size_bytes=size, cost_us=cost)
        if now_s >= counted_s:
            outcome.asked += cost
            outcome.missed += 0.0 if hit else cost
        if demand is not None:
            demand.observe(key, now_s, size_bytes=size, cost_us=cost)
    return outcome


def ridge_rates(counts: Any, hour: int) -> Any:
    """Of each key in the next hours of the week: ridge on Fourier terms of log1p of its hourly counts so far."""

    def terms(hours: Any) -> Any:
        waves = [np.ones(len(hours))]
        for period, n in ((24, 8), (168, 10)):
            for k in range(1, n + 1):
                waves += [np.sin(2 * np.pi * k * hours / period), np.cos(2 * np.pi * k * hours / period)]
        return np.stack(waves, 1)

    past = terms(np.arange(hour))
    gram = past.T @ past + np.eye(past.shape[1])
    weights = np.linalg.solve(gram, past.T @ np.log1p(counts[:, :hour]).T)
    return np.maximum(np.expm1(terms(np.arange(hour, hour + 168)) @ weights).T, 1e-3)


def forecasts(seed: int, n_keys: int) -> Iterator[tuple[int, float, float]]:
    """Weeks learned, deviance of the histograms and of the ridge in the week after."""
    trace = weekly("", seed, n_keys, 5, shift=False, noise=0.0)
    demand, hours = Demand(keys_max=n_keys, after_s=0.0), ((trace.times_s - MONDAY_S) // HOUR_S).astype(int)
    counts = np.zeros((n_keys, 5 * 168))
    np.add.at(counts, (trace.keys, hours), 1)
    for week in range(1, 5):
        now = (hours >= (week - 1) * 168) & (hours < week * 168)
        demand.observe_many(trace.keys[now], trace.times_s[now])
        at_s = MONDAY_S + week * WEEK_S
        demand.advance(at_s)
        rows = {item.key: row for row, item in demand.followed()}
        seen = np.array(sorted(rows))
        ours = np.stack([demand.rates(at_s + h * HOUR_S)[[rows[key] for key in seen]] for h in range(168)], 1)
        truth = counts[seen, week * 168 : (week + 1) * 168]
        off = []
        for guess in (np.maximum(ours, 1e-3), ridge_rates(counts[seen], week * 168)):
            logs = np.log(np.maximum(truth, 1e-9) / guess)
            off.append(float(2 * (truth * logs - truth + guess).mean()))
        yield week, off[0], off[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"))
    parser.add_argument("--policy", default="gdsf")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    n_keys, n_weeks, n_max = (60, 3, 3000) if args.smoke else (1000, 6, 100_000)
    traces = [
        weekly("weekly", args.seed, n_keys, n_weeks, shift=False, noise=0.1),
        weekly("weekly, shifts", args.seed, n_keys, n_weeks, shift=True, noise=0.1),
        *real(args.traces, n_max),
    ]
    print(f"{'trace':16} {'requests':>8} {'room':>5} {'without':>8} {'with':>8} {'ratio':>6} {'loads':>6} "
          f"{'loads cost':>10} {'shuffled':>8}")  # fmt: skip
    for trace in traces:
        _, first = np.unique(trace.keys, return_index=True)
        all_bytes = int(trace.sizes[first].sum())
        for share in (0.05, 0.2):
            capacity = int(all_bytes * share)
            bandwidth = max(1.0, capacity / trace.horizon_s)  # all of it once a horizon
            demands = [None, *(kind(keys_max=2 * n_keys, after_s=trace.after_s) for kind in (Demand, _Shuffled))]
            plain, warmed, control = (run(trace, capacity, args.policy, bandwidth, demand) for demand in demands)
            asked = plain.asked
            print(f"{trace.name:16} {len(trace.keys):8} {share:5.0%} {plain.missed / asked:8.4f} "
                  f"{warmed.missed / asked:8.4f} {warmed.missed / plain.missed:6.3f} {warmed.loads:6} "
                  f"{warmed.loads_cost / asked:10.4f} {control.missed / asked:8.4f}", flush=True)  # fmt: skip
    print("\nforecast of the next week: deviance of the histograms, of the Fourier ridge")
    for week, ours, ridge in forecasts(args.seed, n_keys):
        print(f"after {week} weeks: {ours:.4f} {ridge:.4f}")


if __name__ == "__main__":
    main()
