"""The compiled router decides as the plain Python one, decision by decision and term by term."""

import math
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from reference import routing, routing_policies

import infcore

TICK_S = 2.0**-9  # exact in seconds and in nanoseconds
TICK_NS = 1_953_125
MODELS = ("m", "n")
ZONES = ("z1", "z2")


def class_name(policy):
    return "".join(word.capitalize() for word in policy.split("_"))


def model_of(policy):
    return getattr(routing, class_name(policy), None) or getattr(routing_policies, class_name(policy))


class Pair:
    """A compiled router and its model, driven alike."""

    def __init__(self, policy, seed, n_nodes, **options):
        self.rng = random.Random(f"{policy} {seed}")
        self.clock = infcore.ManualClock()
        self.tick = 0
        self.fleet = infcore.Fleet(max_nodes=128, clock=self.clock)
        self.nodes, self.curves, self.open = [], {}, []
        self.n_named = 0
        for _ in range(n_nodes):
            self.add()
        for model in MODELS:  # so that both are known to the fleet
            self.load(self.nodes[0], model)
        self.router = infcore.Router(self.fleet, policy=policy, seed=seed, health=False, **options)
        self.model = model_of(policy)(self.nodes, self.curves, seed, **options)
        for node in self.nodes:
            self.give_curves(node)

    def add(self):
        rng = self.rng
        labels = {"zone": rng.choice(ZONES), "location": rng.choice(("cloud", "edge"))}
        others = {
            "gpu_memory": rng.choice(("16", "80")),
            "data": rng.choice("xyz"),
            "weight": rng.choice(("1", "0.5", "3")),
        }
        figures = {
            "rtt_s": rng.choice((0.0, 0.0, 0.003)),
            "slots": rng.choice((1, 1, 2, 8)),
            "price_per_hour": rng.choice((0.0, 0.4, 3.0, 12.5)),
        }
        kind = rng.choice(("cpu", "gpu"))
        self.n_named += 1
        node_id = self.fleet.add(f"node-{self.n_named}", kind=kind, labels=others, **labels, **figures)
        node = routing.Node(node_id, kind, labels | others, name=f"node-{self.n_named}", **figures)
        self.nodes.append(node)
        self.nodes.sort(key=lambda each: each.id)
        for model in MODELS:
            if rng.random() < 0.8:
                self.load(node, model)
        return node

    def load(self, node, model):
        self.fleet.load_model(node.id, model)
        node.models.add(model)

    def give_curves(self, node):
        for model in MODELS:
            self.curves.pop((model, node.id), None)
            if self.rng.random() < 0.8:
                curve = routing.Curve(self.rng.choice((0.001, 0.004, 0.03)), self.rng.choice((0.0, 0.0001, 0.002)))
                self.curves[model, node.id] = curve
                self.router.set_prior(model, node.id, base_s=curve.base_s, per_work_s=curve.per_work_s)

    def advance(self):
        ticks = self.rng.randrange(1, 4) if self.rng.random() < 0.9 else self.rng.randrange(5000)  # up to 10 s
        self.clock.advance(ticks * TICK_S)
        self.tick += ticks

    def pick(self):
        rng = self.rng
        model, work = rng.choice(MODELS), rng.choice((0.0, 1.0, 3.7, 50.0))
        deadline_ticks = rng.choice((None, None, None, 4, 40))
        require = rng.choice(({}, {}, {}, {"zone": "z1"}, {"kind": "gpu", "gpu_memory": "80"}, {"zone": "z9"}))
        budget_ns = None if deadline_ticks is None else deadline_ticks * TICK_NS
        query = routing.Query(model, work, budget_ns, require, self.tick * TICK_NS)
        deadline_s = None if deadline_ticks is None else deadline_ticks * TICK_S
        call = {"work": work, "deadline_s": deadline_s, "require": require}
        nudge = self.compare_explained(model, query, call)
        expected = self.model.select(query)
        if expected is None:
            with pytest.raises((infcore.NoNodeAvailable, infcore.DeadlineInfeasible)):
                self.router.pick(model, **call)
            return
        terms = self.model.terms(query, self.node(expected))
        decision = self.router.pick(model, **call)
        assert decision.node == expected
        assert decision.cost_us == float(terms.cost) + (nudge[1] if nudge else self.model.added_us)
        assert decision.wait_s == float(terms.wait) * 1e-6
        self.node(expected).add_credit(self.tick * TICK_NS, decision.service_s, 1)
        self.open.append((decision, self.node(expected), model, self.tick))

    def compare_explained(self, model, query, call):
        passing = {node.id for node in self.model.candidates(query)}
        nudge = self.model.nudged(query)
        for row, node in zip(self.router.explain(model, **call), self.nodes, strict=True):
            terms = self.model.terms(query, node)
            assert row["node"] == node.id
            assert (row["reason"] is None) == (node.id in passing), row
            terms.explore = nudge[1] if nudge and nudge[0] == node.id else 0.0
            assert row["cost_us"] == (float(terms.cost) + terms.explore if node.id in passing else None)
            assert list(row["terms"].values()) == terms.listed()
        return nudge

    def node(self, node_id):
        return next(node for node in self.nodes if node.id == node_id)

    def end(self):
        if not self.open:
            return
        decision, node, model, then = self.open.pop(self.rng.randrange(len(self.open)))
        if self.rng.random() < 0.3:
            assert self.router.cancel(decision)
        else:  # failed: the policy hears of it, the curves stay as they are
            assert self.router.done(decision, ok=False)
            self.model.observe(node, model, self.tick * TICK_NS, (self.tick - then) * TICK_NS * 1e-9)
        assert not self.router.cancel(decision)
        assert not self.router.done(decision)
        node.add_credit(self.tick * TICK_NS, decision.service_s, -1)

    def signal(self):
        rng, node = self.rng, self.rng.choice(self.nodes)
        figures = {
            "inflight": rng.randrange(8),
            "queue_depth": rng.randrange(4),
            "queue_wait_s": rng.choice((0.0, 0.01, 0.2)),
            "cpu": rng.random(),
            "gpu": rng.random(),
            "memory": rng.random(),
            "network": rng.random(),
            "packet_loss": rng.choice((0.0, 0.02)),
        }
        figures = {name: value for name, value in figures.items() if rng.random() < 0.4}
        # The core keeps a node's newest sixteen changes of credit exactly: reach back no further.
        times = sorted(at_ns for at_ns, _, _ in node.events)[-16:]
        oldest_tick = times[0] // TICK_NS if times else 0
        as_of_tick = max(oldest_tick, self.tick - rng.randrange(4))
        taken = self.fleet.signal(node.id, as_of_s=as_of_tick * TICK_S, **figures)
        assert taken == node.signal(as_of_tick * TICK_NS, **figures)

    def change(self):
        rng, node = self.rng, self.rng.choice(self.nodes)
        what = rng.choice(("load", "unload", "drain", "remove", "add"))
        model = rng.choice(MODELS)
        if what == "load":
            self.load(node, model)
        elif what == "unload":
            self.fleet.unload_model(node.id, model)
            node.models.discard(model)
        elif what == "drain" and rng.random() < 0.3:
            self.fleet.drain(node.id)
            node.state = "draining"
        elif what == "remove" and len(self.nodes) > 3:
            self.fleet.remove(node.id)
            self.nodes.remove(node)
        elif what == "add" and len(self.nodes) < 100:
            self.give_curves(self.add())

    def compare_fleet(self):
        rows = self.fleet.nodes()
        assert rows["id"].tolist() == [node.id for node in self.nodes]
        assert rows["inflight"].tolist() == [int(node.inflight()) for node in self.nodes]
        assert np.array_equal(rows["wait_s"], [float(node.wait_us()) * 1e-6 for node in self.nodes])
        assert rows["state"].tolist() == [node.state for node in self.nodes]


