"""Random membership, models, credit and signals: the fleet says what its plain model says, in either memory."""

import os

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from reference import fleet as plain

import infcore

MAX_NODES = 6
MODELS = ["a", "b", "c"]
TICK_NS = 1 << 20
TICK_S = TICK_NS * 1e-9

names = st.sampled_from([f"n{i}" for i in range(8)])
models = st.sampled_from(MODELS)
versions = st.integers(1, 2)
ids = st.integers(0, MAX_NODES - 1)


class FleetMachine(RuleBasedStateMachine):
    """The same calls to a fleet and to its model; of a shared one, to two that have it open, in turn."""

    shared = False
    n_made = 0

    def __init__(self):
        super().__init__()
        self.tick = 1
        self.clock = infcore.ManualClock(start_s=TICK_S)
        FleetMachine.n_made += 1
        name = f"test-property-{os.getpid()}-{FleetMachine.n_made}" if self.shared else None
        self.fleets = [
            infcore.Fleet(shared=name, max_nodes=MAX_NODES, heartbeat_s=1e6, clock=self.clock)
            for _ in range(2 if self.shared else 1)
        ]
        self.routers = [infcore.Router(fleet, policy="least_outstanding") for fleet in self.fleets]
        self.model = plain.Fleet(MAX_NODES)
        self.picked = []

    @initialize()
    def known(self):
        for model in MODELS:  # picks of a model that nobody knows are refused elsewhere
            for version in (1, 2):
                self.one().add_model(model, version=version, weights_bytes=1 << 40, load_s=1.0)
                self.model.know(model, version)
                self.model.sizes[model, version] = plain.Size(1 << 40, 1.0)

    def one(self):
        return self.fleets[self.tick % len(self.fleets)]

    def present(self):
        return [i for i, node in enumerate(self.model.nodes) if node is not None]

    @rule(ticks=st.integers(1, 3))
    def advance(self, ticks):
        self.tick += ticks
        self.clock.advance(ticks * TICK_S)

    @rule(name=names, memory=st.integers(0, 4), rack=st.sampled_from("xy"))
    def add(self, name, memory, rack):
        node = plain.Node(name, memory << 30, {"rack": rack, "kind": "gpu", "zone": "", "location": "cloud"})
        there = any(n is not None and n.name == name for n in self.model.nodes)
        where = None if there else self.model.add(node)
        if where is None:
            with pytest.raises(infcore.InvalidArgument):
                self.one().add(name, memory_bytes=memory << 30, labels={"rack": rack})
        else:
            assert self.one().add(name, memory_bytes=memory << 30, labels={"rack": rack}) == where

    @rule(i=ids, what=st.sampled_from(["remove", "drain", "lose", "restore"]))
    def change_state(self, i, what):
        if i not in self.present():
            with pytest.raises(infcore.UnknownName):
                getattr(self.one(), what)(i)
            return
        node = self.model.nodes[i]
        moves = {"lose": ("up", "lost"), "restore": ("lost", "up")}
        if what in moves:
            old, new = moves[what]
            assert getattr(self.one(), what)(i) == (node.state == old)
            node.state = new if node.state == old else node.state
            return
        getattr(self.one(), what)(i)
        if what == "remove":
            self.model.remove(i)
        else:
            node.state = "draining"

    @rule(i=ids, model=models, version=versions, on=st.booleans())
    def hold(self, i, model, version, on):
        if i not in self.present():
            return
        fleet = self.one()
        (fleet.load_model if on else fleet.unload_model)(i, model, version=version)
        held = self.model.nodes[i].held
        (held.add if on else held.discard)((model, version))

    @rule(
        model=models, version=versions, gib=st.integers(0, 3), load_s=st.integers(0, 9), rack=st.sampled_from(["", "x"])
    )
    def declare(self, model, version, gib, load_s, rack):
        require = {"rack": rack} if rack else {}
        self.one().add_model(model, version=version, weights_bytes=gib << 30, load_s=load_s, require=require)
        self.model.sizes[model, version] = plain.Size(gib << 30, float(load_s), require)

    @rule(i=ids, back=st.integers(0, 3), inflight=st.integers(0, 5))
    def signal(self, i, back, inflight):
        if i not in self.present():
            return
        as_of = max(0, self.tick - back)
        taken = self.one().signal(i, as_of_s=as_of * TICK_S, inflight=inflight, error_rate=0.25)
        assert taken == self.model.nodes[i].signal(as_of * TICK_NS, inflight)

    @rule(model=models)
    def pick(self, model):
        able = [
            i
            for i in self.present()
            if self.model.nodes[i].state == "up" and any(m == model for m, _ in self.model.nodes[i].held)
        ]
        which = self.tick % len(self.fleets)
        if not able:
            with pytest.raises(infcore.NoNodeAvailable):
                self.routers[which].pick(model)
            return
        decision = self.routers[which].pick(model)
        assert decision.node == min(able, key=lambda i: (self.model.nodes[i].load(), i))
        self.model.nodes[decision.node].changes.append((str(which), self.tick * TICK_NS, 1))
        if self.tick * TICK_NS - self.model.wanted_ns.get(model, -(10**18)) >= 10_000_000:
            self.model.wanted_ns[model] = self.tick * TICK_NS
        self.picked.append((which, decision, self.model.nodes[decision.node]))

    @precondition(lambda self: self.picked)
    @rule(which=st.integers(0, 1 << 20), ok=st.booleans())
    def end(self, which, ok):
        router, decision, node = self.picked.pop(which % len(self.picked))
        assert self.routers[router].done(decision, ok=ok, service_s=0.001)
        node.changes.append((str(router), self.tick * TICK_NS, -1))

    @invariant()
    def same(self):
        for fleet in self.fleets:
            rows = fleet.nodes()
            assert len(fleet) == len(rows)
            assert rows["id"].tolist() == self.present()
            for row in rows:
                node = self.model.nodes[row["id"]]
                assert (row["name"], row["state"], row["memory_bytes"]) == (node.name, node.state, node.memory_bytes)
                assert row["inflight"] == node.load()
                assert row["used_bytes"] == sum(self.model.sizes[key].weights_bytes for key in node.held)
                age_s = np.nan if node.as_of_ns is None else self.tick * TICK_S - node.as_of_ns * 1e-9
                assert row["signal_age_s"] == pytest.approx(age_s, abs=1e-8, nan_ok=True)

    @rule()
    def load_costs(self):
        for fleet in self.fleets:
            for model in MODELS:
                costs = fleet.load_costs(model)
                for i in range(len(costs)):
                    assert costs[i] == pytest.approx(self.model.load_cost_s(i, model), rel=1e-6)


class SharedFleetMachine(FleetMachine):
    shared = True


@pytest.mark.parametrize("machine", [FleetMachine, SharedFleetMachine])
def test_fleet_is_its_plain_model(machine):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
