"""Paged KV blocks, readably: uses, names, leaves. The compiled KVBlocks must give the same blocks.

Everything that the core counts as it goes is found here by looking at all blocks.
"""

from collections.abc import Callable
from typing import Any, Protocol

from reference.eviction import Limits


class Policy(Protocol):
    def attach(self, view: Any, limits: Any) -> None: ...
    def on_insert(self, id_: int) -> None: ...
    def on_hit(self, ids: list[int]) -> None: ...
    def on_release(self, ids: list[int]) -> None: ...
    def on_evictable(self, id_: int) -> None: ...
    def on_held(self, id_: int) -> None: ...
    def on_remove(self, id_: int) -> None: ...
    def victim(self) -> int | None: ...


class KVBlocks:
    def __init__(self, n_blocks: int, block_size: int, policy: Any, n_host_blocks: int = 0) -> None:
        self.block_size = block_size
        self.policy: Policy = policy
        self.uses = [0] * n_blocks
        self.name: list[int | None] = [None] * n_blocks  # None: not cached
        self.parent: list[int | None] = [None] * n_blocks
        self.free_stack = list(reversed(range(n_blocks)))
        self.host_stack = list(reversed(range(n_host_blocks)))
        self.told: set[int] = set()  # what the policy knows to be evictable
        self.recompute_s: Callable[[int], float] = lambda n_tokens: 0.0
        policy.attach(self, Limits(n_entries_max=n_blocks, capacity_bytes=n_blocks))

    def key(self, block: int) -> int:
        name = self.name[block]
        assert name is not None
        return name

    def bytes(self, block: int) -> int:
        return 1

    def next_use(self, block: int) -> int | None:
        return None

    def cost_us(self, block: int) -> float:
        """Of its tokens, behind those of the blocks before it."""
        parent, first = self.parent[block], 0
        while parent is not None:
            parent, first = self.parent[parent], first + self.block_size
        cost_s = self.recompute_s(first + self.block_size) - self.recompute_s(first)
        return cost_s * 1e6 if cost_s > 0.0 else 1.0

    def children(self, block: int) -> list[int]:
        return [b for b, p in enumerate(self.parent) if p == block and self.name[b] is not None]

    def held(self, block: int) -> bool:
        return self.uses[block] > 0 or any(self.held(child) for child in self.children(block))

    def cached(self) -> list[int]:
        return [b for b, name in enumerate(self.name) if name is not None]

    def reclaimable(self) -> list[int]:
        return [b for b in self.cached() if not self.held(b)]

    def n_available(self) -> int:
        return len(self.free_stack) + len(self.reclaimable())

    def _tell(self) -> None:
        now = {b for b in self.reclaimable() if not self.children(b)}
        for block in sorted(self.told - now):
            self.policy.on_held(block)
        for block in sorted(now - self.told):
            self.policy.on_evictable(block)
        self.told = now

    def _evict(self) -> None:
        block = self.policy.victim()
        assert block is not None
        self.policy.on_remove(block)
        self.told.remove(block)
        self.name[block] = self.parent[block] = None
        self.free_stack.append(block)
        self._tell()

    def alloc(self, n: int) -> list[int] | None:
        if n > self.n_available():
            return None
        while len(self.free_stack) < n:
            self._evict()
        blocks = [self.free_stack.pop() for _ in range(n)]
        for block in blocks:
            self.uses[block] = 1
        return blocks

    def free(self, blocks: list[int]) -> None:
        run: list[int] = []
        for block in [*reversed(blocks), None]:  # runs of cached blocks, from the last
            if block is not None and self.name[block] is not None:
                run.insert(0, block)
            elif run:
                self.policy.on_release(run)
                run = []
        for block in reversed(blocks):
            self.uses[block] -= 1
            assert self.uses[block] >= 0
            if self.uses[block] == 0 and self.name[block] is None:
                self.free_stack.append(block)
            self._tell()  # one by one: some policies go by who was let go first

    def share(self, blocks: list[int]) -> None:
        for block in blocks:
            assert self.uses[block] > 0
            self.uses[block] += 1

    def peek(self, names: list[int]) -> list[int]:
        found = []
        for name in names:
            if name not in self.name:
                break
            found.append(self.name.index(name))
        return found

    def match(self, names: list[int]) -> list[int]:
        found = self.peek(names)
        for block in found:
            self.uses[block] += 1
        self._tell()
        if found:
            self.policy.on_hit(found)
        return found

    def store(self, block: int, name: int, parent: int | None) -> int:
        assert self.uses[block] > 0
        if self.name[block] is not None:
            assert self.name[block] == name
            return block
        if name in self.name:
            same = self.name.index(name)
            self.uses[same] += 1
            self.uses[block] -= 1
            if self.uses[block] == 0:
                self.free_stack.append(block)
            self._tell()
            self.policy.on_hit([same])
            return same
        self.name[block], self.parent[block] = name, parent
        self._tell()
        self.policy.on_insert(block)
        return block

    def drop_cached(self) -> int:
        n = len(self.reclaimable())
        for _ in range(n):
            self._evict()
        return n
