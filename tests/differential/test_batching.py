"""Every compiled batching rule decides as its plain Python model does: the same n, the same nanosecond."""

import random

import pytest
from reference.batch_plan import Traffic, Waiting
from reference.batching import NEVER_NS, Pending, rule

from infcore._core.batching import batching_policies, close_batch, select_batch
from infcore._core.latency import LatencyModel
from infcore.errors import InvalidArgument, InvalidType, UnknownName

N_DECISIONS = 4000
N_SELECTIONS = 250
MS = 1_000_000


def random_latency(draw):
    """Unknown, given, learned, or both."""
    prior = None
    if draw.random() < 0.7:
        prior = tuple(draw.choice([0.0, 10 ** draw.uniform(-6, -1)]) for _ in range(4))
    latency = LatencyModel(prior)
    for _ in range(draw.choice([0, 0, 1, 3, 20])):
        n = draw.randint(1, 64)
        work_max = draw.uniform(0.0, 100.0)
        latency.observe(n, n * work_max * draw.random(), work_max, 10 ** draw.uniform(-5, 0))
    return latency


def random_pending(draw, now_ns):
    max_batch_size = draw.choice([1, 2, 8, 64])
    n = draw.randint(1, max_batch_size)
    work_mean = draw.choice([0.0, 1.0, draw.uniform(0.0, 1000.0)])
    return Pending(
        n_requests=n,
        work_sum=n * work_mean,
        work_max=work_mean,
        earliest_deadline_ns=draw.choice([NEVER_NS, max(0, now_ns + draw.randint(-5 * MS, 200 * MS)), now_ns]),
        held_since_ns=max(0, now_ns - draw.choice([0, draw.randint(0, 30 * MS)])),
        arrivals_per_s=draw.choice([0.0, 10 ** draw.uniform(-1, 6)]),
        max_batch_size=max_batch_size,
        delay_ns_max=draw.choice([0, 2 * MS, draw.randint(0, 50 * MS), NEVER_NS]),
    )


def compiled(policy, now_ns, pending, latency):
    return close_batch(
        policy,
        now_ns,
        latency,
        n_requests=pending.n_requests,
        work_sum=pending.work_sum,
        work_max=pending.work_max,
        earliest_deadline_ns=pending.earliest_deadline_ns,
        held_since_ns=pending.held_since_ns,
        arrivals_per_s=pending.arrivals_per_s,
        max_batch_size=pending.max_batch_size,
        delay_ns_max=pending.delay_ns_max,
    )


@pytest.mark.parametrize("policy", batching_policies())
@pytest.mark.parametrize("seed", range(3))
def test_same_decisions(policy, seed):
    draw = random.Random(seed)
    outcomes = set()
    for _ in range(N_DECISIONS):
        latency = random_latency(draw)
        now_ns = draw.choice([0, draw.randint(0, 10**12)])
        pending = random_pending(draw, now_ns)
        expected = rule(policy).close(now_ns, pending, latency)
        assert compiled(policy, now_ns, pending, latency) == expected, (policy, seed, now_ns, pending)
        n, wait_until_ns = expected
        assert n == pending.n_requests or (n == 0 and now_ns < wait_until_ns < NEVER_NS)
        outcomes.add(n == 0)
    assert outcomes == ({False} if policy == "greedy" else {False, True})  # the draw reaches both


def random_waiting(draw, now_ns):
    """In the order of service: aged ones as they came, then tier by tier, tenant by tenant, by deadline."""
    n = draw.choice([1, 2, draw.randint(1, 40), draw.randint(1, 40), 120 if draw.random() < 0.1 else 12])
    slack_ms_max = draw.choice([3, 20, 60, 500])
    n_tiers, n_tenants = draw.choice([1, 1, 2, 3]), draw.choice([1, 1, 3])
    works = draw.choice([[1.0], [0.0], [1.0, 40.0], [0.1, 0.2, 5.0, 1000.0]])
    aged_share = draw.choice([0.0, 0.0, 0.2, 1.0])
    rows = []
    for _ in range(n):
        deadline_ns = max(0, now_ns + int(draw.uniform(-0.05, 1.0) * slack_ms_max * MS))
        if draw.random() < 0.05:
            deadline_ns = NEVER_NS
        aged = draw.random() < aged_share
        rows.append(Waiting(deadline_ns, draw.choice(works), draw.randrange(n_tiers), aged, draw.randrange(n_tenants)))
    aged = [w for w in rows if w.aged]
    return aged + sorted((w for w in rows if not w.aged), key=lambda w: (w.tier, w.tenant, w.deadline_ns))


