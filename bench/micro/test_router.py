"""Router: one decision from Python (pick, then done) by policy and number of nodes, beside what it replaces.

A group per number of nodes. Rows: the floor (two C method calls that do nothing of it), the ten lines of Python that
servers write by hand, each policy. The group "asked for" has a row for each thing that pick or done can be asked for;
it unpacks its keywords, so its rows compare with each other only. The C++ rows come from router_bench.cpp, compiled
here. Nodes are judged in the row "to be judged" alone: most rows end a request with ok=False, which learns nothing, and
would have their nodes ejected. No row asserts a time.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from programs import SaidTimer, compiled

import infcore

N_NODES = [4, 64, 1024, 10_000]
MODEL = "m"


def fleet_of(n_nodes):
    fleet = infcore.Fleet(max_nodes=max(N_NODES))
    for i in range(n_nodes):
        fleet.load_model(fleet.add(f"n{i}", rtt_s=1e-5 * (i * 7 % 9), slots=1 + i % 3), MODEL)
    return fleet


def router_of(n_nodes, policy="fastest_finish"):
    return router_over(fleet_of(n_nodes), policy)


def router_over(fleet, policy, health=False):
    router = infcore.Router(fleet, policy=policy, health=health)
    for node in range(len(fleet)):
        router.set_prior(MODEL, node, base_s=1e-3 * (2 + node * 31 % 13), per_work_s=1e-5 * (1 + node * 17 % 11))
    return router


def steady(benchmark, call, n_nodes):
    """A fixed number of calls a round: calibration gives short ones one, and then its timer is a good part of it."""
    return benchmark.pedantic(call, rounds=200, iterations=max(20, 20_000 // max(n_nodes, 100)), warmup_rounds=2)


class ByHand:
    """Least outstanding as a dict and min(): what a small gateway has."""

    def __init__(self, n_nodes):
        self.inflight = dict.fromkeys(range(n_nodes), 0)

    def pick(self):
        node = min(self.inflight, key=self.inflight.__getitem__)
        self.inflight[node] += 1
        return node

    def done(self, node):
        self.inflight[node] -= 1


@pytest.mark.parametrize("n_nodes", N_NODES)
@pytest.mark.parametrize("policy", infcore.Router.policies())
def test_pick_and_done(benchmark, policy, n_nodes):
    benchmark.group = f"one decision, {n_nodes} nodes"
    router = router_of(n_nodes, policy)

    def decide():
        decision = router.pick(MODEL, work=3.0)
        router.done(decision, ok=False)  # releases and does not learn
        return decision

    decision = steady(benchmark, decide, n_nodes)
    assert 0 <= decision.node < n_nodes
    assert router.done(decision) is False
    assert router.pick(MODEL, work=3.0).wait_s == 0.0  # no credit is left behind


@pytest.mark.parametrize("n_nodes", N_NODES)
def test_floor(benchmark, n_nodes):
    benchmark.group = f"one decision, {n_nodes} nodes"
    nodes = dict.fromkeys(range(n_nodes))

    def two_calls():
        nodes.get(MODEL)
        return nodes.get(MODEL, False)

    assert steady(benchmark, two_calls, n_nodes) is False


@pytest.mark.parametrize("n_nodes", N_NODES)
def test_by_hand(benchmark, n_nodes):
    benchmark.group = f"one decision, {n_nodes} nodes"
    by_hand = ByHand(n_nodes)

    def decide():
        node = by_hand.pick()
        by_hand.done(node)
        return node

    assert steady(benchmark, decide, n_nodes) == 0
    assert not any(by_hand.inflight.values())


@pytest.mark.parametrize(
    ("asked", "pick", "done"),
    [
        ("nothing", {}, {"ok": False}),
        ("now_s", {"now_s": 1.0}, {"ok": False, "now_s": 1.0}),
        ("a deadline", {"deadline_s": 60.0}, {"ok": False}),
        ("a lease", {"lease_s": 1e-4}, {"ok": False}),
        ("a label", {"require": {"location": "cloud"}}, {"ok": False}),
        ("to learn", {}, {"service_s": 2e-3}),
        ("to be judged", {}, {"service_s": 2e-3}),
    ],
)
def test_asked_for(benchmark, asked, pick, done):
    benchmark.group = "one decision, fastest_finish, 64 nodes, asked for"
    benchmark.name = asked
    router = router_over(fleet_of(64), "fastest_finish", health=asked == "to be judged")

    def decide():
        decision = router.pick(MODEL, work=3.0, **pick)
        router.done(decision, **done)
        return decision

    assert steady(benchmark, decide, 64).feasible


def test_pick_many(benchmark):
    benchmark.group = "1,000 decisions at once, slo_cost, 256 nodes"
    router, work = router_of(256, "slo_cost"), np.ones(1000)

    def decide():
        decisions = router.pick_many(MODEL, work)
        assert router.done(decisions, ok=False)
        return decisions

    assert len(np.unique(benchmark(decide).node)) > 1


@pytest.mark.parametrize("n_nodes", [64, 1024, 10_000])
@pytest.mark.parametrize("terms", ["of time and money", "and of risk, nodes signal"])
def test_slo_cost_all_terms(benchmark, n_nodes, terms):
    """The second has every term but the prefix's and the load's, and finds who is alike to share what is stale."""
    benchmark.group = f"one decision, slo_cost, {n_nodes} nodes, terms"
    benchmark.name = terms
    fleet = fleet_of(n_nodes)
    router = router_over(fleet, "slo_cost")
    deadline_s = None if terms == "of time and money" else 60.0
    if deadline_s:
        for node in range(n_nodes):
            fleet.signal(node, gpu=node % 7 / 10, network=node % 5 / 10)

    def decide():
        decision = router.pick(MODEL, work=3.0, deadline_s=deadline_s)
        router.done(decision, ok=False)
        return decision

    assert steady(benchmark, decide, n_nodes).feasible


timer = SaidTimer()


@pytest.mark.benchmark(timer=timer.read_s)
@pytest.mark.parametrize("n_nodes", [64, 1024])
@pytest.mark.parametrize("policy", ["power_of_two", "slo_cost"])
def test_in_cpp(benchmark, n_nodes, policy):
    """Without Python; extra_info has picks from two threads while a third signals, against one thread's."""
    benchmark.group = f"C++: one decision, {n_nodes} nodes"
    core = Path(infcore._core.route.__file__).parent
    program = compiled("router_bench", f"-L{core}", f"-Wl,-rpath,{core}", "-linfcore")
    size = ["20000", "5"] if benchmark.enabled else ["1000", "1"]
    said = json.loads(subprocess.run([program, str(n_nodes), *size, policy], capture_output=True, check=True,
                                     text=True).stdout)  # fmt: skip
    benchmark.extra_info.update(said)
    benchmark.pedantic(timer.pass_s, args=(1e-9 * said["pick_and_done_ns"],), rounds=1)
    print(
        f"\n{policy:16} {n_nodes:5} nodes {said['pick_and_done_ns']:7.0f} ns, two threads {said['ratio']:.2f}x one, "
        f"{said['processor_ratio']:.2f}x by processor time (a fleet each: {said['apart_processor_ratio']:.2f}x)"
    )
    assert said["inflight_left"] == 0


@pytest.mark.parametrize("shape", ["one", "all terms"])
def test_latency_model(benchmark, shape):
    """One observation: of a single shape, or of ragged batches, where terms must be told apart."""
    from infcore._core.latency import LatencyModel

    benchmark.group = "latency model, one observation"
    model, rng = LatencyModel(), np.random.default_rng(1)
    batches = [(1, 3.0, 3.0)] if shape == "one" else [
        (len(works), float(works.sum()), float(works.max()))
        for works in (rng.lognormal(3.0, 0.8, rng.integers(1, 33)) for _ in range(64))
    ]  # fmt: skip
    batches = [(*batch, 2e-3 + 1e-4 * batch[0] + 1e-5 * batch[1]) for batch in batches]

    def observe():
        for batch in batches:
            model.observe(*batch)

    benchmark(observe)
    benchmark.extra_info["observations per call"] = len(batches)
    assert model.service_s(*batches[0][:3]) == pytest.approx(batches[0][3], rel=0.01)
