"""Router.prefix against the plain model: thousands of random schedules of what nodes store and give up."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.prefix_index import PrefixIndex

import infcore

N_NODES = 70


@pytest.fixture(scope="module")
def fleet():
    fleet = infcore.Fleet(max_nodes=N_NODES, clock=infcore.ManualClock())
    for node in range(N_NODES):
        fleet.add(f"n{node}")
    return fleet


def path(draw: random.Random) -> list[int]:
    """A walk down a tree of names, so that prefixes are shared."""
    name, names = 1, []
    for depth in range(draw.randint(1, 12)):
        name = (name * 0x9E3779B97F4A7C15 + 1 + (draw.randrange(3) if depth % 3 == 0 else 0)) % 2**64
        names.append(name)
    return names


def matched(prefix: infcore.Prefix, blocks: list[int]) -> dict[int, int]:
    nodes, held = prefix.match(np.array(blocks, np.uint64))
    assert nodes.tolist() == sorted(set(nodes.tolist()))
    return dict(zip(nodes.tolist(), held.tolist(), strict=True))


def of(fleet: infcore.Fleet, max_blocks: int) -> infcore.Prefix:
    return infcore.Router(fleet, prefix={"max_blocks": max_blocks}).prefix


def run(prefix: infcore.Prefix, draw: random.Random, max_blocks: int, *, clears: bool, n: int) -> None:
    model, n_nodes = PrefixIndex(max_blocks), draw.choice((1, 3, N_NODES))
    for _ in range(n):
        node, blocks = N_NODES - 1 - draw.randrange(n_nodes), path(draw)
        what, tier = draw.random(), draw.choice(("device", "device", "device", "host", "disk"))
        if what < 0.6:
            after = None
            if draw.random() < 0.3 and len(blocks) > 1:
                after, blocks = blocks[0], blocks[1:]
            assert prefix.stored(node, blocks, tier=tier, after=after) == model.stored(node, blocks, tier, after)
        elif what < 0.95 or not clears:
            gone = blocks[draw.randrange(len(blocks)) :] if draw.random() < 0.7 else blocks
            assert prefix.removed(node, gone, tier=tier) == model.removed(node, gone, tier)
        else:
            prefix.cleared(node)
            model.cleared(node)
        asked = path(draw)
        assert matched(prefix, asked) == model.match(asked)
        assert prefix.stats()["blocks"] == model.n_blocks() <= max_blocks


@pytest.mark.parametrize("seed", range(4))
def test_random_schedules(fleet, seed):
    prefix = of(fleet, 1 << 16)
    for part in range(400):
        run(prefix, random.Random(f"{seed} {part}"), 1 << 16, clears=True, n=8)
        for node in range(N_NODES):
            prefix.cleared(node)


@pytest.mark.parametrize("seed", range(4))
def test_a_full_index_forgets_the_oldest_leaves(fleet, seed):
    for part in range(50):
        draw = random.Random(f"full {seed} {part}")
        max_blocks = draw.randint(1, 30)
        run(of(fleet, max_blocks), draw, max_blocks, clears=False, n=40)


@given(st.randoms(use_true_random=False), st.integers(1, 40))
@settings(max_examples=30)
def test_any_schedule(fleet, draw, max_blocks):
    run(of(fleet, max_blocks), draw, max_blocks, clears=False, n=10)


@given(st.lists(st.lists(st.integers(0, 6), max_size=8), max_size=12), st.integers(1, 8))
def test_names_made_up_at_will(fleet, rows, max_blocks):
    """Blocks that stand after themselves, or after each other: no chain of hashes has them, and nothing breaks."""
    prefix, model = of(fleet, max_blocks), PrefixIndex(max_blocks)
    for at, row in enumerate(rows):
        if at % 3 == 2:
            assert prefix.removed(at % 5, row) == model.removed(at % 5, row)
        else:
            assert prefix.stored(at % 5, row) == model.stored(at % 5, row)
        assert matched(prefix, [0, 1, 2, 3]) == model.match([0, 1, 2, 3])
        assert prefix.stats()["blocks"] == model.n_blocks() <= max_blocks
