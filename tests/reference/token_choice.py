"""Where requests of token models go under slo_cost, readably: no hash tables, no search by halves. Slow.

To the free node of least cost: seconds until the first token, by what must be computed there before it, and what those
that run there lose. Sums are added up in the order of csrc/infcore/engine/token_choice.cpp, so that equal means equal
to the bit.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

BLOCKS_MAX, BLOCKS_UNKNOWN = 1 << 16, 1 << 14
FORGETTING = 0.99
PRIOR_VARIANCE = (0.025, 1e-8, 1e-5)
FACTOR_STEP, FACTOR_LEAST, FACTOR_MOST, FACTOR_TOLD = 0.05, 0.25, 16.0, 1.5
N_LEARNED = 32


@dataclass
class Prompt:
    model: int
    blocks: tuple[int, ...]
    block_size: int
    n_tokens: int


class FirstTokens:
    """Seconds until a first token, of the nodes of a class: recursive least squares on relative residuals."""

    def __init__(self) -> None:
        self.terms = [0.0, 1e-5, 0.0]
        self.n_observed = 0
        self.covariance = [[PRIOR_VARIANCE[i] if i == j else 0.0 for j in range(3)] for i in range(3)]

    def observe(self, n_tokens: float, n_beside: float, seconds: float) -> None:
        if not 0.0 < seconds < 1e5:
            return
        scale = 1.0 / max(seconds, 1e-4)
        x = [scale, n_tokens * scale, n_beside * scale]
        gain = [0.0, 0.0, 0.0]
        denominator, error = FORGETTING, seconds * scale
        for i in range(3):
            for j in range(3):
                gain[i] += self.covariance[i][j] * x[j]
            denominator += x[i] * gain[i]
            error -= self.terms[i] * x[i]
        error = min(max(error, -1.0), 1.0)
        for i in range(3):
            self.terms[i] += gain[i] / denominator * error
            for j in range(3):
                self.covariance[i][j] = (self.covariance[i][j] - gain[i] * gain[j] / denominator) / FORGETTING
            self.covariance[i][i] = min(self.covariance[i][i], PRIOR_VARIANCE[i])
        self.n_observed += 1

    @property
    def per_token_s(self) -> float:
        return max(self.terms[1], 1e-9)

    def seconds(self, n_tokens: float, n_beside: float) -> float:
        return max(self.terms[0], 0.0) + self.per_token_s * n_tokens + max(self.terms[2], 0.0) * n_beside


@dataclass
class Share:
    """What a request adds to what its node has to compute, until its first token."""

    model: int
    node: int
    n_tokens: int
    n_ahead: float
    n_beside: float
    sent_ns: int


@dataclass
class Node:
    kind: int
    n_blocks: int
    held: dict[int, OrderedDict[int, None]] = field(default_factory=dict)  # by model; the least recently used first
    factor: dict[int, float] = field(default_factory=dict)


class TokenChoice:
    def __init__(self, beside: float = 0.3) -> None:
        self.beside = beside
        self.nodes: dict[int, Node] = {}
        self.classes: dict[tuple[int, int], FirstTokens] = defaultdict(FirstTokens)  # by model and kind
        self.shares: list[Share] = []

    def add_node(self, id: int, kind: int, n_blocks: int) -> None:
        self.nodes[id] = Node(kind, min(n_blocks or BLOCKS_UNKNOWN, BLOCKS_MAX))

    def forget(self, id: int) -> None:
        for held in self.nodes[id].held.values():
            held.clear()

    def n_new(self, prompt: Prompt, id: int) -> int:
        """Tokens of the prompt that the node would have to compute: the last one in any case."""
        held, n = self.nodes[id].held.get(prompt.model, {}), 0
        while n < len(prompt.blocks) and prompt.blocks[n] in held:
            n += 1
        n_most = (prompt.n_tokens - 1) // prompt.block_size
        return prompt.n_tokens - min(n, n_most) * prompt.block_size

    def n_ahead(self, model: int, id: int) -> int:
        return sum(share.n_tokens for share in self.shares if (share.model, share.node) == (model, id))

    def cost_s(self, prompt: Prompt, id: int, n_beside: int) -> float:
        node = self.nodes[id]
        first = self.classes[prompt.model, node.kind]
        own = float(self.n_new(prompt, id))
        cost = first.seconds(self.n_ahead(prompt.model, id) + own, n_beside)
        cost = cost + self.beside * n_beside * own * first.per_token_s
        factor = node.factor.get(prompt.model, 1.0)
        return factor * cost if factor > FACTOR_TOLD or factor * FACTOR_TOLD < 1.0 else cost

    def choose(self, prompt: Prompt, free: Iterable[tuple[int, int]]) -> int:
        """`free`: nodes with a slot, and how many requests are there."""
        return min((self.cost_s(prompt, id, n_beside), id) for id, n_beside in free)[1]

    def send(self, now_ns: int, prompt: Prompt, id: int, n_beside: int) -> Share:
        own = self.n_new(prompt, id)
        ahead = float(np.float32(self.n_ahead(prompt.model, id) + own))
        share = Share(prompt.model, id, own, ahead, float(n_beside), now_ns)
        self.shares.append(share)
        node = self.nodes[id]
        node.factor.setdefault(prompt.model, 1.0)
        held = node.held.setdefault(prompt.model, OrderedDict())
        for name in reversed(prompt.blocks[: node.n_blocks]):
            held[name] = None
            held.move_to_end(name)
            if len(held) > node.n_blocks:
                held.popitem(last=False)
        return share

    def first_token(self, now_ns: int, share: Share) -> None:
        if share not in self.shares:
            return
        node = self.nodes[share.node]
        first = self.classes[share.model, node.kind]
        seconds = (now_ns - share.sent_ns) * 1e-9
        if first.n_observed >= N_LEARNED:
            ratio = seconds / max(first.seconds(share.n_ahead, share.n_beside), 1e-4)
            ratio = min(max(ratio, FACTOR_LEAST), FACTOR_MOST)
            node.factor[share.model] += FACTOR_STEP * (ratio - node.factor[share.model])
        first.observe(share.n_ahead, share.n_beside, seconds)
        self.leave(share)

    def leave(self, share: Share) -> None:
        self.shares = [other for other in self.shares if other is not share]
