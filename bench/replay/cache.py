"""Eviction policies x traces x sizes: python bench/replay/cache.py [--traces FOLDER] [--cell NAME] [--policies P ...]

Each trace is replayed at 1, 5, 10 and 25 % of its working set, all keys' bytes together. `cost` is the share of the
cost that is spent in spite of the cache, `bytes` and `objects` the same of bytes and lookups, `ns` the CPU time of one.
Regret is how much more a policy spends than the best online one does in that cell. belady knows the future: a bound of
misses where all sizes and costs are equal, elsewhere a good schedule.

Traces: Mooncake's conversations, a prefix counting from its start only; Scarab's keys with sizes and costs from Azure's
token counts, costs per byte 1, 8 and 50 times apart (loaders.token_costs); AdaptSize's requests; gcc's memory accesses
with their own penalties; and drawn here: Zipf 1.0 over 100,000 keys, the same with all ranks anew each 100,000
requests, and with every rank moving one place in 20. What is not in FOLDER is left out, and said. Exits with 1 where
policy infcore has a mean regret above 2 % or one above 8 %.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from infcore.cache import CacheStats, loaders, policies, replay
from infcore.profiling.tables import percent, render

FRACTIONS = (0.01, 0.05, 0.10, 0.25)
OFFLINE = {"belady"}
MEAN_REGRET_MAX, WORST_REGRET_MAX = 0.02, 0.08
METRICS: dict[str, Callable[[CacheStats], float]] = {
    "cost": lambda stats: stats.cost_miss_ratio,
    "bytes": lambda stats: stats.byte_miss_ratio,
    "objects": lambda stats: stats.miss_ratio,
}


class Run(NamedTuple):
    """One policy in one cell."""

    trace: str
    fraction: float
    policy: str
    stats: CacheStats
    ns: float

    @property
    def cell(self) -> str:
        return f"{self.trace} {self.fraction:.0%}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, default=Path("../shared/traces"), help="folder of the recorded traces")
    parser.add_argument("--cell", default="", help="traces whose name has this in it")
    parser.add_argument("--policies", nargs="+", default=policies(), choices=policies())
    parser.add_argument("--fractions", nargs="+", type=float, default=FRACTIONS, help="of the working set")
    parser.add_argument("--rows", type=int, help="at most so many accesses of each trace")
    parser.add_argument("--repeats", type=int, default=1, help="replays of each, of which the quickest is timed")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    runs = []
    for name, make in traces(options.traces):
        if options.cell in name:
            trace = first_rows(make(), options.rows)
            runs += replayed(name, trace, options.fractions, options.policies, options.repeats)
    if not runs:
        print(f"no trace has {options.cell!r} in its name", file=sys.stderr)
        return 2
    for metric in METRICS:
        print(f"\n{metric}: missed, of all", table(runs, options.policies, metric), sep="\n")
    regrets = regret(runs)
    print("\nregret against the best online policy of each cell, by cost", summary(runs, regrets), sep="\n")
    print(f"\nmisses of all replays together: {sum(run.stats.misses for run in runs)}")
    if options.json:
        options.json.write_text(json.dumps([run._asdict() | {"stats": vars(run.stats)} for run in runs]))
    ours = [of for (_, policy), of in regrets.items() if policy == "infcore"]
    return int(bool(ours) and (statistics.fmean(ours) > MEAN_REGRET_MAX or max(ours) > WORST_REGRET_MAX))


def traces(folder: Path) -> Iterator[tuple[str, Callable[[], loaders.CacheTrace]]]:
    """Names, and what reads or draws each."""
    mooncake, scarab = folder / "mooncake_conversation_trace.jsonl.gz", folder / "scarab_recs.trace.xz"
    azure = folder / "azure_llm2023_conv.csv.gz"
    recorded: list[tuple[str, list[Path], Callable[[], loaders.CacheTrace]]] = [
        ("mooncake", [mooncake], lambda: loaders.mooncake(mooncake)),
        *(
            (f"scarab x{spread}", [scarab, azure], lambda spread=spread: with_tokens(scarab, azure, spread))
            for spread in (1, 8, 50)
        ),
    ]
    for name, file, load in [
        ("adaptsize", "adaptsize_request.trace.xz", loaders.adaptsize),
        ("gcc", "caffeine_gcc_penalties.trace.xz", loaders.penalties),
    ]:
        recorded.append((name, [folder / file], lambda load=load, path=folder / file: load(path)))
    for name, needed, make in recorded:
        missing = [str(path) for path in needed if not path.exists()]
        if missing:
            print(f"{name}: left out, no {', '.join(missing)}", file=sys.stderr)
        else:
            yield name, make
    yield "zipf", lambda: zipf("static")
    yield "zipf permuted", lambda: zipf("permuted")
    yield "zipf drift", lambda: zipf("drift")


def with_tokens(keys: Path, tokens: Path, spread: int) -> loaders.CacheTrace:
    trace = loaders.scarab(keys)
    sizes, costs = loaders.token_costs(trace.keys, loaders.azure_tokens(tokens), float(spread))
    return loaders.CacheTrace(trace.keys, sizes, costs)


def zipf(kind: str, n: int = 1_000_000, n_keys: int = 100_000, seed: int = 1) -> loaders.CacheTrace:
    """Zipf 1.0: the key of rank r comes with a probability as 1 / r."""
    draw = np.random.default_rng(seed)
    heights = np.cumsum(1.0 / np.arange(1, n_keys + 1))
    ranks = np.searchsorted(heights, draw.random(n) * heights[-1])
    if kind == "permuted":
        parts = [draw.permutation(n_keys)[part] for part in np.split(ranks, range(100_000, n, 100_000))]
        return loaders.CacheTrace(np.concatenate(parts))
    return loaders.CacheTrace(ranks if kind == "static" else (ranks + np.arange(n) // 20) % n_keys)


def first_rows(trace: loaders.CacheTrace, n: int | None) -> loaders.CacheTrace:
    columns = trace.columns()
    return loaders.CacheTrace(**{name: None if column is None else column[:n] for name, column in columns.items()})


def replayed(
    name: str, trace: loaders.CacheTrace, fractions: Sequence[float], chosen: Sequence[str], repeats: int
) -> Iterator[Run]:
    working_set = trace.working_set_bytes()
    for fraction in fractions:
        for policy in chosen:
            seconds = []
            for _ in range(repeats):
                begin_s = time.thread_time()  # others may use the machine
                stats = replay(**trace.columns(), capacity=max(1, int(working_set * fraction)), policy=policy)
                seconds.append(time.thread_time() - begin_s)
            yield Run(name, fraction, policy, stats, min(seconds) / len(trace) * 1e9)
        print(".", end="", flush=True, file=sys.stderr)


def table(runs: Sequence[Run], chosen: Sequence[str], metric: str) -> str:
    """A row a cell; * is the best online policy."""
    rows = []
    for cell in dict.fromkeys(run.cell for run in runs):
        ratios = {run.policy: METRICS[metric](run.stats) for run in runs if run.cell == cell}
        least = min((ratio for policy, ratio in ratios.items() if policy not in OFFLINE), default=-1.0)
        shown = [f"{ratios[p]:.3f}{'*' if ratios[p] == least and p not in OFFLINE else ' '}" for p in chosen]
        rows.append([cell, *shown])
    return render(("cell", *chosen), rows)


def regret(runs: Sequence[Run]) -> dict[tuple[str, str], float]:
    """By cell and online policy: how much more than the best of them it spends."""
    regrets = {}
    for cell in dict.fromkeys(run.cell for run in runs):
        spent = {
            run.policy: run.stats.cost_miss_ratio for run in runs if run.cell == cell and run.policy not in OFFLINE
        }
        least = min(spent.values(), default=0.0)
        regrets |= {(cell, policy): (cost / least - 1.0 if least > 0.0 else 0.0) for policy, cost in spent.items()}
    return regrets


def summary(runs: Sequence[Run], regrets: dict[tuple[str, str], float]) -> str:
    rows: list[list[str]] = []
    for policy in dict.fromkeys(run.policy for run in runs):
        of: dict[str, float] = {cell: more for (cell, name), more in regrets.items() if name == policy}
        worst = max(of, key=lambda cell: of[cell], default="")
        ns = [run.ns for run in runs if run.policy == policy]
        shown: list[Any] = (
            [percent(statistics.fmean(of.values()), 2), percent(of[worst], 2), worst] if of else ["-"] * 3
        )
        rows.append([policy, *shown, f"{statistics.median(ns):.0f}", f"{max(ns):.0f}"])
    return render(("policy", "mean", "worst", "in", "ns, median of cells", "ns, worst cell"), rows)


if __name__ == "__main__":
    sys.exit(main())
