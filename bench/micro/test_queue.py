"""The queue, per item, beside what people use instead, in the same run; with processor time, as machines are shared.

    pytest bench/micro/test_queue.py            (QUEUE_RUNS, QUEUE_ITEMS: the size of the C++ part)

Rows of a group are timed by pytest-benchmark one after another; ratios are from test_ratios, which runs them in turn.
"""

import heapq
import itertools
import json
import os
import queue
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from programs import ROOT, SaidTimer, compiled

import infcore

N_BATCH = 64
N_DEEP = 1000
N_CANCEL = 10_000
SOURCES = [ROOT / "csrc/infcore/queue" / name for name in ("tiered_lane.cpp", "tenant_flows.cpp")]
timer = SaidTimer()


# ---- C++


@pytest.fixture(scope="session")
def lane_rows() -> dict[str, dict]:
    """queue -> its row."""
    program = compiled("queue_bench", *SOURCES)
    size = [os.environ.get("QUEUE_RUNS", "51"), os.environ.get("QUEUE_ITEMS", "20000")]
    done = subprocess.run([str(program), *size], check=True, capture_output=True, text=True)
    return {row["queue"]: row for row in json.loads(done.stdout)["rows"]}


@pytest.mark.benchmark(timer=timer.read_s)
@pytest.mark.parametrize("name", ["ring_and_lane", "ring_and_lane_64_tenants", "mutex_priority_queue"])
def test_ring_and_lane(benchmark, lane_rows: dict[str, dict], name: str) -> None:
    benchmark.group = f"C++, an item through ring and heap, {N_DEEP} deep"
    row = lane_rows[name]
    benchmark.extra_info.update({key: value for key, value in row.items() if key != "runs_ns"})
    left = iter(row["runs_ns"])
    benchmark.pedantic(timer.pass_s, setup=lambda: ((1e-9 * next(left),), {}), rounds=len(row["runs_ns"]))
    print(f"\n{name}: {row['ns_per_item']:.1f} ns an item, best run {row['ns_per_item_best']:.1f}")
    assert row["checksum_ok"]


# ---- Python: first come, first served


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


# ---- Python: by deadline


