"""Requests with equal keys from threads and event loops, with cancels, deadlines and failures. Also run under TSAN."""

import asyncio
import gc
import itertools
import random
import threading

import numpy as np

import infcore

N_THREADS, N_LOOPS, N_TASKS, N_EACH = 3, 2, 8, 120
FAILS = 13


def _run(name, inputs):
    if (inputs["x"][:, 0] == FAILS).any():
        raise ValueError("thirteen")
    return {"y": inputs["x"] * 2.0}


class Asked:
    """What one of the threads or loops asks for, and what it got."""

    def __init__(self, engine, seed, serials):
        self._engine, self._rng, self._serials = engine, random.Random(seed), serials
        self.counts = {}

    def draw(self):
        """The key says what the answer is, but for the second number, which says who ran."""
        key = self._rng.choice([*range(6), FAILS])
        x = np.array([key, next(self._serials)], np.float32)
        deadline_s = self._rng.choice([None, None, 0.001, 30.0])
        return key, x, {"key": key, "tier": self._rng.randrange(3), "deadline_s": deadline_s}

    def wants_to_cancel(self):
        return self._rng.random() < 0.2

    def forget(self, cache):
        if self._rng.random() < 0.3:
            cache.clear()

    def judge(self, key, x, future, outcome):
        if isinstance(outcome, dict):
            assert float(outcome["y"][0]) == 2.0 * key != 2.0 * FAILS
            assert future.cached or float(outcome["y"][1]) == 2.0 * x[1]
            kind = "attached or cached" if future.cached else "ran"
        else:
            allowed = (infcore.Cancelled, asyncio.CancelledError, infcore.DeadlineExceeded, infcore.DeadlineInfeasible)
            if key == FAILS:
                allowed = (*allowed, infcore.DeviceError)
            assert isinstance(outcome, allowed), outcome
            kind = type(outcome).__name__
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def on_thread(self, cache):
        for _ in range(N_EACH // 10):
            asked = [self.draw() for _ in range(10)]
            futures = [self._engine.submit("m", {"x": x}, **options) for _, x, options in asked]
            for future in futures:
                if self.wants_to_cancel():
                    future.cancel()
            self.forget(cache)
            for (key, x, _), future in zip(asked, futures, strict=True):
                if self.wants_to_cancel():
                    continue  # never looked at
                try:
                    self.judge(key, x, future, future.result(timeout_s=60.0))
                except infcore.InfcoreError as e:
                    self.judge(key, x, future, e)

    async def on_loop(self):
        async def one():
            for _ in range(N_EACH // N_TASKS):
                key, x, options = self.draw()
                future = self._engine.asubmit("m", {"x": x}, **options)
                if self.wants_to_cancel():
                    await asyncio.sleep(0)
                    future.cancel()
                try:
                    self.judge(key, x, future, await future)
                except (infcore.InfcoreError, asyncio.CancelledError) as e:
                    self.judge(key, x, future, e)

        await asyncio.gather(*[one() for _ in range(N_TASKS)])


def test_equal_requests_from_everywhere():
    cache, failures, serials = infcore.Cache(100, policy="lru"), [], itertools.count()
    devices = [infcore.CallableDevice(name, run=_run) for name in "ab"]
    model = infcore.Model("m", inputs={"x": ("float32", (2,))}, outputs={"y": ("float32", (2,))}, max_batch_size=4)
    with infcore.Engine(devices, [model], cache=cache, health=False) as engine:
        asked = [Asked(engine, seed, serials) for seed in range(N_THREADS + N_LOOPS)]

        def guarded(run):
            try:
                run()
            except BaseException as e:
                failures.append(e)

        runs = [lambda a=a: a.on_thread(cache) for a in asked[:N_THREADS]]
        runs += [lambda a=a: asyncio.run(a.on_loop()) for a in asked[N_THREADS:]]
        threads = [threading.Thread(target=guarded, args=(run,)) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        del threads, runs
        engine.close()
        gc.collect()
        assert (engine.n_open, engine._n_flights()) == (0, 0)
    counts = {kind: sum(a.counts.get(kind, 0) for a in asked) for a in asked for kind in a.counts}
    assert {"attached or cached", "ran", "DeviceError"} <= counts.keys(), counts
