"""Routing, readably: a fleet as a list of nodes, one class per policy. The compiled router must decide the same.

Costs are float32 microseconds summed in the order written here, as the columns are; credit is exact nanoseconds.
What policies draw is re-implemented here, generator and all.
"""

import math
from dataclasses import dataclass, field

import numpy as np

F = np.float32
SD = 1.2533141373155003  # of a normal variable per mean absolute deviation: how the core keeps its spread


@dataclass
class Curve:
    """Of a single request: base_s + per_work_s * work; `tail` times that on top at the upper quantile."""

    base_s: float = 1e-3
    per_work_s: float = 0.0
    spread: float = 0.1 / SD * SD

    @property
    def tail(self) -> F:
        return F(2.33 * self.spread)

    def service_us(self, work: float) -> F:
        return F(self.base_s * 1e6) + F(self.per_work_s * 1e6) * F(work)


@dataclass
class Node:
    id: int
    kind: str = "gpu"
    labels: dict[str, str] = field(default_factory=dict)
    rtt_s: float = 0.0
    slots: int = 1
    price_per_hour: float = 0.0
    state: str = "up"
    models: set[str] = field(default_factory=set)
    hosts: set[str] | None = None  # models that may be sent to it, loaded or not; None: those that it holds
    signals: dict[str, float] = field(default_factory=dict)
    as_of_ns: int = -(2**63)
    requests_then: int = 0  # ours at the time stamp of the signalled in-flight figure
    reserved_then_ns: int = 0  # and of the signalled queue wait
    events: list[tuple[int, int, int]] = field(default_factory=list)  # (time, requests, nanoseconds) since the start
    name: str = ""
    held: set[int] = field(default_factory=set)  # blocks of prompts
    averages: dict[str, "PeakAverage"] = field(default_factory=dict)  # by model; what peak_ewma learned of this node

    def credit(self, until_ns: int | None = None) -> tuple[int, int]:
        """Requests and nanoseconds reserved and not released, as of a time."""
        counted = [e for e in self.events if until_ns is None or e[0] <= until_ns]
        return sum(e[1] for e in counted), sum(e[2] for e in counted)

    def add_credit(self, now_ns: int, service_s: float, sign: int) -> None:
        self.events.append((now_ns, sign, sign * int(service_s * 1e9)))

    def signal(self, as_of_ns: int, **figures: float) -> bool:
        if as_of_ns < self.as_of_ns:
            return False
        self.as_of_ns = as_of_ns
        self.signals |= figures
        requests, reserved_ns = self.credit(as_of_ns)
        if "inflight" in figures or ("queue_depth" in figures and "inflight" not in self.signals):
            self.requests_then = requests
        if "queue_wait_s" in figures:
            self.reserved_then_ns = reserved_ns
        return True

    def serves(self) -> set[str]:
        return self.models if self.hosts is None else self.hosts

    def inflight(self) -> float:
        signalled = self.signals.get("inflight", self.signals.get("queue_depth", 0.0))
        return max(0.0, signalled + self.credit()[0] - self.requests_then)

    def held_blocks(self, blocks: tuple[int, ...]) -> int:
        """Leading ones of a prompt."""
        n = 0
        while n < len(blocks) and blocks[n] in self.held:
            n += 1
        return n

    def wait_us(self) -> F:
        since_ns = float(self.credit()[1] - self.reserved_then_ns)
        return F(max(0.0, self.signals.get("queue_wait_s", 0.0) * 1e9 + since_ns / self.slots) * 1e-3)

    def others_ahead(self) -> F:
        if "queue_wait_s" in self.signals:
            return F(0.0)
        return F(max(0.0, self.inflight() - self.credit()[0]) / self.slots)

    def pressure(self) -> F:
        busy = max(self.signals.get("cpu", 0.0), self.signals.get("gpu", 0.0))
        full = (self.signals.get("memory", 0.0) - 0.9) / (1.0 - 0.9)
        return F(0.5 * max(busy * busy, full))

    def network_us(self) -> F:
        busy = self.signals.get("network", 0.0)
        return F(self.rtt_s * 1e6 * (1.0 + busy * busy) + self.signals.get("packet_loss", 0.0) * 200e3)


