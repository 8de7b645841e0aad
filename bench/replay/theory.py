"""The simulator's plain means against queueing theory, in runs long enough for 1 %: formula, simulated, ratio.

python bench/replay/theory.py [--requests N]
N requests at load 0.5, and as many more as the mean is noisier at 0.8 and 0.95. Exit status 1 if a ratio is off by more
than 1 % and more than three of its standard errors.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from reference import queueing_theory as theory  # noqa: E402

from infcore.sim import parse, simulate  # noqa: E402  (its neighbour's folder is known only now)

SERVICE_S, SERVERS, BATCH = 0.001, 4, 8
# The variance of the mean of n waits of M/M/1, n times, over the squared latency, grows so from load 0.5 on.
TIMES = {0.5: 1.0, 0.8: 10.0, 0.95: 190.0}
N_GROUPS = 20  # of the run's parts, for the standard error


def scenario_text(rate_rps: float, n: float, work: str, nodes: int, batch: int) -> str:
    curve = f"per_work_s = {SERVICE_S}" if batch == 1 else f"base_s = {SERVICE_S}"
    return (
        f'[run]\nseconds = {n / rate_rps}\nbatching = "greedy"\n[[node]]\nname = "n"\ncount = {nodes}\n'
        f'[[model]]\nname = "m"\nmax_batch_size = {batch}\n[[latency]]\nmodel = "m"\nnode = "n"\n{curve}\n'
        f'[[workload]]\nmodel = "m"\nrate_rps = {rate_rps}\nwork = {work}\n'
    )


def systems(load: float) -> list[tuple[str, theory.Law, str, int, int]]:
    """Name, law, works, nodes, largest batch."""
    rate_rps = load / SERVICE_S
    exponential, constant = '{ dist = "exponential", mean = 1.0 }', "1.0"
    lognormal = '{ dist = "lognormal", mean = 1.0, cv = 1.2 }'
    return [
        ("M/M/1", theory.mg1(rate_rps, SERVICE_S, 1.0), exponential, 1, 1),
        ("M/D/1", theory.mg1(rate_rps, SERVICE_S, 0.0), constant, 1, 1),
        ("M/G/1, lognormal, cv 1.2", theory.mg1(rate_rps, SERVICE_S, 1.2), lognormal, 1, 1),
        (f"M/M/{SERVERS}", theory.mmc(rate_rps * SERVERS, SERVICE_S, SERVERS), exponential, SERVERS, 1),
        (f"M/D/1, up to {BATCH} at once", theory.md1_bulk(rate_rps * BATCH, SERVICE_S, BATCH), constant, 1, BATCH),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=float, default=1e6, metavar="N", help="at load 0.5 (default: 1e6)")
    arguments = parser.parse_args()
    bad = 0
    print(f"{'system':28}{'load':>6}{'requests':>14}{'formula ms':>12}{'simulated':>11}{'ratio':>9}{'+-':>8}{'M/s':>7}")
    for load, times in TIMES.items():
        for name, law, work, nodes, batch in systems(load):
            rate_rps = load * nodes * batch / SERVICE_S
            world = parse(scenario_text(rate_rps, arguments.requests * times, work, nodes, batch), "theory")
            row = simulate(world, policy="fastest_finish", seed=1)
            ok = np.array(row["parts"]["ok"], float)
            sums = np.array_split(ok * np.array(row["parts"]["latency_mean_s"]), N_GROUPS)
            means = [s.sum() / n.sum() for s, n in zip(sums, np.array_split(ok, N_GROUPS), strict=True)]
            error = float(np.std(means, ddof=1)) / N_GROUPS**0.5 / law.latency_s
            mean_s = row["latency_s"]["mean"]
            ratio = mean_s / law.latency_s
            bad += abs(ratio - 1.0) > max(0.01, 3.0 * error)
            print(
                f"{name:28}{load:6.2f}{row['requests']:14,}{law.latency_s * 1e3:12.4f}{mean_s * 1e3:11.4f}"
                f"{ratio:9.4f}{error:8.4f}{row['requests'] / row['wall_s'] / 1e6:7.2f}",
                flush=True,
            )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
