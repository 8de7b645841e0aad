"""What must hold of the engine's state machine whatever happens to it, under every policy and batching rule."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infcore import Fleet, Router
from infcore._core.batching import batching_policies
from infcore._core.machine import Machine

MS = 1_000_000
MAX_REQUESTS = 12
MAX_NODES = 4
SITES = [{"region": "eu"}, {"region": "us"}]
# Every pair is known to the fleet from the start: one that no node carries when it is first asked for never is.
REQUIRES = [{}, {"region": "eu"}, {"region": "us"}]

curves = st.tuples(*[st.floats(0.0, most) for most in (5e-3, 1e-3, 1e-3, 1e-4)])
nodes_at = st.integers(0, 7)  # of those that there are, by position


@dataclass
class Seen:
    """A request, as far as the actions tell."""

    model: int
    require: dict
    deadline_ns: int | None
    batch: int | None = None  # None: waiting


@dataclass
class Node:
    labels: dict
    slots: int
    state: str = "up"
    models: set = field(default_factory=set)


class Driven(RuleBasedStateMachine):
    """Drives a machine by its own actions and keeps no more than what these say."""

    policy = "fastest_finish"
    batching = "greedy"

    @initialize(
        ageing_ns=st.sampled_from([None, 20 * MS]),
        sizes=st.lists(st.integers(1, 5), min_size=1, max_size=2),
        priors=st.lists(st.none() | curves, min_size=4, max_size=4),
    )
    def begin(self, ageing_ns, sizes, priors):
        self.now_ns = 0
        self.told = []  # every call, for the replay
        self.made = (ageing_ns, sizes)
        self.machine = self.new_machine()
        self.models = dict(zip(self.models_of(self.machine), sizes, strict=True))
        self.nodes = {}
        self.pending, self.ended, self.log = {}, {}, []
        self.handles = {}
        self.claimed = {}  # batch id -> (node, started)
        self.batches = {}  # batch id -> node, from dispatch to its end
        for labels in SITES:
            self.call(self.add_to, f"n{len(self.told)}", labels, 1, None)
        for require in REQUIRES:
            self.call(Machine.cancel, 0, self.call(Machine.arrive, 0, 0, self.some_model(), require=require))
        self.call(Machine.actions)
        for at, prior in enumerate(priors):
            self.load(at % 2, at // 2, True, prior)

    # ---- the same calls, to this machine or to a later one

    def new_machine(self):
        fleet = Fleet(max_nodes=MAX_NODES)
        return Machine(
            fleet,
            policy=self.policy,
            batching=self.batching,
            max_requests=MAX_REQUESTS,
            n_tiers=2,
            ageing_ns=self.made[0],
        )

    def models_of(self, machine):
        return [machine.add_model(f"m{i}", max_batch_size=size) for i, size in enumerate(self.made[1])]

    def call(self, function, *args, **kwargs):
        self.told.append((function, args, kwargs))
        return function(self.machine, *args, **kwargs)

    def add_to(self, machine, name, labels, slots, run_limit_ns):
        node = machine.fleet.add(name, labels=labels, slots=slots)
        machine.add_node(node, run_limit_ns=run_limit_ns)
        if machine is self.machine:
            self.nodes[node] = Node(labels, slots)
        return node

    def remove_from(self, machine, node):
        machine.fleet.remove(node)

    def some_model(self, at=0):
        return sorted(self.models)[at % len(self.models)]

    def pick(self, at, *states):
        found = [id for id, node in sorted(self.nodes.items()) if node.state in states]
        return found[at % len(found)] if found else None

    # ---- a step, and what its actions say

    def settle(self):
        self.call(Machine.tick, self.now_ns)
        self.call(Machine.schedule, self.now_ns)
        self.read()

    def read(self):
        for action in self.call(Machine.actions):
            self.log.append(action)
            kind, cookie, node, batch, _, _ = action
            assert cookie in self.pending, f"{action} of a request that is not there"
            if kind == "dispatch":
                self.check_dispatch(self.pending[cookie], node)
                self.pending[cookie].batch = batch
                self.batches[batch] = node
            elif kind == "retry":
                self.pending[cookie].batch = None
            else:
                self.ended[cookie] = action
                del self.pending[cookie]
        held = {seen.batch for seen in self.pending.values()}
        self.batches = {batch: node for batch, node in self.batches.items() if batch in held}

    def check_dispatch(self, seen, id):
        node = self.nodes[id]
        assert seen.batch is None, "sent twice"
        assert node.state == "up" and seen.model in node.models
        assert seen.require.items() <= node.labels.items()

    # ---- events

    @rule(
        n=st.integers(1, 4),
        model=nodes_at,
        work=st.floats(0.0, 20.0),
        tier=st.integers(0, 1),
        within_ns=st.none() | st.integers(0, 40 * MS),
        require=st.sampled_from(REQUIRES),
    )
    def arrive(self, n, model, work, tier, within_ns, require):
        model, deadline_ns = self.some_model(model), None if within_ns is None else self.now_ns + within_ns
        for _ in range(n):
            cookie = len(self.handles) + 1
            full = len(self.pending) >= MAX_REQUESTS
            self.pending[cookie] = Seen(model, require, deadline_ns)
            self.handles[cookie] = self.call(
                Machine.arrive,
                self.now_ns,
                cookie,
                model,
                work=work,
                tier=tier,
                deadline_ns=deadline_ns,
                require=require,
            )
            self.read()
            assert (self.handles[cookie] == 0) == full
            if full:
                assert self.ended[cookie][5] == "queue_full"
        self.settle()

    @precondition(lambda self: self.handles)
    @rule(at=st.integers(0, 1000))
    def cancel(self, at):
        cookie = sorted(self.handles)[at % len(self.handles)]
        was_pending = cookie in self.pending
        done = self.call(Machine.cancel, self.now_ns, self.handles[cookie])
        assert was_pending or not done
        if done and self.pending[cookie].batch not in self.claimed:
            self.settle()
            assert self.ended[cookie][::5] == ("cancel", "caller")

    @rule(at=nodes_at, start=st.booleans())
    def claim(self, at, start):
        node = self.pick(at, "up", "draining", "lost")
        taken = None if node is None else self.call(Machine.claim, self.now_ns, node)
        if taken is not None:
            batch, model, cookies = taken
            assert 1 <= len(cookies) <= self.models[model]
            assert all(self.pending[cookie].batch == batch for cookie in cookies)
            self.claimed[batch] = [node, False]
            if start:
                self.start(batch)
        self.settle()

    @precondition(lambda self: any(not started for _, started in self.claimed.values()))
    @rule(at=st.integers(0, 7))
    def start_one(self, at):
        waiting = sorted(batch for batch, (_, started) in self.claimed.items() if not started)
        self.start(waiting[at % len(waiting)])
        self.settle()

    def start(self, batch):
        self.claimed[batch][1] = True
        self.call(Machine.started, self.now_ns, self.claimed[batch][0], batch)

    @precondition(lambda self: self.claimed)
    @rule(at=st.integers(0, 7), ok=st.sampled_from([True, True, True, False]))
    def complete(self, at, ok):
        batch = sorted(self.claimed)[at % len(self.claimed)]
        node, _ = self.claimed.pop(batch)
        if not self.call(Machine.complete, self.now_ns, node, batch, ok) and self.nodes[node].state != "absent":
            self.call(Machine.node_back, self.now_ns, node)
        if self.nodes[node].state == "lost":
            self.nodes[node].state = "up"
        self.settle()

    @rule(at=nodes_at)
    def lose(self, at):
        if (node := self.pick(at, "up", "draining")) is not None:
            self.call(Machine.node_lost, self.now_ns, node)
            if self.nodes[node].state == "up":
                self.nodes[node].state = "lost"
            self.settle()

    @rule(at=nodes_at)
    def bring_back(self, at):
        if (node := self.pick(at, "lost")) is not None:
            self.call(Machine.node_back, self.now_ns, node)
            self.nodes[node].state = "up"
            self.settle()

    @rule(at=nodes_at)
    def drain(self, at):
        if (node := self.pick(at, "up", "lost")) is not None:
            self.call(Machine.drain_node, self.now_ns, node)
            self.nodes[node].state = "draining"
            self.settle()

    @rule(at=nodes_at)
    def remove(self, at):
        if (node := self.pick(at, "draining")) is not None:
            self.call(self.remove_from, node)
            self.nodes[node].state = "absent"

    @rule(slots=st.integers(1, 3), site=st.sampled_from(SITES))
    def add(self, slots, site):
        free = [i for i in range(MAX_NODES) if i not in self.nodes or self.nodes[i].state == "absent"]
        if any(i not in self.nodes or self.machine.credit(i)[0] == 0 for i in free):
            self.call(self.add_to, f"n{len(self.told)}", site, slots, None)

    @rule(at=nodes_at, model=nodes_at, resident=st.booleans(), prior=st.none() | curves)
    def load(self, at, model, resident, prior):
        node, model = self.pick(at, "up", "draining", "lost"), self.some_model(model)
        if node is not None:
            self.call(Machine.set_resident, self.now_ns, model, node, resident, prior=prior)
            (self.nodes[node].models.add if resident else self.nodes[node].models.discard)(model)
            self.settle()

    @rule(by_ns=st.integers(0, 20 * MS))
    def wait(self, by_ns):
        self.now_ns += by_ns
        self.settle()

    @rule()
    def wait_for_timer(self):
        if (at_ns := self.machine.next_timer_ns) is not None:
            self.now_ns = max(self.now_ns, at_ns)
            self.settle()

    # ---- what holds after every step

    @invariant()
    def bounds_hold(self):
        assert self.machine.n_pending == len(self.pending) <= MAX_REQUESTS
        for id, node in self.nodes.items():
            assert sum(at == id for at in self.batches.values()) <= node.slots

    @invariant()
    def credit_is_what_is_out(self):
        credits = [self.machine.credit(id) for id in self.nodes]
        n_sent = sum(seen.batch is not None for seen in self.pending.values())
        assert n_sent <= sum(n for n, _ in credits) <= len(self.pending)
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
                assert self.machine.next_timer_ns is not None and self.batching == "dynamic", f"{cookie} is left lying"

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

    def drive(self):
        """One round of a fleet that works: workers take what is there and finish it; else time goes on."""
        for node in sorted(self.nodes):
            if self.nodes[node].state != "absent" and (taken := self.call(Machine.claim, self.now_ns, node)):
                self.claimed[taken[0]] = [node, False]
        for batch in sorted(self.claimed):
            if not self.claimed[batch][1]:
                self.start(batch)
        self.now_ns += MS
        if self.claimed:
            self.complete(0, True)
        self.wait_for_timer()
        self.settle()

    def replay(self):
        """The same events give the same answers, to the bit."""
        first, self.machine, answers = self.machine, self.new_machine(), []
        self.models_of(self.machine)
        nodes, self.nodes = self.nodes, {}
        for function, args, kwargs in self.told:
            answer = function(self.machine, *args, **kwargs)
            if function is Machine.actions:
                answers += answer
        assert answers[-len(self.log) :] == self.log if self.log else True
        assert [self.machine.credit(id) for id in nodes] == [first.credit(id) for id in nodes]


@pytest.mark.parametrize("batching", batching_policies())
@pytest.mark.parametrize("policy", Router.policies())
def test_machine(policy, batching):
    case = type("Driven", (Driven,), {"policy": policy, "batching": batching}).TestCase
    case.settings = settings(max_examples=40, stateful_step_count=40)
    case().runTest()
