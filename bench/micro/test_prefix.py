"""Who holds a prompt's beginning, from Python: Router.prefix beside a dict of sets, and what it costs to be told.

A row's microseconds, its share of what the plain way takes and the bytes of a block are in extra_info, and printed with
-s. No row asserts a time.
"""

import time

import numpy as np
import pytest

import infcore

SIZES = [(64, 64), (64, 1024), (2048, 64)]


def told(benchmark, **figures):
    """With --benchmark-disable there are no medians."""
    if benchmark.stats is not None:
        benchmark.extra_info.update({"us": benchmark.stats["median"] * 1e6} | figures)
        figures = ", ".join(f"{value:.3g} {name}" for name, value in benchmark.extra_info.items())
        print(f"\n{benchmark.name}: {figures}")


def prompt(n_blocks, at=0):
    return infcore.block_hashes(np.arange(at, at + 16 * n_blocks), 16)


def router_of(n_nodes, **options):
    fleet = infcore.Fleet(max_nodes=max(64, n_nodes))
    for node in range(n_nodes):
        fleet.load_model(fleet.add(f"n{node}"), "m")
    return infcore.Router(fleet, health=False, **options)  # what fails here is not the nodes' fault


class ByHand:
    """A dict of sets of nodes by block, and a walk until nobody is left."""

    def __init__(self):
        self.holders = {}

    def stored(self, node, blocks):
        for block in blocks:
            self.holders.setdefault(block, set()).add(node)

    def match(self, blocks):
        found, left = {}, None
        for depth, block in enumerate(blocks):
            here = self.holders.get(block, set())
            left_now = here if left is None else left & here
            for node in (left or set()) - left_now:
                found[node] = depth
            left = left_now
            if not left:
                return found
        return found | dict.fromkeys(left, len(blocks))


def plain_us(n_blocks, n_nodes):
    plain, blocks = ByHand(), prompt(n_blocks).tolist()
    for node in range(n_nodes):
        plain.stored(node, blocks)
    start = time.perf_counter()
    assert plain.match(blocks) == dict.fromkeys(range(n_nodes), n_blocks)
    return (time.perf_counter() - start) * 1e6


@pytest.mark.parametrize(("n_blocks", "n_nodes"), SIZES)
def test_prefix_match(benchmark, n_blocks, n_nodes):
    benchmark.group = "one match"
    prefix, blocks = router_of(n_nodes).prefix, prompt(n_blocks)
    for node in range(n_nodes):
        prefix.stored(node, blocks)
    nodes, held = benchmark(prefix.match, blocks)
    assert nodes.tolist() == list(range(n_nodes)) and (held == n_blocks).all()
    plain = plain_us(n_blocks, n_nodes)
    told(benchmark, **({"of a dict of sets": benchmark.stats["median"] * 1e6 / plain} if benchmark.stats else {}))


def test_prefix_match_apart(benchmark):
    """Blocks that lie nowhere near each other, each asked for again only after all others: caches are cold."""
    benchmark.group = "one match"
    prefix, rng = router_of(8).prefix, np.random.default_rng(1)
    prompts = [prompt(2048, at * 40_000) for at in range(96)]
    for at in rng.permutation(96 * 2048):
        prefix.stored(at // 2048 % 8, prompts[at // 2048][at % 2048 : at % 2048 + 1])
    turn = iter(range(10**9))
    assert benchmark(lambda: prefix.match(prompts[next(turn) % 96]))[1].tolist() == [2048]
    told(benchmark)


@pytest.mark.parametrize(("n_blocks", "n_nodes"), SIZES)
def test_prefix_pick(benchmark, n_blocks, n_nodes):
    benchmark.group = "slo_cost, pick and done, with blocks"
    router, blocks = router_of(n_nodes), prompt(n_blocks)
    for node in range(n_nodes):
        router.set_prior("m", node, base_s=1e-3, per_work_s=1e-5)
        router.prefix.stored(node, blocks)

    def decide():
        decision = router.pick("m", work=16.0 * n_blocks, blocks=blocks)
        router.done(decision, ok=False)
        return decision

    assert benchmark(decide).saving_s > 0.0
    told(benchmark)


def test_prefix_stored_and_removed(benchmark):
    benchmark.group = "64 blocks that 64 nodes hold: one node more, and less"
    prefix, blocks = router_of(65).prefix, prompt(64)
    for node in range(64):
        prefix.stored(node, blocks)

    def change():
        prefix.stored(64, blocks)
        return prefix.removed(64, blocks)

    assert benchmark(change) == 64
    told(benchmark)


@pytest.mark.parametrize("n_nodes", [1, 1024])
def test_prefix_bytes(benchmark, n_nodes):
    benchmark.group = "100,000 blocks"
    names = np.random.default_rng(1).integers(0, 2**63, 100_000).astype(np.uint64)
    prefix = router_of(n_nodes).prefix
    for node in range(n_nodes):
        prefix.stored(node, names)
    nodes, _ = benchmark(prefix.match, names[:64])
    assert len(nodes) == n_nodes
    told(benchmark, **{"bytes a block": prefix.stats()["bytes"] / len(names)})


def test_prefix_cleared(benchmark):
    """A node that held a fifth of 100,000 blocks beside others goes."""
    benchmark.group = "100,000 blocks"
    rng, prefix = np.random.default_rng(1), router_of(64).prefix
    prompts = [rng.integers(0, 2**63, 100).astype(np.uint64) for _ in range(1000)]
    for at, names in enumerate(prompts):
        for node in rng.choice(63, 12, replace=False):
            prefix.stored(node, names)
        if at % 5 == 0:
            prefix.stored(63, names)

    def again():
        for names in prompts[::5]:
            prefix.stored(63, names)
        return (63,), {}

    benchmark.pedantic(prefix.cleared, setup=again, rounds=20)
    assert 63 not in prefix.match(prompts[0])[0]
    told(benchmark)