class HeapQueue:
    """As users write it: a heap of (deadline, number, item) under a lock."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, object]] = []
        self.lock = threading.Lock()
        self.number = itertools.count()

    def put(self, item: object, deadline_s: float) -> None:
        with self.lock:
            heapq.heappush(self.heap, (time.monotonic() + deadline_s, next(self.number), item))

    def get(self) -> object:
        with self.lock:
            return heapq.heappop(self.heap)[2]


def deadlines(n: int) -> list[float]:
    rng = random.Random(1)
    return [100.0 + rng.random() * 100.0 for _ in range(n)]


def filled(put: Callable) -> None:
    for item, deadline_s in enumerate(deadlines(N_DEEP)):
        put(item, deadline_s=deadline_s)


def rounds_of_deadlines() -> Iterator[list[float]]:
    """N_DEEP at a time. A run takes far less time than the deadlines differ by, so each is later by as much as one of
    those inside has to wait on average: what stays is like what comes."""
    for at in itertools.count():
        yield [100.0 * at + 0.1 * i + deadline_s for i, deadline_s in enumerate(deadlines(N_DEEP))]


def infcore_by_deadline() -> Callable[[list[float]], int]:
    q = infcore.Queue(2 * N_DEEP)
    filled(q.put)

    def run(more: list[float]) -> int:
        put, get = q.put, q.get_nowait
        for deadline_s in more:
            put(1, deadline_s=deadline_s)
            get()
        return len(q)

    return run


def tenants_by_deadline() -> Callable[[list[float]], int]:
    """Eight tenants, which costs more than one."""
    q = infcore.Queue(2 * N_DEEP)
    filled(q.put)
    names = [f"tenant {i % 8}" for i in range(N_DEEP)]

    def run(more: list[float]) -> int:
        put, get = q.put, q.get_nowait
        for deadline_s, name in zip(more, names, strict=True):
            put(1, deadline_s=deadline_s, tenant=name)
            get()
        return len(q)

    return run


def heap_by_deadline() -> Callable[[list[float]], int]:
    q = HeapQueue()
    filled(q.put)

    def run(more: list[float]) -> int:
        put, get = q.put, q.get
        for deadline_s in more:
            put(1, deadline_s=deadline_s)
            get()
        return len(q.heap)

    return run


def heap_inline_by_deadline() -> Callable[[list[float]], int]:
    """The same written out where it is used, without methods: the least that Python can do."""
    q = HeapQueue()
    filled(q.put)

    def run(more: list[float]) -> int:
        heap, lock, number = q.heap, q.lock, q.number
        push, pop, now = heapq.heappush, heapq.heappop, time.monotonic
        for deadline_s in more:
            with lock:
                push(heap, (now() + deadline_s, next(number), 1))
            with lock:
                pop(heap)
        return len(heap)

    return run


FIFO = {"put_and_drain": put_and_drain, "put_many_and_drain": put_many_and_drain, "SimpleQueue": simple_queue}
BY_DEADLINE = {
    "infcore": infcore_by_deadline,
    "8 tenants": tenants_by_deadline,
    "heapq in a class": heap_by_deadline,
    "heapq written out": heap_inline_by_deadline,
}


@pytest.mark.benchmark(timer=time.thread_time)
@pytest.mark.parametrize("name", FIFO)
def test_first_come_first_served(benchmark, name: str) -> None:
    benchmark.group = f"Python, {100 * N_BATCH} items in and out"
    assert benchmark(FIFO[name]) == 100 * N_BATCH * (N_BATCH - 1) // 2
    note_ns_per_item(benchmark, 100 * N_BATCH)


@pytest.mark.benchmark(timer=time.thread_time)
@pytest.mark.parametrize("name", BY_DEADLINE)
def test_by_deadline(benchmark, name: str) -> None:
    benchmark.group = f"Python, deadline put and get at {N_DEEP} deep"
    run, more = BY_DEADLINE[name](), rounds_of_deadlines()
    n_rounds = 3 if benchmark.disabled else 300
    assert benchmark.pedantic(run, setup=lambda: ((next(more),), {}), rounds=n_rounds) == N_DEEP
    note_ns_per_item(benchmark, N_DEEP)


@pytest.mark.benchmark(timer=time.thread_time)
def test_cancel(benchmark) -> None:
    benchmark.group = f"Python, cancel at {N_CANCEL} deep, in random order"
    q = infcore.Queue(N_CANCEL)

    def setup() -> tuple[tuple[list[infcore.Ticket]], dict]:
        tickets = [q.put(1, deadline_s=deadline_s) for deadline_s in deadlines(N_CANCEL)]
        random.Random(2).shuffle(tickets)
        return (tickets,), {}

    assert benchmark.pedantic(lambda tickets: sum(map(q.cancel, tickets)), setup=setup, rounds=10) == N_CANCEL
    assert len(q) == 0
    note_ns_per_item(benchmark, N_CANCEL)


def test_ratios(benchmark) -> None:
    """Runs of all rows in turn, so that what the machine does meanwhile meets all of them."""
    deadline = {name: make() for name, make in BY_DEADLINE.items()}
    more = rounds_of_deadlines()
    n_rounds, n_again = (3, 1) if benchmark.disabled else (41, 5)  # again: what comes first finds the others' caches
    taken: dict[str, list[float]] = {name: [] for name in [*FIFO, *deadline]}
    for _ in range(n_rounds):
        some = list(itertools.islice(more, n_again))
        for name in taken:
            for i in range(n_again):
                begin_s = time.thread_time()
                n = FIFO[name]() if name in FIFO else deadline[name](some[i])
                taken[name].append(time.thread_time() - begin_s)
                assert n > 0
    ns = {name: 1e9 * statistics.median(runs) for name, runs in taken.items()}
    ratios = {
        f"{name} / {beside}": round(ns[name] / ns[beside], 3)
        for group, beside in ((FIFO, "SimpleQueue"), (deadline, "heapq in a class"), (deadline, "heapq written out"))
        for name in group
        if name != beside
    }
    benchmark.extra_info.update(ratios)
    benchmark.pedantic(lambda: None)
    print("\n" + "\n".join(f"{ratio:7.3f}  {name}" for name, ratio in ratios.items()))


def note_ns_per_item(benchmark, n_items: int) -> None:
    if benchmark.stats is None:  # --benchmark-disable
        return
    ns = benchmark.stats.stats.median * 1e9 / n_items
    benchmark.extra_info["ns_per_item"] = round(ns, 1)
    print(f"\n{benchmark.name}: {ns:.1f} ns an item")
