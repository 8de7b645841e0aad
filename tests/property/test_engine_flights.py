"""Whatever is submitted, cancelled, late, failed and forgotten, in whatever order: requests with equal keys end as the
plain model says (tests/reference/flights.py). It is told which run is next, and which is given up."""

import contextlib
import math
import random
import threading
from collections import Counter

import pytest
from engine_rig import WAIT_S, model, wait_until, x_of
from reference.flights import Flights

import infcore


class Device:
    """Runs one request at a time, until it is told how that ends."""

    def __init__(self):
        self.entered, self._go = [], threading.Semaphore(0)
        self.fails = self.open = False

    def __call__(self, name, inputs):
        self.entered.append(int(inputs["x"][0, 0]))
        assert self.open or self._go.acquire(timeout=WAIT_S)
        if self.fails:
            raise RuntimeError("told to")
        return {"y": inputs["x"] * 2}

    def end(self, fails):
        self.fails = fails
        self._go.release()

    def end_all(self):
        self.fails, self.open = False, True
        self._go.release()


class Schedule:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.clock, self.device = infcore.ManualClock(), Device()
        self.cache = infcore.Cache(1 << 20, policy="lru")
        self.engine = infcore.Engine(
            [infcore.CallableDevice("d", run=self.device, run_limit_s=None)],
            [model(max_batch_size=1, idempotent=False)],  # or a failed run might be done again
            cache=self.cache,
            clock=self.clock,
            admission=(),
            health=False,
        )
        self.now_s, self.n_ended = 0.0, 0
        self.plain, self.futures = Flights(), {}
        self.ends = Counter()

    def submit(self):
        id, key = len(self.futures), self.rng.choice("ab")
        tier, allowed_s = self.rng.randrange(3), self.rng.choice([None, 10.0, 40.0, 1000.0])
        self.futures[id] = self.engine.submit("m", x_of(float(id)), key=key, tier=tier, deadline_s=allowed_s)
        self.plain.submit(id, key, tier, math.inf if allowed_s is None else self.now_s + allowed_s)

    def cancel(self):
        open_ids = [id for id, future in self.futures.items() if not future.done()]
        if open_ids:
            id = self.rng.choice(open_ids)
            assert self.futures[id].cancel()
            request = self.plain.requests[id]
            if request.role == "waits":
                self.plain.leave(request, ("cancelled",))

    def advance(self):
        by_s = float(self.rng.randrange(1, 15))
        self.now_s += by_s
        self.clock.advance(by_s)
        self.engine.stats()
        self.plain.expire(self.now_s)

    def end_run(self):
        if len(self.device.entered) == self.n_ended:
            return
        runs = self.futures[self.device.entered[-1]]
        self.n_ended += 1
        self.device.end(self.rng.random() < 0.25)
        wait_until(runs.done, "the run's end")

    def ask(self):
        ended = [id for id, future in self.futures.items() if future.done()]
        if ended:
            self.judge(self.rng.choice(ended))

    def forget(self):
        self.cache.clear()
        self.plain.forget()

    def step(self):
        acts = [self.submit] * 8 + [self.cancel] * 2 + [self.advance] * 2 + [self.end_run] * 3 + [self.ask, self.forget]
        self.rng.choice(acts)()
        self.compare()

    def compare(self):
        """Tells the model what became of those that run, and sees whether the rest is as it says."""
        while True:
            self.engine.stats()  # whatever was said before has been heard
            requests = self.plain.requests.values()
            done = {request.id: self.futures[request.id].done() for request in requests if request.role != "runs"}
            # Last: one that ends meanwhile, late or given up, is seen here, and everything is looked at once more.
            running = [request for request in requests if request.role == "runs"]
            over = [(request, self.how(request.id)) for request in running if self.futures[request.id].done()]
            if over:
                self.plain.ended(over)
                continue
            # Those that are expected to be late everywhere are kept until their deadlines.
            if not any(request.deadline_s == math.inf for request in running):
                break
            if len(self.device.entered) > self.n_ended:
                break
            wait_until(lambda: len(self.device.entered) > self.n_ended, "a run")
        for request in self.plain.requests.values():
            assert done.get(request.id, False) == (request.role is None), request
        # Who was cancelled while a worker copied its inputs counts until that is over.
        n_open = sum(request.role is not None for request in self.plain.requests.values())
        wait_until(lambda: self.engine.n_open == n_open, "the engine to have let go")

    def how(self, id):
        future = self.futures[id]
        if future.cancelled():
            return "cancelled"
        error = future.exception()
        if error is None:
            return "ok"
        return "failed" if error.reason == "device_failed" else "given up"

    def judge(self, id):
        future, request = self.futures[id], self.plain.requests[id]
        end = request.end or ("ran", self.how(id))
        self.ends[end[0]] += 1
        if end[0] == "answered":
            assert float(future.result()["y"][0]) == 2.0 * end[1], (id, request)
            assert future.cached is True
        elif end[0] == "failed":
            assert isinstance(future.exception(), infcore.DeviceError)
        elif end[0] == "expired":
            assert isinstance(future.exception(), infcore.DeadlineExceeded)
            assert future.end_s == pytest.approx(end[1])
        elif end[0] == "cancelled":
            assert future.cancelled()
        elif end[1] == "ok":
            assert float(future.result()["y"][0]) == 2.0 * id
            assert future.cached is False


@pytest.mark.parametrize("seed", range(24))
def test_they_end_as_the_plain_model_says(seed):
    schedule = Schedule(seed)
    with schedule.engine:
        try:
            for _ in range(60):
                schedule.step()
        finally:
            schedule.device.end_all()
        wait_until(lambda: schedule.engine.n_open == 0, "all to end")
        for id, request in schedule.plain.requests.items():
            if request.role is None:
                schedule.judge(id)
        for future in schedule.futures.values():
            with contextlib.suppress(infcore.Cancelled):
                future.exception(timeout_s=0.0)
        assert schedule.engine._n_flights() == 0


def test_the_schedules_reach_every_end():
    ends = Counter()
    for seed in range(16):
        schedule = Schedule(100 + seed)
        with schedule.engine:
            try:
                for _ in range(60):
                    schedule.step()
            finally:
                schedule.device.end_all()
            for id, request in schedule.plain.requests.items():
                if request.role is None:
                    schedule.judge(id)
        ends += schedule.ends
    assert min(ends[end] for end in ("answered", "failed", "expired", "cancelled", "ran")) >= 1, ends
