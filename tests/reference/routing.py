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
    state: str = "up"
    models: set[str] = field(default_factory=set)
    signals: dict[str, float] = field(default_factory=dict)
    as_of_ns: int = -(2**63)
    requests_then: int = 0  # ours at the time stamp of the signalled in-flight figure
    reserved_then_ns: int = 0  # and of the signalled queue wait
    events: list[tuple[int, int, int]] = field(default_factory=list)  # (time, requests, nanoseconds) since the start
    name: str = ""
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

    def inflight(self) -> float:
        signalled = self.signals.get("inflight", self.signals.get("queue_depth", 0.0))
        return max(0.0, signalled + self.credit()[0] - self.requests_then)

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


@dataclass
class Terms:
    wait: F
    service: F
    load: F
    network: F
    cost: F
    late: bool


class SplitMix64:
    """Steele, Lea, Flood 2014."""

    def __init__(self, seed: int):
        self.state = seed

    def next(self) -> int:
        mask = 2**64 - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = (self.state ^ (self.state >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)


class Policy:
    """Filter, then choose. `curves` holds what was learned: (model, node id) -> Curve."""

    def __init__(self, nodes: list[Node], curves: dict[tuple[str, int], Curve], seed: int = 0):
        self.nodes = nodes
        self.curves = curves
        self.random = SplitMix64(seed)

    def terms(self, query: Query, node: Node) -> Terms:
        curve = self.curves.get((query.model, node.id), Curve())
        service = curve.service_us(query.work)
        wait = node.wait_us() + node.others_ahead() * service
        load = service * node.pressure()
        cost = ((wait + service) + load) + node.network_us()
        budget_us = F(np.inf) if query.budget_ns is None else F(query.budget_ns * 1e-3)
        return Terms(wait, service, load, node.network_us(), cost, bool(cost + service * curve.tail > budget_us))

    def candidates(self, query: Query) -> list[Node]:
        return [
            node
            for node in self.nodes
            if node.state == "up"
            and query.model in node.models
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
    """Least waiting + service + load + network."""

    def choose(self, query: Query, passing: list[Node]) -> Node:
        return min(passing, key=lambda node: (self.terms(query, node).cost, node.id))
