"""What the further routing policies promise: shares, affinity, reserve, nearness; and what every policy must keep."""

import random
import string

import numpy as np
import pytest

from infcore import Fleet, InvalidArgument, ManualClock, NoNodeAvailable, Router, UnknownName, block_hashes
from infcore._core.machine import Machine

OPTIONS = {
    "locality": {"zone": "near"},
    "cascade": {"models": ["m", "large"]},
}
POLICIES = Router.policies()


def fleet_of(n, *, clock=None, **same):
    fleet = Fleet(clock=clock or ManualClock())
    for i in range(n):
        fleet.load_model(fleet.add(f"n{i}", **same), "m")
    return fleet


def router_of(fleet, policy, **options):
    return Router(fleet, policy=policy, seed=5, **(OPTIONS.get(policy, {}) | options))


def nodes_of(router, n, **call):
    return [router.pick("m", **call).node for _ in range(n)]


def inflight(fleet):
    return fleet.nodes()["inflight"].astype(float)


# ---- every policy


@pytest.mark.parametrize("policy", POLICIES)
def test_required_labels_are_hard(policy):
    """However full or dear the nodes that have them, however idle the others; nobody has them: no node."""
    fleet = Fleet(clock=ManualClock())
    for i in range(12):
        region = {"region": "eu"} if i % 4 == 0 else {}
        location = ("edge", "cloud")[i % 2]
        fleet.load_model(fleet.add(f"n{i}", labels=region, zone="near" if i % 3 else "far", location=location), "m")
        if region:
            fleet.signal(i, inflight=3, queue_wait_s=0.5, gpu=1.0)
    router = router_of(fleet, policy)
    for i in range(60):
        chosen = router.pick("m", require={"region": "eu"}, session=f"s{i}", tier=0)
        assert chosen.node % 4 == 0
        if i % 2:
            router.done(chosen, service_s=1e-3)
    with pytest.raises(NoNodeAvailable):
        router.pick("m", require={"region": "us"})


@pytest.mark.parametrize("policy", POLICIES)
def test_every_healthy_node_gets_traffic(policy):
    """Eight alike in a closed loop of two requests each: nobody waits for more than 500 of a session each."""
    clock = ManualClock()
    fleet = fleet_of(8, clock=clock, zone="near")
    router, last, open_ = router_of(fleet, policy), {}, []
    for i in range(1500):
        open_.append(router.pick("m", session=f"s{i}"))
        last[open_[-1].node] = i
        clock.advance(1e-4)
        if len(open_) == 16:
            router.done(open_.pop(0), service_s=1e-3)
        if i >= 500:
            assert len(last) == 8
            assert min(last.values()) > i - 500


@pytest.mark.parametrize("policy", POLICIES)
def test_credit_returns_to_zero(policy):
    """After cancels, ends, leases and a node that went with requests in flight."""
    clock = ManualClock()
    fleet = fleet_of(6, clock=clock)
    router = router_of(fleet, policy)
    open_ = [router.pick("m", session=i, lease_s=5.0 if i % 3 == 0 else None) for i in range(60)]
    assert inflight(fleet).sum() == 60
    fleet.remove(2)
    for i, decision in enumerate(open_):
        if i % 3 == 1:
            router.cancel(decision)
        elif i % 3 == 2:
            router.done(decision, ok=i % 2 == 0)
    clock.advance(6.0)
    router.cancel(router.pick("m"))
    assert inflight(fleet).tolist() == [0.0] * 5
    assert fleet.add("again") == 2, "the id is free once the last credit on it is released"


@pytest.mark.parametrize("policy", POLICIES)
def test_options_are_checked(policy):
    fleet = fleet_of(1)
    with pytest.raises(UnknownName, match="option of policy"):
        Router(fleet, policy=policy, wheight="slots")


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("weighted", {"weight": "size"}),
        ("prequal", {"q_rif": 1.5}),
        ("prequal", {"probes": 0}),
        ("consistent_hash", {"bound": 0.9}),
        ("priority", {"reserve": 1.0}),
        ("locality", {"zone": 3.0}),
        ("locality", {"spill": 0.5}),
        ("edge_first", {"load": -1.0}),
        ("cascade", {"models": ["m", "m"]}),
        ("cascade", {"min_confidence": 2.0}),
    ],
)
def test_values_of_options_are_checked(policy, options):
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        Router(fleet_of(1), policy=policy, **options)


# ---- power of two choices


