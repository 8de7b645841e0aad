"""Which models are loaded where, and what goes for them, readably: what the engine decides under `residency=`.

Loads are made for who waits, the most urgent first, whom nobody serves before all others, on the node where that would
be done first; what goes is the eviction policy's choice. Called by reference.engine. Arithmetic in float32 where
csrc/infcore/engine/finish_times.hpp has it, and in the order of the C++, so that equal means equal to the bit. Not
modelled: what the door is told of loads.
"""

from math import inf
from typing import Any

import numpy as np
from reference.batching import NEVER_NS, to_ns
from reference.lanes import Lane, Request, add_ns
from reference.load_forecasts import Forecasts
from reference.model_facts import NEWEST_SHARE, REUSE_MOST, Facts, Line, per_s
from reference.model_memory import AWAITED, IN_USE, ON_ITS_WAY, WANTED, Loads, Memory

F = np.float32
AGAIN_NS = 10_000_000_000  # after which a node is asked again for a model that could not be loaded
UNKNOWN_S = 600.0  # that a load may be late of which nobody knows what it takes
LOADS_WORTH = 2.0  # a further copy is worth its load, and one more of what goes for it


class Residency(Forecasts):
    def __init__(self, engine: Any, policy: str) -> None:
        self.engine, self.policy = engine, policy
        self.is_on = bool(policy)  # off: models are where the driver says, and all else here does nothing
        self.looks = False  # something happened that loads may come of
        self.facts: dict[int, Facts] = {}
        self.nodes: dict[int, Loads] = {}
        self.n_places = 0  # in each memory
        self.weights_bytes_least = 2**64 - 1
        self.seconds_per_byte = 0.0
        self.expected: list[int] = []  # to be loaded though nobody waits for it
        self.lanes: list[Lane] = []  # of the plan
        self.backlog_s: dict[int, float] = {}

    # ---- what is known

    def add_model(self, model: int, weights_bytes: int = 0, load_s: float = 0.0) -> None:
        if model >= self.n_places:
            self.n_places = max(2 * self.n_places, model + 1)
            for loads in self.nodes.values():
                loads.memory.grow(self.n_places)
        facts = self.facts.setdefault(model, Facts())
        facts.is_measured = facts.is_measured and facts.weights_bytes == weights_bytes
        facts.weights_bytes = weights_bytes
        facts.load_s = facts.load_s if facts.is_measured else load_s
        for id in self.nodes:
            self.follow_hosts(id, model)
        self.weights_bytes_least = min(self.weights_bytes_least, weights_bytes)

    def add_node(self, id: int, memory_bytes: int, beside_runs: bool) -> None:
        if self.is_on:
            self.engine.fleet[id].hosts = set()
            self.nodes[id] = Loads(Memory(self.policy, self.n_places, memory_bytes), beside_runs)

    def remove_node(self, id: int) -> None:
        if self.nodes.pop(id, None):
            self.engine.fleet[id].hosts = set()

    def asked(self, model: int, now_ns: int) -> None:
        self.facts[model].asked_ns.append(now_ns)

    def follow_hosts(self, id: int, model: int) -> None:
        """What is sent where: who may hold it, is large enough, and has not failed to load it just now."""
        loads = self.nodes[id]
        fits = self.facts[model].weights_bytes <= loads.memory.capacity_bytes
        is_host = model in loads.allowed and fits and model not in loads.failed
        (self.engine.fleet[id].hosts.add if is_host else self.engine.fleet[id].hosts.discard)(model)

    def forgive(self, id: int, now_ns: int) -> int:
        """What failed there may be tried again; returns when the next may."""
        loads = self.nodes.get(id)
        if loads is None:
            return NEVER_NS
        over = [model for model, until_ns in loads.failed.items() if until_ns <= now_ns]
        for model in over:
            loads.may_fill = True
            del loads.failed[model]
            self.follow_hosts(id, model)
        if over:
            self.engine.bind_waiting(now_ns, id)
        return min(loads.failed.values(), default=NEVER_NS)

    def load_s(self, model: int) -> float:
        facts = self.facts[model]
        known = facts.is_measured or facts.load_s > 0.0
        return facts.load_s if known else self.seconds_per_byte * float(facts.weights_bytes)

    def cost_us(self, model: int) -> float:
        return self.load_s(model) * 1e6

    def measured(self, model: int, load_s: float) -> None:
        def mean(before: float, now: float) -> float:
            return before + (now - before) * NEWEST_SHARE

        facts = self.facts[model]
        known = facts.is_measured or facts.load_s > 0.0
        facts.load_s = mean(facts.load_s, load_s) if known else load_s
        facts.is_measured = True
        if facts.weights_bytes:
            per_byte = load_s / float(facts.weights_bytes)
            self.seconds_per_byte = mean(self.seconds_per_byte, per_byte) if self.seconds_per_byte > 0.0 else per_byte

    def reuse(self, model: int, now_ns: int) -> float:
        """How much likelier it is asked for than others, within bounds."""
        all_per_s = per_s([at for facts in self.facts.values() for at in facts.asked_ns], now_ns)
        if all_per_s <= 0.0:
            return 1.0
        share = per_s(self.facts[model].asked_ns, now_ns) / all_per_s
        return min(max(share * len(self.facts), 1.0 / REUSE_MOST), REUSE_MOST)

    # ---- events

    def may_hold(self, now_ns: int, model: int, id: int, may: bool) -> None:
        loads = self.nodes.get(id)
        if loads is None or (model in loads.allowed) == may:
            return
        (loads.allowed.add if may else loads.allowed.discard)(model)
        loads.failed.pop(model, None)  # it may be another model of that name by now
        self.follow_hosts(id, model)
        if may:
            loads.may_fill = self.looks = True
            self.engine.bind_waiting(now_ns, id)
        elif loads.loading == model:
            loads.is_unwanted = True
            self.engine.rebind(now_ns, id)
        elif model in loads.memory.places:
            self.drop(now_ns, id, model)
            loads.may_fill = self.looks = True
        else:
            self.engine.rebind(now_ns, id)

    def preload(self, model: int) -> None:
        if self.engine.models[model].known and model not in self.expected:
            self.expected.append(model)
            self.looks = True

    def loaded(self, now_ns: int, model: int, id: int, ok: bool, load_s: float) -> bool:
        loads = self.nodes.get(id)
        if loads is None or loads.loading != model:
            return False
        loads.loading, loads.over_ns = None, now_ns
        loads.may_fill = self.looks = True
        if ok:
            self.measured(model, load_s)
        if ok and not loads.is_unwanted:
            loads.memory.hold(model, ON_ITS_WAY, False)
            self.engine.mark_node(id)
            self.engine.fleet[id].models.add(model)
            self.engine.follow_fleet(now_ns, id)
        else:
            self.forget_awaited(loads, model)
            loads.memory.remove(model)
            if ok:
                self.act("unload", id, model)
            elif not loads.is_unwanted and self.engine.fleet[id].state != "lost":
                loads.failed[model] = add_ns(now_ns, AGAIN_NS)
                timers = self.engine.node_timer_ns
                timers[id] = min(timers[id], loads.failed[model])
                self.follow_hosts(id, model)
                self.engine.rebind(now_ns, id)
                self.end_unloadable(now_ns, model)
        self.follow_use(id)
        self.engine.mark_node(id)
        return True

    def end_unloadable(self, now_ns: int, model: int) -> None:
        """Where all that could hold it for those who wait have failed to load it, these end."""
        for lane in [lane for lane in self.engine.lanes if lane.model == model]:
            while lane.requests and not self.may_come(lane):
                request = lane.front(now_ns, self.engine.ageing_ns)
                self.engine.leave_lane(request)
                self.engine.end(now_ns, request, "complete", "device_failed")

    def may_come(self, lane: Lane) -> bool:
        """Whether any node could hold its model, up or not, and has not failed to load it."""
        return any(lane.model in self.engine.fleet[id].hosts and self.serves(id, lane) for id in self.nodes)

    def serves(self, id: int, lane: Lane) -> bool:
        """As to labels, or to the node that they are bound to."""
        return bool(self.engine.carries(id, lane.require) if lane.bound is None else lane.bound == id)

    def load_limit_ns(self, id: int) -> int:
        """When a load that is not over takes its node for lost."""
        loads, limit_ns = self.nodes.get(id), self.engine.run_limit_ns[id]
        if loads is None or loads.loading is None or limit_ns == NEVER_NS:
            return int(NEVER_NS)
        load_s = self.load_s(loads.loading)
        late_s = 10.0 * load_s if load_s > 0.0 else UNKNOWN_S
        return int(add_ns(loads.expected_end_ns, max(limit_ns, to_ns(late_s))))

    def follow_memory(self, id: int) -> None:
        """The fleet was changed by others."""
        loads = self.nodes.get(id)
        if loads is None:
            return
        for model in sorted(self.engine.models):
            is_there = model in self.facts and model in self.engine.fleet[id].models
            if (model in loads.memory.places) == is_there or loads.loading == model:
                continue
            if is_there:
                loads.failed.pop(model, None)
                self.follow_hosts(id, model)
                loads.memory.insert(model, self.facts[model].weights_bytes, self.cost_us(model))
            else:
                self.forget_awaited(loads, model)
                loads.memory.remove(model)
            loads.may_fill = self.looks = True
        self.follow_use(id)

    def follow_use(self, id: int) -> None:
        """After any change of the node's batches: what is in use does not go."""
        loads = self.nodes.get(id)
        if loads is None:
            return
        there = [batch.model for batch in self.engine.batches[id]]
        for model in [model for model in loads.in_use if model not in there]:
            loads.in_use.remove(model)
            loads.memory.hold(model, IN_USE, False)
            self.looks = True  # it may go now
        for model in there:  # one by one: some policies go by who was let go first
            if model in loads.memory.places:
                loads.in_use += [model] if model not in loads.in_use else []
                loads.memory.hold(model, IN_USE, True)
                self.forget_awaited(loads, model)

    def used(self, id: int, model: int) -> None:
        if id in self.nodes and model in self.nodes[id].memory.places:
            self.nodes[id].memory.policy.on_hit([model])

    def forget_awaited(self, loads: Loads, model: int) -> None:
        if model in loads.awaited:
            loads.awaited.remove(model)
            loads.memory.hold(model, AWAITED, False)

    def loads_alone(self, id: int) -> bool:
        """The node's worker is busy loading."""
        return id in self.nodes and self.nodes[id].loading is not None and not self.nodes[id].beside_runs

    def is_reserved(self, id: int) -> bool:
        return id in self.nodes and self.nodes[id].is_reserved

    def takes_nothing(self, id: int) -> bool:
        return self.loads_alone(id) or self.is_reserved(id)

    # ---- what goes and comes

    def act(self, kind: str, id: int, model: int, reason: str = "none") -> None:
        self.engine.actions.append((kind, 0, id, 0, model, reason))

    def drop(self, now_ns: int, id: int, model: int) -> None:
        self.forget_awaited(self.nodes[id], model)
        self.nodes[id].memory.remove(model)
        self.act("unload", id, model)
        self.engine.mark_node(id)
        self.engine.fleet[id].models.discard(model)
        self.engine.follow_fleet(now_ns, id)

    def load(self, now_ns: int, id: int, model: int, reason: str = "none") -> bool:
        """False: not enough may go; for a forecast nothing that somebody waits for."""
        loads, bytes_ = self.nodes[id], self.facts[model].weights_bytes
        if loads.memory.free_bytes() < bytes_ and not self.make_room(now_ns, id, bytes_, reason):
            return False
        load_s = self.load_s(model)
        free = loads.beside_runs or self.engine.has_free(id)
        from_ns = now_ns if free else max(now_ns, to_ns(self.engine.free_at_ns(id) * 1e-9))
        loads.memory.insert(model, bytes_, self.cost_us(model), self.reuse(model, now_ns), on_its_way=True)
        loads.loading, loads.is_unwanted = model, False
        loads.expected_end_ns = add_ns(from_ns, to_ns(load_s))
        if reason == "none":
            loads.awaited.append(model)
            loads.memory.hold(model, AWAITED, True)
        self.act("load", id, model, reason)
        timers = self.engine.node_timer_ns
        timers[id] = min(timers[id], self.load_limit_ns(id))
        self.follow_use(id)
        return True

    def make_room(self, now_ns: int, id: int, bytes_: int, reason: str) -> bool:
        """What something waits for there stays, if enough else may go."""
        memory = self.nodes[id].memory
        self.hold_wanted(id, True)
        if reason == "none" and not memory.can_fit(bytes_):
            self.hold_wanted(id, False)
        while memory.can_fit(bytes_) and memory.free_bytes() < bytes_:
            if (victim := memory.policy.victim()) is None:
                break
            self.drop(now_ns, id, victim)
        self.hold_wanted(id, False)
        return memory.free_bytes() >= bytes_

    def hold_wanted(self, id: int, on: bool) -> None:
        for lane in self.lanes:
            if not on or (lane.requests and self.serves(id, lane)):
                self.nodes[id].memory.hold(lane.model, WANTED, on)

    # ---- whom for

    def plan(self, now_ns: int) -> None:
        """After the lanes that something happened to have had their turn."""
        self.looks = False
        self.lanes = [lane for lane in self.engine.lanes if lane.requests]
        self.backlog_s = dict.fromkeys(range(len(self.engine.fleet)), 0.0)
        for lane in self.lanes:
            self.add_backlog(lane)
        for loads in self.nodes.values():
            loads.reserves = False
        if self.any_idle():
            self.make_loads(now_ns)
        for id, loads in sorted(self.nodes.items()):
            was, loads.is_reserved = loads.is_reserved, loads.reserves
            if was and not loads.is_reserved:
                self.engine.mark_node(id)

    def make_loads(self, now_ns: int) -> None:
        self.lanes.sort(key=lambda lane: self.engine.urgency(now_ns, lane))
        for is_further in (False, True):  # whom nobody serves first: else the busy models take every load
            for lane in self.lanes:
                if not self.any_idle():
                    return
                if lane.bound is not None:
                    if not is_further:
                        self.load_bound(now_ns, lane, lane.bound)
                elif (self.n_holding(lane.model) > 0) == is_further:
                    self.load_for(now_ns, lane)
        self.expected = [model for model in self.expected if not self.load_expected(now_ns, model)]
        self.fill_up(now_ns)

    def any_idle(self) -> bool:
        return any(loads.loading is None for loads in self.nodes.values())

    def line(self, model: int, id: int, work: float) -> Line:
        base, per_request, per_work, per_padded_work = self.engine.latency.at(model, id).curve
        per_request_s, per_work_s = F(min(max(per_request, 1e-12), 1e9)), F(min(per_work + per_padded_work, 1e9))
        return Line(F(min(max(base, 1e-12), 1e9)), per_request_s + per_work_s * F(work))

    def able_to_load(self, lane: Lane) -> list[int]:
        """Nodes that are up, may hold the lane's model and carry its labels."""
        up = [node for node in self.engine.fleet if node.state == "up" and lane.model in (node.hosts or ())]
        return [node.id for node in up if self.engine.carries(node.id, lane.require)]

    def serving(self, lane: Lane) -> list[int]:
        """Of them, those that hold it."""
        return [id for id in self.able_to_load(lane) if lane.model in self.engine.fleet[id].models]

    def n_loading(self, model: int) -> int:
        return sum(loads.loading == model for loads in self.nodes.values())

    def n_holding(self, model: int) -> int:
        """Nodes that hold it, and those where it is on its way."""
        up = [node for node in self.engine.fleet if node.state == "up"]
        return sum(model in node.models or self.nodes[node.id].loading == model for node in up)

    def add_backlog(self, lane: Lane) -> None:
        """What the nodes that hold its model have to do for the lane, each an equal share; where none does, those that
        may."""
        doing = [lane.bound] if lane.bound is not None else self.serving(lane) or self.able_to_load(lane)
        for id in doing:
            seconds = self.line(lane.model, id, lane.work_mean()).all_s(len(lane.requests), self.max_batch_size(lane))
            if not self.nodes[id].beside_runs and lane.model not in self.engine.fleet[id].models:
                seconds += self.load_s(lane.model)
            self.backlog_s[id] += seconds / len(doing) / max(1, self.engine.fleet[id].slots)

    def max_batch_size(self, lane: Lane) -> int:
        return int(self.engine.models[lane.model].max_batch_size)

    def could_load(self, id: int, model: int) -> bool:
        """Whether the node could begin to load it now."""
        loads, bytes_ = self.nodes[id], self.facts[model].weights_bytes
        if loads.loading is not None or loads.reserves or model not in self.engine.fleet[id].hosts:
            return False
        if not loads.memory.can_fit(bytes_):  # whom they were loaded for may have gone elsewhere
            for each in list(loads.awaited):
                lanes = [lane for lane in self.engine.lanes if lane.model == each and lane.requests]
                if not any(self.serves(id, lane) for lane in lanes):
                    self.forget_awaited(loads, each)
        return loads.memory.can_fit(bytes_)

    def shed_hopeless(self, now_ns: int, lane: Lane) -> None:
        """Whom no load could serve in time any more ends here."""
        while lane.requests:
            r = lane.front(now_ns, self.engine.ageing_ns)
            holders = self.serving(lane) if lane.bound is None else [lane.bound]
            there = any(lane.model in self.engine.fleet[id].models for id in holders)
            if r.deadline_ns == NEVER_NS or there:
                return
            answers_s = self.cold_s(now_ns, r, lane.bound)
            if not answers_s or min(answers_s) <= (r.deadline_ns - now_ns) * 1e-9:
                return
            self.engine.leave_lane(r)
            self.engine.end(now_ns, r, "shed", "deadline")

    def cold_s(self, now_ns: int, r: Request, only: int | None) -> list[float]:
        """Of each node that would have to load its model first, the seconds in which it could answer."""
        found = []
        for node in self.engine.fleet:
            if node.state != "up" or node.id not in self.nodes or r.model in node.models:
                continue
            if (
                r.model not in self.nodes[node.id].allowed
                or only not in (None, node.id)
                or not self.engine.carries(node.id, r.require)
            ):
                continue
            loads, latency = self.nodes[node.id], self.engine.latency.at(r.model, node.id)
            if self.facts[r.model].weights_bytes > loads.memory.capacity_bytes:
                continue
            alone_s = self.line(r.model, node.id, r.work).batch_s(1)
            failed_s = max(0.0, loads.failed.get(r.model, 0) * 1e-9 - now_ns * 1e-9)  # it is not asked for before
            left_s = (
                max(failed_s, loads.expected_end_ns * 1e-9 - now_ns * 1e-9) if loads.loading is not None else failed_s
            )
            begin_s = left_s + (0.0 if loads.loading == r.model else self.load_s(r.model))
            trusted = latency.has_prior or latency.n_observed >= 4
            found.append(begin_s + alone_s if trusted else failed_s)
        return found

    def load_bound(self, now_ns: int, lane: Lane, id: int) -> None:
        self.shed_hopeless(now_ns, lane)
        there = lane.model in self.nodes[id].memory.places
        if not lane.requests or there or self.engine.fleet[id].state != "up":
            return
        if self.could_load(id, lane.model):
            self.load(now_ns, id, lane.model)
        else:
            self.reserve_for(now_ns, lane)

    def reserve_for(self, now_ns: int, lane: Lane) -> None:
        """On the node that is first done with what is in use, where that alone keeps the model out, nothing new begins,
        unless who comes before waits for what the node holds. A node that has loaded runs as long as that takes."""
        before = self.lanes[: self.lanes.index(lane)]
        found = []
        for id, loads in sorted(self.nodes.items()):
            node, memory = self.engine.fleet[id], loads.memory
            if node.state != "up" or lane.model not in node.hosts or not self.serves(id, lane):
                continue
            too_soon = loads.over_ns is not None and now_ns - loads.over_ns < to_ns(self.load_s(lane.model))
            if loads.loading is not None or loads.reserves or too_soon:
                continue
            in_use_bytes = sum(memory.places[model].bytes for model in loads.in_use if model in memory.places)
            if not memory.can_fit(max(0, self.facts[lane.model].weights_bytes - in_use_bytes)):
                continue
            if any(other.requests and self.serves(id, other) and other.model in node.models for other in before):
                continue
            ends_ns = [batch.expected_end_ns for batch in self.engine.batches[id]]
            found.append((-1 if loads.is_reserved else max(ends_ns, default=0), id))
        if found:
            self.nodes[min(found)[1]].reserves = True

    def done_s(self, now_ns: int, lane: Lane, id: int, from_s: float, n_share: int) -> float:
        """When it would be done there with what waits in the lane, were that its share."""
        free_s = 0.0
        if not self.engine.has_free(id):
            free_s = float(F(abs(self.engine.free_at_ns(id) * 1e-9 - now_ns * 1e-9)))
        begin_s = max(free_s + self.backlog_s[id], from_s)
        return begin_s + self.line(lane.model, id, lane.work_mean()).all_s(n_share, self.max_batch_size(lane))

    def load_for(self, now_ns: int, lane: Lane) -> None:
        """Where it would be done first, what a load pushes out counting as a load more."""
        self.shed_hopeless(now_ns, lane)
        if not lane.requests:
            return
        n, load_s = len(lane.requests), self.load_s(lane.model)
        serving = self.serving(lane)
        n_there = len(serving) + self.n_loading(lane.model)
        here_s, options = [inf], []
        for id in self.able_to_load(lane):
            loads = self.nodes[id]
            if id in serving or loads.loading == lane.model:
                is_coming = loads.loading == lane.model
                from_s = loads.expected_end_ns * 1e-9 - now_ns * 1e-9 if is_coming else 0.0
                here_s.append(self.done_s(now_ns, lane, id, from_s, max(1, n // n_there)))
            elif self.could_load(id, lane.model):
                n_share = (n + n_there) // (n_there + 1)
                if loads.beside_runs:
                    done_s = self.done_s(now_ns, lane, id, load_s, n_share)
                else:
                    done_s = self.done_s(now_ns, lane, id, 0.0, n_share) + load_s
                pushes_out = loads.memory.free_bytes() < self.facts[lane.model].weights_bytes
                options.append((done_s + (load_s if pushes_out else 0.0), id, done_s))
        if not options and here_s == [inf]:
            self.reserve_for(now_ns, lane)
        if options:
            _, id, done_s = min(options)
            if min(here_s) == inf or min(here_s) > done_s + LOADS_WORTH * load_s:
                self.load(now_ns, id, lane.model)
