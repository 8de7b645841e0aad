"""The fleet table, readably: who is there, what each holds and could load, who has how much in flight on it."""

import math
from dataclasses import dataclass, field

KEPT = 16  # changes of credit that can be told from those before a signal's time


@dataclass
class Size:
    """What it takes to load a version of a model, as add_model tells it."""

    weights_bytes: int
    load_s: float
    require: dict[str, str] = field(default_factory=dict)


@dataclass
class Node:
    name: str
    memory_bytes: int
    labels: dict[str, str]
    state: str = "up"
    held: set[tuple[str, int]] = field(default_factory=set)
    changes: list[tuple[str, int, int]] = field(default_factory=list)  # whose, when, requests
    inflight: float = 0.0  # as signalled
    requests_then: int = 0
    as_of_ns: int | None = None

    def load(self) -> float:
        return max(0.0, self.inflight + self.ours() - self.requests_then)

    def ours(self) -> int:
        return sum(requests for _, _, requests in self.changes)

    def signal(self, as_of_ns: int, inflight: float) -> bool:
        if self.as_of_ns is not None and as_of_ns < self.as_of_ns:
            return False
        self.as_of_ns, self.inflight = as_of_ns, inflight
        since = 0
        for process in {whose for whose, _, _ in self.changes}:
            newest = [change for change in self.changes if change[0] == process][-KEPT:]
            since += sum(requests for _, at_ns, requests in newest if at_ns > as_of_ns)
        self.requests_then = self.ours() - since
        return True


class Fleet:
    def __init__(self, max_nodes: int) -> None:
        self.nodes: list[Node | None] = [None] * max_nodes
        self.leaving: dict[int, Node] = {}  # removed, with credit on them
        self.sizes: dict[tuple[str, int], Size] = {}
        self.wanted_ns: dict[str, int] = {}
        self.named: list[str] = []  # models and versions, in the order of their ids

    def add(self, node: Node) -> int | None:
        for i, there in enumerate(self.nodes):
            if there is None and not (i in self.leaving and self.leaving[i].ours() != 0):
                self.nodes[i] = node
                self.leaving.pop(i, None)
                return i
        return None

    def remove(self, i: int) -> None:
        node = self.nodes[i]
        assert node is not None
        self.leaving[i], self.nodes[i] = node, None

    def at(self, i: int) -> Node:
        """The node of that id, or the one that it was of, while its credit is out."""
        return self.nodes[i] or self.leaving[i]

    def know(self, model: str, version: int) -> None:
        for key in (model, f"{model}:{version}"):
            if key not in self.named:
                self.named.append(key)

    def load_cost_s(self, i: int, model: str) -> float:
        node = self.nodes[i]
        if node is None:
            return math.inf
        if any(name == model for name, _ in node.held):
            return 0.0
        versions = [key for key in self.sizes if key[0] == model]
        return min((self.load_cost_of(node, self.sizes[key]) for key in versions), default=math.inf)

    def load_cost_of(self, node: Node, size: Size) -> float:
        if size.weights_bytes > node.memory_bytes or not size.require.items() <= node.labels.items():
            return math.inf
        held = [key for key in node.held if key in self.sizes and self.sizes[key].weights_bytes > 0]
        held.sort(key=lambda key: (self.wanted_ns.get(key[0], 0), self.named.index(f"{key[0]}:{key[1]}")))
        free = node.memory_bytes - sum(self.sizes[key].weights_bytes for key in held)
        cost_s = size.load_s
        for key in held:
            if free >= size.weights_bytes:
                break
            free += self.sizes[key].weights_bytes
            cost_s += self.sizes[key].load_s
        return cost_s