def test_load_gap_of_power_of_two_against_random():
    """Balls into bins: with m balls in n bins the fullest of random choice is about sqrt(2 m ln n / n) above the mean,
    that of two choices about ln ln n, whatever m."""
    n, m = 64, 64 * 16
    fleet = fleet_of(n)
    nodes_of(Router(fleet, policy="power_of_two", seed=1), m)
    gap = inflight(fleet).max() - m / n
    at_random = random.Random(1)
    bins = np.bincount([at_random.randrange(n) for _ in range(m)], minlength=n)
    assert gap <= 3.0
    assert bins.max() - m / n >= 3.0 * gap


# ---- weighted


def test_weighted_is_smooth():
    """Weights 5, 1, 1: nginx's own example of the order."""
    fleet = Fleet(clock=ManualClock())
    for name, slots in zip("abc", (5, 1, 1), strict=True):
        fleet.load_model(fleet.add(name, slots=slots), "m")
    assert nodes_of(Router(fleet, policy="weighted"), 7) == [0, 0, 1, 0, 2, 0, 0]


def test_weighted_by_label_and_by_speed():
    fleet = Fleet(clock=ManualClock())
    for i, weight in enumerate(("0.5", "2", "heavy", "1.5")):  # what is no number counts as 1
        fleet.load_model(fleet.add(f"n{i}", labels={"weight": weight}), "m")
    counts = np.bincount(nodes_of(Router(fleet, policy="weighted", weight="label"), 1000))
    assert counts.tolist() == [100, 400, 200, 300]
    router = Router(fleet, policy="weighted", weight="speed")
    for i, base_s in enumerate((0.004, 0.001, 0.002, 0.004)):
        router.set_prior("m", i, base_s=base_s)
    assert np.bincount(nodes_of(router, 800)).tolist() == [100, 400, 200, 100]


# ---- prequal


def test_prequal_avoids_hot_nodes_and_prefers_fast_ones():
    fleet = fleet_of(16)
    router = Router(fleet, policy="prequal", seed=2)
    for i in range(16):
        router.set_prior("m", i, base_s=0.001 if i < 4 else 0.01)
    fast = hot = 0
    for _ in range(400):
        decision = router.pick("m")
        fast += decision.node < 4
        router.cancel(decision)
    assert fast > 200  # of 3 probes and what the pool keeps, mostly one of the 4 fast nodes
    for i in range(2):
        fleet.signal(i, inflight=50)
    for _ in range(400):
        decision = router.pick("m")
        hot += decision.node < 2
        router.cancel(decision)
    assert hot <= 4  # probes from before, used up


# ---- consistent hash


def letters(n):
    return [a + b + c for a in string.ascii_letters for b in string.ascii_letters for c in "0123456789"][:n]


def placed(names, sessions, **same):
    fleet = Fleet(clock=ManualClock())
    for name in names:
        fleet.load_model(fleet.add(name, **same), "m")
    router = Router(fleet, policy="consistent_hash")
    table = fleet.nodes()
    name_of = dict(zip(table["id"].tolist(), table["name"].tolist(), strict=True))
    where = {}
    for session in sessions:
        decision = router.pick("m", session=session)
        where[session] = name_of[decision.node]
        router.cancel(decision)
    return where


def test_a_nodes_leaving_moves_its_sessions_alone():
    """20 nodes: 1/20 of the keys move, within 10 % of that; the others stay, and so does who goes where by names."""
    names, sessions = [f"node-{i}" for i in range(20)], letters(20_000)
    before = placed(names, sessions)
    after = placed([name for name in reversed(names) if name != "node-7"], sessions)  # other ids
    moved = [session for session in sessions if before[session] != after[session]]
    assert all(before[session] == "node-7" for session in moved)
    assert len(moved) <= 1.1 * len(sessions) / 20
    heirs = {after[session] for session in moved}
    assert len(heirs) == 19, "they are spread over all others"


def test_no_node_has_more_than_its_bound():
    fleet = fleet_of(10)
    router = Router(fleet, policy="consistent_hash", bound=1.25)
    for i in range(500):
        router.pick("m", session="one" if i % 5 else f"s{i}")  # 80 % of one session
        assert inflight(fleet).max() < 1.25 * (i + 1) / 10 + 1


def test_sessions_go_by_slots():
    sessions = letters(6000)
    fleet = Fleet(clock=ManualClock())
    for i, slots in enumerate((1, 2, 3)):
        fleet.load_model(fleet.add(f"n{i}", slots=slots), "m")
    router = Router(fleet, policy="consistent_hash", bound=1000.0)
    counts = np.bincount([router.pick("m", session=session).node for session in sessions])
    assert np.abs(counts - 1000.0 * np.arange(1, 4)).max() < 120  # 3.3 standard deviations of the middle one


