"""Requests for one model under unlike sets of labels share batches where a device carries both."""

import pytest
from sim_rig import scenario

from infcore import Fleet
from infcore._core.machine import Machine
from infcore.sim import simulate

MS = 1_000_000


def two_sets_on_one_node(seconds: float = 20.0):
    """In batches of both the node has time for 888 a second, in batches of one set after the other for half of it."""
    half = {"model": "m", "rate_rps": 320.0}
    return scenario(
        {
            "run": {"seconds": seconds},
            "node": [{"name": "n", "labels": {"region": "eu"}}],
            "model": [{"name": "m", "max_batch_size": 16}],
            "latency": [{"model": "m", "node": "n", "base_s": 0.010, "per_request_s": 0.0005}],
            "workload": [{**half, "tier": 0, "require": {"region": "eu"}}, {**half, "tier": 1}],
        }
    )


def test_the_lower_tier_is_not_starved_by_batches_of_the_upper_tier_alone():
    joint, bound = (simulate(two_sets_on_one_node(), policy=p) for p in ("fastest_finish", "round_robin"))
    assert joint["outcomes"]["ok"] == joint["requests"]
    assert joint["latency_s"]["p99"] <= 1.2 * bound["latency_s"]["p99"]  # each set by itself: eleven seconds
    assert joint["latency_s"]["p99"] < 0.1


class Rig:
    def __init__(self, *nodes, max_batch_size=4):
        """nodes: (labels, base_s), 1 ms a request."""
        self.fleet = Fleet(max_nodes=4)
        self.machine = Machine(self.fleet, max_requests=64, n_tiers=2)
        self.model = self.machine.add_model("m", max_batch_size=max_batch_size, batch_delay_ns_max=0)
        self.nodes = []
        for labels, base_s in nodes:
            node = self.fleet.add(f"n{len(self.nodes)}", kind=f"k{len(self.nodes)}", labels=labels)
            self.machine.add_node(node)
            self.machine.set_resident(0, self.model, node, True, prior=(base_s, 1e-3, 0.0, 0.0))
            self.nodes.append(node)

    def arrive(self, now_ns, cookie, require, **rest):
        self.machine.arrive(now_ns, cookie, self.model, require=require, **rest)

    def decide(self, now_ns):
        """(cookie, node, batch) of what was sent."""
        self.machine.tick(now_ns)
        self.machine.schedule(now_ns)
        return [(a[1], a[2], a[3]) for a in self.machine.actions() if a[0] == "dispatch"]


EU, TEE = {"region": "eu"}, {"tee": "yes"}


def test_a_batch_is_filled_from_all_sets_in_the_order_of_service():
    rig = Rig(({**EU, **TEE}, 0.01))
    rig.arrive(0, 1, EU, tier=1)
    rig.arrive(1, 2, {}, tier=1)
    rig.arrive(2, 3, TEE, tier=0)
    rig.arrive(3, 4, EU, tier=1)
    rig.arrive(4, 5, {}, tier=0, deadline_ns=500 * MS)
    assert rig.decide(5) == [(5, 0, 1), (3, 0, 1), (1, 0, 1), (2, 0, 1)]


def test_newcomers_of_another_set_join():
    rig = Rig((EU, 0.01))
    rig.arrive(0, 1, EU)
    assert rig.decide(0) == [(1, 0, 1)]
    rig.arrive(1, 2, {})
    assert rig.decide(1) == [(2, 0, 1)]


def test_nobody_rides_where_the_labels_are_missing():
    rig = Rig((EU, 0.01))
    rig.arrive(0, 1, EU)
    rig.arrive(0, 2, {"region": "us"})
    assert rig.decide(0) == [(1, 0, 1)]


def test_nobody_rides_on_a_slow_device_that_a_fast_one_would_finish_sooner():
    rig = Rig(({"kind_of": "cpu"}, 0.5), ({}, 0.01))
    for cookie in range(4):
        rig.arrive(0, cookie, {})
    assert {node for _, node, _ in rig.decide(0)} == {1}
    assert rig.machine.claim(0, 1)
    rig.arrive(1, 10, {"kind_of": "cpu"})  # has no other
    rig.arrive(1, 11, {})  # waits for the fast one
    assert rig.decide(1) == [(10, 0, 2)]


@pytest.mark.parametrize("n_sets", [3, 12])
def test_many_sets_share_and_none_is_left_behind(n_sets):
    labels = {f"l{i}": "yes" for i in range(n_sets)}
    rig = Rig((labels, 0.01), max_batch_size=64)
    for i in range(n_sets):
        for cookie in range(4):
            rig.arrive(0, 100 * i + cookie, {f"l{i}": "yes"})
    sent = {cookie for cookie, _, _ in rig.decide(0)}
    assert len(sent) == 4 * n_sets  # eight at once, the others join
