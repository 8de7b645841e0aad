"""What must hold of the engine's state machine whatever happens to it, under every policy and batching rule."""

import os
from itertools import cycle

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant
from machine_events import MAX_REQUESTS, MachineEvents

from infcore import Router
from infcore._core.batching import batching_policies
from infcore._core.machine import Machine


class Driven(MachineEvents):
    # ---- what holds after every step

    @invariant()
    def bounds_hold(self):
        assert self.machine.n_pending == len(self.pending) <= MAX_REQUESTS
        # Of two that a request is in one may be lost with its node, and no action says so.
        doubtful = {batch for seen in self.pending.values() if seen.copies for batch in (seen.batch, *seen.copies)}
        out = [at for batch, at in self.batches.items() if batch not in doubtful]
        for id, node in self.nodes.items():
            assert out.count(id) <= node.slots

    @invariant()
    def credit_is_what_is_out(self):
        credits = [self.machine.credit(id) for id in self.nodes]
        n_sent = sum(seen.batch is not None for seen in self.pending.values())
        n_copies = sum(len(seen.copies) for seen in self.pending.values())
        assert n_sent <= sum(n for n, _ in credits) <= len(self.pending) + n_copies
        assert self.pending or credits == [(0, 0)] * len(credits)

    @invariant()
    def timers_lie_ahead(self):
        at_ns = self.machine.next_timer_ns
        assert at_ns is None or at_ns > self.now_ns

    @invariant()
    def nobody_waits_beyond_the_deadline(self):
        for cookie, seen in self.pending.items():
            late = seen.deadline_ns is not None and seen.deadline_ns <= self.now_ns
            assert not late or seen.batch is not None, f"{cookie} waits though it is late"

    @invariant()
    def nobody_waits_while_all_that_could_run_it_is_idle(self):
        for cookie, seen in self.pending.items():
            able = self.able(seen)
            idle = all(self.nodes[id].state == "up" and id not in self.batches.values() for id in able)
            if seen.batch is None and able and idle and not self.has_hidden_batch(able):
                timer_ns = self.machine.next_timer_ns
                assert timer_ns is not None, f"{cookie} is left lying"
                # A rule that holds nobody keeps who is expected to be late everywhere, until its deadline.
                doomed = seen.deadline_ns is not None and timer_ns <= seen.deadline_ns
                assert self.batching == "dynamic" or doomed, f"{cookie} is left lying"

    def able(self, seen):
        return [
            id
            for id, node in self.nodes.items()
            if node.state == "up" and seen.model in node.models and seen.require.items() <= node.labels.items()
        ]

    def has_hidden_batch(self, ids):
        """One whose members were all cancelled: no action tells when it is over."""
        return any(not self.machine.node_empty(id) for id in ids)

    # ---- how it ends

    def teardown(self):
        if not hasattr(self, "machine"):
            return
        for _ in range(2000):
            if not any(self.able(seen) or seen.batch is not None for seen in self.pending.values()):
                break
            self.drive()
        stuck = [seen for seen in self.pending.values() if self.able(seen) or seen.batch is not None]
        assert not stuck, f"{stuck} never end"
        for seen in self.pending.values():
            assert seen.batch is None
        self.call(Machine.cancel_all, self.now_ns)
        self.read()
        assert not self.pending and self.machine.n_pending == 0
        assert set(self.ended) == set(self.handles)
        assert all(self.machine.credit(id) == (0, 0) for id in self.nodes)
        self.replay()


@pytest.mark.parametrize(("policy", "batching"), list(zip(Router.policies(), cycle(batching_policies()))))
def test_machine(policy, batching):
    case = type("Driven", (Driven,), {"policy": policy, "batching": batching}).TestCase
    case.settings = settings(max_examples=20 if "INFCORE_SANITIZED" in os.environ else 50, stateful_step_count=40)
    case().runTest()


@pytest.mark.parametrize("policy", ["fastest_finish", "round_robin"])
def test_machine_that_hedges(policy):
    options = {"hedge_quantile": 0.9, "hedge_budget": 0.5}
    case = type("Hedging", (Driven,), {"policy": policy, "options": options}).TestCase
    case.settings = settings(max_examples=15 if "INFCORE_SANITIZED" in os.environ else 30, stateful_step_count=40)
    case().runTest()
