"""Every compiled batching rule decides as its plain Python model does: the same n, the same nanosecond."""

import random

import pytest
from reference.batching import NEVER_NS, Pending, rule

from infcore._core.batching import batching_policies, close_batch
from infcore._core.latency import LatencyModel
from infcore.errors import InvalidArgument, InvalidType, UnknownName

N_DECISIONS = 4000
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


def test_unknown_rule_is_named():
    with pytest.raises(UnknownName, match=r"'best'.*dynamic.*greedy"):
        close_batch("best", 0, LatencyModel(), n_requests=1)
