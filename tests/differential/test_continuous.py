"""The compiled batcher against its plain model, decision by decision, on random schedules, over memory that tells.

Each schedule draws its own sizes, so that places, blocks, budget and host blocks run out in turn.
"""

import random
from collections import Counter

import numpy as np
import pytest
from paged_memory import PagedMemory
from reference import continuous, kv_blocks
from reference.eviction_models import model_of

import infcore
from infcore.continuous import eviction_policies

N_SCHEDULES = 60
N_CALLS = 50


def chain_of(tokens: list[int], block_size: int) -> list[int]:
    return [int(name) for name in infcore.block_hashes(tokens, block_size)]


class Schedule:
    """One batcher, its model, and the memory of a device; every call goes to all three."""

    def __init__(self, seed: int, policy: str) -> None:
        draw = self.draw = random.Random(seed)
        self.block_size = draw.choice([1, 2, 3, 4])
        n_blocks, n_host = draw.randint(3, 11), draw.choice([0, 3, 12, 12])
        swap_block_s = draw.choice([0.1, 0.1, 0.45, 9.0]) * self.block_size
        per_token2_s = draw.choice([0.0, 0.125])
        budget, max_running = draw.choice([1, 2, 5, 64]), draw.randint(1, 5)
        ageing_s = draw.choice([None, 3.0, 20.0])
        self.kv = infcore.KVBlocks(n_blocks, self.block_size, n_host_blocks=n_host, policy=policy)
        self.batcher = infcore.ContinuousBatcher(
            self.kv,
            token_budget=budget,
            max_running=max_running,
            max_sequences=40,
            ageing_s=ageing_s,
            curve=infcore.TokenCurve(
                per_prefill_token_s=1.0, per_prefill_token2_s=per_token2_s, swap_block_s=swap_block_s
            ),
            clock=infcore.ManualClock(),
        )
        self.model_kv = kv_blocks.KVBlocks(n_blocks, self.block_size, model_of(policy), n_host)
        self.model = continuous.ContinuousBatcher(
            self.model_kv,
            token_budget=budget,
            max_running=max_running,
            ageing_ns=continuous.NEVER_NS if ageing_s is None else int(ageing_s * 1e9),
            chain=self.chain,
            swap_s=lambda n: 2.0 * swap_block_s * n,
            recompute_s=lambda n: n + per_token2_s * n * n,
        )
        self.model_kv.recompute_s = self.model.recompute_s
        self.memory = PagedMemory(self.block_size)
        self.names_of_prefix: dict[int | None, list[int]] = {None: []}  # name -> the tokens that it names
        self.prefixes = [[draw.randrange(5) for _ in range(20)] for _ in range(2)]
        self.ended: Counter[int] = Counter()
        self.added: set[int] = set()
        self.now_s = 0.0

    def chain(self, before: int | None, tokens: list[int]) -> int:
        """The next name, made from scratch: of all tokens so far."""
        all_tokens = self.names_of_prefix[before] + tokens
        name = chain_of(all_tokens, self.block_size)[-1]
        self.names_of_prefix[name] = all_tokens
        return name

    def add(self) -> None:
        draw = self.draw
        n_prompt = draw.randint(1, 12)
        n_shared = draw.randint(0, n_prompt)
        prompt = draw.choice(self.prefixes)[:n_shared] + [draw.randrange(5) for _ in range(n_prompt - n_shared)]
        n_output_max, tier = draw.choice([0, 1, 3, 9, 20]), draw.choice([0, 1, 1, 2])
        deadline_s, arrival_s = draw.choice([None, None, 0.0, 5.0, 30.0]), self.now_s - draw.choice([0.0, 0.0, 2.0])
        named = draw.random() < 0.8
        try:
            id_ = self.batcher.add(
                np.array(prompt, draw.choice([np.int32, np.int64])) if named else n_prompt,
                n_output_max,
                cookie=len(self.added),
                tier=tier,
                deadline_s=deadline_s,
                arrival_s=arrival_s,
                now_s=self.now_s,
            )
        except infcore.InvalidArgument:
            assert -(-(n_prompt + max(n_output_max - 1, 0)) // self.block_size) > self.kv.n_blocks
            return
        except infcore.QueueFull:
            assert self.batcher.n_waiting + self.batcher.n_running == 40
            return
        self.added.add(id_)
        self.memory.tokens[id_] = list(prompt) if named else [-id_ * 100 - i for i in range(n_prompt)]
        names = chain_of(prompt, self.block_size) if named else []
        for i, name in enumerate(names):
            self.names_of_prefix[name] = prompt[: (i + 1) * self.block_size]
        sequence = continuous.Sequence(
            id_,
            int(arrival_s * 1e9),
            continuous.NEVER_NS if deadline_s is None else int((self.now_s + deadline_s) * 1e9),
            tier,
            n_prompt,
            n_output_max,
            names,
            prompt[len(names) * self.block_size :] if named else [],
            named and n_output_max > 0,
        )
        self.model.add(sequence)

    def cancel(self) -> None:
        if not self.added:
            return
        id_ = self.draw.choice(sorted(self.added))
        was_there = self.batcher.cancel(id_)
        assert was_there == self.model.cancel(id_)
        assert was_there == (self.ended[id_] == 0)
        self.ended[id_] += was_there

    def fork(self) -> None:
        alive = sorted(id_ for id_ in self.added if self.ended[id_] == 0)
        if not alive or len(alive) == 40:
            return
        id_ = self.draw.choice(alive)
        fork = self.batcher.fork(id_, cookie=99)
        self.model.fork(id_, fork)
        self.added.add(fork)
        self.memory.tokens[fork] = list(self.memory.tokens[id_])

    def step(self) -> None:
        self.now_s = max(0.0, self.now_s + self.draw.choice([0.0, 0.5, 0.5, 1.0, 4.0, -3.0]))
        step, wanted = self.batcher.step(now_s=self.now_s), self.model.step(int(self.now_s * 1e9))
        tables = step.block_tables.tolist()
        rows = [
            (id_, first, n, emits, decodes, table[:n_blocks], place)
            for (id_, _, first, n, place, n_blocks, emits, decodes), table in zip(
                step.rows.tolist(), tables, strict=True
            )
        ]
        assert rows == wanted.rows
        for name in ("swap_outs", "copies", "swap_ins"):
            assert [tuple(pair) for pair in getattr(step, name).tolist()] == getattr(wanted, name), name
        assert (step.preempted.tolist(), step.expired.tolist()) == (wanted.preempted, wanted.expired)
        assert step.n_matched_tokens == wanted.n_matched_tokens
        self.ended.update(wanted.expired)
        decoding = [row for row in wanted.rows if row[4]]
        assert step.n_decode_rows == len(decoding)
        assert step.n_context_tokens == sum(first + 1 for _, first, *_ in decoding)
        assert step.n_prefill_tokens == sum(row[2] for row in wanted.rows) - len(decoding)
        assert step.n_prefill_rows == len(wanted.rows) - len(decoding)
        assert rows or not (self.model.waiting or self.model.running)  # with work there is progress
        self.check()
        emitted = self.memory.run(step)
        if rows and self.draw.random() < 0.2:
            self.cancel()
        tell, stop = self.draw.random() < 0.9, self.draw.random() < 0.3
        ended = [stop and self.draw.random() < 0.5 for _ in rows]
        over = self.batcher.advance(
            tokens=np.array(emitted, np.int64) if tell else None, ended=np.array(ended, bool) if stop else None
        )
        assert over.tolist() == self.model.advance(emitted if tell else None, ended)
        self.ended.update(int(step.rows["id"][at]) for at in over)
        self.check()

    def check(self) -> None:
        """Blocks: each use is somebody's, and nothing else is used. Sequences: each is somewhere, or has ended once."""
        uses = Counter(block for s in self.model.running for block in s.blocks)
        assert [self.kv.n_uses(block) for block in range(self.kv.n_blocks)] == self.model_kv.uses
        assert all(self.model_kv.uses[block] == uses[block] for block in range(self.kv.n_blocks))
        assert self.kv.n_available == self.model_kv.n_available() == self.kv.n_blocks - len(uses)
        assert (self.kv.n_free, self.kv.n_cached) == (len(self.model_kv.free_stack), len(self.model_kv.cached()))
        n_host = sum(len(s.host) for s in self.model.waiting) + len(self.model.host_leaving)
        assert self.kv.n_host_free == len(self.model_kv.host_stack) == self.kv.n_host_blocks - n_host
        assert (self.batcher.n_running, self.batcher.n_waiting) == (len(self.model.running), len(self.model.waiting))
        alive = {s.id for s in [*self.model.waiting, *self.model.running] if not s.cancelled}
        assert alive == {id_ for id_ in self.added if self.ended[id_] == 0}
        assert max(self.ended.values(), default=0) <= 1

    def run(self) -> None:
        calls = [self.add] * 4 + [self.step] * 8 + [self.cancel, self.fork]
        for _ in range(N_CALLS):
            self.draw.choice(calls)()
        for _ in range(3000):
            if self.batcher.n_running + self.batcher.n_waiting == 0:
                break
            self.step()
        assert self.batcher.n_running + self.batcher.n_waiting == 0  # whatever came before, all end
        self.step()
        assert self.kv.n_available == self.kv.n_blocks
        assert self.kv.n_host_free == self.kv.n_host_blocks


@pytest.mark.parametrize("policy", eviction_policies())
def test_decides_as_the_model(policy: str) -> None:
    reached: Counter[str] = Counter()
    for seed in range(N_SCHEDULES):
        schedule = Schedule(seed, policy)
        try:
            schedule.run()
        except BaseException as failed:
            failed.add_note(f"seed {seed}, policy {policy}")
            raise
        reached["preempted"] += schedule.batcher.n_preempted > 0
        reached["swapped out"] += schedule.batcher.n_swapped_out > 0
        reached["evicted"] += schedule.kv.n_evicted > 0
    assert min(reached[what] for what in ("preempted", "swapped out", "evicted")) > N_SCHEDULES // 12, reached
