"""The compiled state machine does as its plain Python model does, step by step, whatever happens to it.

Seeded random histories: a few unlike nodes with labels, models with small batches, tiers, deadlines, failures, losses,
drains, cancels, loads and unloads. After every step the two have decided the same actions in the same order, hold the
same credit, and want to be woken at the same nanosecond.
"""

import os
import random
import subprocess
import sys

import pytest
from reference.batching import NEVER_NS
from reference.engine import BINDS_ON_ARRIVAL, JOINT, Engine

from infcore import Fleet, Router
from infcore._core.batching import batching_policies
from infcore._core.latency import LatencyTable
from infcore._core.machine import Machine

MS = 1_000_000
MAX_NODES = 5
N_STEPS = 400
SITES = [{"region": "eu"}, {"region": "us"}, {"region": "eu", "tee": "yes"}]
REQUIRES = [
    {},
    {},
    {"region": "eu"},
    {"region": "us"},
    {"tee": "yes"},
    {"region": "eu", "tee": "yes"},
    {"region": "mars"},
]


class Pair:
    """A machine and its model, given the same history."""

    def __init__(self, policy, batching, seed, **faults):
        """faults: hedge_quantile and the budgets"""
        self.draw = random.Random(f"{policy} {batching} {seed}")
        max_requests = self.draw.choice([4, 40, 200])
        ageing_ns = self.draw.choice([NEVER_NS, 20 * MS])
        self.fleet = Fleet(max_nodes=MAX_NODES)
        self.machine = Machine(
            self.fleet,
            policy=policy,
            batching=batching,
            max_requests=max_requests,
            n_tiers=3,
            seed=seed,
            ageing_ns=None if ageing_ns == NEVER_NS else ageing_ns,
            attempts_max=2 if not faults else 3,
            **faults,
        )
        self.model = Engine(
            LatencyTable(MAX_NODES, 64),
            policy,
            batching,
            max_requests,
            ageing_ns,
            attempts_max=2 if not faults else 3,
            seed=seed,
            **faults,
        )
        self.now_ns = 0
        self.tenants = self.draw.choice([[0], [0, 1], [1, 2, 3, 70_000]])
        self.handles = {}
        self.claimed = []  # (node, batch id, whether it was started)
        self.slow = self.draw.choice([1, 20])  # models that take long against the arrivals: queues
        self.models = [self.add_model(f"m{i}") for i in range(self.draw.randint(1, 3))]
        for at in range(self.draw.randint(2, MAX_NODES)):
            self.add_node(SITES[-1 - at % len(SITES)])
        self.seen = set()
        self.name_labels()

    def both(self, name, *args):
        told, expected = getattr(self.machine, name)(*args), getattr(self.model, name)(*args)
        assert told == expected, (name, args)
        return told

    # ---- membership

    def add_model(self, name):
        config = {
            "max_batch_size": self.draw.choice([1, 2, 4, 16]),
            "batch_delay_ns_max": self.draw.choice([0, 2 * MS, 50 * MS, 50 * MS]),
            "idempotent": self.draw.random() < 0.8,
            "length_buckets": self.draw.choice([[], [], [2.0, 10.0]]),
            "preferred_batch_sizes": self.draw.choice([[], [], [1, 3], [4]]),
        }
        if self.draw.random() < 0.2:
            config |= {"max_batch_size": 1, "runs_share": True, "preferred_batch_sizes": []}
        model = self.machine.add_model(name, **config)
        self.model.add_model(model, **config)
        return model

    def name_labels(self):
        """The fleet knows a label from when it is first asked for while a node carries it; the model knows all."""
        for require in REQUIRES:
            cookie = len(self.handles)
            self.handles[cookie] = self.machine.arrive(0, cookie, self.models[0], require=require)
            self.model.arrive(0, cookie, self.models[0], 1.0, 0, NEVER_NS, require)
            assert self.machine.cancel(0, self.handles[cookie])
            assert self.model.cancel(self.now_ns, cookie, "caller")

    def add_node(self, labels=None):
        kind, labels = self.draw.randrange(2), labels or self.draw.choice(SITES)
        slots = self.draw.choice([1, 1, 2, 3])
        run_limit_ns = self.draw.choice([NEVER_NS, 100 * MS])
        price_per_hour = self.draw.choice([0.0, 1.0, 50.0])
        node = self.fleet.add(
            f"n{self.draw.random()}", kind=f"kind{kind}", labels=labels, slots=slots, price_per_hour=price_per_hour
        )
        self.machine.add_node(node, run_limit_ns=None if run_limit_ns == NEVER_NS else run_limit_ns)
        self.model.add_node(node, kind, labels, slots, run_limit_ns, price_per_hour)
        for model in self.models:
            if self.draw.random() < 0.8:
                self.set_resident(model, node, True)

    def set_resident(self, model, node, resident):
        prior = self.random_curve() if self.draw.random() < 0.7 else None
        self.machine.set_resident(self.now_ns, model, node, resident, prior=prior)
        self.model.set_resident(self.now_ns, model, node, resident, prior)

    def random_curve(self):
        terms = [self.draw.choice([0.0, self.draw.uniform(0, most)]) for most in (5e-3, 1e-3, 1e-3, 2e-4)]
        return tuple(term * self.slow for term in terms)

    def nodes_in(self, *states):
        return [node.id for node in self.model.fleet if node.state in states]

    # ---- events; each returns whether it could happen

    def arrive(self):
        for _ in range(self.draw.choice([1, 1, 2, 6])):
            cookie = len(self.handles)
            deadline_ns = self.draw.choice([NEVER_NS, self.now_ns + self.draw.randint(-1, 60 * MS)])
            deadline_ns = max(0, deadline_ns)
            model = self.draw.choice(self.models)
            work, tier = self.draw.choice([1.0, self.draw.uniform(0.0, 20.0)]), self.draw.randrange(3)
            require, tenant = self.draw.choice(REQUIRES), self.draw.choice(self.tenants)
            self.handles[cookie] = self.machine.arrive(
                self.now_ns,
                cookie,
                model,
                work=work,
                tier=tier,
                deadline_ns=None if deadline_ns == NEVER_NS else deadline_ns,
                require=require,
                tenant=tenant,
            )
            self.model.arrive(self.now_ns, cookie, model, work, tier, deadline_ns, require, tenant)

    def cancel(self):
        for cookie in self.draw.sample(sorted(self.handles), min(2, len(self.handles))):
            told = self.machine.cancel(self.now_ns, self.handles[cookie])
            assert told == self.model.cancel(self.now_ns, cookie, "caller"), cookie

    def claim(self):
        for node in self.nodes_in("up", "draining", "lost"):
            if self.draw.random() < 0.7:
                batch = self.model.claim(self.now_ns, node)
                expected = batch and (batch.id, batch.model, [r.cookie for r in batch.members])
                assert self.machine.claim(self.now_ns, node) == expected
                if batch:
                    self.claimed.append([node, batch.id, False])
                    if self.draw.random() < 0.7:
                        self.start()

    def start(self):
        waiting = [c for c in self.claimed if not c[2]]
        if waiting:
            chosen = self.draw.choice(waiting)
            chosen[2] = True
            self.both("started", self.now_ns, *chosen[:2])

    def complete(self):
        if self.claimed:
            node, batch_id, _ = self.claimed.pop(self.draw.randrange(len(self.claimed)))
            ok = self.draw.random() < 0.85
            if not self.both("complete", self.now_ns, node, batch_id, ok) and self.model.fleet[node].state != "absent":
                self.both("node_back", self.now_ns, node)

    def lose(self):
        if nodes := self.nodes_in("up", "draining"):
            self.both("node_lost", self.now_ns, self.draw.choice(nodes))

    def bring_back(self):
        if nodes := self.nodes_in("lost"):
            self.both("node_back", self.now_ns, self.draw.choice(nodes))

    def drain(self):
        if len(nodes := self.nodes_in("up", "lost")) > 1:
            self.both("drain_node", self.now_ns, self.draw.choice(nodes))

    def replace(self):
        """A node is taken out, mostly a drained one, whether it has run dry or not, and another one comes."""
        if nodes := self.nodes_in("draining") or self.nodes_in("lost", "up")[3:]:
            self.both("remove_node", self.now_ns, self.draw.choice(nodes))
        if len(self.nodes_in("up", "draining", "lost")) < MAX_NODES and any(self.is_free(i) for i in range(MAX_NODES)):
            self.add_node()

    def is_free(self, node):
        known = self.model.fleet[node : node + 1]
        return not known or (known[0].state == "absent" and known[0].credit()[0] == 0)

    def load_or_unload(self):
        if nodes := self.nodes_in("up", "draining", "lost"):
            node, model = self.draw.choice(nodes), self.draw.choice(self.models)
            self.set_resident(model, node, model not in self.model.fleet[node].models)

    def remove_or_add_model(self):
        at = self.draw.randrange(len(self.models))
        if self.model.models[self.models[at]].known:
            self.both("remove_model", self.now_ns, self.models[at])
        else:
            assert self.add_model(f"m{at}") == self.models[at]

    # ---- steps

    def advance(self):
        timer_ns = self.machine.next_timer_ns
        if timer_ns is not None and self.draw.random() < 0.3:
            self.now_ns = max(self.now_ns, timer_ns - self.draw.choice([0, 0, 1]))
        else:
            self.now_ns += self.draw.choice(
                [0, 1, self.draw.randint(0, 3 * MS), self.draw.randint(0, 10 * MS * self.slow)]
            )

    def settle(self):
        self.both("tick", self.now_ns)
        self.both("schedule", self.now_ns)
        self.compare()

    def compare(self):
        told, self.model.actions, expected = self.machine.actions(), [], self.model.actions
        assert told == expected
        self.seen |= {(action[0], action[5]) for action in told}
        timer_ns = self.machine.next_timer_ns
        assert (NEVER_NS if timer_ns is None else timer_ns) == self.model.next_timer_ns()
        assert self.machine.n_pending == len(self.model.pending)
        for node in self.model.fleet:
            assert self.machine.credit(node.id) == node.credit()
            assert self.machine.node_empty(node.id) == (not self.model.batches[node.id])

    def run(self, n_steps):
        often = [self.arrive] * 8 + [self.claim] * 8 + [self.complete] * 6 + [self.start, self.cancel]
        rarely = [self.lose, self.bring_back, self.bring_back, self.drain, self.replace, self.replace]
        rarely += [self.load_or_unload, self.remove_or_add_model, self.remove_or_add_model]
        for _ in range(n_steps):
            self.advance()
            for _ in range(self.draw.choice([1, 1, 1, 3])):
                self.draw.choice(often if self.draw.random() < 0.93 else rarely)()
                if self.draw.random() < 0.3:
                    self.compare()
            self.settle()

    def finish(self):
        """Let everything end: expected to take no more than a few batches each."""
        for cookie, handle in self.handles.items():
            assert self.machine.cancel(self.now_ns, handle) == self.model.cancel(self.now_ns, cookie, "caller")
        while self.claimed:
            self.complete()
        self.settle()
        assert self.machine.n_pending == 0
        assert all(node.credit() == (0, 0) for node in self.model.fleet)


