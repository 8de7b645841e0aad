"""Ring and queue, per item, beside their baselines in the same run.

    pytest bench/micro/test_ring.py            (RING_RUNS, RING_ITEMS: the size of the C++ part)

The C++ rows come from ring_bench.cpp, compiled here; the times shown are its own, per item and run, and extra_info
holds its row with the ratios. Nothing is asserted about time, only that every item came out.
"""

import heapq
import itertools
import json
import os
import queue
import random
import subprocess
import time

import pytest
from programs import SaidTimer, compiled

import infcore

SHAPES = ["same_thread", "same_thread_bulk_32", "one_to_one", "one_to_one_bulk_32"]
QUEUES = ["ring", "textbook", "moodycamel_tokens", "mutex_deque"]
N_BATCH = 64
N_DEEP = 1000


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


def put_and_drain() -> int:
    q = infcore.Queue(2 * N_BATCH)
    put, drain, n = q.put, q.drain, 0
    for _ in range(100):
        for item in range(N_BATCH):
            put(item)
        n += sum(drain(N_BATCH))
    return n


def put_many_and_drain() -> int:
    q = infcore.Queue(2 * N_BATCH)
    items, n = list(range(N_BATCH)), 0
    for _ in range(100):
        q.put_many(items)
        n += sum(q.drain(N_BATCH))
    return n


def simple_queue() -> int:
    q: queue.SimpleQueue[int] = queue.SimpleQueue()
    put, get, n = q.put, q.get_nowait, 0
    for _ in range(100):
        for item in range(N_BATCH):
            put(item)
        for _ in range(N_BATCH):
            n += get()
    return n


@pytest.mark.parametrize("run", [put_and_drain, put_many_and_drain, simple_queue], ids=lambda run: run.__name__)
def test_first_come_first_served(benchmark, run) -> None:
    benchmark.group = f"Python, {100 * N_BATCH} items in and out"
    assert benchmark(run) == 100 * N_BATCH * (N_BATCH - 1) // 2
    note_ns_per_item(benchmark, 100 * N_BATCH)


def deadlines(n: int) -> list[float]:
    rng = random.Random(1)
    return [100.0 + rng.random() * 100.0 for _ in range(n)]


def test_deadline_queue(benchmark) -> None:
    benchmark.group = f"Python, deadline put and get at {N_DEEP} deep"
    q = infcore.Queue(2 * N_DEEP)
    for item, deadline_s in enumerate(deadlines(N_DEEP)):
        q.put(item, deadline_s=deadline_s)
    more = deadlines(N_DEEP)

    def run() -> int:
        put, get, n = q.put, q.get_nowait, 0
        for deadline_s in more:
            put(1, deadline_s=deadline_s)
            get()
            n += 1
        return n

    assert benchmark(run) == N_DEEP
    assert len(q) == N_DEEP
    note_ns_per_item(benchmark, N_DEEP)


def test_deadline_heapq(benchmark) -> None:
    benchmark.group = f"Python, deadline put and get at {N_DEEP} deep"
    now, number = time.monotonic, itertools.count()
    heap = [(now() + deadline_s, next(number), 0) for deadline_s in deadlines(N_DEEP)]
    heapq.heapify(heap)
    more = deadlines(N_DEEP)

    def run() -> int:
        push, pop, n = heapq.heappush, heapq.heappop, 0
        for deadline_s in more:
            push(heap, (now() + deadline_s, next(number), 1))
            pop(heap)
            n += 1
        return n

    assert benchmark(run) == N_DEEP
    assert len(heap) == N_DEEP
    note_ns_per_item(benchmark, N_DEEP)


def test_cancel(benchmark) -> None:
    n_items = 10_000
    benchmark.group = f"Python, cancel at {n_items} deep, in random order"
    q = infcore.Queue(n_items)

    def setup() -> tuple[tuple[list[infcore.Ticket]], dict]:
        tickets = [q.put(1, deadline_s=deadline_s) for deadline_s in deadlines(n_items)]
        random.Random(2).shuffle(tickets)
        return (tickets,), {}

    assert benchmark.pedantic(lambda tickets: sum(map(q.cancel, tickets)), setup=setup, rounds=10) == n_items
    assert len(q) == 0
    note_ns_per_item(benchmark, n_items)


def note_ns_per_item(benchmark, n_items: int) -> None:
    if benchmark.stats is None:  # --benchmark-disable
        return
    ns = benchmark.stats.stats.median * 1e9 / n_items
    benchmark.extra_info["ns_per_item"] = round(ns, 1)
    print(f"\n{benchmark.name}: {ns:.1f} ns an item")
