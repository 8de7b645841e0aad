"""A token node in plain Python: continuous batching with room for everybody, prefixes found again block by block.

What csrc/infcore/sim/token_node.cpp and the batcher in it have to come to where blocks never run out: nobody is
pre-empted and nothing is evicted. Times are whole nanoseconds, cut off as the core does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Curve = Mapping[str, float]


@dataclass
class Request:
    """content[i] stands for token i of the prompt: equal beginnings are equal prompts up to there."""

    at_ns: int
    content: Sequence[object]
    output: int
    computed: int = 0
    tokens: int = 0
    cached: int = 0
    token_ns: list[int] = field(default_factory=list)

    @property
    def decodes(self) -> bool:
        """Its prompt is computed: it gets a token with each step."""
        return self.tokens > 0


def step_s(curve: Curve, prefill: int, decoding: int, context: int) -> float:
    """Seconds of a step of `prefill` prompt tokens and `decoding` sequences with `context` tokens together."""
    c = {"base_s": 0.0, "prefill_base_s": 0.0, "per_prefill_token_s": 0.0, "per_prefill_token2_s": 0.0} | dict(curve)
    c = {"decode_base_s": 0.0, "per_decode_s": 0.0, "per_context_token_s": 0.0, "per_context_token2_s": 0.0} | c
    seconds = c["base_s"]
    if prefill:
        seconds += c["prefill_base_s"] + (c["per_prefill_token_s"] * prefill + c["per_prefill_token2_s"] * prefill**2)
    if decoding:
        seconds += c["decode_base_s"] + c["per_decode_s"] * decoding
        seconds += c["per_context_token_s"] * context + c["per_context_token2_s"] * context**2
    return seconds


def _chains(requests: Sequence[Request], block_size: int) -> dict[int, list[int]]:
    """For each request the names of its prompt's full blocks: equal where everything up to their end is equal."""
    known: dict[tuple[int, tuple[object, ...]], int] = {}
    chains: dict[int, list[int]] = {}
    for request in requests:
        name = 0
        chain = chains[id(request)] = []
        for at in range(0, len(request.content) - block_size + 1, block_size):
            name = known.setdefault((name, tuple(request.content[at : at + block_size])), len(known) + 1)
            chain.append(name)
    return chains


def run(requests: Sequence[Request], curve: Curve, *, block_size: int, token_budget: int, max_running: int) -> None:
    """Run them all; each request then has the times of its tokens, and how much of its prompt was found."""
    coming = sorted(requests, key=lambda request: request.at_ns)
    waiting: list[Request] = []
    running: list[Request] = []
    chains = _chains(requests, block_size)
    cache: set[int] = set()
    now_ns = 0
    while coming or waiting or running:
        if not waiting and not running:
            now_ns = max(now_ns, coming[0].at_ns)
        while coming and coming[0].at_ns <= now_ns:
            waiting.append(coming.pop(0))
        parts: list[tuple[Request, int]] = []
        left = token_budget
        for request in running:
            if request.decodes and left:
                parts.append((request, 1))
                left -= 1
        for request in running:
            if not request.decodes and left:
                parts.append((request, min(left, len(request.content) - request.computed)))
                left -= parts[-1][1]
        while waiting and left and len(running) < max_running:
            request = waiting.pop(0)
            for i, name in enumerate(chains[id(request)], 1):
                if name not in cache or i * block_size == len(request.content):
                    break  # at least one token is left to compute, since its output is wanted
                request.computed = i * block_size
            request.cached = request.computed
            running.append(request)
            parts.append((request, min(left, len(request.content) - request.computed)))
            left -= parts[-1][1]
        decoding = [request for request, _ in parts if request.decodes]
        context = sum(request.computed + 1 for request in decoding)
        prefill = sum(n for request, n in parts if not request.decodes)
        now_ns += max(1, int(step_s(curve, prefill, len(decoding), context) * 1e9))
        for request, n in parts:
            request.computed += n
            cache.update(chains[id(request)][: request.computed // block_size])
            if request.computed >= len(request.content):
                request.tokens += 1
                request.token_ns.append(now_ns)
        running = [request for request in running if request.tokens < request.output]