# Those that bind by predicted costs are compared choice by choice alone: the model of the engine knows no curves there.
MODELLED = [policy for policy in Router.policies() if policy in JOINT or policy in BINDS_ON_ARRIVAL]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("batching", batching_policies())
@pytest.mark.parametrize("policy", MODELLED)
def test_same_actions(policy, batching, seed):
    pair = Pair(policy, batching, seed)
    pair.run(N_STEPS)
    pair.finish()


class AlikeButForWork(Pair):
    """Devices that differ by the unit of work, from hardly to much, and pad or do not."""

    def random_curve(self):
        per_work_s = self.draw.choice([1e-6, 1e-5, 1e-4, 1e-3]) * self.draw.uniform(0.5, 2)
        return tuple(
            self.slow * term for term in (self.draw.uniform(1e-3, 5e-3), 0.0, per_work_s, self.draw.choice([0.0, 1e-4]))
        )


@pytest.mark.parametrize("seed", [105, 107, 112, 115])
def test_same_actions_where_work_decides(monkeypatch, seed):
    monkeypatch.setattr(sys.modules[__name__], "REQUIRES", [{}])  # label sets of a model are not sorted by work
    pair = AlikeButForWork("slo_cost", ("greedy", "dynamic")[seed % 2], seed)
    pair.run(N_STEPS)
    pair.finish()