@dataclass
class Query:
    model: str
    work: float
    budget_ns: int | None = None
    require: dict[str, str] = field(default_factory=dict)
    now_ns: int = 0
    tier: int = 0
    session: int = 0  # as the core hashes it
    blocks: tuple[int, ...] = ()
    among: frozenset[int] | None = None  # ids that a policy narrows the candidates to


@dataclass
class Weights:
    """What a policy weighs beside time."""

    price_us_per_usd: float = 0.0
    risk: float = 0.0
    block_size: float = 0.0


@dataclass
class Terms:
    wait: F
    service: F
    pressure: F
    load: F
    network: F
    saving: F
    price: F
    risk: F
    cost: F
    standing: F  # of the cost, what does not depend on the moment
    upper: F
    late: bool
    explore: float = 0.0

    def listed(self) -> list[float]:
        return [float(self.wait), float(self.service), float(self.pressure), float(self.load), float(self.network),
                0.0 - float(self.saving), float(self.price), float(self.risk), self.explore]  # fmt: skip


def miss_share(mean_us: F, tail: F, slack_us: F) -> F:
    """At most so many of those miss their deadline that have this slack in the mean (Cantelli)."""
    sd = mean_us * (tail * (F(1.0) / F(2.33)))
    slack = max(slack_us, F(0.0))
    return (sd * sd) / ((sd * sd + slack * slack) + F(1e-12))


def mixed(z: int) -> int:
    mask = 2**64 - 1
    z &= mask
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
    return z ^ (z >> 31)


class SplitMix64:
    """Steele, Lea, Flood 2014."""

    def __init__(self, seed: int):
        self.state = seed

    def next(self) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & (2**64 - 1)
        return mixed(self.state)


class Policy:
    """Filter, then choose. `curves` holds what was learned: (model, node id) -> Curve."""

    def __init__(self, nodes: list[Node], curves: dict[tuple[str, int], Curve], seed: int = 0):
        self.nodes = nodes
        self.curves = curves
        self.random = SplitMix64(seed)

    def nudged(self, query: Query) -> tuple[int, float] | None:
        """Whom `select` would give its turn, and what that adds to its cost."""
        return None

    weights = Weights()
    added_us = 0.0  # to the cost of what was chosen last, where nudged() does not say it

    def terms(self, query: Query, node: Node) -> Terms:
        weights, zero = self.weights, F(0.0)
        curve = self.curves.get((query.model, node.id), Curve())
        service = curve.service_us(query.work)
        wait = node.wait_us() + node.others_ahead() * service
        pressure = service * node.pressure()
        finish = ((wait + service) + pressure) + node.network_us()
        standing = service + node.network_us()
        upper = finish + service * curve.tail
        price = service * (F(node.price_per_hour) * F(weights.price_us_per_usd * (1.0 / 3.6e9)))
        cost, standing, risk, late = finish + price, standing + price, zero, False
        if query.budget_ns is not None:
            budget_us = F(query.budget_ns * 1e-3)
            late = bool(upper > budget_us)
            risk = F(weights.risk) * max(budget_us, zero) * miss_share(wait + service, curve.tail, budget_us - finish)
            cost = cost + risk
        return Terms(wait, service, pressure, zero, node.network_us(), zero, price, risk, cost, standing, upper, late)

    def candidates(self, query: Query) -> list[Node]:
        return [
            node
            for node in self.nodes
            if node.state == "up"
            and (query.among is None or node.id in query.among)
            and query.model in node.serves()
            and query.require.items() <= ({"kind": node.kind} | node.labels).items()
            and not self.terms(query, node).late
        ]

    def select(self, query: Query) -> int | None:
        """The chosen node's id, or None where no node passes."""
        passing = self.candidates(query)
        return self.choose(query, passing).id if passing else None

    def choose(self, query: Query, passing: list[Node]) -> Node:
        raise NotImplementedError

    def observe(self, node: Node, model: str, now_ns: int, latency_s: float) -> None:
        """A request that was sent there has ended, so long after its node was chosen."""


class RoundRobin(Policy):
    """The first candidate after the one that the model's last request got."""

    def __init__(self, nodes: list[Node], curves: dict[tuple[str, int], Curve], seed: int = 0):
        super().__init__(nodes, curves, seed)
        self.last: dict[str, int] = {}

    def choose(self, query: Query, passing: list[Node]) -> Node:
        last = self.last.get(query.model, -1)
        node = next((node for node in passing if node.id > last), passing[0])
        self.last[query.model] = node.id
        return node


