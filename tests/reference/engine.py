"""The engine's state machine, readably: no indices, no generations, every choice by sorting. Slow.

Events in, actions out, time handed in, as csrc/infcore/engine/state_machine.hpp says. The latency model is infcore's
own, and sums are added up in the order of the C++, so that equal means equal to the bit. Not modelled: that a model's
33rd set of labels takes over an empty queue.
"""

from typing import Any

from reference.batching import NEVER_NS, rule, to_ns
from reference.hedging import Budget, Lateness, drop, goes_on, learn, look_at_late, swap, watch
from reference.joint import dispatch_from
from reference.lanes import Batch, Lane, ModelState, Request, add_ns, larger
from reference.model_loads import Residency
from reference.routing import LeastOutstanding, Node, PeakEwma, PowerOfTwo, Query, RoundRobin
from reference.routing_policies import ConsistentHash, PrefixAware, Weighted
from reference.turns import give_turn
from reference.weighing import Weights

BINDS_ON_ARRIVAL = {
    "round_robin": RoundRobin,
    "least_outstanding": LeastOutstanding,
    "power_of_two": PowerOfTwo,
    "peak_ewma": PeakEwma,
    "weighted": Weighted,
    "consistent_hash": ConsistentHash,
    "prefix_aware": PrefixAware,
}
SLO_COST = Weights(price_us_per_usd=1e12, goal_share=0.03, tail=0.99, by_work=True)
JOINT = ("fastest_finish", "slo_cost", "cascade")
SEEN = ("ok", "device_failed", "device_lost", "deadline")  # ends that a balancer in front of the node would see