@pytest.mark.parametrize("policy", ["fastest_finish", "peak_ewma", "round_robin"])
def test_same_actions_with_hedges(policy):
    n_hedged = n_won = 0
    for seed in range(16):
        quantile = (0.6, 0.9)[seed % 2]
        pair = Pair(policy, "greedy", 1000 + seed, hedge_quantile=quantile, hedge_budget=0.3, retry_budget=0.1)
        pair.run(N_STEPS)
        counts = [pair.machine.counts(model=model) for model in pair.models]
        n_hedged += sum(each["hedged"] for each in counts)
        n_won += sum(each["hedge_won"] for each in counts)
        pair.finish()
    assert n_hedged > n_won > 0


def test_histories_reach_every_outcome():
    seen = set()
    for seed in range(8):
        pair = Pair(("fastest_finish", "round_robin")[seed % 2], "dynamic", seed)
        pair.run(N_STEPS)
        seen |= pair.seen
    assert seen >= {
        ("dispatch", "none"),
        ("reject", "queue_full"),
        ("reject", "unloaded"),
        ("shed", "deadline"),
        ("retry", "device_failed"),
        ("retry", "device_lost"),
        ("retry", "device_removed"),
        ("cancel", "caller"),
        ("complete", "ok"),
        ("complete", "device_failed"),
        ("complete", "device_lost"),
    }