# ---- prefix aware


def test_the_longest_prefix_wins_until_its_node_is_full():
    fleet = fleet_of(4)
    router = Router(fleet, policy="prefix_aware", gap=2.0)
    blocks = np.arange(1, 11, dtype=np.uint64)
    router.prefix.stored(1, blocks[:4])
    router.prefix.stored(3, blocks[:8])
    assert [router.pick("m", work=160.0, blocks=blocks).node for _ in range(8)] == [3, 3, 3, 1, 1, 1, 0, 2]
    assert router.pick("m", work=320.0, blocks=np.arange(1, 21, dtype=np.uint64)).node == 3  # 8 of 20, all have one now
    assert router.pick("m", work=640.0, blocks=np.arange(1, 41, dtype=np.uint64)).node == 0  # 8 of 40: too little
    assert router.pick("m", blocks=np.arange(90, 99, dtype=np.uint64)).node == 2  # nobody's: the emptiest
    assert router.pick("m").node == 0


def test_a_hot_prefix_does_not_overload_its_node():
    """80 % of all prompts begin alike and one node holds that: it gets more than others, and nothing beyond the gap."""
    fleet, draw, open_ = fleet_of(8), random.Random(3), []
    router = Router(fleet, policy="prefix_aware", gap=2.0, gap_ratio=1.5)
    hot = np.arange(1, 33, dtype=np.uint64)
    router.prefix.stored(5, hot)
    counts = np.zeros(8, int)
    for i in range(4000):
        blocks = hot if draw.random() < 0.8 else np.arange(1000 * i + 100, 1000 * i + 132, dtype=np.uint64)
        loads = inflight(fleet)
        open_.append(router.pick("m", work=512.0, blocks=blocks))
        counts[open_[-1].node] += 1
        assert loads[open_[-1].node] <= max(loads.min() + 2.0, 1.5 * loads.min())
        if len(open_) == 32:
            router.done(open_.pop(draw.randrange(32)), ok=False)
    assert counts.argmax() == 5
    assert counts[5] < 2 * counts.mean()


# ---- priority


def test_a_part_is_kept_for_the_urgent():
    fleet = fleet_of(2, slots=4)
    router = Router(fleet, policy="priority", reserve=0.25)
    assert sorted(nodes_of(router, 6, tier=1)) == [0, 0, 0, 1, 1, 1]
    with pytest.raises(NoNodeAvailable):
        router.pick("m", tier=1)
    urgent = router.pick("m", tier=0)
    router.cancel(urgent)
    with pytest.raises(NoNodeAvailable):
        router.pick("m", tier=7)
    assert len(nodes_of(router, 30, tier=0)) == 30, "the urgent may queue"


def test_in_an_engine_the_less_urgent_wait_until_a_node_is_below_the_line():
    """Four slots, one kept: of eight that come, three are bound; each end lets one in, an urgent one goes at once."""
    fleet = Fleet(max_nodes=1)
    machine = Machine(fleet, policy="priority", batching="greedy", seed=7, n_tiers=2)
    model = machine.add_model("m", max_batch_size=1)
    machine.add_node(node := fleet.add("n", slots=4))
    machine.set_resident(0, model, node)
    handles = [machine.arrive(0, cookie, model, tier=1) for cookie in range(8)]
    machine.schedule(0)
    assert inflight(fleet).tolist() == [3.0]
    machine.arrive(0, 8, model, tier=0)
    machine.schedule(0)
    assert inflight(fleet).tolist() == [4.0]
    assert machine.cancel(0, handles[0]) and machine.cancel(0, handles[1])
    machine.schedule(0)
    assert inflight(fleet).tolist() == [3.0], "two left, so one was let in"
    ends, now_ns, n_bound = [], 0, []
    while machine.n_pending:
        while batch := machine.claim(now_ns, node):
            machine.started(now_ns, node, batch[0])
            ends.append(batch[0])
        now_ns += 1000
        machine.complete(now_ns, node, ends.pop(0))
        machine.schedule(now_ns)
        n_bound.append(int(inflight(fleet)[0]))
    assert n_bound == [3, 3, 3, 3, 2, 1, 0]


# ---- locality and edge