def random_traffic(draw, waiting):
    return Traffic(
        n_waiting=len(waiting) + draw.choice([0, draw.randint(0, 1000)]),
        max_batch_size=draw.choice([1, 4, 16, 64]),
        arrivals_per_s=draw.choice([0.0, 10 ** draw.uniform(1, 5)]),
        capacity_per_s=draw.choice([0.0, 10 ** draw.uniform(1, 5)]),
        share=draw.choice([1.0, 1.0, draw.uniform(0.01, 1.0)]),
    )


def selected(policy, now_ns, waiting, n_max, traffic, latency):
    return select_batch(
        policy,
        now_ns,
        [(w.deadline_ns, w.work, w.tier, w.aged, w.tenant) for w in waiting],
        latency,
        n_max=n_max,
        n_waiting=traffic.n_waiting,
        max_batch_size=traffic.max_batch_size,
        arrivals_per_s=traffic.arrivals_per_s,
        capacity_per_s=traffic.capacity_per_s,
        share=traffic.share,
    )


@pytest.mark.parametrize("policy", batching_policies())
@pytest.mark.parametrize("seed", range(3))
def test_same_selections(policy, seed):
    draw = random.Random(seed)
    seen = set()
    for _ in range(N_SELECTIONS):
        latency = random_latency(draw)
        now_ns = draw.choice([0, draw.randint(0, 10**12)])
        waiting = random_waiting(draw, now_ns)
        traffic = random_traffic(draw, waiting)
        n_max = draw.randint(1, 64)
        verdicts = selected(policy, now_ns, waiting, n_max, traffic, latency)
        assert verdicts == rule(policy).select(now_ns, waiting, n_max, traffic, latency), (policy, seed, now_ns)
        assert 1 <= verdicts.count("take") <= min(n_max, traffic.max_batch_size)
        seen |= set(verdicts)
        if "drop" in verdicts:  # a whole batch for them would be late: nobody else is served in their stead
            assert all(w.deadline_ns < NEVER_NS for w, v in zip(waiting, verdicts, strict=True) if v == "drop")
    assert seen == ({"take", "leave"} if policy == "greedy" else {"take", "leave", "drop"})


def settled(curve):
    """Told the curve, and never seen anything else."""
    latency = LatencyModel(curve)
    for i in range(300):
        shape = (1 + i % 64, 1.0 + i % 64, 1.0)
        latency.observe(*shape, latency.service_s(*shape))
    return latency


MODEL = settled((1e-3, 1e-4, 0.0, 0.0))  # 64 take 7.4 ms


def by_dynamic(slacks_ms, *, tiers=None, works=None, arrivals_per_s=0.0, now_ns=5 * MS):
    tiers, works = tiers or [0] * len(slacks_ms), works or [1.0] * len(slacks_ms)
    waiting = [Waiting(now_ns + int(ms * MS), w, t, False) for ms, t, w in zip(slacks_ms, tiers, works, strict=True)]
    traffic = Traffic(len(waiting), 64, arrivals_per_s, 8649.0)
    return selected("dynamic", now_ns, waiting, 64, traffic, MODEL)


def test_in_overload_the_batch_stays_large():
    slacks_ms = [2.0 + 0.1 * i for i in range(180)]  # arrivals at 1.2 times what the device serves
    verdicts = by_dynamic(slacks_ms, arrivals_per_s=10_400.0)
    taken = [i for i, v in enumerate(verdicts) if v == "take"]
    assert len(taken) >= 50
    assert set(verdicts[: taken[0]]) == {"drop"}