@pytest.mark.parametrize("n_nodes", [1, 5, 40, 90])
@pytest.mark.parametrize(
    "policy", [policy for policy in infcore.Router.policies() if hasattr(routing, class_name(policy))]
)
@pytest.mark.parametrize("seed", range(2))
def test_same_decisions(policy, seed, n_nodes):
    pair = Pair(policy, seed, n_nodes)
    steps = [pair.pick] * 8 + [pair.end] * 6 + [pair.signal] * 4 + [pair.advance] * 3 + [pair.change]
    for _ in range(600):
        pair.rng.choice(steps)()
    pair.compare_fleet()
    while pair.open:
        pair.end()
    pair.compare_fleet()


@pytest.mark.parametrize(
    "options",
    [
        {"picker": "power_of_two"},
        {"picker": "softmax", "temperature": 2.0},
        {"price_us_per_usd": 0.0, "risk": 0.0, "herd_margin": 0.0, "explore": 0.5},
        {"price_us_per_usd": 3e10, "risk": 30.0, "herd_margin": 4.0},
    ],
)
def test_same_decisions_with_options(options):
    pair = Pair("slo_cost", 5, 30, **options)
    steps = [pair.pick] * 8 + [pair.end] * 6 + [pair.signal] * 4 + [pair.advance] * 3 + [pair.change]
    for _ in range(600):
        pair.rng.choice(steps)()