class LeastOutstanding(Policy):
    """Fewest requests in flight."""

    def choose(self, query: Query, passing: list[Node]) -> Node:
        return min(passing, key=lambda node: (node.inflight(), node.id))


def two_of(passing: list[Node], random: SplitMix64) -> list[Node]:
    """Two different ones by one draw, its upper half for the first; a single one without a draw."""
    if len(passing) == 1:
        return passing
    draw = random.next()
    first = passing[(draw >> 32) * len(passing) >> 32]
    others = [node for node in passing if node is not first]
    second = others[(draw & (2**32 - 1)) * len(others) >> 32]
    return [node for node in passing if node is first or node is second]


class PowerOfTwo(Policy):
    """Of two at random, fewest requests in flight."""

    def choose(self, query: Query, passing: list[Node]) -> Node:
        return min(two_of(passing, self.random), key=lambda node: (node.inflight(), node.id))


def exp(x: float) -> float:
    """Within 4 units in the last place: whole halvings, and a polynomial for the rest. |x| <= 700."""
    halvings = x * (1.0 / 0.6931471805599453)
    k = int(halvings - 0.5 if halvings < 0.0 else halvings + 0.5)
    r = (x - k * float.fromhex("0x1.62e42fee00000p-1")) - k * float.fromhex("0x1.a39ef35793c76p-33")
    total = 1.0 / math.factorial(13)
    for n in range(12, -1, -1):
        total = total * r + 1.0 / math.factorial(n)
    return math.ldexp(total, k)


@dataclass
class PeakAverage:
    """Jumps to a latency above it, sinks to others with a time constant of ten seconds."""

    latency_s: float = 0.0
    as_of_ns: int = 0

    def take(self, latency_s: float, now_ns: int) -> None:
        since_s = max(0, now_ns - self.as_of_ns) * 1e-9
        keep = exp(-since_s / 10.0) if since_s < 7000.0 else 0.0
        if latency_s > self.latency_s:
            self.latency_s = latency_s
        elif self.latency_s > 0.0:
            self.latency_s = self.latency_s * keep + latency_s * (1.0 - keep)
        self.as_of_ns = max(self.as_of_ns, now_ns)


class PeakEwma(Policy):
    """Of two at random, least peak-sensitive average of latency * (requests in flight + 1)."""

    def choose(self, query: Query, passing: list[Node]) -> Node:
        two = two_of(passing, self.random)
        return two[0] if len(two) == 1 else min(two, key=lambda node: (self.cost_s(query, node), node.id))

    def cost_s(self, query: Query, node: Node) -> float:
        average = node.averages.get(query.model, PeakAverage())
        average.take(0.0, query.now_ns)  # a look
        if average.latency_s == 0.0 and node.inflight() > 0:
            return 140737.0 + node.inflight()  # never answered, and something is under way that will tell
        return average.latency_s * (node.inflight() + 1)

    def observe(self, node: Node, model: str, now_ns: int, latency_s: float) -> None:
        node.averages.setdefault(model, PeakAverage()).take(latency_s, now_ns)


class FastestFinish(Policy):
    """Least waiting + service + pressure + network."""

    def choose(self, query: Query, passing: list[Node]) -> Node:
        return min(passing, key=lambda node: (self.terms(query, node).cost, node.id))


@dataclass
class Choice:
    node: Node
    explore: float = 0.0  # what makes its sum the least
    explored_us: float | None = None  # dearer than the least by so much
    all_had_one: bool = False
    put_off: bool = False  # a turn was due that could not be afforded
    random: tuple[int, int] = (0, 0)  # both generators afterwards


@dataclass
class Turns:
    """What is due to the nodes that a model's requests pass by."""

    requests: float = 0.0
    cost_us: float = 0.0
    had: set[int] = field(default_factory=set)


