"""A closed loop of asyncio callers over a batcher: infcore, or what a developer would write by hand in 15 lines.

infcore is imported where it runs: bench/peers runs the loop in an environment that has none.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from statistics import median

import numpy as np

CALLERS, WIDTH, MAX_BATCH = 64, 8, 64
Call = Callable[[np.ndarray], Awaitable[np.ndarray]]


def double(x):
    return x * np.float32(2.0)


def sleep_then_double(x):
    time.sleep(0.001 + 0.0001 * len(x))
    return double(x)


class ByHand:
    """One queue, one thread, one loop callback per batch: the baseline."""

    def __init__(self, run, loop):
        self.run, self.loop, self.waiting, self.stopped = run, loop, [], False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting or self.stopped)
                batch, self.waiting = self.waiting[:MAX_BATCH], self.waiting[MAX_BATCH:]
            if not batch:
                return
            outputs = self.run(np.stack([x for x, _ in batch]))
            assert len(outputs) == len(batch)
            self.loop.call_soon_threadsafe(self.tell, batch, outputs)

    @staticmethod
    def tell(batch, outputs):
        for (_, future), y in zip(batch, outputs, strict=True):
            future.set_result(y)

    def __call__(self, x):
        future = self.loop.create_future()
        with self.changed:
            self.waiting.append((x, future))
            self.changed.notify()
        return future

    def close(self):
        with self.changed:
            self.stopped = True
            self.changed.notify()
        self.thread.join()


@contextmanager
def by_hand(run):
    batcher = ByHand(run, asyncio.get_running_loop())
    try:
        yield batcher
    finally:
        batcher.close()


@contextmanager
def by_infcore(run, **options):
    import infcore

    model = infcore.Model(
        "m", inputs={"x": ("float32", (WIDTH,))}, outputs={"y": ("float32", (WIDTH,))}, max_batch_size=MAX_BATCH
    )
    device = infcore.CallableDevice("d", run=lambda name, inputs: {"y": run(inputs["x"])})
    with infcore.Engine([device], [model], **options) as engine:

        async def call(x):
            return (await engine.asubmit("m", {"x": x}))["y"]

        yield call


def by_infcore_admission(run):
    """With every policy at the door, and bounds for each tier."""
    import infcore

    policies = infcore.admission_policies()
    return by_infcore(run, admission=policies, tier_capacity=[4096] * 8, stale=lambda model, inputs: None)


async def _closed_loop(call: Call, callers: int, each: int) -> tuple[float, float, float, list[float]]:
    """`callers` tasks, each asking again as soon as it is answered. Wall and CPU seconds, checksum, latencies."""
    rows = np.arange(callers * WIDTH, dtype=np.float32).reshape(callers, WIDTH)
    checksum, latencies = 0.0, []

    async def caller(i):
        nonlocal checksum
        for _ in range(each):
            start = time.perf_counter()
            y = await call(rows[i])
            latencies.append(time.perf_counter() - start)
            checksum += float(y[1])

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*[caller(i) for i in range(callers)])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    expected = each * float(sum(2 * rows[i][1] for i in range(callers)))
    assert abs(checksum - expected) < 1e-3 * max(1.0, expected), (checksum, expected)
    return wall, cpu, checksum, latencies


def measure(batcher, run, callers: int, each: int) -> dict[str, float]:
    async def go():
        with batcher(run) as call:
            await _closed_loop(call, callers, min(each, 20))  # warm up: curves, memory, caches
            return await _closed_loop(call, callers, each)

    wall, cpu, checksum, latencies = asyncio.run(go())
    n = callers * each
    return {
        "cpu_us_per_request": 1e6 * cpu / n,
        "requests_per_s": n / wall,
        "p50_ms": 1e3 * median(latencies),
        "checksum": checksum,
    }
