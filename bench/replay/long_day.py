"""How much memory and time a long day takes: python bench/replay/long_day.py [--requests 1e8] [--nodes 64] ...

Runs fastest_finish on the unlike nodes of bench/micro/test_simulation.py at 70 % of the bound; prints requests a second
and the process's peak memory.
"""

import argparse
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "micro"))

from test_simulation import scenario

from infcore import sim


def main() -> int:
    """One line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=float, default=1e8)
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--policy", default="fastest_finish")
    arguments = parser.parse_args()
    world = scenario(arguments.nodes, int(arguments.requests))
    row = sim.simulate(world, policy=arguments.policy, seed=1)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{arguments.nodes} nodes, {row['requests_total']:,} requests, {row['simulated_s']:.0f} s simulated in "
        f"{row['wall_s']:.1f} s: {row['requests_total'] / row['wall_s'] / 1e6:.2f} M/s, peak {peak_mib:.0f} MiB, "
        f"lost {row['lost']}, duplicated {row['duplicated']}, digest {row['digest']}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
