"""Every admission policy decides as its plain Python model does, decision by decision; so does the ladder."""

import random
from dataclasses import asdict
from itertools import pairwise

import pytest
from reference.admission import Arrival, policy
from reference.admission import Ladder as LadderModel

from infcore._core.admission import AdmissionPolicy, Ladder, admission_policies

MS = 1_000_000
NAMES = [name for name, _ in admission_policies()]


def drawn(draw: random.Random) -> Arrival:
    now_ns = draw.randrange(10**12)
    goal_s = draw.choice([0.0, 0.0, 0.004, draw.uniform(0.001, 1.0)])
    return Arrival(
        now_ns=now_ns,
        deadline_ns=draw.choice([None, now_ns + draw.randrange(200 * MS)]),
        defer_ns=draw.choice([0, 1, draw.randrange(500 * MS)]),
        model=draw.randrange(2),
        tier=draw.randrange(4),
        has_stale=draw.random() < 0.3,
        n_open=draw.choice([0, 1, 2, draw.randrange(200)]),
        best_s=draw.choice([-1.0, 0.0, draw.uniform(0.0, 0.2)]),
        wait_s=draw.choice([0.0, goal_s, draw.uniform(0.0, 2.0)]),
        goal_s=goal_s,
        capacity_per_s=draw.choice([0.0, draw.uniform(1.0, 1e4)]),
        fallback_per_s=draw.choice([0.0, draw.uniform(1.0, 1e4)]),
        fallback_wait_s=draw.uniform(0.0, 2.0),
        first_tier=draw.randrange(4),
        last_tier=draw.randrange(4),
    )


@pytest.mark.parametrize("name", NAMES)
def test_same_decisions(name: str) -> None:
    draw = random.Random(name)
    compiled, model = AdmissionPolicy(name), policy(name)
    seen = set()
    for _ in range(1000):
        a = drawn(draw)
        told = compiled.admit(**asdict(a))
        assert told == model.admit(a), a
        seen.add(told[0])
        if draw.random() < 0.7:
            service_s = draw.uniform(1e-4, 0.01)
            answered = {
                "model": draw.randrange(2),
                "n_open": draw.randrange(1, draw.choice([3, 60])),
                "max_batch_size": draw.choice([1, 1, 4, 64]),
                "latency_s": service_s * draw.choice([1.0, 1.2, draw.uniform(1.0, 40.0)]),
                "service_s": service_s,
            }
            compiled.answered(**answered)
            model.answered(**answered)
        for at in range(2):
            assert compiled.limit(at) == model.limit(at)
        configured_ns = draw.randrange(5 * MS)
        assert compiled.batch_delay_ns(configured_ns) == model.batch_delay_ns(configured_ns)
    says = {"stale": "stale", "cheaper": "cheaper", "infeasible": "infeasible", "off_peak": "defer"}
    expected = {"shorter_wait": {"admit"}, "shed_last": {"admit", "displace", "refuse"}}
    assert seen == expected.get(name, {"admit", says.get(name, "refuse")})


@pytest.mark.parametrize("seed", range(5))
def test_same_ladder(seed: int) -> None:
    draw = random.Random(seed)
    compiled, model = Ladder(), LadderModel()
    now_ns, calm, rungs = 0, 1.0, set()
    for at in range(2400):
        if at % 400 == 0:
            calm = draw.choice([0.1, 0.4, 1.5, 3.0])
        now_ns += draw.choice([0, draw.randrange(20 * MS), draw.randrange(3 * MS), draw.randrange(200 * MS)])
        n_rungs, load, capacity = 6, calm * draw.uniform(0.8, 1.3), draw.choice([0.0, 50.0, 1e4])
        assert compiled.arrived(now_ns, load, capacity, n_rungs) == model.arrived(now_ns, load, capacity, n_rungs)
        if draw.random() < 0.02:
            compiled.refused()
            model.refused()
        rungs.add(model.rung)
    assert rungs == set(range(7))
    assert compiled.settle(now_ns + 10**10, 6) == model.settle(now_ns + 10**10, 6) == 0


def test_ladder_climbs_one_step_a_period_and_comes_down_again() -> None:
    ladder, heights = Ladder(), []
    for now_ns in range(0, 600 * MS, MS):
        heights.append(ladder.arrived(now_ns, 2.0 if now_ns < 250 * MS else 0.1, 2000.0, 3))
    steps = [b - a for a, b in pairwise(heights)]
    assert set(steps) <= {-1, 0, 1} and max(heights) == 3 and heights[-1] == 0
    assert heights.index(1) == 50 and heights.index(2) == 100 and heights.index(3) == 150


def test_ladder_stays_where_the_load_is_neither() -> None:
    """Between half and the whole of overload nothing moves; nor does it while more is offered than fits."""
    for load, capacity in ((0.7, 2000.0), (0.1, 1000.0)):
        ladder = Ladder()
        for now_ns in range(0, 101 * MS, MS):
            rung = ladder.arrived(now_ns, 2.0, capacity, 3)
        for now_ns in range(101 * MS, 900 * MS, MS):
            assert ladder.arrived(now_ns, load, capacity, 3) == rung == 2
