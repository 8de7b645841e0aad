"""The engine's choice of what is loaded where is that of its plain Python model, step by step, whatever happens.

Seeded random histories, as in test_engine: few unlike nodes with memory for some of many unlike models, loads that take
long against the requests, loads that fail, nodes lost and back, models that a node must not hold any more. Beside the
same actions in the same order: what holds of any history, told from the actions alone.
"""

import pytest
from differential.test_engine import MS, Pair
from reference import model_loads
from reference.batching import NEVER_NS
from reference.model_loads import Residency
from reference.model_memory import AWAITED, IN_USE, WANTED, Memory

N_STEPS = 220
ENDS = ("complete", "reject", "shed", "cancel")


class Rules:
    """What holds whatever is decided: of each node's memory, and of each request."""

    def __init__(self):
        self.capacity = {}  # by node
        self.bytes = {}  # of models as they are loaded from now on
        self.memory = {}  # by node: bytes of what is there or on its way, by model
        self.ended = set()

    def follow(self, actions, in_use, told_to_go):
        """in_use: (node, model) of what is claimed or runs; told_to_go: what a node must not hold any more."""
        for kind, cookie, node, _, model, _ in actions:
            if kind in ENDS:
                assert cookie not in self.ended
                self.ended.add(cookie)
            elif kind == "load":
                assert model not in self.memory[node]
                self.memory[node][model] = self.bytes[model]
                assert sum(self.memory[node].values()) <= self.capacity[node]
            elif kind == "unload":
                assert (node, model) not in in_use or (node, model) in told_to_go
                del self.memory[node][model]