@pytest.mark.parametrize("policy", infcore.Router.policies())
def test_same_calls_same_decisions(policy):
    def decisions():
        pair = Pair(policy, 7, 20)
        return [pair.router.pick("m", work=float(i % 5)).node for i in range(200)]

    assert decisions() == decisions()


ISA_PROBE = """
import hashlib, infcore, numpy as np
rng = np.random.default_rng(3)
fleet = infcore.Fleet(clock=infcore.ManualClock())
for i in range(333):
    fleet.load_model(fleet.add(f"n{i}", rtt_s=float(rng.random()) * 1e-3, slots=int(rng.integers(1, 4))), "m")
digest = hashlib.sha256()
for policy in infcore.Router.policies():
    router = infcore.Router(fleet, policy=policy)
    for i in range(0, 333, 2):
        router.set_prior("m", i, base_s=float(rng.random()) * 1e-2, per_work_s=float(rng.random()) * 1e-3)
    for i in range(500):
        fleet.signal(int(rng.integers(333)), gpu=float(rng.random()), queue_wait_s=float(rng.random()) * 1e-2)
        decision = router.pick("m", work=float(rng.random()) * 9, deadline_s=5e-2, allow_late=True)
        digest.update(f"{decision.node} {decision.cost_us!r} {decision.feasible}".encode())
        router.done(decision, ok=False, now_s=i * 1e-2)
print(digest.hexdigest())
"""


def test_same_bits_on_every_isa():
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


# ---- with options, sessions, tiers, reports of confidence

ROOT_5, ROOT_2, ROOT_3 = 0x3C6EF372FE94F82B, 0x6A09E667F3BCC909, 0xBB67AE8584CAA73B
MASK = 2**64 - 1


def session_hash(number):
    """Of an int: csrc/infcore/contracts/session_hash.hpp."""
    x = (number + ROOT_5) & MASK
    x = (x ^ x >> 32) * ROOT_2 & MASK
    x = (x ^ x >> 29) * ROOT_3 & MASK
    return (x ^ x >> 32) or 1


