"""The further routing policies, readably: what reference/routing.py has of a fleet, one class per policy.

Those that narrow slo_cost's choice show its model a part of the nodes.
"""

import math
from dataclasses import dataclass, field, replace

from reference.routing import Curve, Node, Policy, Query, SloCost, Weights, mixed

MASK = 2**64 - 1


class Weighted(Policy):
    """Smooth weighted round robin: all candidates earn their weight, the richest is chosen and pays what all earned."""

    def __init__(self, *args, weight="slots", **kwargs):
        super().__init__(*args, **kwargs)
        self.weight = weight
        self.accounts: dict[tuple[str, int], tuple[Node, float]] = {}  # of a model on a node, that very one

    def weight_of(self, query: Query, node: Node) -> float:
        if self.weight == "label":
            return float(node.labels.get("weight", 1.0))
        if self.weight == "slots":
            return float(node.slots)
        service_us = self.curves.get((query.model, node.id), Curve()).service_us(1.0)
        return min(max(node.slots / float(service_us), 1e-6), 1e6)

    def choose(self, query: Query, passing: list[Node]) -> Node:
        total, grown = 0.0, {}
        for node in passing:
            weight = self.weight_of(query, node)
            owner, account = self.accounts.get((query.model, node.id), (node, 0.0))
            grown[node.id] = (account if owner is node else 0.0) + weight
            total += weight
        best = max(passing, key=lambda node: (grown[node.id], -node.id))
        for node in passing:
            paid = total if node is best else 0.0
            self.accounts[query.model, node.id] = node, grown[node.id] - paid
        return best


@dataclass
class Probe:
    node: Node
    uses: int
    inflight: float
    latency_us: float
    at_ns: int


@dataclass
class Pool:
    """Of one model, oldest first."""

    probes: list[Probe] = field(default_factory=list)
    worst_next: bool = True