class Engine:
    def __init__(
        self,
        latency: Any,
        policy: str,
        batching: str,
        max_requests: int,
        ageing_ns: int,
        attempts_max: int,
        seed: int,
        hedge_quantile: float = 0.0,
        hedge_budget: float = 0.05,
        retry_budget: float = 0.2,
        residency: str = "",
    ) -> None:
        self.latency = latency  # infcore._core.latency.LatencyTable
        self.given: set[tuple[int, int]] = set()  # (model, node) with a curve of their own from the start
        self.loads = Residency(self, residency)
        self.fleet: list[Node] = []  # by id
        self.routing = BINDS_ON_ARRIVAL[policy](self.fleet, {}, seed) if policy in BINDS_ON_ARRIVAL else None
        self.weights = SLO_COST if policy in ("slo_cost", "cascade") else Weights()
        self.tail_s = 0.0  # see weighing.note_fastest
        self.price_per_hour: dict[int, float] = {}
        self.batching = rule(batching)
        self.max_requests, self.ageing_ns, self.attempts_max = max_requests, ageing_ns, attempts_max
        self.hedge_quantile, self.hedge_budget, self.retry_budget = hedge_quantile, hedge_budget, retry_budget
        self.lateness: dict[int, Lateness] = {}  # by model, as the budgets
        self.hedges: dict[int, Budget] = {}
        self.retries: dict[int, Budget] = {}
        self.models: dict[int, ModelState] = {}
        self.lanes: list[Lane] = []
        self.dirty: set[Lane] = set()
        self.batches: dict[int, list[Batch]] = {}  # by node
        self.free_since_ns: dict[int, int] = {}
        self.run_limit_ns: dict[int, int] = {}
        self.node_timer_ns: dict[int, int] = {}
        self.look_timer_ns: dict[int, int] = {}
        self.pending: dict[int, Request] = {}  # by cookie
        self.actions: list[tuple[str, int, int | None, int, int, str]] = []
        self.n_arrived = self.n_batches = 0

    # ---- models and nodes

    def add_model(self, model: int, weights_bytes: int = 0, load_s: float = 0.0, **config: Any) -> None:
        self.loads.add_model(model, weights_bytes, load_s)
        self.models[model] = ModelState(**config)
        self.lateness.setdefault(model, Lateness())
        self.hedges.setdefault(model, Budget(self.hedge_budget, left=16.0, most=16.0))
        self.hedges[model].most = max(16.0, config["max_batch_size"])
        self.retries.setdefault(model, Budget(self.retry_budget, left=100.0, most=1000.0))

    def remove_model(self, now_ns: int, model: int) -> None:
        self.models[model].known = False
        for lane in self.lanes:
            while lane.model == model and lane.requests:
                request = lane.front(now_ns, self.ageing_ns)
                self.leave_lane(request)
                self.end(now_ns, request, "reject", "unloaded")
        for _, batches in sorted(self.batches.items()):
            for batch in batches:
                if batch.open and batch.model == model:
                    for request in batch.members:
                        if not goes_on(self, now_ns, request, batch, "unloaded"):
                            self.end(now_ns, request, "reject", "unloaded")
                    batch.members, batch.shape = [], (0, 0.0, 0.0)

    def add_node(
        self,
        id: int,
        kind: int,
        labels: dict[str, str],
        slots: int,
        run_limit_ns: int,
        price_per_hour: float,
        memory_bytes: int = 0,
        loads_beside_runs: bool = False,
    ) -> None:
        node = Node(id, kind=str(kind), labels=labels, slots=slots)
        self.fleet[id:] = [node, *self.fleet[id + 1 :]]
        self.price_per_hour[id] = price_per_hour
        for model in self.models.values():
            model.tried.discard(id)
        self.batches[id], self.free_since_ns[id] = [], 0
        self.run_limit_ns[id] = run_limit_ns
        self.node_timer_ns.setdefault(id, NEVER_NS)
        self.look_timer_ns.setdefault(id, NEVER_NS)
        self.latency.forget(id)
        self.given = {(model, node) for model, node in self.given if node != id}
        self.latency.set_class(id, kind)
        self.loads.add_node(id, memory_bytes, loads_beside_runs)

    def set_resident(self, now_ns: int, model: int, id: int, resident: bool, prior: Any) -> None:
        if prior is not None:
            self.latency.set_prior(model, id, prior)
            self.given.add((model, id))
        self.mark_node(id)
        (self.fleet[id].models.add if resident else self.fleet[id].models.discard)(model)
        self.loads.follow_memory(id)
        self.follow_fleet(now_ns, id)

    def follow_fleet(self, now_ns: int, id: int) -> None:
        self.mark_node(id)
        self.give_up_where(now_ns, id, "device_removed", lambda b: b.open and b.model not in self.fleet[id].models)
        self.rebind(now_ns, id)
        self.bind_waiting(now_ns, id)

    def drain_node(self, now_ns: int, id: int) -> None:
        self.fleet[id].state, self.loads.looks = "draining", True
        self.rebind(now_ns, id)
        self.mark_node(id)

    def remove_node(self, now_ns: int, id: int) -> None:
        self.fleet[id].state = "absent"
        self.mark_node(id)
        self.fleet[id].models.clear()
        self.give_up_where(now_ns, id, "device_removed", lambda b: b.open)
        self.give_up_where(now_ns, id, "device_lost", lambda b: b.running)
        self.loads.remove_node(id)
        self.rebind(now_ns, id)
        self.loads.looks = True

    def may_hold(self, now_ns: int, model: int, id: int, may: bool) -> None:
        self.loads.may_hold(now_ns, model, id, may)

    def loaded(self, now_ns: int, model: int, id: int, ok: bool, load_s: float) -> bool:
        return self.loads.loaded(now_ns, model, id, ok, load_s)

    def preload(self, model: int) -> None:
        self.loads.preload(model)

    def node_lost(self, now_ns: int, id: int) -> None:
        if self.fleet[id].state == "up":
            self.fleet[id].state = "lost"
        # A worker reads the inputs of what it has claimed: those stay until started().
        self.give_up_where(now_ns, id, "device_lost", lambda b: b.open or b.running)
        self.rebind(now_ns, id)
        self.mark_node(id)
        self.loads.looks = True

    def node_back(self, now_ns: int, id: int) -> None:
        if self.fleet[id].state == "lost":
            self.fleet[id].state = "up"
            self.free_since_ns[id] = now_ns
            self.mark_node(id)
            self.bind_waiting(now_ns, id)
            self.loads.looks = True

    def rebind(self, now_ns: int, id: int) -> None:
        for lane in [lane for lane in self.lanes if lane.bound == id]:
            while lane.requests and not (self.fleet[id].state == "up" and lane.model in self.fleet[id].serves()):
                request = lane.front(now_ns, self.ageing_ns)
                self.leave_lane(request)
                self.act(request, "retry", "device_removed")
                self.unreserve(request)
                request.node = None
                self.enqueue(now_ns, request)

    def bind_waiting(self, now_ns: int, id: int) -> None:
        if self.routing is None or self.fleet[id].state != "up":
            return
        lanes = [lane for lane in self.lanes if lane.bound is None and lane.model in self.fleet[id].serves()]
        for lane in sorted(lanes, key=lambda lane: (lane.model, lane.index)):
            while self.carries(id, lane.require) and lane.requests:
                request = lane.front(now_ns, self.ageing_ns)
                self.leave_lane(request)
                self.enqueue(now_ns, request)

    def carries(self, id: int, require: dict[str, str]) -> bool:
        return require.items() <= self.fleet[id].labels.items()

    # ---- requests

    def arrive(
        self,
        now_ns: int,
        cookie: int,
        model: int,
        work: float,
        tier: int,
        deadline_ns: int,
        require: Any,
        tenant: int = 0,
    ) -> None:
        if len(self.pending) == self.max_requests:
            self.actions.append(("reject", cookie, None, 0, 0, "queue_full"))
            return
        request = Request(cookie, model, work, tier, deadline_ns, now_ns, require, self.n_arrived, tenant)
        self.n_arrived += 1
        self.pending[cookie] = request
        self.loads.asked(model, now_ns)
        self.retries[model].earn()
        self.hedges[model].earn()
        self.enqueue(now_ns, request)

    def enqueue(self, now_ns: int, r: Request) -> None:
        r.bound_ns = None
        if not self.models[r.model].known:
            return self.end(now_ns, r, "reject", "unloaded")
        if r.deadline_ns <= now_ns:
            return self.end(now_ns, r, "shed", "deadline")
        if self.routing is not None:
            r.node = self.routing.select(Query(r.model, r.work, require=r.require, now_ns=now_ns))
            if r.node is not None:
                r.bound_ns = now_ns
                self.reserve(r, self.latency.at(r.model, r.node).service_s(1, r.work, r.work))
        r.batch, r.lane = None, self.lane_for(r, r.node)
        r.lane.requests.append(r)
        is_first = len(r.lane.requests) == 1
        r.lane.work_least = r.work if is_first else min(r.lane.work_least, r.work)
        r.lane.work_most = r.work if is_first else max(r.lane.work_most, r.work)
        r.lane.tenants[r.tier].enter(r.tenant)
        r.lane.work_pending += r.work
        if r.attempts == 0:
            r.lane.arrivals.append(now_ns)
            r.lane.n_untold += 1
        r.lane.timer_ns = min(r.lane.timer_ns, r.deadline_ns)
        self.dirty.add(r.lane)

    def lane_for(self, r: Request, bound: int | None) -> Lane:
        require = r.require if bound is None else {}
        for lane in self.lanes:
            if (lane.model, lane.bound, lane.require) == (r.model, bound, require):
                return lane
        self.lanes.append(Lane(len(self.lanes), r.model, require, bound))
        return self.lanes[-1]

    def leave_lane(self, r: Request, n_units: int = 0) -> None:
        """n_units: of service that its tenant is charged for with it."""
        r.lane.requests.remove(r)
        r.lane.tenants[r.tier].leave(r.tenant, n_units)
        r.lane.work_pending = r.lane.work_pending - r.work if r.lane.requests else 0.0

    def cancel(self, now_ns: int, cookie: int, reason: str) -> bool:
        r = self.pending.get(cookie)
        if r is None or r.doomed:
            return False
        if r.copy is not None:
            drop(self, r)
        if r.batch is None:
            self.leave_lane(r)
            self.loads.looks = True  # what was loaded for it may go now
        elif r.batch.open:
            self.leave_open(r.batch, r)
        elif r.batch.running:
            r.batch.members[r.batch.members.index(r)] = None
        else:
            r.doomed = reason  # it ends once its inputs are copied
            return True
        self.end(now_ns, r, "cancel", reason)
        return True

    def leave_open(self, batch: Batch, r: Request) -> None:
        batch.members.remove(r)
        batch.shape = (0, 0.0, 0.0)
        for member in batch.members:
            batch.shape = larger(batch.shape, member.work)

    def end(self, now_ns: int, r: Request, kind: str, reason: str, member: int = 0) -> None:
        self.act(r, kind, reason, member)
        self.tell_policy(now_ns, r, reason)
        if kind != "complete" and r.reserved_s is not None and self.routing is not None:
            self.mark_node(r.node)  # it has more room than the policy saw
        self.unreserve(r)
        del self.pending[r.cookie]

    def retry(self, now_ns: int, r: Request, solo: bool, reason: str) -> None:
        if r.doomed:
            return self.end(now_ns, r, "cancel", r.doomed)
        self.act(r, "retry", reason)
        self.tell_policy(now_ns, r, reason)
        self.unreserve(r)
        r.node, r.batch, r.solo = None, None, solo
        self.enqueue(now_ns, r)

    def give_up_where(self, now_ns: int, id: int, reason: str, which: Any) -> None:
        given_up = [b for b in self.batches[id] if which(b)]
        self.batches[id] = [b for b in self.batches[id] if b not in given_up]
        if given_up:
            self.free_since_ns[id] = now_ns
            self.loads.follow_use(id)
        for batch in given_up:
            self.give_up(now_ns, batch, reason)

    def give_up(self, now_ns: int, batch: Batch, reason: str) -> None:
        for i, r in enumerate(batch.members):
            if r is None or goes_on(self, now_ns, r, batch, reason):
                continue
            r.attempts -= not batch.running
            may_rerun = self.models[batch.model].idempotent and r.attempts < self.attempts_max
            if not batch.running or (may_rerun and self.retries[batch.model].spend()):
                self.retry(now_ns, r, r.solo, reason)
            else:
                self.end(now_ns, r, "complete", reason, i)

    def tell_policy(self, now_ns: int, r: Request, reason: str) -> None:
        if r.bound_ns is not None and reason in SEEN:
            self.routing.observe(self.fleet[r.node], r.model, now_ns, (now_ns - r.bound_ns) * 1e-9)

    def act(self, r: Request, kind: str, reason: str, member: int = 0) -> None:
        self.actions.append((kind, r.cookie, r.node, r.batch.id if r.batch else 0, member, reason))

    def reserve(self, r: Request, seconds: float) -> None:
        r.reserved_s = seconds
        self.fleet[r.node].add_credit(0, min(seconds, 1e6), 1)

    def unreserve(self, r: Request) -> None:
        if r.reserved_s is not None:
            self.fleet[r.node].add_credit(0, min(r.reserved_s, 1e6), -1)
            r.reserved_s = None

    # ---- batches

    def claim(self, now_ns: int, id: int) -> Batch | None:
        batch = next((b for b in self.batches[id] if b.open), None)
        if batch is not None and not batch.members:
            self.batches[id].remove(batch)
            self.free_since_ns[id] = now_ns
            self.loads.follow_use(id)
            self.mark_node(id)
            return None
        if batch is not None:
            batch.open, batch.start_ns = False, now_ns
        return batch

    def started(self, now_ns: int, id: int, batch_id: int) -> None:
        batch = next((b for b in self.batches[id] if b.id == batch_id), None)
        if batch is None:
            return
        if self.fleet[id].state in ("lost", "absent"):
            self.batches[id].remove(batch)
            self.loads.follow_use(id)
            return self.give_up(now_ns, batch, "device_lost")
        batch.running, batch.start_ns = True, now_ns
        batch.beside = self.occupied(id)
        shape = self.learned_shape(batch)
        batch.expected_end_ns = add_ns(now_ns, to_ns(self.latency.at(batch.model, id).service_s(*shape)))
        self.loads.used(id, batch.model)
        self.node_timer_ns[id] = min(self.node_timer_ns[id], add_ns(now_ns, self.run_limit_ns[id]))
        for i, r in enumerate(batch.members):
            if r is not None and r.doomed:
                batch.members[i] = None
                self.end(now_ns, r, "cancel", r.doomed)
        watch(self, now_ns, id, batch)

    def has_free(self, id: int) -> bool:
        return len(self.batches[id]) < self.fleet[id].slots and not self.loads.takes_nothing(id)

    def free_at_ns(self, id: int) -> int:
        """When a node without a free slot is expected to have one."""
        if self.loads.loads_alone(id):
            return self.loads.nodes[id].expected_end_ns
        return min((batch.expected_end_ns for batch in self.batches[id]), default=self.free_since_ns[id])

    def occupied(self, id: int) -> tuple[int, float, float]:
        """All that the node has in flight, as if it were one batch."""
        shape = (0, 0.0, 0.0)
        for batch in self.batches[id]:
            n, work_sum, work_max = batch.shape
            shape = (shape[0] + n, shape[1] + work_sum, max(shape[2], work_max))
        return shape

    def learned_shape(self, batch: Batch) -> tuple[int, float, float]:
        return batch.beside if self.models[batch.model].runs_share else batch.shape

    def complete(self, now_ns: int, id: int, batch_id: int, ok: bool) -> bool:
        batch = next((b for b in self.batches[id] if b.id == batch_id), None)
        if batch is None:
            return False
        self.batches[id].remove(batch)
        self.free_since_ns[id] = now_ns
        self.loads.follow_use(id)
        if self.hedge_quantile:
            learn(self, now_ns, id, batch)
        if ok:
            self.latency.observe(batch.model, id, *self.learned_shape(batch), (now_ns - batch.start_ns) * 1e-9)
        for i, r in enumerate(batch.members):
            if r is None:
                continue
            if r.doomed:
                self.end(now_ns, r, "cancel", r.doomed)
            elif ok:
                if r.copy is not None:
                    if r.copy.batch is batch:
                        swap(r)
                    drop(self, r)
                self.retries[batch.model].left += r.solo
                self.end(now_ns, r, "complete", "ok", i)
            elif goes_on(self, now_ns, r, batch, "device_failed"):
                continue
            elif self.models[batch.model].idempotent and len(batch.members) > 1 and self.retries[batch.model].spend():
                self.retry(now_ns, r, True, "device_failed")
            else:
                self.end(now_ns, r, "complete", "device_failed", i)
        self.mark_node(id)
        self.node_back(now_ns, id)
        return True

    # ---- time

    def next_timer_ns(self) -> int:
        return min(self.machine_timer_ns(), min(self.look_timer_ns.values(), default=NEVER_NS))

    def machine_timer_ns(self) -> int:
        return min([*self.node_timer_ns.values(), *(lane.timer_ns for lane in self.lanes)], default=NEVER_NS)

    def tick(self, now_ns: int) -> None:
        while (at_ns := self.machine_timer_ns()) <= now_ns:
            due = [id for id, timer_ns in sorted(self.node_timer_ns.items()) if timer_ns == at_ns]
            if due:
                self.check_run_limit(now_ns, due[0])
            else:
                self.check_lane(now_ns, next(lane for lane in self.lanes if lane.timer_ns == at_ns))
        look_at_late(self, now_ns)

    def check_run_limit(self, now_ns: int, id: int) -> None:
        self.loads.looks = True
        ends = [self.loads.forgive(id, now_ns), self.loads.load_limit_ns(id)]
        ends += [add_ns(b.start_ns, self.run_limit_ns[id]) for b in self.batches[id] if b.running]
        self.node_timer_ns[id] = min(ends)
        if self.node_timer_ns[id] <= now_ns:
            self.node_timer_ns[id] = NEVER_NS
            self.node_lost(now_ns, id)

    def check_lane(self, now_ns: int, lane: Lane) -> None:
        for r in sorted(lane.requests, key=lambda r: (r.deadline_ns, r.tier, r.seq)):
            if r.deadline_ns <= now_ns:
                self.leave_lane(r)
                self.loads.looks = True
                self.end(now_ns, r, "shed", "deadline")
        lane.timer_ns = lane.next_deadline_ns()
        self.mark(lane)

    def mark(self, lane: Lane) -> None:
        if lane.requests:
            self.dirty.add(lane)

    def mark_node(self, id: int) -> None:
        """Lanes that might send something there are looked at again."""
        for lane in self.lanes:
            if lane.bound == id or (lane.bound is None and lane.model in self.fleet[id].models):
                self.mark(lane)

    def schedule(self, now_ns: int) -> None:
        self.dispatch(now_ns)
        if self.loads.is_on and self.loads.looks:
            self.loads.plan(now_ns)
        if self.dirty:  # by what was unloaded
            self.schedule(now_ns)

    def dispatch(self, now_ns: int) -> None:
        self.loads.looks = self.loads.looks or bool(self.dirty)
        while self.dirty:  # who ends while others are sent may leave room to further lanes
            self.dirty = {lane for lane in self.dirty if lane.requests}
            in_order = sorted(self.dirty, key=lambda lane: self.urgency(now_ns, lane))
            for lane in give_turn(self, now_ns, in_order):
                self.dirty.discard(lane)
                while lane.requests and dispatch_from(self, now_ns, lane):
                    pass

    def urgency(self, now_ns: int, lane: Lane) -> tuple[float, ...]:
        return self.urgency_of(now_ns, lane.front(now_ns, self.ageing_ns))

    def urgency_of(self, now_ns: int, r: Request) -> tuple[float, ...]:
        """As it would stand in one lane with all others."""
        if now_ns - r.arrival_ns >= self.ageing_ns:
            return (0, r.arrival_ns, r.seq)
        return (1, r.tier, r.deadline_ns, r.seq)
