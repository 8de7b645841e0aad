"""infcore.Queue and its plain Python model, given the same calls; every answer is compared."""

import math
import random

import pytest
from reference import queueing

import infcore

UNIT_S = 0.25  # exact in binary, so that both sides compare the same times


class Clock:
    """One that may go backwards."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def now_s(self) -> float:
        return self.at_s


class Pair:
    def __init__(self, rng: random.Random, overflow: str, ageing: float, goes_back: bool = False) -> None:
        self.rng = rng
        self.goes_back = goes_back
        self.tiers = rng.choice([1, 2, 4, 64])
        capacity = rng.choice([1, 3, 16, 200])
        bounds = rng.choice([None, [max(1, capacity // 2)] * self.tiers])
        self.clock = Clock()
        self.now = 0.0
        self.tenants = rng.choice([[""], ["", "a"], ["a", "b", "c", "d"]])
        self.dropped: list[tuple[int, str]] = []
        self.model = queueing.TieredQueue(capacity, self.tiers, overflow, bounds, ageing * UNIT_S)
        self.queue = infcore.Queue(
            capacity,
            tiers=self.tiers,
            overflow=overflow,
            tier_capacity=bounds,
            ageing_s=None if math.isinf(ageing) else ageing * UNIT_S,
            on_drop=lambda item, reason: self.dropped.append((item, reason)),
            clock=self.clock,
        )
        self.tickets: list[tuple[infcore.Ticket, queueing.Item]] = []

    def put(self, value: int) -> None:
        tier = self.rng.randrange(self.tiers)
        wait = self.rng.choice([None, self.rng.randrange(40) * UNIT_S])
        tenant, work = self.rng.choice(self.tenants), self.rng.choice([1.0, 1.0, 0.0, 0.3, 7.5, 1e300])
        deadline = math.inf if wait is None else self.now + wait
        taken = self.model.put(value, tier, deadline, self.now, tenant, work)
        try:
            ticket = self.queue.put(value, tier=tier, deadline_s=wait, tenant=tenant, work=work)
        except infcore.QueueFull:
            assert taken is None
        else:
            assert taken is not None
            self.tickets.append((ticket, taken))

    def get(self, _: int) -> None:
        expected = self.model.get(self.now)
        if expected is None:
            with pytest.raises(infcore.QueueEmpty):
                self.queue.get_nowait()
        else:
            assert self.queue.get_nowait() == expected.value

    def drain(self, _: int) -> None:
        n_max = self.rng.randrange(8)
        assert self.queue.drain(n_max) == [item.value for item in self.model.drain(n_max, self.now)]

    def cancel(self, _: int) -> None:
        if self.tickets:
            ticket, item = self.tickets.pop(self.rng.randrange(len(self.tickets)))
            assert self.queue.cancel(ticket) == self.model.cancel(item)

    def advance(self, _: int) -> None:
        self.now += self.rng.randrange(-5 if self.goes_back else 0, 6) * UNIT_S
        self.clock.at_s = self.now

    def check(self) -> None:
        assert len(self.queue) == len(self.model.items)
        assert self.dropped == self.model.dropped

    def run(self, n_steps: int) -> None:
        steps = [self.put] * 5 + [self.get] * 2 + [self.drain, self.cancel, self.advance]
        for i in range(n_steps):
            self.rng.choice(steps)(i)
            self.check()
        expected = [item.value for item in self.model.drain(n_steps, self.now)]
        assert self.queue.drain(n_steps) == expected
        self.check()