class Prequal(Policy):
    """Of a pool of probes: the cold by latency, and if all are hot by requests in flight."""

    def __init__(self, *args, q_rif=0.84, probes=3, pool=16, reuse=2, age_s=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.q_rif, self.n_probes, self.n_pool, self.n_uses, self.age_ns = q_rif, probes, pool, reuse, int(age_s * 1e9)
        self.pools: dict[str, Pool] = {}
        self.recent: list[float] = []

    def choose(self, query: Query, passing: list[Node]) -> Node:
        pool = self.pools.setdefault(query.model, Pool())
        there = {node.id: node for node in self.nodes}
        # A node that went leaves its probe until another one has its id.
        pool.probes = [
            p for p in pool.probes if query.now_ns - p.at_ns <= self.age_ns and there.get(p.node.id, p.node) is p.node
        ]
        for _ in range(self.n_probes):
            self.probe(pool, query, passing[(self.random.next() >> 32) * len(passing) >> 32])
        recent = sorted(self.recent[-64:])
        hot_from = math.inf if self.q_rif >= 1.0 else recent[int(self.q_rif * len(recent))]

        def rank(probe: Probe) -> tuple:
            hot = probe.inflight > hot_from
            return hot, probe.inflight if hot else 0.0, probe.latency_us, probe.inflight, probe.node.id

        best = min((p for p in pool.probes if any(p.node is node for node in passing)), key=rank)
        best.inflight += 1
        best.uses -= 1
        if best.uses == 0:
            pool.probes.remove(best)
        if len(pool.probes) > 1:
            pool.probes.remove(max(pool.probes, key=rank) if pool.worst_next else pool.probes[0])
            pool.worst_next = not pool.worst_next
        return best.node

    def probe(self, pool: Pool, query: Query, node: Node) -> None:
        pool.probes = [p for p in pool.probes if p.node is not node]
        if len(pool.probes) == self.n_pool:
            pool.probes.pop(0)
        unit = Query(query.model, 1.0, now_ns=query.now_ns)
        latency_us = float(self.terms(unit, node).cost)
        pool.probes.append(Probe(node, self.n_uses, node.inflight(), latency_us, query.now_ns))
        self.recent.append(node.inflight())


def name_hash(name: str) -> int:
    """FNV-1a, mixed."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 & MASK
    return mixed(value)


def log(x: float) -> float:
    """The core's, without libm."""
    m, exponent = math.frexp(x)
    m, exponent = m * 2.0, exponent - 1
    if m > math.sqrt(2.0):
        m, exponent = m * 0.5, exponent + 1
    s = (m - 1.0) / (m + 1.0)
    y = 1.0 / 21
    for n in range(19, 0, -2):
        y = y * (s * s) + 1.0 / n
    return exponent * 0.6931471805599453 + 2.0 * s * y


class ConsistentHash(Policy):
    """Each session ranks the nodes; the first in its order that is not `bound` times above its share."""

    def __init__(self, *args, bound=1.25, **kwargs):
        super().__init__(*args, **kwargs)
        self.bound = bound

    def choose(self, query: Query, passing: list[Node]) -> Node:
        if not query.session:
            return min(passing, key=lambda node: (node.inflight(), node.id))
        n_inflight = sum(node.inflight() for node in passing)
        slots = float(sum(node.slots for node in passing))
        room = [n for n in passing if n.inflight() < self.bound * (n_inflight + 1.0) * float(n.slots) / slots]
        alike = len({node.slots for node in passing}) == 1
        session = mixed(query.session)

        def rank(node: Node) -> tuple:
            value = mixed(name_hash(node.name) ^ session)
            return (-value if alike else -log(((value >> 11) + 0.5) * 2.0**-53) / node.slots), node.id

        return min(room, key=rank)


class PrefixAware(Policy):
    """Longest part of the prompt held, of those that are not that much fuller than the emptiest; else the emptiest."""

    def __init__(self, *args, min_match=0.3, gap=2.0, gap_ratio=1.5, block_size=16.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.min_match, self.gap, self.gap_ratio = min_match, gap, gap_ratio
        self.weights = Weights(block_size=block_size)

    def choose(self, query: Query, passing: list[Node]) -> Node:
        def load(node: Node) -> float:
            return node.inflight() / node.slots

        emptiest = min(passing, key=lambda node: (load(node), node.id))
        most = max(load(emptiest) + self.gap, load(emptiest) * self.gap_ratio)
        not_full = [node for node in passing if load(node) <= most]
        best = max(not_full, key=lambda node: (node.held_blocks(query.blocks), -load(node), -node.id))
        enough = self.min_match * len(query.blocks)
        return best if query.blocks and best.held_blocks(query.blocks) >= enough else emptiest


class Narrowing(Policy):
    """Shows slo_cost a part of the nodes, and says when it is shown which."""

    def __init__(self, nodes, curves, seed=0, **options):
        super().__init__(nodes, curves, seed)
        self.inner = SloCost(nodes, curves, seed, **options)
        self.weights = self.inner.weights

    def of(self, query: Query, part: list[Node]) -> tuple[Node, float, float] | None:
        """Its choice, the cost of that, and what of it is for the sake of finding out."""
        narrowed = replace(query, among=frozenset(node.id for node in part))
        choice = self.inner.decide(narrowed)
        if choice is None:
            return None
        chosen = self.inner.select(narrowed)
        assert chosen == choice.node.id
        return choice.node, float(self.terms(query, choice.node).cost) + choice.explore, choice.explore

    def least(self, query: Query, part: list[Node]) -> tuple[float, Node] | None:
        """The cheapest of them, and what it costs; nothing is drawn."""
        passing = self.candidates(replace(query, among=frozenset(node.id for node in part)))
        costs = [(float(self.terms(query, node).cost), node.id, node) for node in passing]
        return min(costs)[::2] if costs else None

    def take(self, choice: tuple[Node, float, float] | None) -> int | None:
        if choice is None:
            return None
        self.added_us = choice[2]
        return choice[0].id


class Priority(Narrowing):
    """A part of each node is kept for tier 0."""

    def __init__(self, *args, reserve=0.25, **kwargs):
        super().__init__(*args, **kwargs)
        self.open_share = 1.0 - reserve

    def select(self, query: Query) -> int | None:
        is_open = [node for node in self.nodes if query.tier == 0 or node.inflight() < self.open_share * node.slots]
        return self.take(self.of(query, is_open))


class Locality(Narrowing):
    """Data and zone, data, zone, anywhere: the first level that costs at most `spill` times the best of all."""

    def __init__(self, *args, zone="", data="", spill=2.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.zone, self.data, self.spill = zone, data, spill

    def level(self, node: Node) -> int:
        zone = bool(self.zone) and node.labels.get("zone") == self.zone
        data = bool(self.data) and node.labels.get("data") == self.data
        return 2 * data + zone

    def select(self, query: Query) -> int | None:
        best = self.least(query, self.nodes)
        if best is not None and (self.zone or self.data):
            for level in range(3, self.level(best[1]), -1):
                alike = [node for node in self.nodes if self.level(node) == level]
                near = self.least(query, alike)
                if near is not None and near[0] <= best[0] * self.spill:
                    return self.take(self.of(query, alike))
        return self.take(self.of(query, self.nodes))


class EdgeFirst(Narrowing):
    """Edge nodes that are not full, then what is not edge, then whoever there is."""

    def __init__(self, *args, load=2.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.load = load

    def select(self, query: Query) -> int | None:
        edge = [node for node in self.nodes if node.labels.get("location") == "edge"]
        cloud = [node for node in self.nodes if node not in edge]
        choice = self.of(query, [node for node in edge if node.inflight() < self.load * node.slots])
        return self.take(choice or self.of(query, cloud) or self.of(query, self.nodes))


class Cascade(Narrowing):
    """slo_cost, of the model from which on the expected cost is least."""

    def __init__(self, *args, models=(), min_confidence=0.8, **kwargs):
        super().__init__(*args, **kwargs)
        self.models, self.min_confidence = list(models), min_confidence
        self.reports = {model: [0.0, 0.0] for model in self.models}  # all, low
        self.stepped_over: list[str] = []

    def select(self, query: Query) -> int | None:
        choice = self.of(query, self.nodes)
        if choice is not None:
            for model in self.stepped_over:
                self.fade(model)
            self.stepped_over = []
        return self.take(choice)

    def fade(self, model: str) -> None:
        self.reports[model] = [count * (1.0 - 1.0 / 256.0) for count in self.reports[model]]

    def start_at(self, query: Query) -> str:
        """The model to pick a node for in place of the one asked for."""
        self.stepped_over = []
        if query.model not in self.models:
            return query.model
        asked = self.models.index(query.model)
        start, least_us, after_us = asked, math.inf, math.inf
        for i in range(len(self.models) - 1, asked - 1, -1):
            each = replace(query, model=self.models[i])
            costs = [float(self.terms(each, node).cost) for node in self.candidates(each)]
            if not costs:
                continue
            n, n_low = self.reports[self.models[i]]
            after_us = min(costs) + ((n_low + 1.0) / (n + 2.0) * after_us if after_us < math.inf else 0.0)
            if after_us <= least_us:
                start, least_us = i, after_us
        self.stepped_over = self.models[asked:start]
        return self.models[start]

    def next_model(self, model: str, confidence: float) -> str | None:
        if model not in self.models[:-1] or confidence >= self.min_confidence:
            return None
        return self.models[self.models.index(model) + 1]

    def report(self, model: str, confidence: float) -> None:
        if model in self.reports:
            self.fade(model)
            self.reports[model][0] += 1.0
            self.reports[model][1] += confidence < self.min_confidence
