"""power_of_two and peak_ewma: what they draw, count and learn. With two nodes both are always compared."""

import math

import numpy as np
import pytest
from reference.routing import SplitMix64, exp

from infcore import Fleet, ManualClock, Router
from infcore._core.machine import Machine

JOINT = ("fastest_finish", "slo_cost", "cascade")
BOUND = [policy for policy in Router.policies() if policy not in JOINT]
EVEN = ("round_robin", "least_outstanding", "weighted", "consistent_hash", "prefix_aware")


def fleet_of(n, clock=None):
    fleet = Fleet(clock=clock or ManualClock())
    for i in range(n):
        fleet.load_model(fleet.add(f"n{i}"), "m")
    return fleet


# ---- two at random


def test_generator_gives_the_published_numbers():
    """The first three for seed 1234567, as other implementations of SplitMix64 give them."""
    random = SplitMix64(1234567)
    assert [random.next() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("n", [2, 3, 64, 150])
def test_pairs_are_uniform_and_of_two(n):
    """Node number k has k requests in flight, so of a pair the lower is chosen: (n - 1 - k) of n (n - 1) / 2 pairs."""
    fleet = fleet_of(2 * n)
    for node in range(2 * n):  # every other one is a candidate: words with gaps
        if node % 2:
            fleet.unload_model(node, "m")
        else:
            fleet.signal(node, inflight=node // 2)
    router, counts = Router(fleet, policy="power_of_two", seed=3), np.zeros(n)
    n_picks = 200 * n
    for _ in range(n_picks):
        decision = router.pick("m")
        router.cancel(decision)
        counts[decision.node // 2] += 1
    assert counts[-1] == 0, "the fullest node can be chosen only if it was drawn twice"
    expected = n_picks * (n - 1 - np.arange(n - 1)) / (n * (n - 1) / 2)
    many = expected >= 5
    chi_square = float(((counts[:-1] - expected)[many] ** 2 / expected[many]).sum())
    freedom = max(1, int(many.sum()) - 1)
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom) + 5  # seeded: passes or fails for good


@pytest.mark.parametrize("policy", ["power_of_two", "peak_ewma"])
def test_seed_decides(policy):
    def picks(seed):
        router = Router(fleet_of(20), policy=policy, seed=seed)
        return [router.pick("m").node for _ in range(40)]

    assert picks(1) == picks(1)
    assert picks(1) != picks(2)


def test_one_candidate_is_taken_without_a_draw():
    fleet = fleet_of(9)
    routers = [Router(fleet, policy="power_of_two", seed=5) for _ in range(2)]
    fleet.load_model(4, "only")
    assert [routers[0].pick("only").node for _ in range(10)] == [4] * 10
    first, second = ([router.cancel(d := router.pick("m")) and d.node for _ in range(30)] for router in routers)
    assert first == second


def test_two_choices_spread_better_than_one():
    """1,000 requests on each of 20 fleets of 100 nodes: how far the fullest node is above the mean of 10."""
    above = {"one": [], "two": []}
    for seed in range(20):
        fleet = fleet_of(100)
        router = Router(fleet, policy="power_of_two", seed=seed)
        held = [router.pick("m") for _ in range(1000)]
        assert len(held) == fleet.nodes()["inflight"].sum()
        above["two"].append(fleet.nodes()["inflight"].max() - 10)
        alone = np.random.default_rng(seed).integers(0, 100, 1000)
        above["one"].append(np.bincount(alone, minlength=100).max() - 10)
    assert max(above["two"]) < min(above["one"])
    assert np.mean(above["two"]) < 0.4 * np.mean(above["one"])


# ---- peak_ewma


class Two:
    """Two nodes, times told by hand."""

    def __init__(self):
        self.clock = ManualClock()
        self.fleet = fleet_of(2, self.clock)
        self.router = Router(self.fleet, policy="peak_ewma")

    def pick(self):
        return self.router.pick("m")

    def serve(self, *latencies_s, ok=True):
        """One request, answered after what its node takes."""
        decision = self.pick()
        self.clock.advance(latencies_s[decision.node])
        self.router.done(decision, ok=ok)
        return decision.node


def test_nodes_without_history_get_one_request_each_before_any_gets_two():
    two = Two()
    assert [two.pick().node for _ in range(4)] == [0, 1, 0, 1]  # free while idle, then behind all others


def test_cost_is_latency_times_requests():
    two = Two()
    first, second = two.pick(), two.pick()
    two.clock.advance(0.010)
    two.router.done(first)
    two.clock.advance(0.015)
    two.router.done(second)
    # 10 or 25 ms; 20 or 25; 30 or 25; 30 or 50; 40 or 50
    assert [two.pick().node for _ in range(5)] == [0, 0, 1, 0, 0]


def test_a_peak_is_left_at_once_and_forgiven_with_the_time_constant():
    two = Two()
    assert two.serve(1.0, 0.1) == 0
    left_for = [two.serve(1.0, 0.1) for _ in range(300)].index(0)
    # Node 1 answers within 0.1 s each time, so after ln(10) time constants of 10 s the average of node 0 is below that;
    # what node 1's own sinks between two looks moves that by one request at most.
    assert math.ceil(100 * math.log(10)) <= left_for <= math.ceil(100 * math.log(10)) + 1


@pytest.mark.parametrize(("ok", "chosen"), [(True, 1), (False, 1)])
def test_failures_count_as_answers_do(ok, chosen):
    two = Two()
    two.serve(5.0, 0.1, ok=ok)
    assert [two.serve(5.0, 0.1, ok=ok) for _ in range(5)] == [chosen] * 5


def test_cancels_teach_nothing():
    two = Two()
    for _ in range(3):
        decision = two.pick()
        two.clock.advance(5.0)
        two.router.cancel(decision)
        assert decision.node == 0


def test_models_are_learned_apart():
    two = Two()
    for node in (0, 1):
        two.fleet.load_model(node, "n")
    two.serve(5.0, 0.1)
    assert two.serve(5.0, 0.1) == 1
    assert two.router.pick("n").node == 0


def test_another_node_under_an_old_id_starts_without_history():
    two = Two()
    two.serve(5.0, 0.1)
    assert two.serve(5.0, 0.1) == 1
    two.fleet.remove(0)
    two.fleet.load_model(two.fleet.add("new"), "m")
    assert two.serve(5.0, 0.1) == 0


@pytest.mark.parametrize("exponent", np.concatenate([np.linspace(0.0, 3.0, 50), np.linspace(3.0, 699.9, 50)]))
def test_exp(exponent):
    assert exp(-exponent) == pytest.approx(math.exp(-exponent), rel=1e-15)


# ---- in the engine

MS = 1_000_000


class Served:
    """A machine over nodes that take a time each, one request at a time, driven by the clock."""

    def __init__(self, policy, *service_ns):
        self.fleet = Fleet(max_nodes=len(service_ns))
        self.machine = Machine(self.fleet, policy=policy, batching="greedy", seed=7)
        self.model = self.machine.add_model("m", max_batch_size=1)
        self.service_ns = service_ns
        for node in range(len(service_ns)):
            self.machine.add_node(self.fleet.add(f"n{node}"))
            self.machine.set_resident(0, self.model, node)
        self.ends, self.n_arrived, self.n_ended = [], 0, np.zeros(len(service_ns), int)

    def arrive(self, now_ns):
        self.machine.arrive(now_ns, self.n_arrived, self.model)
        self.n_arrived += 1
        self.settle(now_ns)

    def settle(self, now_ns):
        self.machine.tick(now_ns)
        self.machine.schedule(now_ns)
        for kind, _, node, *_ in self.machine.actions():
            self.n_ended[node] += kind == "complete"
        for node in range(len(self.service_ns)):
            if taken := self.machine.claim(now_ns, node):
                self.machine.started(now_ns, node, taken[0])
                self.ends.append((now_ns + self.service_ns[node], node, taken[0]))

    def run_until(self, now_ns):
        while self.ends and min(self.ends)[0] <= now_ns:
            self.ends.remove(end := min(self.ends))
            assert self.machine.complete(*end)
            self.settle(end[0])

    def inflight(self):
        return self.fleet.nodes()["inflight"].astype(int)


@pytest.mark.parametrize("policy", BOUND)
def test_waiting_and_running_requests_count_on_the_node_they_are_bound_to(policy):
    """From arrival to end, whether they wait in the node's queue, are dispatched or run."""
    served = Served(policy, 10 * MS, 10 * MS, 10 * MS)
    for i in range(12):
        served.arrive(0)
        assert served.inflight().sum() == i + 1
    if policy in EVEN:
        assert served.inflight().tolist() == [4, 4, 4]
    bound = served.inflight()
    for round_ in range(1, 12):
        served.run_until(round_ * 10 * MS)
        assert served.inflight().tolist() == np.maximum(bound - round_, 0).tolist()
        assert served.n_ended.tolist() == np.minimum(bound, round_).tolist()
    assert served.machine.n_pending == 0


def test_power_of_two_gives_a_slow_node_less_and_peak_ewma_least():
    """Eight nodes, one ten times slower, at half of what they can do."""
    shares = {}
    for policy in ("round_robin", "power_of_two", "peak_ewma"):
        served = Served(policy, 100 * MS, *[10 * MS] * 7)
        for i in range(4000):
            now_ns = int(i * 2.8 * MS)
            served.run_until(now_ns)
            served.arrive(now_ns)
        shares[policy] = (served.inflight()[0] + served.n_ended[0]) / served.n_arrived
    assert shares["round_robin"] == 1 / 8
    assert shares["peak_ewma"] < 0.5 * shares["power_of_two"] < 0.5 * shares["round_robin"]
