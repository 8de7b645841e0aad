"""Two managers of KV blocks, asked for the same four things: nanoseconds of CPU a block.

A prompt has 2,048 blocks of 16 tokens; blocks are taken 64 at a time. Each side gets the input it likes best: vLLM a
list of tokens (and SHA-256, its default, or xxHash, its fastest), infcore a NumPy buffer (or the same list).
"""

import time
from collections.abc import Callable

import numpy as np

BLOCK_SIZE, N_PROMPT, N_TAKEN, N_POOL = 16, 2048, 64, 8192
REPEATS = 5  # of what is asked of a whole prompt
TOKENS = np.random.default_rng(7).integers(0, 128_000, (N_POOL + 1) * BLOCK_SIZE, dtype=np.int32)
PROMPT = TOKENS[: N_PROMPT * BLOCK_SIZE]
Figures = dict[str, float]
FROM_LIST = "chained hash: its fastest / from a list"


def _ns(run: Callable[[], object], n_blocks: int) -> float:
    start = time.process_time_ns()
    run()
    return (time.process_time_ns() - start) / n_blocks


class Vllm:
    def __init__(self, folder) -> None:
        import vllm_pool

        pool, self.kv, self.hashing = vllm_pool.load(folder)
        self.kv.init_none_hash(self.hashing.sha256)
        self.request = vllm_pool.request
        self.make = lambda: pool.BlockPool(N_POOL + 1, True, BLOCK_SIZE)  # one is its null block

    def hashed(self, tokens: list[int], function):
        request = self.request(tokens)
        request.block_hashes = self.kv.get_request_block_hasher(BLOCK_SIZE, function)(request)
        return request

    def cached(self, pool, request) -> None:
        blocks = pool.get_new_blocks(len(request.block_hashes))
        pool.cache_full_blocks(request, blocks, 0, len(blocks), BLOCK_SIZE, 0)
        pool.free_blocks(reversed(blocks))

    def figures(self, loops: int) -> Figures:
        pool, found = self.make(), {}

        def alloc_free():
            for _ in range(loops):
                pool.free_blocks(reversed(pool.get_new_blocks(N_TAKEN)))

        def lookup():
            hit = []
            for block_hash in request.block_hashes:
                blocks = pool.get_cached_block(block_hash, [0])
                if not blocks:
                    break
                hit += blocks
            pool.touch(hit)
            return hit

        found["alloc + free"] = _ns(alloc_free, loops * N_TAKEN)
        prompt = PROMPT.tolist()
        for name, function in (("chained hash", self.hashing.sha256), (FROM_LIST, self.hashing.xxhash)):
            found[name] = _ns(lambda f=function: [self.hashed(prompt, f) for _ in range(REPEATS)], REPEATS * N_PROMPT)
        request = self.hashed(prompt, self.hashing.xxhash)
        self.cached(pool, request)
        hit = []
        found["lookup"] = _ns(lambda: [hit.append(lookup()) for _ in range(REPEATS)], REPEATS * N_PROMPT)
        assert all(len({block.block_id for block in each}) == N_PROMPT for each in hit)
        full = self.make()
        self.cached(full, self.hashed(TOKENS[: N_POOL * BLOCK_SIZE].tolist(), self.hashing.xxhash))
        taken = []
        found["eviction"] = _ns(
            lambda: [taken.extend(full.get_new_blocks(N_TAKEN)) for _ in range(loops)], loops * N_TAKEN
        )
        assert len({block.block_id for block in taken}) == loops * N_TAKEN
        assert all(block.block_hash is None for block in taken)
        return found


class Infcore:
    def figures(self, loops: int) -> Figures:
        import infcore

        pool, found = infcore.KVBlocks(N_POOL, BLOCK_SIZE), {}

        def alloc_free():
            for _ in range(loops):
                pool.free(pool.alloc(N_TAKEN))

        def cached(pool, hashes):
            blocks = pool.alloc(len(hashes))
            pool.store(blocks, hashes)
            pool.free(blocks)

        found["alloc + free"] = _ns(alloc_free, loops * N_TAKEN)
        prompt = PROMPT.tolist()
        hashes = []
        for name, tokens in (("chained hash", PROMPT), (FROM_LIST, prompt)):
            found[name] = _ns(
                lambda t=tokens: [hashes.append(infcore.block_hashes(t, BLOCK_SIZE)) for _ in range(REPEATS)],
                REPEATS * N_PROMPT,
            )
        assert len(hashes[0]) == N_PROMPT and (hashes[0] == hashes[-1]).all()
        cached(pool, hashes[0])
        hit = []
        found["lookup"] = _ns(lambda: [hit.append(pool.match(hashes[0])) for _ in range(REPEATS)], REPEATS * N_PROMPT)
        assert all(len(set(each.tolist())) == N_PROMPT for each in hit)
        full = infcore.KVBlocks(N_POOL, BLOCK_SIZE)
        cached(full, infcore.block_hashes(TOKENS[: N_POOL * BLOCK_SIZE], BLOCK_SIZE))
        taken = []
        found["eviction"] = _ns(lambda: taken.extend(full.alloc(N_TAKEN) for _ in range(loops)), loops * N_TAKEN)
        assert len(set(np.concatenate(taken).tolist())) == loops * N_TAKEN == full.n_evicted
        return found