class Loading(Pair):
    """A machine that decides what is loaded, and its model."""

    memories_bytes = [0, 50, 64, 100, 100]

    def __init__(self, policy, batching, seed, residency, **faults):
        self.rules, self.told_to_go, self.on_its_way = Rules(), set(), {}
        super().__init__(policy, batching, seed, residency=residency, **faults)
        later = [self.add_model(f"m{len(self.models) + i}") for i in range(self.draw.randint(3, 7))]
        self.models += later
        for model in later:
            for node in self.nodes_in("up"):
                self.let(model, node)

    # ---- membership

    def add_model(self, name):
        config = {
            "max_batch_size": self.draw.choice([1, 2, 4, 16]),
            "batch_delay_ns_max": self.draw.choice([0, 2 * MS]),
            "idempotent": self.draw.random() < 0.8,
            "weights_bytes": self.draw.choice([0, 7, 10, 10, 25, 40, 60, 120]),
            "load_s": self.draw.choice([0.0, self.draw.uniform(0.0, 0.1)]),
        }
        if self.draw.random() < 0.1:
            config |= {"max_batch_size": 1, "runs_share": True}
        model = self.machine.add_model(name, **config)
        self.model.add_model(model, **config)
        self.rules.bytes[model] = config["weights_bytes"]
        return model

    def add_node(self, labels=None):
        kind, labels = self.draw.randrange(2), labels or {"region": "eu"}
        slots, run_limit_ns = self.draw.choice([1, 1, 2, 3]), self.draw.choice([NEVER_NS, NEVER_NS, 100 * MS])
        price_per_hour = self.draw.choice([0.0, 1.0, 50.0])
        memory_bytes, beside = self.draw.choice(self.memories_bytes), self.draw.random() < 0.5
        node = self.fleet.add(
            f"n{self.draw.random()}",
            kind=f"kind{kind}",
            labels=labels,
            slots=slots,
            price_per_hour=price_per_hour,
            memory_bytes=memory_bytes,
        )
        limit_ns = None if run_limit_ns == NEVER_NS else run_limit_ns
        self.machine.add_node(node, run_limit_ns=limit_ns, loads_beside_runs=beside)
        self.model.add_node(node, kind, labels, slots, run_limit_ns, price_per_hour, memory_bytes, beside)
        self.rules.capacity[node], self.rules.memory[node] = memory_bytes or 2**64, {}
        self.on_its_way.pop(node, None)
        for model in self.models:
            self.let(model, node)

    def let(self, model, node):
        """The node may hold the model, most often; some come with their curve, and some hold it already."""
        if self.draw.random() < 0.6:
            prior = self.random_curve()
            self.machine.set_resident(self.now_ns, model, node, False, prior=prior)
            self.model.set_resident(self.now_ns, model, node, False, prior)
        if self.draw.random() < 0.8:
            self.both("may_hold", self.now_ns, model, node, True)
            n_bytes, memory = self.rules.bytes[model], self.rules.memory[node]
            fits = n_bytes + sum(memory.values()) <= self.rules.capacity[node]
            if fits and self.model.models[model].known and self.draw.random() < 0.15:
                self.machine.set_resident(self.now_ns, model, node)
                self.model.set_resident(self.now_ns, model, node, True, None)
                memory[model] = n_bytes

    def remove_or_add_model(self):
        unknown = [at for at, model in enumerate(self.models) if not self.model.models[model].known]
        for at in unknown:
            assert self.add_model(f"m{at}") == self.models[at]
        if not unknown:
            model = self.draw.choice(self.models)
            self.both("remove_model", self.now_ns, model)
            for node in self.nodes_in("up", "draining", "lost"):
                if self.draw.random() < 0.7:  # else it stays in memory until something else wants the room
                    self.told_to_go.add((node, model))
                    self.both("may_hold", self.now_ns, model, node, False)
                    self.compare()

    # ---- events

    def load_ends(self):
        for node, model in sorted(self.on_its_way.items()):
            if self.draw.random() < 0.7:
                ok, load_s = self.draw.random() < 0.85, self.draw.uniform(1e-3, 0.1)
                told = self.machine.loaded(self.now_ns, model, node, ok=ok, load_s=load_s)
                assert told == self.model.loaded(self.now_ns, model, node, ok, load_s)
                del self.on_its_way[node]
                if told and not ok:
                    del self.rules.memory[node][model]

    def replace(self):
        super().replace()
        gone = self.nodes_in("absent")
        self.on_its_way = {node: model for node, model in self.on_its_way.items() if node not in gone}

    def allow_or_forbid(self):
        if nodes := self.nodes_in("up", "draining", "lost"):
            node, model = self.draw.choice(nodes), self.draw.choice(self.models)
            may = model not in self.model.loads.nodes[node].allowed or self.draw.random() < 0.1
            if not may:
                self.told_to_go.add((node, model))
            self.both("may_hold", self.now_ns, model, node, may)

    def expect(self):
        model = self.draw.choice(self.models)
        self.machine.preload(self.now_ns, model)
        self.model.preload(model)

    def lose_memory(self):
        """A node has begun anew: it comes back with nothing."""
        if nodes := self.nodes_in("lost"):
            node = self.draw.choice(nodes)
            for model in sorted(self.model.fleet[node].models):
                self.machine.set_resident(self.now_ns, model, node, False)
                self.model.set_resident(self.now_ns, model, node, False, None)
                del self.rules.memory[node][model]

    def told_of_what_is_not(self):
        node, model = self.draw.randrange(len(self.model.fleet)), self.draw.choice(self.models)
        if self.on_its_way.get(node) != model and self.model.fleet[node].state != "absent":
            assert not self.machine.loaded(self.now_ns, model, node)
            assert not self.model.loaded(self.now_ns, model, node, True, 0.0)

    def compare(self):
        told, self.model.actions, expected = self.machine.actions(), [], self.model.actions
        assert told == expected
        in_flight = {(node, batch.id): batch.model for node, there in self.model.batches.items() for batch in there}
        claimed = [(node, batch_id) for node, batch_id, _ in self.claimed if (node, batch_id) in in_flight]
        self.rules.follow(told, {(at[0], in_flight[at]) for at in claimed}, self.told_to_go)
        for kind, _, node, _, model, reason in told:
            if kind == "load":
                self.on_its_way[node] = model
                self.told_to_go.discard((node, model))
            self.seen.add((kind, reason))
        timer_ns = self.machine.next_timer_ns
        assert (NEVER_NS if timer_ns is None else timer_ns) == self.model.next_timer_ns()
        assert self.machine.n_pending == len(self.model.pending)
        for node in self.model.fleet:
            assert self.machine.credit(node.id) == node.credit()

    def events(self):
        often = [self.arrive] * 8 + [self.claim] * 8 + [self.complete] * 6 + [self.load_ends] * 6
        often += [self.start, self.cancel, self.told_of_what_is_not]
        rarely = [self.lose, self.bring_back, self.bring_back, self.lose_memory] * 2 + [self.allow_or_forbid] * 6
        rarely += [self.drain, self.replace, self.replace] + [self.remove_or_add_model] * 4
        rarely += [self.expect] * 2
        return often, rarely, 0.9

    def run(self, n_steps):
        often, rarely, share = self.events()
        for _ in range(n_steps):
            self.advance()
            for _ in range(self.draw.choice([1, 1, 1, 3])):
                self.draw.choice(often if self.draw.random() < share else rarely)()
                self.compare()
            self.settle()