ISA_PROBE = """
import hashlib, random, infcore
from infcore._core.machine import Machine
draw = random.Random(5)
fleet = infcore.Fleet(max_nodes=200)
machine = Machine(fleet, max_requests=4096)
model = machine.add_model("m", max_batch_size=8)
for i in range(150):
    node = fleet.add(f"n{i}", kind=f"kind{i}", slots=1 + i % 2)
    machine.add_node(node)
    machine.set_resident(0, model, node, prior=(draw.random() * 5e-3, draw.random() * 1e-3, draw.random() * 1e-4, 0.0))
digest, running, now_ns = hashlib.sha256(), [], 0
for cookie in range(6000):
    now_ns += draw.randrange(20_000)
    machine.arrive(now_ns, cookie, model, work=draw.random() * 9, deadline_ns=now_ns + 50_000_000)
    while running and min(running)[0] <= now_ns:
        _, node, batch = running.pop(running.index(min(running)))
        machine.complete(now_ns, node, batch)
    machine.tick(now_ns)
    machine.schedule(now_ns)
    actions = machine.actions()
    digest.update(repr(actions).encode())
    for node in sorted({a[2] for a in actions if a[0] == "dispatch"}):
        if batch := machine.claim(now_ns, node):
            machine.started(now_ns, node, batch[0])
            running.append((now_ns + draw.randrange(9_000_000), node, batch[0]))
print(digest.hexdigest())
"""


def test_same_decisions_on_every_isa():
    digests = {
        isa: subprocess.run(
            [sys.executable, "-c", ISA_PROBE],
            env=os.environ | {"INFCORE_ISA": isa},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for isa in ("baseline", "avx2", "avx512")
    }
    assert len(set(digests.values())) == 1, digests
