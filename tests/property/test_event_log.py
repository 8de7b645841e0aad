"""Any history of a state machine, logged and told to another one: the same decisions, and every call in the log."""

import os
import random
import tempfile
from itertools import cycle
from pathlib import Path

import pytest
from event_logs import blocks_of, write_blocks
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from machine_events import MAX_NODES, MAX_REQUESTS, MachineEvents

from infcore import Fleet, InvalidArgument, Router, sim
from infcore._core.batching import batching_policies
from infcore._core.machine import Machine

fractions = st.floats(0.0, 1.0)


class Logged(MachineEvents):
    def new_machine(self):
        fd, self.path = tempfile.mkstemp()
        os.close(fd)
        return Machine(
            Fleet(max_nodes=MAX_NODES),
            policy=self.policy,
            batching=self.batching,
            seed=7,
            max_requests=MAX_REQUESTS,
            n_tiers=2,
            ageing_ns=self.made[0],
            log=self.path,
            **self.options,
        )

    @rule(at=st.integers(0, 7), queue_wait_s=st.floats(0.0, 0.1), cpu=fractions, inflight=st.integers(0, 9))
    def signal(self, at, queue_wait_s, cpu, inflight):
        if (node := self.pick(at, "up", "draining", "lost")) is not None:
            self.machine.fleet.signal(
                node, as_of_s=self.now_ns * 1e-9, queue_wait_s=queue_wait_s, cpu=cpu, inflight=inflight
            )
            self.settle()

    def teardown(self):
        if not hasattr(self, "machine"):
            return
        try:
            self.machine.end_log()
            found = sim.replay(self.path)
            assert found.equal and found.first_difference is None, found
            assert found.complete and found.n_requests == len(self.handles) + 3  # begin() makes three
            assert found.digest == found.recorded_digest
            actions = [event for event in sim.events(self.path) if event.is_action]
            assert len(actions) == found.n_actions
            # Begin's requests are numbered first; from then on numbers and cookies go side by side.
            told = [(a.kind, a.fields["request"] - 3, a.fields["node"], a.fields["batch"]) for a in actions]
            assert [row for row in told if row[1] > 0] == [action[:4] for action in self.log]
        finally:
            os.unlink(self.path)


@pytest.mark.parametrize(("policy", "batching"), list(zip(Router.policies(), cycle(batching_policies()))))
def test_a_logged_history_replays_to_the_same_decisions(policy, batching):
    case = type("Logged", (Logged,), {"policy": policy, "batching": batching}).TestCase
    case.settings = settings(max_examples=12 if "INFCORE_SANITIZED" in os.environ else 30, stateful_step_count=40)
    case().runTest()


def test_a_logged_history_with_hedges_and_terms_replays_to_the_same_decisions():
    options = {"hedge_quantile": 0.9, "hedge_budget": 0.5, "retry_budget": 0.0, "log_terms": True}
    case = type("Hedging", (Logged,), {"options": options}).TestCase
    case.settings = settings(max_examples=12 if "INFCORE_SANITIZED" in os.environ else 30, stateful_step_count=40)
    case().runTest()


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Some requests, a cancel, a lost node, a failed batch."""
    path = str(tmp_path_factory.mktemp("log") / "some.log")
    machine = Machine(Fleet(max_nodes=3), log=path, max_requests=16, n_tiers=2)
    models = [machine.add_model(name, max_batch_size=4) for name in ("a", "b")]
    for name, zone in (("x", "eu"), ("y", "us")):
        node = machine.fleet.add(name, zone=zone, slots=2, rtt_s=1e-3, labels={"disk": "ssd"})
        machine.add_node(node, run_limit_ns=50_000_000)
        for model in models:
            machine.set_resident(0, model, node, prior=(1e-3, 1e-4, 1e-5, 0.0))
    for i in range(40):
        now_ns = i * 1_000_000
        require = {"zone": "eu"} if i % 5 == 0 else None
        handle = machine.arrive(now_ns, i, models[i % 2], work=i * 0.5, tier=i % 2, require=require, deadline_ns=10**10)
        if i % 7 == 0:
            machine.cancel(now_ns, handle)
        for node in (0, 1):
            if (taken := machine.claim(now_ns, node)) is not None:
                machine.started(now_ns, node, taken[0])
                machine.complete(now_ns + 500_000, node, taken[0], i % 6 != 0)
        machine.tick(now_ns)
        machine.schedule(now_ns)
        machine.actions()
    machine.fleet.signal(0, cpu=0.5, queue_wait_s=0.01)
    machine.node_lost(10**9, 1)
    machine.cancel_all(10**9)
    machine.end_log()
    assert sim.replay(path).equal
    return path


def test_any_flipped_byte_is_found(log, tmp_path):
    data, path = Path(log).read_bytes(), tmp_path / "flipped.log"
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        with pytest.raises(InvalidArgument, match=r"flipped\.log, byte \d+, record \d+: "):
            sim.replay(path)


def test_any_truncation_is_found(log, tmp_path):
    data, path = Path(log).read_bytes(), tmp_path / "short.log"
    for n in range(len(data)):
        path.write_bytes(data[:n])
        with pytest.raises(InvalidArgument, match=r"short\.log, byte \d+, record \d+: "):
            sim.replay(path)


def test_a_damaged_record_gives_another_digest_or_an_error(log, tmp_path):
    """Past the checksum: whoever forges a log must forge its decisions, too."""
    bodies, path, rng = blocks_of(log), tmp_path / "forged.log", random.Random(1)
    said, told_apart = sim.replay(log), 0
    for at in range(len(bodies[0])):
        body = bytearray(bodies[0])
        body[at] ^= 1 << rng.randrange(8)
        write_blocks(path, [bytes(body), *bodies[1:]], like=log)
        try:
            found = sim.replay(path)
        except InvalidArgument as e:
            assert "forged.log, byte " in str(e)
            told_apart += 1
        else:
            told_apart += (found.digest, found.recorded_digest) != (said.digest, said.recorded_digest)
    # What no decision depended on may change unseen: prices, names, labels that nobody asked for, the last nanoseconds.
    assert told_apart > 0.7 * len(bodies[0])
