"""The state machine's events of nodes that run many requests in steps: first token, progress, a step that fails."""

import numpy as np
import pytest

from infcore import Fleet
from infcore._core.machine import Machine
from infcore.sim import events, replay

MS = 1_000_000


class Steps:
    """Nodes of many slots, a model of one request a batch, and a machine."""

    def __init__(self, n_nodes=1, *, slots=4, run_limit_ns=None, idempotent=True, log=None):
        self.fleet = Fleet(max_nodes=4)
        self.machine = Machine(self.fleet, log=log)
        self.model = self.machine.add_model("t", max_batch_size=1, batch_delay_ns_max=0, idempotent=idempotent)
        for at in range(n_nodes):
            node = self.fleet.add(f"node{at}", slots=slots)
            self.machine.add_node(node, run_limit_ns=run_limit_ns)
            self.machine.set_resident(0, self.model, node, prior=(1e-3 * (1 + at), 0, 0, 0))

    def step(self, now_ns):
        self.machine.tick(now_ns)
        self.machine.schedule(now_ns)
        return self.machine.actions()

    def arrive(self, now_ns, *cookies, **request):
        handles = [self.machine.arrive(now_ns, cookie, self.model, **request) for cookie in cookies]
        self.step(now_ns)
        return handles

    def run(self, now_ns, node):
        """Everything that the node was handed is started; returns the batches."""
        batches = []
        while (claimed := self.machine.claim(now_ns, node)) is not None:
            self.machine.started(now_ns, node, claimed[0])
            batches.append(claimed[0])
        return batches


def by_kind(actions, kind):
    return [(a[1], a[2], a[5]) for a in actions if a[0] == kind]


def test_a_node_that_does_steps_is_not_lost():
    rig = Steps(run_limit_ns=10 * MS)
    rig.arrive(0, 1)
    rig.run(0, 0)
    for now_ns in range(4 * MS, 60 * MS, 4 * MS):
        rig.machine.progress(now_ns, 0)
        assert rig.step(now_ns) == []
    assert rig.fleet.nodes()["state"].tolist() == ["up"]
    assert by_kind(rig.step(66 * MS + MS), "retry") == [(1, 0, "device_lost")]
    assert rig.fleet.nodes()["state"].tolist() == ["lost"]


def test_a_step_that_fails_hands_over_all_that_ran():
    rig = Steps(2)
    rig.arrive(0, 1, 2, 3, 4)
    assert len(rig.run(0, 0)) == 4
    rig.machine.node_failed(MS, 0)
    actions = rig.step(MS)
    assert by_kind(actions, "retry") == [(cookie, 0, "device_failed") for cookie in (1, 2, 3, 4)]
    assert [a[:3] for a in actions if a[0] == "dispatch"] == [("dispatch", cookie, 1) for cookie in (1, 2, 3, 4)]
    rig.machine.node_back(2 * MS, 0)
    assert rig.fleet.nodes()["state"].tolist() == ["up", "up"]


@pytest.mark.parametrize("idempotent", [True, False])
def test_attempts_end(idempotent):
    rig = Steps(idempotent=idempotent)
    rig.arrive(0, 7)
    retries, ends = [], []
    for attempt in range(3):
        now_ns = attempt * MS
        if not rig.run(now_ns, 0):
            break
        rig.machine.node_failed(now_ns, 0)
        actions = rig.step(now_ns)
        retries += by_kind(actions, "retry")
        ends += by_kind(actions, "complete")
        rig.machine.node_back(now_ns, 0)
        rig.step(now_ns)
    assert len(retries) == (2 if idempotent else 0)
    assert ends == [(7, 0, "device_failed")]
    assert rig.machine.n_pending == 0
    assert rig.machine.credit(0) == (0, 0)


def test_a_first_token_that_nobody_waits_for():
    rig = Steps()
    handles = rig.arrive(0, 1)
    (batch,) = rig.run(0, 0)
    assert rig.machine.cancel(MS, handles[0])
    rig.machine.first_token(2 * MS, 0, batch)
    assert rig.machine.complete(3 * MS, 0, batch, False)
    rig.machine.first_token(4 * MS, 0, batch)
    assert rig.machine.n_pending == 0


def test_the_log_has_them(tmp_path):
    path = str(tmp_path / "steps.log")
    rig = Steps(2, log=path, run_limit_ns=10 * MS)
    rig.arrive(0, 1, 2, 3)
    batches = rig.run(0, 0)
    for batch in batches[:2]:
        rig.machine.first_token(MS, 0, batch)
    rig.machine.progress(8 * MS, 0)
    rig.step(11 * MS)
    rig.machine.node_failed(12 * MS, 0)
    rig.step(12 * MS)
    rig.machine.node_back(13 * MS, 0)
    for batch in rig.run(13 * MS, 1):
        rig.machine.complete(14 * MS, 1, batch)
    rig.step(14 * MS)
    rig.machine.end_log()
    assert replay(path).equal
    kinds = [event.kind for event in events(path)]
    assert [kinds.count(kind) for kind in ("first_token", "progress", "node_failed")] == [2, 1, 1]


def test_two_models_blocks_are_never_one():
    """The same prompt of two models: what a node has of the one is nothing to the other."""
    fleet = Fleet(max_nodes=4)
    machine = Machine(fleet, policy="prefix_aware", policy_options={"gap": 100.0})
    models = [machine.add_model(name, max_batch_size=1, runs_share=True) for name in ("a", "b")]
    for at in range(4):
        node = fleet.add(f"node{at}", slots=64)
        machine.add_node(node)
        for model in models:
            machine.set_resident(0, model, node, prior=(1e-3, 0, 0, 0))
    prompt = np.arange(1, 9, dtype=np.uint64)

    def sent(cookie, model):
        machine.arrive(cookie * MS, cookie, model, blocks=prompt, block_size=16, prompt_tokens=128)
        machine.tick(cookie * MS)
        machine.schedule(cookie * MS)
        (at,) = [a[2] for a in machine.actions() if a[0] == "dispatch"]
        return at

    first = sent(1, models[0])
    assert [sent(i, models[0]) for i in (2, 3)] == [first, first], "it holds the prompt"
    other = sent(4, models[1])
    assert other != first, "the emptiest: nobody holds it of that model"
    assert [sent(i, models[1]) for i in (5, 6)] == [other, other]