class Crowded(Loading):
    """Nodes that stay and have their curves, room for one or two models each, and crowds that wait for one of them:
    where it would be done first, and what further copies are worth, decides."""

    memories_bytes = [64, 100, 130]

    def add_model(self, name):
        config = {"max_batch_size": self.draw.choice([2, 4, 16]), "batch_delay_ns_max": 0, "idempotent": True}
        config |= {"weights_bytes": self.draw.choice([25, 40, 60]), "load_s": self.draw.uniform(1e-3, 0.05)}
        model = self.machine.add_model(name, **config)
        self.model.add_model(model, **config)
        self.rules.bytes[model] = config["weights_bytes"]
        return model

    def random_curve(self):
        return tuple(self.draw.uniform(0.1, 1.0) * most for most in (1e-2, 5e-3, 1e-4, 0.0))

    def let(self, model, node):
        prior = self.random_curve()
        self.machine.set_resident(self.now_ns, model, node, False, prior=prior)
        self.model.set_resident(self.now_ns, model, node, False, prior)
        self.both("may_hold", self.now_ns, model, node, True)

    def arrive(self):
        model, require = self.draw.choice(self.models), self.draw.choice([{}, {}, {}, {"region": "eu"}])
        for _ in range(self.draw.choice([1, 3, 20])):
            cookie, tier = len(self.handles), self.draw.randrange(3)
            deadline_ns = self.draw.choice([NEVER_NS, self.now_ns + self.draw.randint(50 * MS, 2000 * MS)])
            limit_ns = None if deadline_ns == NEVER_NS else deadline_ns
            work = self.draw.uniform(0.0, 20.0)
            self.handles[cookie] = self.machine.arrive(
                self.now_ns, cookie, model, work=work, tier=tier, deadline_ns=limit_ns, require=require
            )
            self.model.arrive(self.now_ns, cookie, model, work, tier, deadline_ns, require)

    def events(self):
        often = [self.arrive] * 3 + [self.claim] * 4 + [self.complete] * 4 + [self.start] * 2 + [self.load_ends] * 3
        return often, [self.lose, *[self.bring_back] * 3, self.cancel], 0.97


RESIDENCIES = ("lru", "gdsf", "infcore")


def run(kind, policy, seed, residency, batching="greedy", **faults):
    pair = kind(policy, batching, seed, residency, **faults)
    pair.run(N_STEPS)
    pair.finish()
    return pair.seen


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("residency", RESIDENCIES)
@pytest.mark.parametrize("policy", ["fastest_finish", "slo_cost", "round_robin", "least_outstanding"])
def test_same_actions(policy, residency, seed):
    seen = run(Loading, policy, seed, residency, ("greedy", "dynamic")[seed % 2])
    assert seen >= {("load", "none"), ("load", "forecast"), ("unload", "none"), ("shed", "deadline")}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("policy", ["fastest_finish", "slo_cost"])
def test_same_actions_where_crowds_wait(policy, seed):
    hedges = {"hedge_quantile": 0.6, "hedge_budget": 0.3, "retry_budget": 0.1} if seed % 2 else {}
    run(Crowded, policy, seed, RESIDENCIES[seed % 3], **hedges)


def never_held(why_not):
    def hold(self, model, why, on, real=Memory.hold):
        if why != why_not:
            real(self, model, why, on)

    return hold


BROKEN = {
    "a node gets out of use for who comes before": (Residency, "reserve_for", lambda *_: None),
    "what is in use stays": (Memory, "hold", never_held(IN_USE)),
    "what is awaited stays": (Memory, "hold", never_held(AWAITED)),
    "what is wanted stays": (Memory, "hold", never_held(WANTED)),
    "a further copy is worth two loads": (model_loads, "LOADS_WORTH", 1.0),
    "failed loads are tried again": (model_loads, "AGAIN_NS", 9_000_000_000),
    "the hopeless are shed": (Residency, "shed_hopeless", lambda *_: None),
    "what waits is on its nodes": (Residency, "add_backlog", lambda *_: None),
    "what is asked for most comes in": (Residency, "worth", lambda *_: 0.0),
    "policies are told of demand": (Residency, "reuse", lambda *_: 1.0),
    "policies are told of use": (Residency, "used", lambda *_: None),
    "a load takes as long as it was measured": (Residency, "measured", lambda *_: None),
    "a node that loads does not run": (Residency, "loads_alone", lambda *_: False),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_seen(monkeypatch, rule):
    monkeypatch.setattr(*BROKEN[rule])
    with pytest.raises(AssertionError):
        for seed in (5, 2, 0, 1, 3, 4):
            run(Crowded, "fastest_finish", seed, RESIDENCIES[seed % 3])
            run(Loading, "round_robin", seed, RESIDENCIES[seed % 3])


@pytest.mark.parametrize(
    "actions",
    [
        [("load", 0, 0, 0, 1, "none"), ("load", 0, 0, 0, 2, "none")],  # 60 and 60 of 100 bytes
        [("load", 0, 0, 0, 1, "none"), ("load", 0, 0, 0, 1, "none")],
        [("load", 0, 0, 0, 1, "none"), ("unload", 0, 0, 0, 1, "none")],  # in use
        [("complete", 7, 0, 1, 0, "ok"), ("shed", 7, None, 0, 0, "deadline")],
    ],
)
def test_rules_see_what_breaks_them(actions):
    rules = Rules()
    rules.capacity, rules.memory, rules.bytes = {0: 100}, {0: {}}, {1: 60, 2: 60}
    with pytest.raises(AssertionError):
        rules.follow(actions, in_use={(0, 1)}, told_to_go=set())
