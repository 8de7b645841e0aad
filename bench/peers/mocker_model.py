"""Dynamo's mocker told again in plain Python, to see whether it is understood: mocker.py runs both on one trace.

A worker goes step by step. A step has a budget of tokens: running sequences come first, in the order in which they were
let in, one token each, or what is left of their prompt; then those that wait, first come first served. A prompt's full
blocks can be matched as soon as they are scheduled, by others in the same step, too; at least its last block is
computed. Time of a step: a polynomial of all prompt tokens in it, plus one of the context of those that decode; who
gets its first token in this step is not among these. Blocks are never short here: there is no eviction (it asserts so).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

PREFILL_MS = (16.50142, 0.01518344, 4.209989e-7)
DECODE_MS = (5.74, 54.01, -25.74)
BLOCK_SIZE, N_BLOCKS, TOKEN_BUDGET, RUNNING_MAX = 64, 16_384, 8_192, 256
N_TOKENS = N_BLOCKS * BLOCK_SIZE


@dataclass(frozen=True)
class Request:
    arrival_ms: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]  # names of the prompt's full blocks, as long as BLOCK_SIZE


@dataclass
class _Sequence:
    index: int
    request: Request
    computed: int
    reused: int
    emitted: int = 0
    first_token_ms: float = 0.0


@dataclass(frozen=True)
class Answer:
    ttft_ms: float
    e2e_ms: float
    reused_tokens: int


def polynomial(c: Sequence[float], x: float) -> float:
    return c[0] + (c[1] + c[2] * x) * x


def _to_ns(ms: float) -> float:
    return round(ms * 1e6) / 1e6


def step_ms(chunks: Sequence[tuple[int, int]], n_context: int) -> float:
    """chunks: of each prompt in the step the tokens before and after it. The means are whole numbers, as theirs are."""
    n = len(chunks)
    n_new = n * (sum(after for _, after in chunks) // n - sum(before for before, _ in chunks) // n) if n else 0
    prefill = _to_ns(polynomial(PREFILL_MS, n_new)) if n_new else 0.0
    return prefill + (_to_ns(max(1.0, polynomial(DECODE_MS, min(1.0, n_context / N_TOKENS)))) if n_context else 0.0)


class _Worker:
    def __init__(self, requests: Sequence[tuple[int, Request]]):
        self.coming = deque(sorted(requests, key=lambda each: each[1].arrival_ms))
        self.waiting: deque[tuple[int, Request]] = deque()
        self.running: list[_Sequence] = []
        self.cached: set[int] = set()
        self.blocks_used = 0
        self.now_ms = 0.0

    def _admit(self, index: int, request: Request, budget: int) -> _Sequence:
        n_matched = 0
        while n_matched < (request.prompt_tokens - 1) // BLOCK_SIZE and request.blocks[n_matched] in self.cached:
            n_matched += 1
        whole = -(-(request.prompt_tokens + request.output_tokens) // BLOCK_SIZE)
        self.blocks_used += whole - n_matched
        assert self.blocks_used <= N_BLOCKS, "blocks run out: eviction is not modelled"
        reused = n_matched * BLOCK_SIZE
        return _Sequence(index, request, min(request.prompt_tokens, reused + budget), reused)

    def _schedule(self) -> float:
        """Takes what the step runs, and returns how long it takes."""
        budget, chunks, n_context = TOKEN_BUDGET, [], 0
        for one in self.running:
            if budget == 0:
                break
            left = one.request.prompt_tokens - one.computed
            if left > 0:
                n = min(budget, left)
                chunks.append((one.computed, one.computed + n))
            else:
                n = 1
                n_context += one.request.prompt_tokens + one.emitted
            one.computed += n
            budget -= n
            self.cached.update(one.request.blocks[: one.computed // BLOCK_SIZE] if left > 0 else ())
        while self.waiting and budget > 0 and len(self.running) < RUNNING_MAX:
            one = self._admit(*self.waiting.popleft(), budget)
            chunks.append((one.reused, one.computed))
            budget -= one.computed - one.reused
            self.cached.update(one.request.blocks[: one.computed // BLOCK_SIZE])
            self.running.append(one)
        return step_ms(chunks, n_context)

    def run(self) -> dict[int, Answer]:
        answers: dict[int, Answer] = {}
        while self.coming or self.waiting or self.running:
            if not self.waiting and not self.running:
                self.now_ms = max(self.now_ms, self.coming[0][1].arrival_ms)
            while self.coming and self.coming[0][1].arrival_ms <= self.now_ms:
                self.waiting.append(self.coming.popleft())
            self.now_ms += self._schedule()
            for one in self.running:
                if one.computed < one.request.prompt_tokens + one.emitted:
                    continue
                one.emitted += 1
                one.first_token_ms = one.first_token_ms or self.now_ms
                if one.emitted == one.request.output_tokens:
                    came = one.request.arrival_ms
                    answers[one.index] = Answer(one.first_token_ms - came, self.now_ms - came, one.reused)
            self.running = [one for one in self.running if one.index not in answers]
        return answers


def replay(requests: Sequence[Request], n_workers: int) -> list[Answer]:
    """Requests to workers in turn; an answer for each, in order."""
    answers: dict[int, Answer] = {}
    for worker in range(n_workers):
        answers |= _Worker([(i, requests[i]) for i in range(worker, len(requests), n_workers)]).run()
    return [answers[i] for i in range(len(requests))]
