"""Continuous batching, readably: what does each step of a token model compute? The compiled batcher must do the same.

Times are int nanoseconds. Lists are sorted whenever an order is wanted.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from reference.kv_blocks import KVBlocks

NEVER_NS = 2**63 - 1


@dataclass(eq=False)
class Sequence:
    id: int
    arrival_ns: int
    deadline_ns: int
    tier: int
    n_prompt: int
    n_output_max: int
    names: list[int]  # of full blocks of known tokens
    tail: list[int]  # known tokens after them
    names_outputs: bool
    n_known: int = 0
    n_computed: int = 0
    aged: bool = False
    preempted: bool = False
    preempted_in: int = 0
    place: int = -1
    blocks: list[int] = field(default_factory=list)
    n_stored: int = 0
    host: list[int] = field(default_factory=list)
    in_step: bool = False
    cancelled: bool = False

    def rank(self) -> tuple[Any, ...]:
        """Of running ones: the first is served first, the last is pre-empted first."""
        return (0, 0, self.arrival_ns, self.id) if self.aged else (1, self.tier, self.arrival_ns, self.id)

    def turn(self) -> tuple[Any, ...]:
        """Of waiting ones."""
        if self.aged:
            return 0, 0, 0, 0, self.arrival_ns, self.id
        return 1, self.tier, not self.preempted, 0 if self.preempted else self.deadline_ns, self.arrival_ns, self.id

    def decodes(self) -> bool:
        return self.n_known > self.n_prompt and self.n_computed + 1 == self.n_known


@dataclass
class Step:
    rows: list[tuple[Any, ...]] = field(default_factory=list)  # id, first position, n_tokens, emits, decodes, blocks
    swap_outs: list[tuple[int, int]] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    swap_ins: list[tuple[int, int]] = field(default_factory=list)
    preempted: list[int] = field(default_factory=list)
    expired: list[int] = field(default_factory=list)
    n_matched_tokens: int = 0


class ContinuousBatcher:
    def __init__(
        self,
        kv: KVBlocks,
        *,
        token_budget: int,
        max_running: int,
        ageing_ns: int,
        chain: Callable[[int | None, list[int]], int],
        swap_s: Callable[[int], float],
        recompute_s: Callable[[int], float],
    ) -> None:
        self.kv = kv
        self.token_budget, self.ageing_ns = token_budget, ageing_ns
        self.chain, self.swap_s, self.recompute_s = chain, swap_s, recompute_s
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.free_places = list(reversed(range(max_running)))
        self.host_leaving: list[int] = []
        self.step_: Step = Step()
        self.n_steps = 0
        self.now_ns = -(2**63)
        self.budget_left = 0

    def add(self, sequence: Sequence) -> None:
        sequence.n_known = sequence.n_prompt
        self.waiting.append(sequence)

    def n_blocks_of(self, n_tokens: int) -> int:
        return -(-n_tokens // self.kv.block_size)

    def find(self, id_: int) -> Sequence | None:
        return next((s for s in [*self.waiting, *self.running] if s.id == id_ and not s.cancelled), None)

    def cancel(self, id_: int) -> bool:
        s = self.find(id_)
        if s is None:
            return False
        if s.in_step:
            s.cancelled = True
        elif s in self.waiting:
            self.leave(s)
        else:
            self.stop(s)
        return True

    def leave(self, s: Sequence) -> None:
        self.waiting.remove(s)
        self.kv.host_stack += reversed(s.host)

    def fork(self, id_: int, new_id: int) -> None:
        first = self.find(id_)
        assert first is not None
        s = Sequence(
            new_id, first.arrival_ns, first.deadline_ns, first.tier, first.n_prompt, first.n_output_max,
            list(first.names), list(first.tail), first.names_outputs, n_known=first.n_known, aged=first.aged,
        )  # fmt: skip
        if first in self.running and first.decodes() and self.free_places:
            s.place = self.free_places.pop()
            s.n_computed, s.n_stored, s.blocks = first.n_computed, first.n_stored, list(first.blocks)
            self.kv.share(s.blocks)
            self.running.append(s)
        else:
            s.preempted = first in self.running or first.preempted
            self.waiting.append(s)

    def stop(self, s: Sequence) -> None:
        self.running.remove(s)
        self.kv.free(s.blocks)
        s.blocks, s.n_stored = [], 0
        self.free_places.append(s.place)

    def step(self, now_ns: int) -> Step:
        self.step_ = Step()
        self.n_steps += 1
        self.kv.host_stack += reversed(self.host_leaving)
        self.host_leaving = []
        self.budget_left = self.token_budget
        self.pass_time(now_ns)
        self.make_way()
        self.run_decodes()
        self.run_prefills()
        self.let_in()
        return self.step_

    def pass_time(self, now_ns: int) -> None:
        self.now_ns = max(self.now_ns, now_ns)
        late = [s for s in self.waiting if s.deadline_ns <= self.now_ns]
        # Those that age first and expire then are told when both have happened, in the order of the last thing.
        for s in sorted(late, key=lambda s: (s.deadline_ns, s.id)):
            self.leave(s)
            self.step_.expired.append(s.id)
        for s in self.waiting:
            if min(s.arrival_ns + self.ageing_ns, NEVER_NS) <= self.now_ns and self.ageing_ns < NEVER_NS:
                s.aged = True

    def names_to_match(self, s: Sequence) -> list[int]:
        n_tokens = s.n_computed if s.host else s.n_known - 1
        return s.names[: n_tokens // self.kv.block_size]

    def make_way(self) -> None:
        n_tokens = 0
        while self.waiting and self.running and n_tokens < self.token_budget:
            s = min(self.waiting, key=Sequence.turn)
            last = max(self.running, key=Sequence.rank)
            if s.preempted_in == self.n_steps or last.aged or last.tier <= s.tier:
                return
            n_victims = self.n_victims_for(s)
            if n_victims is None:
                return
            for _ in range(n_victims):
                self.preempt(max(self.running, key=Sequence.rank))
            self.start(s)
            n_tokens += s.n_known - s.n_computed

    def n_victims_for(self, s: Sequence) -> int | None:
        found = self.kv.peek(self.names_to_match(s))
        by_rank = sorted(self.running, key=Sequence.rank, reverse=True)
        for n in range(len(by_rank) + 1):
            if any(v.aged or v.tier <= s.tier for v in by_rank[:n]):
                return None
            stays = {block for other in by_rank[n:] for block in other.blocks} | set(found)
            n_had = len(self.kv.uses) - len(stays)
            has_place = n > 0 or bool(self.free_places)
            if has_place and n_had >= self.n_blocks_of(s.n_known) - len(found) + len(by_rank) - n:
                return n
        return None

    def run_decodes(self) -> None:
        for s in sorted(self.running, key=Sequence.rank):
            if s not in self.running or not s.decodes() or self.budget_left == 0:
                continue
            if self.own_last_block(s):
                self.schedule(s, 1)

    def run_prefills(self) -> None:
        for s in sorted(self.running, key=Sequence.rank):
            if not s.decodes() and self.budget_left > 0:
                self.schedule(s, min(self.budget_left, s.n_known - s.n_computed))

    def let_in(self) -> None:
        while not self.step_.preempted and self.budget_left > 0 and self.waiting and self.free_places:
            s = min(self.waiting, key=Sequence.turn)
            found = self.kv.peek(self.names_to_match(s))
            n_unheld = sum(not self.kv.held(block) for block in found)
            if self.n_blocks_of(s.n_known) - len(found) + n_unheld + len(self.running) > self.kv.n_available():
                return
            self.start(s)
            self.schedule(s, min(self.budget_left, s.n_known - s.n_computed))

    def start(self, s: Sequence) -> None:
        self.waiting.remove(s)
        self.running.append(s)
        s.place = self.free_places.pop()
        found = self.kv.match(self.names_to_match(s))
        more = self.kv.alloc(self.n_blocks_of(s.n_known) - len(found))
        assert more is not None
        s.blocks, s.n_stored = found + more, len(found)
        if not s.host:
            s.n_computed = len(found) * self.kv.block_size
            self.step_.n_matched_tokens += s.n_computed
        self.step_.swap_ins += list(zip(s.host, s.blocks, strict=False))[len(found) :]
        self.host_leaving += s.host
        s.host = []

    def own_last_block(self, s: Sequence) -> bool:
        at = s.n_computed // self.kv.block_size
        while True:
            grows = at == len(s.blocks)
            if not grows and self.kv.uses[s.blocks[at]] == 1:
                return True
            got = self.kv.alloc(1)
            if got is not None:
                if grows:
                    s.blocks.append(got[0])
                else:
                    self.step_.copies.append((s.blocks[at], got[0]))
                    self.kv.free([s.blocks[at]])
                    s.blocks[at] = got[0]
                return True
            victim = max(self.running, key=Sequence.rank)
            self.preempt(victim)
            if victim is s:
                return False

    def preempt(self, s: Sequence) -> None:
        n_used = self.n_blocks_of(s.n_computed)
        cheaper = self.swap_s(n_used) < self.recompute_s(s.n_computed)
        if 0 < n_used <= len(self.kv.host_stack) and cheaper:
            s.host = [self.kv.host_stack.pop() for _ in range(n_used)]
            self.step_.swap_outs += list(zip(s.blocks, s.host, strict=False))
        else:
            s.n_computed = 0
        self.stop(s)
        s.preempted, s.preempted_in = True, self.n_steps
        self.step_.preempted.append(s.id)
        self.waiting.append(s)

    def schedule(self, s: Sequence, n_tokens: int) -> None:
        emits = s.n_computed + n_tokens == s.n_known and s.n_known - s.n_prompt < s.n_output_max
        self.step_.rows.append((s.id, s.n_computed, n_tokens, emits, s.decodes(), list(s.blocks), s.place))
        s.in_step = True
        self.budget_left -= n_tokens

    def advance(self, tokens: list[int] | None, ended: list[bool] | None) -> list[int]:
        """Which rows ended."""
        over = []
        for at, (id_, _, n_tokens, emits, *_) in enumerate(self.step_.rows):
            s = next(s for s in self.running if s.id == id_)
            s.in_step = False
            if s.cancelled:
                self.stop(s)
                continue
            s.n_computed += n_tokens
            if emits:
                self.note(s, None if tokens is None else tokens[at])
            while s.n_stored < min(s.n_computed // self.kv.block_size, len(s.names)):
                parent = s.blocks[s.n_stored - 1] if s.n_stored else None
                s.blocks[s.n_stored] = self.kv.store(s.blocks[s.n_stored], s.names[s.n_stored], parent)
                s.n_stored += 1
            done = s.n_computed >= s.n_prompt and s.n_known - s.n_prompt >= s.n_output_max
            if done or (ended is not None and ended[at]):
                over.append(at)
                self.stop(s)
        return over

    def note(self, s: Sequence, token: int | None) -> None:
        s.n_known += 1
        s.names_outputs = s.names_outputs and token is not None
        if s.names_outputs and token is not None:
            s.tail.append(token)
            if len(s.tail) == self.kv.block_size:
                s.names.append(self.chain(s.names[-1] if s.names else None, s.tail))
                s.tail = []
