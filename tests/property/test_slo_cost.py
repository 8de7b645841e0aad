"""slo_cost on any fleet: its terms add up, pick takes what explain says, and nobody starves or is run over."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import infcore

PICKERS = ("least", "power_of_two", "softmax")


def fleet_of(n_nodes, clock=None, **figures):
    fleet = infcore.Fleet(clock=clock or infcore.ManualClock())
    for i in range(n_nodes):
        each = {name: values[i % len(values)] for name, values in figures.items()}
        fleet.load_model(fleet.add(f"n{i}", **each), "m")
    return fleet


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_terms_add_up_and_pick_takes_the_least_sum(data):
    draw = data.draw
    n_nodes = draw(st.integers(1, 70))
    rtt_s = draw(st.lists(st.floats(0.0, 0.02), min_size=1, max_size=5))
    price_per_hour = draw(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=4))
    slots = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    fleet = fleet_of(n_nodes, rtt_s=rtt_s, price_per_hour=price_per_hour, slots=slots)
    router = infcore.Router(
        fleet,
        seed=draw(st.integers(0, 99)),
        picker=draw(st.sampled_from(PICKERS)),
        explore=draw(st.sampled_from((0.0, 0.01, 1.0))),
        risk=draw(st.sampled_from((0.0, 1.0, 100.0))),
        price_us_per_usd=draw(st.sampled_from((0.0, 1e8, 1e11))),
        temperature=draw(st.sampled_from((0.01, 1.0))),
    )
    curves = draw(st.lists(st.tuples(st.floats(1e-5, 0.1), st.floats(0.0, 0.01)), min_size=1, max_size=6))
    for node in range(n_nodes):
        router.set_prior("m", node, base_s=curves[node % len(curves)][0], per_work_s=curves[node % len(curves)][1])
    for node in draw(st.lists(st.integers(0, n_nodes - 1), max_size=10)):
        fleet.signal(node, inflight=node % 7, gpu=node / n_nodes, queue_wait_s=None if node % 2 else 0.01 * (node % 5))
    for _ in range(6):
        call = {
            "work": draw(st.sampled_from((0.0, 1.0, 7.3))),
            "deadline_s": draw(st.sampled_from((None, None, 0.001, 0.05, 3.0))),
            "allow_late": True,
        }
        rows = router.explain("m", **call)
        for row in rows:
            if row["reason"] is None:
                total = sum(row["terms"].values())
                largest = max(abs(term) for term in row["terms"].values())
                assert abs(total - row["cost_us"]) <= 1e-6 * largest
                assert np.isfinite(row["cost_us"])
        best = min((row for row in rows if row["reason"] is None), key=lambda row: (row["cost_us"], row["node"]))
        decision = router.pick("m", **call)
        assert (decision.node, decision.cost_us) == (best["node"], best["cost_us"])
        if draw(st.booleans()):
            router.cancel(decision)


def test_every_healthy_node_gets_traffic_in_bounded_time():
    """One at a time, so that the fastest is always free: by cost alone nobody else would ever be asked."""
    fleet, share = fleet_of(12), 0.02
    router = infcore.Router(fleet, explore=share, health=False)  # which would take out whose requests fail
    base_s = [0.001 * (1 + node) for node in range(12)]
    for node in range(12):
        router.set_prior("m", node, base_s=base_s[node])
    counts, cost_s, n = np.zeros(12, int), 0.0, 0
    # What is dearer by d waits for d / (share of the least cost) requests, and for one in 1 / share of them.
    for _ in range(2):
        bound = sum(max(1.0, (each - base_s[0]) / base_s[0]) / share for each in base_s[1:])
        before = counts.copy()
        for _ in range(int(bound * 1.1) + 100):
            decision = router.pick("m")
            counts[decision.node] += 1
            cost_s += decision.service_s
            n += 1
            router.done(decision, ok=False)
        assert ((counts - before) > 0).all(), counts - before
    assert counts[1:].sum() <= share * n + 1
    assert cost_s <= n * base_s[0] * (1.0 + share) + 1e-9


def test_turns_endanger_no_deadline():
    """One millisecond is assumed of a node of which nothing is known; ten times that must fit."""
    fleet = fleet_of(2)
    router = infcore.Router(fleet, explore=1.0, health=False)
    router.set_prior("m", 0, base_s=0.0005)
    for _ in range(50):
        decision = router.pick("m", deadline_s=0.009)
        assert decision.node == 0
        router.done(decision, ok=False)
    others = 0
    for _ in range(50):
        decision = router.pick("m", deadline_s=1.0)
        others += decision.node == 1
        router.done(decision, ok=False)
    assert others > 10


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_routers", [1, 8])
def test_no_herd_within_one_stale_signal_interval(n_routers, seed):
    """Routers that don't see each other's requests, one old signal: of a node that it calls idle, and of the others."""
    rng = np.random.default_rng(seed)
    n_nodes, n_picks = 16, 640
    queues = rng.integers(5, 40, n_nodes)
    queues[rng.integers(n_nodes)] = 0
    counts = np.zeros(n_nodes, int)
    routers = []
    for number in range(n_routers):
        fleet = fleet_of(n_nodes)
        router = infcore.Router(fleet, seed=100 * seed + number)
        for node in range(n_nodes):
            router.set_prior("m", node, base_s=0.01)
            fleet.signal(node, inflight=int(queues[node]))
        routers.append(router)
    for i in range(n_picks):
        counts[routers[i % n_routers].pick("m").node] += 1
    assert counts.max() <= 3 * counts.mean(), counts


def test_without_protection_they_do_herd():
    """The negative control: what the bound above is about happens where it is turned off."""
    counts = np.zeros(16, int)
    for number in range(8):
        fleet = fleet_of(16)
        router = infcore.Router(fleet, seed=number, herd_margin=0.0)
        for node in range(16):
            router.set_prior("m", node, base_s=0.01)
            fleet.signal(node, inflight=20 if node else 0)
        for _ in range(20):
            counts[router.pick("m").node] += 1
    assert counts.max() > 3 * counts.mean()


def test_who_is_unlike_is_not_drawn():
    """Protection is among nodes that would be as good but for their queues: a slow one stands in for no fast one."""
    fleet = fleet_of(6)
    router = infcore.Router(fleet)
    for node in range(6):
        router.set_prior("m", node, base_s=0.001 if node < 2 else 0.1)
        fleet.signal(node, gpu=0.5)
    nodes = [router.pick("m", deadline_s=9.0).node for _ in range(40)]
    assert set(nodes) == {0, 1}


def test_money_decides_between_equals_and_no_more():
    fleet = fleet_of(2, price_per_hour=(12.0, 3.0))
    router = infcore.Router(fleet)
    for node in range(2):
        router.set_prior("m", node, base_s=0.01)
    assert router.pick("m").node == 1
    router.set_prior("m", 0, base_s=0.004)
    assert router.pick("m").node == 0
    dear = infcore.Router(fleet, price_us_per_usd=1e11)
    dear.set_prior("m", 0, base_s=0.004)
    dear.set_prior("m", 1, base_s=0.01)
    assert dear.pick("m").node == 1


def test_risk_prefers_whom_one_can_rely_on():
    """Both are in time in the mean and at the upper quantile; the steady one leaves less to chance."""
    fleet = fleet_of(2)
    router = infcore.Router(fleet)
    rng = np.random.default_rng(1)
    for node, mean_s, spread in ((0, 0.0100, 0.12), (1, 0.0102, 0.002)):
        router.set_prior("m", node, base_s=mean_s)
        for _ in range(200):
            observe(router, fleet, node, mean_s * (1.0 + spread * rng.standard_normal()))
    terms = [row["terms"] for row in router.explain("m", deadline_s=0.014)]
    assert terms[0]["risk"] > 10 * terms[1]["risk"] > 0.0
    assert router.pick("m", deadline_s=0.014).node == 1
    assert router.explain("m")[0]["terms"]["risk"] == 0.0


def observe(router, fleet, node, service_s):
    """One answer of that node, whichever the policy would have chosen."""
    others = [int(each) for each in fleet.nodes()["id"] if each != node]
    for each in others:
        fleet.unload_model(each, "m")
    router.done(router.pick("m"), service_s=service_s)
    for each in others:
        fleet.load_model(each, "m")