def test_tight_ones_go_first_where_the_others_can_wait():
    slacks_ms = [4.5] * 20 + [55.0] * 100
    verdicts = by_dynamic(slacks_ms, arrivals_per_s=14_000.0)
    assert verdicts[:20] == ["take"] * 20
    assert "drop" not in verdicts


def test_a_less_urgent_tier_costs_a_more_urgent_one_nobody():
    tight = [1.8] * 4 + [9.0] * 10
    verdicts = by_dynamic(tight + [50.0] * 200, tiers=[0] * 14 + [1] * 200, arrivals_per_s=50_000.0)
    alone = by_dynamic(tight, tiers=[0] * 14, arrivals_per_s=50_000.0 * 14 / 214)
    assert verdicts[:4] == ["take"] * 4 == alone[:4]
    assert "drop" not in verdicts[:14]


def test_less_urgent_ones_fill_the_batch():
    verdicts = by_dynamic([6.0] * 5 + [50.0] * 100, tiers=[0] * 5 + [1] * 100)
    assert verdicts[:5] == ["take"] * 5
    assert 30 <= verdicts.count("take") <= 50  # no more than the tight ones leave time for


def test_heavy_ones_are_not_passed_over_for_their_weight():
    latency = settled((1e-3, 0.0, 1e-4, 0.0))
    heavy = [i % 10 == 0 for i in range(100)]
    waiting = [Waiting((10 + i) * MS, 20.0 if h else 1.0, 0, False) for i, h in enumerate(heavy)]
    traffic = Traffic(100, 64, 10_000.0, 3000.0)
    verdicts = selected("dynamic", 0, waiting, 64, traffic, latency)
    share = sum(v == "take" for v, h in zip(verdicts, heavy, strict=True) if h) / max(1, verdicts.count("take"))
    assert 0.05 <= share <= 0.2


def test_what_another_device_may_serve_is_not_given_up():
    waiting = [Waiting(int((2.0 + 0.1 * i) * MS), 1.0, 0, False) for i in range(180)]
    alone = selected("dynamic", 0, waiting, 64, Traffic(180, 64, 10_400.0, 8649.0), MODEL)
    shared = selected("dynamic", 0, waiting, 64, Traffic(180, 64, 20_800.0, 2 * 8649.0), MODEL)
    assert "drop" in alone
    assert "drop" not in shared


@pytest.mark.parametrize("policy", batching_policies())
def test_a_full_batch_never_waits(policy):
    pending = Pending(8, 8.0, 1.0, NEVER_NS, 0, 1e6, 8, 50 * MS)
    assert compiled(policy, 0, pending, LatencyModel((0.1, 0.0, 0.0, 0.0))) == (8, 0)


@pytest.mark.parametrize(
    ("error", "changed"),
    [
        (InvalidArgument, {"n_requests": 0}),
        (InvalidArgument, {"arrivals_per_s": float("inf")}),
        (InvalidArgument, {"max_batch_size": 0}),
        (InvalidType, {"delay_ns_max": 0.5}),
    ],
)
def test_border_refuses(error, changed):
    with pytest.raises(error, match=next(iter(changed))):
        close_batch("greedy", 0, LatencyModel(), **{"n_requests": 1, **changed})


@pytest.mark.parametrize(
    ("error", "waiting", "changed"),
    [
        (InvalidArgument, [], {}),
        (InvalidArgument, [(None, 1.0, 0, False, 0)] * 257, {}),
        (InvalidArgument, [(None, float("nan"), 0, False, 0)], {}),
        (InvalidArgument, [(None, 1.0, -1, False, 0)], {}),
        (InvalidArgument, [(None, 1.0, 0, False, 0)], {"n_max": 0}),
        (InvalidArgument, [(None, 1.0, 0, False, 0)], {"capacity_per_s": -1.0}),
    ],
)
def test_border_of_selection_refuses(error, waiting, changed):
    with pytest.raises(error):
        select_batch("dynamic", 0, waiting, LatencyModel(), **changed)


def test_unknown_rule_is_named():
    with pytest.raises(UnknownName, match=r"'best'.*dynamic.*greedy"):
        close_batch("best", 0, LatencyModel(), n_requests=1)
