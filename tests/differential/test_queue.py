"""infcore.Queue decides as its plain Python model does, on random traces."""

import math
import random

import pytest
from reference import queueing

import infcore

N_STEPS = 1500
UNIT_S = 0.25  # exact in binary, so that both sides compare the same times


class Pair:
    """The same calls to both; every answer is compared."""

    def __init__(self, rng: random.Random, overflow: str, ageing: float) -> None:
        self.rng = rng
        self.tiers = rng.choice([1, 2, 4, 64])
        capacity = rng.choice([1, 3, 16, 200])
        bounds = rng.choice([None, [max(1, capacity // 2)] * self.tiers])
        self.clock = infcore.ManualClock()
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
        step = self.rng.randrange(6) * UNIT_S
        self.now += step
        self.clock.advance(step)

    def check(self) -> None:
        assert len(self.queue) == len(self.model.items)
        assert self.dropped == self.model.dropped


@pytest.mark.parametrize("ageing", [math.inf, 12, 0])
@pytest.mark.parametrize("overflow", ["reject", "shed_lowest"])
@pytest.mark.parametrize("seed", range(6))
def test_same_decisions_as_the_model(overflow: str, ageing: float, seed: int) -> None:
    rng = random.Random(f"{overflow} {ageing} {seed}")
    pair = Pair(rng, overflow, ageing)
    steps = [pair.put] * 5 + [pair.get] * 2 + [pair.drain, pair.cancel, pair.advance]
    for i in range(N_STEPS):
        rng.choice(steps)(i)
        pair.check()
    expected = [item.value for item in pair.model.drain(N_STEPS, pair.now)]
    assert pair.queue.drain(N_STEPS) == expected
    pair.check()
