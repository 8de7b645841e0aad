"""Paged KV blocks, names of prefixes, and a step of continuous batching, from Python, beside what they replace.

Each row's nanoseconds a block, a token or a step are in its extra_info, and printed with -s. By hand: a list of free
ids and a dict of names, as a small engine in Python has them. No row asserts a time.
"""

import numpy as np
import pytest

import infcore

N_TOKENS = 32_768
CHAIN = 2_048
N_CHAINS = 24


def told(benchmark, what, n):
    """Medians of this run, by unit; with --benchmark-disable there are none."""
    if benchmark.stats is not None:
        benchmark.extra_info[what] = benchmark.stats["median"] / n * 1e9
        print(f"\n{benchmark.name}: {benchmark.extra_info[what]:.2f} {what}")


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(1).integers(0, 150_000, N_TOKENS, dtype=np.int32)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("block_size", [16, 64])
def test_kv_hash(benchmark, tokens, block_size, dtype):
    benchmark.group = "names of a prompt's blocks"
    row = tokens.astype(dtype)
    names = benchmark(infcore.block_hashes, row, block_size)
    assert names[-1] == infcore.block_hashes(tokens, block_size)[-1]
    told(benchmark, "ns a token", N_TOKENS)


def test_kv_hash_by_hand(benchmark, tokens):
    benchmark.group = "names of a prompt's blocks"
    few = tokens[:1024].tolist()

    def chained():
        names, before = [], None
        for at in range(0, len(few), 16):
            before = hash((before, *few[at : at + 16]))
            names.append(before)
        return names

    assert len(benchmark(chained)) == 64
    told(benchmark, "ns a token", len(few))


@pytest.mark.parametrize("n", [1, 16, 128])
def test_kv_alloc_and_free(benchmark, n):
    benchmark.group = f"alloc and free {n}"
    kv = infcore.KVBlocks(65_536, 16)
    benchmark(lambda: kv.free(kv.alloc(n)))
    assert kv.n_free == 65_536
    told(benchmark, "ns a block", n)


@pytest.mark.parametrize("n", [1, 16, 128])
def test_kv_alloc_and_free_by_hand(benchmark, n):
    benchmark.group = f"alloc and free {n}"
    free, uses = list(range(65_536)), [0] * 65_536

    def alloc_and_free():
        blocks = [free.pop() for _ in range(n)]
        for block in blocks:
            uses[block] += 1
        for block in blocks:
            uses[block] -= 1
            if uses[block] == 0:
                free.append(block)

    benchmark(alloc_and_free)
    assert len(free) == 65_536
    told(benchmark, "ns a block", n)


def full_cache():
    kv = infcore.KVBlocks(CHAIN * N_CHAINS, 16)
    chains = np.random.default_rng(2).integers(0, 2**63, (N_CHAINS, CHAIN), dtype=np.uint64)
    for names in chains:
        kv.free(kv.store(kv.alloc(CHAIN), names))
    return kv, list(chains)


@pytest.mark.parametrize("n_used", [1, N_CHAINS], ids=["warm", "cold"])
def test_kv_match(benchmark, n_used):
    benchmark.group = f"find {CHAIN} blocks and use them"
    kv, chains = full_cache()
    turn = []

    def next_chain():
        if turn:
            kv.free(found[-1])
        turn.append(len(turn))
        return (chains[turn[-1] % n_used],), {}

    found = []
    benchmark.pedantic(lambda names: found.append(kv.match(names)), setup=next_chain, rounds=200)
    assert len(found[-1]) == CHAIN
    told(benchmark, "ns a chain", 1)


def test_kv_match_by_hand(benchmark):
    benchmark.group = f"find {CHAIN} blocks and use them"
    names = np.random.default_rng(2).integers(0, 2**63, CHAIN, dtype=np.uint64).tolist()
    cached, uses = dict(zip(names, range(CHAIN), strict=True)), [0] * CHAIN

    def match():
        found = []
        for name in names:
            block = cached.get(name)
            if block is None:
                break
            uses[block] += 1
            found.append(block)
        return found

    assert len(benchmark(match)) == CHAIN
    told(benchmark, "ns a chain", 1)


def test_kv_evict(benchmark):
    benchmark.group = "alloc where every block must be evicted first"
    kv, chains = full_cache()

    def refill():
        if kv.n_free:
            kv.free(kv.store(kv.alloc(1024), refill.names))
        refill.names = refill.names + 1
        return (), {}

    refill.names = chains[0][:1024]

    def evict():
        blocks = kv.alloc(1024)
        kv.free(blocks)
        return blocks

    n_evicted = kv.n_evicted
    assert len(benchmark.pedantic(evict, setup=refill, rounds=20)) == 1024
    assert kv.n_evicted - n_evicted >= 1024
    told(benchmark, "ns a block", 1024)


def busy(n_waiting, max_running=256, **options):
    """A batcher in which 256 sequences decode and more wait."""
    kv = infcore.KVBlocks(65_536, 16)
    batcher = infcore.ContinuousBatcher(kv, max_running=max_running, clock=infcore.ManualClock(), **options)
    draw = np.random.default_rng(3)
    for n_prompt in draw.integers(200, 400, 256 + n_waiting):
        batcher.add(draw.integers(0, 150_000, n_prompt, dtype=np.int32), 60_000, tier=1)
    while True:
        step = batcher.step()
        batcher.advance(tokens=np.zeros(len(step), np.int64))
        if step.n_decode_rows == 256:
            return batcher


@pytest.mark.parametrize("n_waiting", [0, 1000])
def test_kv_batcher_step(benchmark, n_waiting):
    benchmark.group = "a step with 256 running"
    batcher = busy(n_waiting)
    emitted = np.arange(256)

    def advance():
        batcher.advance(tokens=emitted)
        return (), {}

    batcher.step()
    step = benchmark.pedantic(batcher.step, setup=advance, rounds=500)
    assert len(step) == 256
    assert batcher.n_waiting == n_waiting
    told(benchmark, "ns a step", 1)


def test_kv_batcher_step_and_advance(benchmark):
    benchmark.group = "a step with 256 running"
    batcher = busy(1000)
    emitted = np.arange(256)

    def both():
        step = batcher.step()
        batcher.advance(tokens=emitted)
        return step

    assert len(benchmark.pedantic(both, rounds=500, iterations=2)) == 256
    told(benchmark, "ns a step", 1)


def test_kv_batcher_step_with_tables(benchmark):
    benchmark.group = "a step with 256 running"
    batcher = busy(1000)

    def both():
        tables = batcher.step().block_tables
        batcher.advance()
        return tables

    assert len(benchmark.pedantic(both, rounds=500)) == 256
    told(benchmark, "ns a step", 1)


def test_kv_batcher_step_that_turns_over(benchmark):
    """Sixteen sequences end at each step and sixteen come in, whose prompts share a cached prefix."""
    benchmark.group = "a step with 256 running"
    batcher = busy(0)
    prompt = np.random.default_rng(4).integers(0, 150_000, 512, dtype=np.int32)

    def turn_over(n_rows=256):
        batcher.advance(tokens=np.zeros(n_rows, np.int64), ended=np.arange(n_rows) < 16)
        for last in range(16):
            prompt[-1] = last
            batcher.add(prompt, 1000, tier=1)
        return (), {}

    for _ in range(8):  # until their prefix is cached
        turn_over(len(batcher.step()))
    batcher.step()
    step = benchmark.pedantic(batcher.step, setup=turn_over, rounds=200)
    assert len(step) == 256
    told(benchmark, "ns a step", 1)
