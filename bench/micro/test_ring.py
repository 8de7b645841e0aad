"""The ring, per item, beside its baselines in the same run.

    pytest bench/micro/test_ring.py            (RING_RUNS, RING_ITEMS: the size of the C++ part)

The C++ rows come from ring_bench.cpp, compiled here; the times shown are its own, per item and run, and extra_info
holds its row with the ratios. Nothing is asserted about time, only that every item came out.
"""

import json
import os
import subprocess

import pytest
from programs import SaidTimer, compiled

SHAPES = ["same_thread", "same_thread_bulk_32", "one_to_one", "one_to_one_bulk_32"]
QUEUES = ["ring", "textbook", "moodycamel_tokens", "mutex_deque"]


@pytest.fixture(scope="session")
def ring_rows() -> dict[tuple[str, str], dict]:
    """(shape, queue) -> its row."""
    program = compiled("ring_bench")
    size = [os.environ.get("RING_RUNS", "11"), os.environ.get("RING_ITEMS", "200000")]
    done = subprocess.run([str(program), *size], check=True, capture_output=True, text=True)
    return {(row["shape"], row["queue"]): row for row in json.loads(done.stdout)["rows"]}


timer = SaidTimer()


@pytest.mark.benchmark(timer=timer.read_s)
@pytest.mark.parametrize("queue_name", QUEUES)
@pytest.mark.parametrize("shape", SHAPES)
def test_ring(benchmark, ring_rows, shape: str, queue_name: str) -> None:
    benchmark.group = f"C++ {shape}"
    row = ring_rows.get((shape, queue_name))
    if row is None:
        pytest.skip("no moodycamel header here: install the Debian package libconcurrentqueue-dev")
    runs_ns = row["runs_ns"]
    benchmark.extra_info.update({key: value for key, value in row.items() if key != "runs_ns"})
    for other in QUEUES:
        if (shape, other) in ring_rows:
            benchmark.extra_info[f"times_{other}"] = round(
                row["ns_per_item"] / ring_rows[shape, other]["ns_per_item"], 3
            )
    left = iter(runs_ns)
    benchmark.pedantic(timer.pass_s, setup=lambda: ((1e-9 * next(left),), {}), rounds=len(runs_ns))
    info = benchmark.extra_info
    ratios = ", ".join(f"{info['times_' + q]:.2f}x {q}" for q in QUEUES if f"times_{q}" in info and q != queue_name)
    print(f"\n{shape:20} {queue_name:18} {row['ns_per_item']:8.2f} ns  best {row['ns_per_item_best']:8.2f}  {ratios}")
    assert row["checksum_ok"]