def test_near_nodes_first_until_they_cost_too_much():
    fleet = Fleet(clock=ManualClock())
    for i, (zone, data) in enumerate((("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"))):
        fleet.load_model(fleet.add(f"n{i}", zone=zone, labels={"data": data}), "m")
    router = Router(fleet, policy="locality", zone="b", data="x", spill=3.0, explore=0.0)
    for i in range(4):
        router.set_prior("m", i, base_s=0.01)
    both, data, zone, none = 2, 0, 3, 1
    # A node is left when it costs more than 3 times the best of all: one running and two waiting.
    assert nodes_of(router, 12) == [both] * 3 + [data] * 3 + [zone] * 3 + [none] + [both] * 2


def test_edge_until_it_is_full_or_too_slow():
    fleet = Fleet(clock=ManualClock())
    for i, location in enumerate(("cloud", "edge", "edge")):
        fleet.load_model(fleet.add(f"n{i}", location=location), "m")
    router = Router(fleet, policy="edge_first", load=2.0, explore=0.0)
    router.set_prior("m", 0, base_s=0.001)
    for i in (1, 2):
        router.set_prior("m", i, base_s=0.01)
    assert router.pick("m", deadline_s=0.005).node == 0  # an edge node would be late
    assert nodes_of(router, 6) == [1, 2, 1, 2, 0, 0]
    fleet.drain(0)
    assert router.pick("m").node in (1, 2)  # full, but all there is


def test_edge_first_finds_who_could_load_the_model_and_who_is_in_time_by_what_it_holds():
    fleet = Fleet(clock=ManualClock())
    for name, location in (("c0", "cloud"), ("e0", "edge")):
        fleet.add(name, location=location, memory_bytes=100)
    fleet.add_model("m", weights_bytes=10, load_s=0.1)
    router = Router(fleet, policy="edge_first", explore=0.0)
    decision = router.pick("m")
    assert (decision.node, decision.load_s) == (1, pytest.approx(0.1))
    router.cancel(decision)
    for node in (0, 1):
        fleet.load_model(node, "m")
        router.set_prior("m", node, per_work_s=0.001)
    blocks = block_hashes(np.arange(64))
    router.prefix.stored(1, blocks)
    assert router.pick("m", work=64.0, blocks=blocks, deadline_s=0.01).node == 1


# ---- cascade


def cascade(**options):
    fleet = Fleet(clock=ManualClock())
    for name, model in (("s0", "small"), ("s1", "small"), ("l0", "large")):
        fleet.load_model(fleet.add(name), model)
    router = Router(fleet, policy="cascade", models=["small", "large"], explore=0.0, **options)
    for node, base_s in (("s0", 0.003), ("s1", 0.003)):
        router.set_prior("small", node, base_s=base_s)
    router.set_prior("large", "l0", base_s=0.01)
    return fleet, router


def test_cascade_goes_on_for_want_of_confidence():
    _, router = cascade(min_confidence=0.7)
    first = router.pick("small")
    assert (first.model, first.next_model, first.node) == ("small", None, 0)
    assert router.done(first, confidence=0.4)
    assert first.next_model == "large"
    second = router.pick(first.next_model)
    assert (second.model, second.node) == ("large", 2)
    assert router.done(second, confidence=0.1)
    assert second.next_model is None  # there is no larger one
    third = router.pick("small")
    router.done(third, confidence=0.9)
    assert third.next_model is None


def test_cascade_starts_where_it_is_cheaper_and_tries_again():
    """Small 3 ms, large 10: small first while less than .7 of its answers are not good enough."""
    _, router = cascade()
    takes, starts = {"small": 0.003, "large": 0.01}, []
    for _ in range(400):
        explained = router.explain("small")
        decision = router.pick("small")
        assert explained[decision.node]["cost_us"] == decision.cost_us, "of the model that it starts with"
        starts.append(decision.model)
        router.done(decision, confidence=0.1 if decision.model == "small" else 1.0, service_s=takes[decision.model])
    assert starts[0] == "small"
    assert 0.9 < starts.count("large") / 400
    assert "small" in starts[100:], "what is stepped over is tried again"
    for _ in range(600):  # from now on it does well
        decision = router.pick("small")
        router.done(decision, confidence=1.0, service_s=takes[decision.model])
    assert router.pick("small").model == "small"


def test_cascade_of_models_that_are_not_there():
    fleet, router = cascade()
    fleet.drain(0)
    fleet.drain(1)
    assert router.pick("small").model == "large"  # the only one that anybody has up
    fleet.load_model(fleet.add("other"), "neither")
    decision = router.pick("neither")
    assert (decision.model, router.done(decision, confidence=0.0), decision.next_model) == ("neither", True, None)
