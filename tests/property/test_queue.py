"""What holds for infcore.Queue on any sequence of calls."""

import random
from collections import Counter

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import infcore


class QueueMachine(RuleBasedStateMachine):
    """Every accepted item ends exactly once; bounds hold; what comes out is first among what is inside."""

    @initialize(
        capacity=st.integers(1, 6),
        tiers=st.integers(1, 3),
        overflow=st.sampled_from(["reject", "shed_lowest"]),
        tier_capacity=st.none() | st.integers(1, 4),
    )
    def make(self, capacity: int, tiers: int, overflow: str, tier_capacity: int | None) -> None:
        self.clock = infcore.ManualClock()
        self.queue: infcore.Queue[int] = infcore.Queue(
            capacity, tiers=tiers, overflow=overflow, tier_capacity=tier_capacity, on_drop=self.note, clock=self.clock
        )
        self.capacity, self.tiers, self.overflow, self.tier_capacity = capacity, tiers, overflow, tier_capacity
        self.inside: dict[int, tuple[int, float, int]] = {}  # item -> tier, deadline, item: its rank
        self.tickets: dict[int, infcore.Ticket] = {}
        self.ended: Counter[int] = Counter()
        self.n_items = 0

    def note(self, item: int, reason: str) -> None:
        assert reason in ("expired", "shed")
        tier, deadline, _ = self.inside.pop(item)
        self.ended[item] += 1
        if reason == "expired":
            assert deadline <= self.clock.now_s()
        else:
            assert self.overflow == "shed_lowest"
            assert all(
                self.inside[other] < (tier, deadline, item) for other in self.inside if self.inside[other][0] == tier
            )

    @rule(tier=st.integers(0, 2), deadline_s=st.none() | st.integers(0, 8))
    def put(self, tier: int, deadline_s: int | None) -> None:
        tier %= self.tiers
        item = self.n_items
        self.n_items += 1
        n_before = len(self.queue)
        try:
            self.tickets[item] = self.queue.put(item, tier=tier, deadline_s=deadline_s)
        except infcore.QueueFull:
            n_tier = sum(rank[0] == tier for rank in self.inside.values())
            assert n_before >= self.capacity or (self.tier_capacity is not None and n_tier >= self.tier_capacity)
        else:
            deadline = float("inf") if deadline_s is None else self.clock.now_s() + deadline_s
            self.inside[item] = (tier, deadline, item)

    @rule()
    def get(self) -> None:
        try:
            item = self.queue.get_nowait()
        except infcore.QueueEmpty:
            assert not self.inside
        else:
            self.took(item)

    @rule(max_items=st.integers(0, 5))
    def drain(self, max_items: int) -> None:
        items = self.queue.drain(max_items)
        for item in items:
            self.took(item)
        assert len(items) == max_items or not self.inside

    def took(self, item: int) -> None:
        rank = self.inside[item]
        assert rank == min(self.inside.values())
        assert rank[1] > self.clock.now_s()
        del self.inside[item]
        self.ended[item] += 1

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(sorted(self.tickets)))
        was_inside = item in self.inside
        assert self.queue.cancel(self.tickets[item]) is was_inside
        if was_inside:
            del self.inside[item]
            self.ended[item] += 1

    @rule(seconds=st.integers(0, 5))
    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @invariant()
    def each_item_once_and_within_bounds(self) -> None:
        if not hasattr(self, "queue"):
            return
        assert len(self.queue) == len(self.inside) <= self.capacity
        assert all(n == 1 for n in self.ended.values())
        assert not self.inside.keys() & self.ended.keys()
        if self.tier_capacity is not None:
            by_tier = Counter(rank[0] for rank in self.inside.values())
            assert all(n <= self.tier_capacity for n in by_tier.values())


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestQueue = QueueMachine.TestCase


def test_no_tier_starves_with_ageing() -> None:
    """Under a flood of urgent items: what has waited ageing_s is served before everything younger, oldest first."""
    for seed in range(40):
        draw = random.Random(seed)
        clock = infcore.ManualClock()
        queue: infcore.Queue[tuple[int, int]] = infcore.Queue(10_000, tiers=4, ageing_s=5.0, clock=clock)
        waiting: dict[tuple[int, int], int] = {}
        n_aged = 0
        for now in range(150):
            for n in range(draw.randrange(4)):
                tier = draw.choice([0, 0, 0, 0, 0, 3])
                waiting[now, n] = now
                queue.put((now, n), tier=tier, tenant=draw.choice("ab"), deadline_s=draw.choice([None, 1000.0]))
            for _ in range(min(len(waiting), 1 + now % 2)):
                oldest = min(waiting.values())
                item = queue.get_nowait()
                if now - oldest >= 5:
                    assert waiting[item] == oldest, seed
                    n_aged += 1
                del waiting[item]
            clock.advance(1.0)
        assert n_aged > 0