class SloCost(Policy):
    """Least cost of time, money and risk; nodes that get nothing have turns; alike ones share under stale signals."""

    def __init__(
        self,
        nodes: list[Node],
        curves: dict[tuple[str, int], Curve],
        seed: int = 0,
        *,
        price_us_per_usd: float = 1e8,
        risk: float = 1.0,
        explore: float = 0.01,
        picker: str = "least",
        temperature: float = 0.1,
        herd_margin: float = 0.25,
    ):
        super().__init__(nodes, curves, seed)
        self.weights = Weights(price_us_per_usd, risk)
        self.explore, self.picker, self.temperature, self.herd_margin = explore, picker, temperature, herd_margin
        self.by_cost = SplitMix64(mixed(seed) ^ mixed(~1))
        self.turns: dict[str, Turns] = {}

    def select(self, query: Query) -> int | None:
        choice = self.decide(query)
        if choice is None:
            return None
        self.random.state, self.by_cost.state = choice.random
        if self.picker == "least" and self.explore > 0.0:
            self.take_turn(query, choice)
        return choice.node.id

    def nudged(self, query: Query) -> tuple[int, float] | None:
        choice = self.decide(query)
        return None if choice is None or choice.explore == 0.0 else (choice.node.id, choice.explore)

    def decide(self, query: Query) -> Choice | None:
        passing = self.candidates(query)
        if not passing:
            return None
        costs = {node.id: self.terms(query, node).cost for node in passing}
        least = min(passing, key=lambda node: (costs[node.id], node.id))
        self.least_us = float(costs[least.id])
        two, by_cost = SplitMix64(self.random.state), SplitMix64(self.by_cost.state)
        choice = Choice(least)
        if self.picker == "softmax":
            choice.node = self.drawn_by_cost(passing, costs, by_cost)
        elif self.picker == "power_of_two":
            choice.node = min(two_of(passing, two), key=lambda node: (costs[node.id], node.id))
        elif (
            not self.give_turn(query, passing, costs, choice)
            and self.herd_margin
            and any(node.as_of_ns > -(2**63) for node in self.nodes)
        ):
            most = self.terms(query, least).standing * F(1.0 + self.herd_margin)
            alike = [node for node in passing if self.terms(query, node).standing <= most]
            choice.node = min(two_of(alike, two), key=lambda node: (costs[node.id], node.id))
        choice.random = (two.state, by_cost.state)
        if choice.node is not least:
            choice.explore = float(np.nextafter(costs[least.id], F(-np.inf))) - float(costs[choice.node.id])
        return choice

    def drawn_by_cost(self, passing: list[Node], costs: dict[int, F], random: SplitMix64) -> Node:
        scale = -1.0 / (self.temperature * max(self.least_us, 1e-3))
        weights = []
        for node in passing:
            x = (float(costs[node.id]) - self.least_us) * scale
            weights.append(exp(x) if x > -40.0 else 0.0)
        left, total = (random.next() >> 11) * 2.0**-53, 0.0
        for weight in weights:
            total += weight
        left *= total
        for node, weight in zip(passing, weights, strict=True):
            if weight == 0.0:
                continue
            last = node
            if left < weight:
                return node
            left -= weight
        return last

    def give_turn(self, query: Query, passing: list[Node], costs: dict[int, F], choice: Choice) -> bool:
        due = self.turns.setdefault(query.model, Turns())
        if due.requests < 1.0:
            return False
        waiting = [node for node in passing if node.id not in due.had]
        if not waiting:
            choice.all_had_one = True
            return False
        node = min(waiting, key=lambda node: (costs[node.id], node.id))
        dearer_us = float(costs[node.id]) - self.least_us
        if dearer_us > due.cost_us or self.endangers(query, node):
            choice.put_off = True
            return False
        choice.node, choice.explored_us = node, dearer_us
        return True

    def endangers(self, query: Query, node: Node) -> bool:
        """Whether it would be late if it took twice as long; ten times, where nothing is known of it."""
        if query.budget_ns is None:
            return False
        terms = self.terms(query, node)
        spare = F(1.0) if (query.model, node.id) in self.curves else F(9.0)
        return float(terms.upper + spare * (terms.wait + terms.service)) > query.budget_ns * 1e-3

    def take_turn(self, query: Query, choice: Choice) -> None:
        due = self.turns.setdefault(query.model, Turns())
        if choice.all_had_one:
            due.had.clear()
        due.had.add(choice.node.id)
        if choice.explored_us is not None:
            due.requests -= 1.0
            due.cost_us -= choice.explored_us
        if choice.put_off:
            due.requests = max(0.0, due.requests - 8.0 * self.explore)
        due.requests = min(due.requests + self.explore, 1.0)
        due.cost_us += self.explore * self.least_us
