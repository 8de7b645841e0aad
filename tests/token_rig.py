"""A token model's memory as a dict, for tests of the batcher: it does what a step says, and knows what must lie where.

What a slot holds is the whole prefix that led to it, so a block that is shared, copied, swapped or used again by
mistake shows as soon as somebody reads it.
"""

from typing import Any

import numpy as np

import infcore

Prefix = tuple[int, ...]


class PagedMemory:
    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.device: dict[tuple[int, int], Prefix] = {}
        self.host: dict[tuple[int, int], Prefix] = {}
        self.tokens: dict[int, list[int]] = {}  # id -> prompt and what it emitted

    def move(self, pairs: Any, source: dict[tuple[int, int], Prefix], target: dict[tuple[int, int], Prefix]) -> None:
        for from_, to in pairs.tolist():
            for slot in range(self.block_size):
                target.pop((to, slot), None)
                if (from_, slot) in source:
                    target[to, slot] = source[from_, slot]

    def run(self, step: infcore.TokenStep) -> list[int]:
        """Does the step; returns what each row emits. Fails where a row would read what is not its own."""
        self.move(step.swap_outs, self.device, self.host)
        self.move(step.copies, self.device, self.device)
        self.move(step.swap_ins, self.host, self.device)
        tables = step.block_tables
        assert tables.dtype == np.int32
        writes: set[tuple[int, int]] = set()
        for row, table in zip(step.rows.tolist(), tables.tolist(), strict=True):
            id_, _, first, n_tokens, _, n_blocks, *_ = row
            assert -1 not in table[:n_blocks]
            assert set(table[n_blocks:]) <= {-1}
            for at in range(first):
                where = table[at // self.block_size], at % self.block_size
                assert self.device.get(where) == tuple(self.tokens[id_][: at + 1]), (row, at)
            writes |= {(table[at // self.block_size], at % self.block_size) for at in range(first, first + n_tokens)}
        assert len(writes) == step.rows["n_tokens"].sum()  # no slot twice
        emitted = []
        for row, table in zip(step.rows.tolist(), tables.tolist(), strict=True):
            id_, _, first, n_tokens, _, _, emits, _ = row
            for at in range(first, first + n_tokens):
                self.device[table[at // self.block_size], at % self.block_size] = tuple(self.tokens[id_][: at + 1])
            emitted.append((id_ * 7 + first) % 5 if emits else -1)
            if emits:
                assert first + n_tokens == len(self.tokens[id_])
                self.tokens[id_].append(emitted[-1])
        return emitted
