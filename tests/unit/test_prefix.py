"""Router.prefix: what it is told, what it is asked, and what it refuses."""

import os

import numpy as np
import pytest

import infcore

BLOCKS = infcore.block_hashes(np.arange(64), 16)


@pytest.fixture
def clock():
    return infcore.ManualClock()


@pytest.fixture
def fleet(clock):
    fleet = infcore.Fleet(max_nodes=100, clock=clock)
    for i in range(4):
        fleet.load_model(fleet.add(f"n{i}"), "m")
    return fleet


@pytest.fixture
def prefix(fleet):
    return infcore.Router(fleet).prefix


def held(prefix, blocks=BLOCKS):
    nodes, depth = prefix.match(blocks)
    assert nodes.dtype == depth.dtype == np.int32
    return dict(zip(nodes.tolist(), depth.tolist(), strict=True))


def test_leading_blocks_by_node(prefix):
    assert held(prefix) == {}
    assert prefix.stored("n2", BLOCKS) == 4
    assert prefix.stored(0, BLOCKS[:2]) == 2
    assert held(prefix) == {0: 2, 2: 4}
    assert held(prefix, BLOCKS[1:]) == {0: 1, 2: 3}
    assert held(prefix, BLOCKS[:0]) == {}
    assert prefix.removed("n2", BLOCKS[1:2]) == 1  # from the middle: what leads ends there
    assert held(prefix) == {0: 2, 2: 1}
    assert prefix.removed("n2", BLOCKS[1:2]) == 0
    prefix.stored("n2", BLOCKS[1:2], after=int(BLOCKS[0]))
    assert held(prefix) == {0: 2, 2: 4}
    prefix.cleared("n2")
    assert held(prefix) == {0: 2}
    assert prefix.stats()["blocks"] == 2


def test_any_whole_numbers_are_blocks(prefix):
    huge = [2**64 - 1, 0, 1]
    prefix.stored(0, huge)
    assert held(prefix, huge) == {0: 3}
    assert held(prefix, np.array([0, 1], np.int64)) == {0: 2}
    prefix.stored(1, iter_free := tuple(range(3)))
    assert held(prefix, iter_free) == {0: 2, 1: 3}


def test_a_node_holds_a_block_until_it_left_every_tier(prefix):
    prefix.stored(0, BLOCKS)
    prefix.stored(0, BLOCKS, tier="host")
    assert prefix.removed(0, BLOCKS) == 4
    assert held(prefix) == {0: 4}
    assert prefix.removed(0, BLOCKS, tier="disk") == 0
    assert prefix.removed(0, BLOCKS[2:], tier="host") == 2
    assert held(prefix) == {0: 2}


def test_a_node_that_is_gone_holds_nothing_nor_does_who_has_its_id(fleet, prefix):
    prefix.stored("n1", BLOCKS)
    fleet.remove("n1")
    assert held(prefix) == {}
    again = fleet.add("another")
    assert again == 1
    prefix.stored(again, BLOCKS[:1])  # before anything else is asked
    assert held(prefix) == {1: 1}
    fleet.drain(again)
    assert held(prefix) == {1: 1}


def test_full_it_forgets_the_leaf_that_was_stored_longest_ago(fleet):
    prefix = infcore.Router(fleet, prefix={"max_blocks": 4}).prefix
    prefix.stored(0, [1, 2])
    prefix.stored(1, [1, 3])
    assert prefix.stored(2, [10, 11]) == 2
    assert held(prefix, [1, 2]) == {0: 1, 1: 1}
    assert held(prefix, [1, 3]) == {0: 1, 1: 2}
    assert prefix.stored(3, range(20, 30)) == 4  # as much as there is room for
    assert prefix.stats() | {"bytes": 0} == {
        "blocks": 4, "picked_blocks": 0, "evicted": 5, "unknown": 0, "engine_blocks": 0, "bytes": 0,
    }  # fmt: skip


