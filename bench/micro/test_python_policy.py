"""A routing policy in Python beside the compiled one that decides alike: one decision (pick, then done) from Python.

A group per number of nodes. No row asserts a time; infcore.register_policy's docstring has the figures.
"""

import numpy as np
import pytest

import infcore


class LeastInflight:
    name = "least_inflight"

    def select(self, query, view):
        return view.nodes[np.argmin(view.inflight)]


@pytest.mark.parametrize("n_nodes", [4, 64, 1024])
@pytest.mark.parametrize("policy", ["least_outstanding", LeastInflight()], ids=["compiled", "python"])
def test_pick_and_done(benchmark, policy, n_nodes):
    benchmark.group = f"one decision, {n_nodes} nodes"
    fleet = infcore.Fleet(max_nodes=n_nodes)
    for i in range(n_nodes):
        fleet.load_model(fleet.add(f"n{i}"), "m")
        fleet.signal(i, inflight=(i * 7 + 3) % n_nodes)
    router = infcore.Router(fleet, policy=policy, health=False)  # what fails here is not the nodes' fault

    def decide():
        decision = router.pick("m", work=3.0)
        router.done(decision, ok=False)
        return decision.node

    assert benchmark(decide) == int(np.argmin(fleet.nodes()["inflight"]))
