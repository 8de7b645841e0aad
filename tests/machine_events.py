"""Histories of a state machine for Hypothesis: rules that make events and read the actions; tests add invariants."""

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from infcore import Fleet
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
    copies: set = field(default_factory=set)  # batches that it was sent in as well


@dataclass
class Node:
    labels: dict
    slots: int
    state: str = "up"
    models: set = field(default_factory=set)


class MachineEvents(RuleBasedStateMachine):
    """Drives a machine by its own actions and keeps no more than what these say."""

    policy = "fastest_finish"
    batching = "greedy"
    options: dict = {}  # of the machine: hedging

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
            **self.options,
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

    def some_model(self, at=0):
        return sorted(self.models)[at % len(self.models)]

    def pick(self, at, *states):
        found = [id for id, node in sorted(self.nodes.items()) if node.state in states]
        return found[at % len(found)] if found else None

    # ---- a step, and what its actions say

    def settle(self):
        self.call(Machine.tick, self.now_ns)
        self.call(Machine.schedule, self.now_ns)
        for row in self.machine.fleet.nodes():  # a run limit makes a node lost without our doing
            self.nodes[int(row["id"])].state = str(row["state"])
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
            elif kind == "hedge":
                self.check_hedge(self.pending[cookie], node, batch)
                self.pending[cookie].copies.add(batch)
                self.batches[batch] = node
            elif kind == "retry":
                self.pending[cookie].batch = None
                self.pending[cookie].copies.clear()
            else:
                self.ended[cookie] = action
                del self.pending[cookie]
        held = {batch for seen in self.pending.values() for batch in (seen.batch, *seen.copies)}
        self.batches = {batch: node for batch, node in self.batches.items() if batch in held}

    def check_hedge(self, seen, id, batch):
        assert seen.batch is not None and batch not in seen.copies, "nothing to be late"
        assert self.batches.get(seen.batch) != id or len(seen.copies) > 0, "sent to where it is"
        self.check_fits(seen, id)

    def check_dispatch(self, seen, id):
        assert seen.batch is None, "sent twice"
        self.check_fits(seen, id)

    def check_fits(self, seen, id):
        node = self.nodes[id]
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
        tenant=st.integers(0, 2),
    )
    def arrive(self, n, model, work, tier, within_ns, require, tenant):
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
                tenant=tenant,
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
        copied = was_pending and self.pending[cookie].copies  # no action tells when the first of two is gone
        done = self.call(Machine.cancel, self.now_ns, self.handles[cookie])
        assert was_pending or not done
        if not done:
            return
        # What is claimed and not started ends once it is.
        at_once = not copied and self.claimed.get(self.pending[cookie].batch, (None, True))[1]
        self.settle()
        if at_once:
            assert self.ended[cookie][::5] == ("cancel", "caller")

    @rule(at=nodes_at, start=st.booleans())
    def claim(self, at, start):
        node = self.pick(at, "up", "draining", "lost")
        taken = None if node is None else self.call(Machine.claim, self.now_ns, node)
        if taken is not None:
            batch, model, cookies = taken
            assert 1 <= len(cookies) <= self.models[model]
            assert all(batch in (self.pending[c].batch, *self.pending[c].copies) for c in cookies)
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
        self.forget_run(batch)
        self.settle()

    def forget_run(self, batch):
        """Of two that a request is in: no action says that it goes on in the other."""
        for seen in self.pending.values():
            if seen.copies and seen.batch == batch:
                seen.batch = seen.copies.pop()
            seen.copies.discard(batch)

    # One rule for all of these, or most histories would be of a fleet in ruins.
    @rule(at=nodes_at, what=st.sampled_from(["lose", "bring_back", "bring_back", "drain", "remove", "add", "add"]))
    def trouble(self, at, what):
        getattr(self, what)(at)

    def lose(self, at):
        if (node := self.pick(at, "up", "draining")) is not None:
            self.call(Machine.node_lost, self.now_ns, node)
            self.settle()

    def bring_back(self, at):
        if (node := self.pick(at, "lost")) is not None:
            self.call(Machine.node_back, self.now_ns, node)
            self.settle()

    def drain(self, at):
        if (node := self.pick(at, "up", "lost")) is not None:
            self.call(Machine.drain_node, self.now_ns, node)
            self.settle()

    def remove(self, at):
        if (node := self.pick(at, "up", "draining", "lost")) is not None:
            self.call(Machine.remove_node, self.now_ns, node)
            self.nodes[node].state = "absent"
            self.settle()

    def add(self, at):
        free = [i for i in range(MAX_NODES) if i not in self.nodes or self.nodes[i].state == "absent"]
        if any(i not in self.nodes or self.machine.credit(i)[0] == 0 for i in free):
            node = self.call(self.add_to, f"n{len(self.told)}", SITES[at % 2], at % 3 + 1, [None, 5 * MS][at // 4])
            for model in range(len(self.models)):
                self.load(node, model, True, None)

    @rule(at=nodes_at, model=nodes_at, resident=st.booleans(), prior=st.none() | curves)
    def load(self, at, model, resident, prior):
        node, model = self.pick(at, "up", "draining", "lost"), self.some_model(model)
        if node is not None:
            self.call(Machine.set_resident, self.now_ns, model, node, resident, prior=prior)
            (self.nodes[node].models.add if resident else self.nodes[node].models.discard)(model)
            self.settle()

    @rule(n=st.integers(1, 8))
    def work(self, n):
        for _ in range(n):
            self.drive()

    @rule(by_ns=st.integers(0, 20 * MS))
    def wait(self, by_ns):
        self.now_ns += by_ns
        self.settle()

    @rule()
    def wait_for_timer(self):
        if (at_ns := self.machine.next_timer_ns) is not None:
            self.now_ns = max(self.now_ns, at_ns)
            self.settle()

    # ---- whole histories

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