@pytest.mark.parametrize("n_nodes", [1, 1024])
def test_bytes_of_a_block(n_nodes):
    """At every size, also right after its table has doubled."""
    fleet = infcore.Fleet(max_nodes=n_nodes)
    for node in range(n_nodes):
        fleet.add(f"n{node}")
    prefix = infcore.Router(fleet, prefix={"max_blocks": 40_000}).prefix
    rng, at, names = np.random.default_rng(1), 0, []
    for n in (3_000, 6_200, 12_400, 24_700, 40_000):
        names.append(rng.integers(0, 2**63, n - at).astype(np.uint64))
        at = n
        for node in range(n_nodes):
            prefix.stored(node, names[-1])
        stats = prefix.stats()
        assert stats["blocks"] == n
        own = infcore.Router(fleet).prefix.stats()["bytes"]
        assert (stats["bytes"] - own) / n <= 40.0
    assert len(held(prefix, names[0])) == n_nodes


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda p: p.stored("n9", BLOCKS), "node is 'n9'"),
        (lambda p: p.stored(77, BLOCKS), "node is 77"),
        (lambda p: p.stored(2**70, BLOCKS), "node is"),
        (lambda p: p.removed(-1, BLOCKS), "node is -1"),
        (lambda p: p.cleared(None), "node is NoneType"),
        (lambda p: p.match(BLOCKS.astype(float)), "blocks has dtype float64"),
        (lambda p: p.match(BLOCKS.reshape(2, 2)), "blocks has shape (2, 2)"),
        (lambda p: p.match([-1]), "blocks has -1 to -1"),
        (lambda p: p.match([2**64]), "blocks"),
        (lambda p: p.match("abc"), "blocks"),
        (lambda p: p.stored(0, BLOCKS, tier="gpu"), "tier is 'gpu'; allowed: device, host, disk"),
        (lambda p: p.stored(0, BLOCKS, tier=["device"]), "tier is"),
        (lambda p: p.stored(0, BLOCKS, after="x"), "after"),
    ],
)
def test_what_is_refused_says_why(prefix, call, says):
    with pytest.raises(infcore.InfcoreError) as refused:
        call(prefix)
    assert says in str(refused.value)
    assert prefix.stats()["blocks"] == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("guess", "prefix is 'guess'; allowed: exact, approximate"),
        ({"mode": "exact", "size": 3}, "prefix has 'size'"),
        (3, "prefix is int"),
        ({"max_blocks": 0}, "max_blocks is 0"),
        ({"max_blocks": 2**40}, "max_blocks"),
        ({"max_engine_blocks": 0}, "max_engine_blocks is 0"),
        ({"host_credit": 1.5}, "host_credit is 1.5"),
        ({"disk_credit": -0.1}, "disk_credit is -0.1"),
        ({"ttl_s": 0}, "ttl_s is 0"),
    ],
)
def test_options_that_are_refused(fleet, options, says):
    with pytest.raises(infcore.InfcoreError) as refused:
        infcore.Router(fleet, prefix=options)
    assert says in str(refused.value)


def test_it_is_made_by_a_router(fleet):
    with pytest.raises(infcore.InfcoreError, match=r"router\.prefix"):
        infcore.Prefix()
    router = infcore.Router(fleet)
    assert router.prefix is router.prefix


def test_not_after_a_fork(prefix):
    child = os.fork()
    if child == 0:
        try:
            prefix.match(BLOCKS)
            os._exit(1)
        except infcore.ForkedProcess:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def approximate(fleet, **options):
    return infcore.Router(fleet, policy="round_robin", prefix={"mode": "approximate", "ttl_s": 10.0, **options})


def test_picks_are_believed_until_they_are_old(fleet, clock):
    router = approximate(fleet)
    node = router.pick("m", blocks=BLOCKS).node
    assert held(router.prefix) == {node: 4}
    clock.advance(4.9)
    other = router.pick("m", blocks=BLOCKS[:3]).node
    assert other != node
    assert held(router.prefix) == {node: 4, other: 3}
    clock.advance(5.0)  # the first is 9.9 s old, and by halves of ttl no longer held
    found = held(router.prefix)
    assert found.get(other) == 3 or found == {}  # between ttl / 2 and ttl
    clock.advance(30.0)
    assert held(router.prefix) == {}
    assert router.prefix.stats()["picked_blocks"] == 0


def test_a_node_that_speaks_is_believed_instead(fleet):
    router = approximate(fleet)
    decisions = [router.pick("m", blocks=BLOCKS) for _ in range(4)]
    assert held(router.prefix) == dict.fromkeys(range(4), 4)
    router.prefix.stored(1, BLOCKS[:1])
    router.prefix.cleared(2)
    assert held(router.prefix) == {0: 4, 1: 1, 3: 4}
    for decision in decisions:
        router.cancel(decision)
    for _ in range(4):
        router.cancel(router.pick("m", blocks=BLOCKS))
    assert held(router.prefix) == {0: 4, 1: 1, 3: 4}


def test_exact_believes_no_picks(fleet):
    router = infcore.Router(fleet, policy="round_robin")
    router.pick("m", blocks=BLOCKS)
    assert held(router.prefix) == {}


def test_picks_are_bounded(fleet):
    router = approximate(fleet, max_blocks=32)
    for at in range(100):
        router.cancel(router.pick("m", blocks=infcore.block_hashes(np.arange(at, at + 160), 16)))
        assert router.prefix.stats()["picked_blocks"] <= 2 * 32


def test_what_is_held_counts_by_its_tier(fleet):
    router = infcore.Router(fleet, policy="slo_cost", prefix={"host_credit": 0.5, "disk_credit": 0.125})
    for node in range(4):
        router.set_prior("m", node, per_work_s=1e-3)
    for node, tier in ((0, "device"), (1, "host"), (2, "disk")):
        router.prefix.stored(node, BLOCKS[:2], tier=tier)
    saving = [each["terms"]["saving"] for each in router.explain("m", work=100.0, blocks=BLOCKS)]
    assert saving == pytest.approx([-32_000.0, -16_000.0, -4_000.0, 0.0])
    router.prefix.stored(1, BLOCKS[:1])  # the first is on the device as well
    saving = [each["terms"]["saving"] for each in router.explain("m", work=100.0, blocks=BLOCKS)]
    assert saving == pytest.approx([-32_000.0, -24_000.0, -4_000.0, 0.0])
    assert router.pick("m", work=100.0, blocks=BLOCKS).node == 0