class PolicyPair(Pair):
    """As Pair, with what these policies look at besides."""

    def pick(self):
        rng = self.rng
        model, work = rng.choice(MODELS), rng.choice((0.0, 1.0, 3.7, 50.0))
        deadline_ticks = rng.choice((None, None, None, 4, 40))
        session = rng.choice((None, *range(20)))
        tier = rng.choice((0, 0, 1, 3))
        require = rng.choice(({}, {}, {}, {"zone": "z1"}, {"location": "edge"}, {"zone": "z9"}))
        query = routing.Query(
            model,
            work,
            None if deadline_ticks is None else deadline_ticks * TICK_NS,
            require,
            self.tick * TICK_NS,
            tier=tier,
            session=0 if session is None else session_hash(session),
        )
        deadline_s = None if deadline_ticks is None else deadline_ticks * TICK_S
        if hasattr(self.model, "start_at"):
            query.model = self.model.start_at(query)
        expected = self.model.select(query)
        call = {"work": work, "deadline_s": deadline_s, "require": require, "session": session, "tier": tier}
        if expected is None:
            with pytest.raises((infcore.NoNodeAvailable, infcore.DeadlineInfeasible)):
                self.router.pick(model, **call)
            return
        node = self.node(expected)
        terms = self.model.terms(query, node)
        decision = self.router.pick(model, **call)
        assert (decision.node, decision.model) == (expected, query.model)
        assert decision.cost_us == float(terms.cost) + self.model.added_us
        node.add_credit(self.tick * TICK_NS, decision.service_s, 1)
        self.open.append((decision, node, query.model, self.tick))

    def report(self):
        """A request ends, and its caller says how confident the answer was."""
        if not self.open:
            return
        decision, node, model, _ = self.open.pop(self.rng.randrange(len(self.open)))
        confidence = self.rng.choice((0.0, 0.5, 0.8, 1.0))
        assert self.router.done(decision, ok=False, confidence=confidence)
        if hasattr(self.model, "report"):
            self.model.report(model, confidence)
            assert decision.next_model == self.model.next_model(model, confidence)
        node.add_credit(self.tick * TICK_NS, decision.service_s, -1)


CASES = [
    ("weighted", {"weight": "slots"}),
    ("weighted", {"weight": "speed"}),
    ("weighted", {"weight": "label"}),
    ("prequal", {}),
    ("prequal", {"q_rif": 0.0, "probes": 1, "pool": 4, "reuse": 1, "age_s": 0.05}),
    ("prequal", {"q_rif": 1.0, "probes": 5, "pool": 3, "reuse": 8}),
    ("consistent_hash", {}),
    ("consistent_hash", {"bound": 3.0}),
    ("priority", {"reserve": 0.5}),
    ("locality", {"zone": "z1"}),
    ("locality", {"zone": "z2", "data": "x", "spill": 4.0, "risk": 0.0}),
    ("edge_first", {"load": 1.0}),
    ("edge_first", {"load": 3.0, "explore": 0.2}),
    ("cascade", {"models": ["m", "n"]}),
    ("cascade", {"models": ["n", "m"], "min_confidence": 0.5, "explore": 0.0}),
]


def case_name(value):
    return value if isinstance(value, str) else ",".join(f"{name}={each}" for name, each in value.items()) or "default"


@pytest.mark.parametrize("n_nodes", [4, 24])
@pytest.mark.parametrize(("policy", "options"), CASES, ids=case_name)
def test_same_decisions_with_sessions_and_tiers(policy, options, n_nodes):
    pair = PolicyPair(policy, 1, n_nodes, **options)
    steps = (
        [pair.pick] * 8 + [pair.end] * 4 + [pair.report] * 2 + [pair.signal] * 4 + [pair.advance] * 3 + [pair.change]
    )
    for _ in range(300):
        pair.rng.choice(steps)()
    pair.compare_fleet()
    while pair.open:
        pair.end()
    pair.compare_fleet()


def test_log_of_the_model_is_the_cores():
    """Weighted ranks hang on it: consistent_hash compares logarithms where slots differ."""
    for x in (2.0**-54, 1e-9, 0.1, 0.5, 0.7071, 0.7072, 0.999999, 1.0 - 2.0**-53):
        assert routing_policies.log(x) == pytest.approx(math.log(x), rel=1e-14)
