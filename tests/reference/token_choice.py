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
        self.covariance = [[PRIOR_VARIANCE[i] if i == j else 0.0 for j in range(3)] for i in range(3)]

    def observe(self, n_tokens: float, n_beside: float, seconds: float) -> None:
        if not 0.0 < seconds < 1e5:
            return
        scale = 1.0 / max(seconds, 1e-4)
        x = [scale, n_tokens * scale, n_beside * scale]
        gain = [0.0, 0.0, 0.0]
        winds_up = any(self.covariance[i][i] > PRIOR_VARIANCE[i] * FORGETTING for i in range(3))
        kept = 1.0 if winds_up else FORGETTING
        denominator, error = kept, seconds * scale
        for i in range(3):
            for j in range(3):
                gain[i] += self.covariance[i][j] * x[j]
            denominator += x[i] * gain[i]
            error -= self.terms[i] * x[i]
        for i in range(3):
            self.terms[i] += gain[i] / denominator * error
            for j in range(3):
                self.covariance[i][j] = (self.covariance[i][j] - gain[i] * gain[j] / denominator) / kept

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
        return first.seconds(self.n_ahead(prompt.model, id) + own, n_beside) + (
            self.beside * n_beside * own * first.per_token_s
        )

    def choose(self, prompt: Prompt, free: Iterable[tuple[int, int]]) -> int:
        """`free`: nodes with a slot, and how many requests are there."""
        return min((self.cost_s(prompt, id, n_beside), id) for id, n_beside in free)[1]

    def send(self, now_ns: int, prompt: Prompt, id: int, n_beside: int) -> Share:
        own = self.n_new(prompt, id)
        ahead = float(np.float32(self.n_ahead(prompt.model, id) + own))
        share = Share(prompt.model, id, own, ahead, float(n_beside), now_ns)
        self.shares.append(share)
        node = self.nodes[id]
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
        first = self.classes[share.model, self.nodes[share.node].kind]
        first.observe(share.n_ahead, share.n_beside, (now_ns - share.sent_ns) * 1e-9)
        self.leave(share)

    def leave(self, share: Share) -> None:
        self.shares = [other for other in self.shares if other is not share]
