"""Router.prefix.apply: engines' KV events, recorded from their own code (bench/peers/record_events.py) and made up."""

import enum
import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import infcore

DATA = Path(__file__).parents[1] / "data"


def prefix_of(**options):
    fleet = infcore.Fleet(max_nodes=8, clock=infcore.ManualClock())
    for i in range(4):
        fleet.add(f"n{i}")
    return infcore.Router(fleet, prefix={"mode": "exact", **options}).prefix


def held(prefix, tokens, node=0, *, block_size=4, salt=0):
    nodes, depth = prefix.match(infcore.block_hashes(tokens, block_size, salt))
    return dict(zip(nodes.tolist(), depth.tolist(), strict=True)).get(node, 0)


def lines_of(engine):
    return [
        json.loads(line) for line in gzip.decompress((DATA / f"{engine}-kv-events.jsonl.gz").read_bytes()).splitlines()
    ]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_recorded_events_say_what_the_engine_itself_finds(engine):
    prefix, n_looks, depths = prefix_of(), 0, set()
    for line in lines_of(engine):
        if "batch" in line:
            prefix.apply("n2", line["batch"])
            continue
        assert held(prefix, line["tokens"], 2, block_size=16) == line["held"]
        n_looks += 1
        depths.add(line["held"])
    assert n_looks > 50 and len(depths) > 10
    assert prefix.stats()["unknown"] == 0
    assert prefix.stats()["blocks"] == 0  # it was reset at its end


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_engines_do_not_share_their_ids(engine):
    """The same events of another node, with other names for its blocks."""
    prefix = prefix_of()
    for line in lines_of(engine):
        if "batch" not in line:
            assert held(prefix, line["tokens"], 0, block_size=16) == held(prefix, line["tokens"], 1, block_size=16)
            continue
        prefix.apply(0, line["batch"])
        ts, events, rank = (*line["batch"], None)[:3]
        swapped = [
            {**event, "block_hashes": [-id for id in event["block_hashes"]]}
            | ({"parent_block_hash": -event["parent_block_hash"]} if event.get("parent_block_hash") else {})
            if "block_hashes" in event
            else event
            for event in events
        ]
        prefix.apply(1, [ts, swapped, rank])


def stored(ids, tokens, parent=None, **more):
    return {"type": "BlockStored", "block_hashes": ids, "parent_block_hash": parent, "token_ids": tokens,
            "block_size": 4, "lora_id": None, **more}  # fmt: skip


class BlockStored(SimpleNamespace):
    pass


class BlockRemoved(SimpleNamespace):
    pass


class AllBlocksCleared(SimpleNamespace):
    pass


class Medium(str, enum.Enum):  # noqa: UP042  (as SGLang writes it)
    CPU = "CPU_PINNED"


TOKENS = list(range(12))


@pytest.mark.parametrize(
    "shape",
    ["objects", "mappings", "rows", "rows of bytes"],
)
def test_objects_mappings_and_rows(shape):
    store, more, gone, clear = {
        "objects": (
            BlockStored(block_hashes=[7, 8], parent_block_hash=None, token_ids=TOKENS[:8], block_size=4, lora_id=None),
            BlockStored(block_hashes=[9], parent_block_hash=8, token_ids=TOKENS[8:], block_size=4, medium="GPU"),
            BlockRemoved(block_hashes=[9, 8]),
            AllBlocksCleared(),
        ),
        "mappings": (
            stored([7, 8], TOKENS[:8]),
            stored([9], TOKENS[8:], 8, medium="GPU"),
            {"type": "BlockRemoved", "block_hashes": [9, 8]},
            {"type": "AllBlocksCleared"},
        ),
        "rows": (
            ["BlockStored", [7, 8], None, TOKENS[:8], 4, None],
            ["BlockStored", [9], 8, TOKENS[8:], 4, None, "GPU"],
            ("BlockRemoved", [9, 8]),
            ["AllBlocksCleared"],
        ),
        "rows of bytes": (
            [b"BlockStored", [b"seven", b"eight"], None, TOKENS[:8], 4, None],
            [b"BlockStored", [b"nine"], b"eight", np.array(TOKENS[8:], np.int32), 4, None, None],
            [b"BlockRemoved", [b"nine", b"eight"], None],
            [b"AllBlocksCleared"],
        ),
    }[shape]  # fmt: skip
    prefix = prefix_of()
    assert prefix.apply("n0", store) == 2
    assert prefix.apply("n0", SimpleNamespace(ts=1.0, events=[more])) == 1
    assert held(prefix, TOKENS) == 3
    assert prefix.apply("n0", [2.0, [gone]]) == 2
    assert held(prefix, TOKENS) == 1
    assert prefix.apply("n0", {"ts": 3.0, "events": [clear]}) == 0
    assert held(prefix, TOKENS) == 0
    assert prefix.apply("n0", more) == 0  # its parent went with all the others
    assert prefix.stats()["unknown"] == 1


def test_tiers_by_medium():
    prefix = prefix_of()
    prefix.apply(0, stored([1, 2], TOKENS[:8], medium="GPU"))
    prefix.apply(0, stored([1, 2], [], medium=Medium.CPU))  # offloaded: told by id alone
    prefix.apply(0, {"type": "BlockRemoved", "block_hashes": [1, 2], "medium": "GPU"})
    assert held(prefix, TOKENS) == 2
    assert prefix.apply(0, {"type": "BlockRemoved", "block_hashes": [2], "medium": "CPU"}) == 1
    assert held(prefix, TOKENS) == 1
    with pytest.raises(infcore.InvalidArgument, match="medium is 'TAPE'; allowed: None, GPU"):
        prefix.apply(0, stored([3], TOKENS[:4], medium="TAPE"))


def test_adapters_and_salts_are_apart():
    prefix = prefix_of()
    prefix.apply(0, stored([1], TOKENS[:4], lora_id=3))
    prefix.apply(0, stored([2], TOKENS[:4], lora_id=3, lora_name="poet", extra_keys=[("poet",)]))
    prefix.apply(0, stored([3], TOKENS[:4], extra_keys=[("pepper",)]))
    prefix.apply(0, stored([4], TOKENS[:4], cache_salt="salt"))
    assert held(prefix, TOKENS) == 0
    for lora, salt in ((3, None), ("poet", None), (None, "pepper"), (None, "salt")):
        assert held(prefix, TOKENS, salt=infcore.prefix_salt(lora, salt)) == 1
    assert infcore.prefix_salt() == 0
    prefix.apply(0, stored([5, 6], TOKENS[:8], extra_keys=[None, [("image", 0)]]))
    assert held(prefix, TOKENS) == 1  # what the second holds, tokens do not tell
    prefix.apply(0, stored([7], TOKENS[8:], 6))
    assert prefix.stats()["blocks"] == 7


def test_of_several_groups_of_caches_one_counts():
    prefix = prefix_of()
    sliding = {"group_idx": 0, "kv_cache_spec_kind": "sliding_window"}
    assert prefix.apply(0, stored([1], TOKENS[:4], **sliding)) == 0
    assert prefix.apply(0, stored([1], TOKENS[:4], group_idx=1, kv_cache_spec_kind="full_attention")) == 1
    assert prefix.apply(0, {"type": "BlockRemoved", "block_hashes": [1], "group_idx": 0}) == 0
    assert held(prefix, TOKENS) == 1
    assert prefix.apply(0, {"type": "BlockRemoved", "block_hashes": [1], "group_idx": 1}) == 1


def test_ids_are_bounded_and_those_in_use_stay():
    prefix = prefix_of(max_engine_blocks=64)
    prefix.apply(0, stored([1], TOKENS[:4]))
    for at in range(500):
        assert prefix.apply(0, stored([1000 + at], [at] * 4, 1)) == 1
    assert prefix.stats()["engine_blocks"] == 64
    assert prefix.apply(0, {"type": "BlockRemoved", "block_hashes": [1000]}) == 0  # long forgotten
    assert prefix.stats()["unknown"] == 1
    assert prefix.apply(0, {"type": "BlockRemoved", "block_hashes": [1499, 2**200, -5]}) == 1
    assert prefix.stats()["unknown"] == 3


def test_names_of_a_node_end_with_it():
    fleet = infcore.Fleet(max_nodes=2, clock=infcore.ManualClock())
    fleet.add("a")
    prefix = infcore.Router(fleet).prefix
    prefix.apply("a", stored([1], TOKENS[:4]))
    fleet.remove("a")
    fleet.add("b")
    assert prefix.apply("b", stored([2], TOKENS[4:8], 1)) == 0
    assert prefix.stats() | {"bytes": 0, "evicted": 0} == {
        "blocks": 0, "picked_blocks": 0, "unknown": 1, "engine_blocks": 1, "bytes": 0, "evicted": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (None, "event is a NoneType"),
        ("BlockStored", "event is a str"),
        ({}, "event is a dict"),
        ([], "event is a list"),
        ({"type": "BlockMoved"}, "event is a BlockMoved"),
        ({"type": 3}, "event is a 3"),
        ([1.0, "x"], "events of a batch is str"),
        ([1.0], "events of a batch is NoneType"),
        ([1.0, [[2.0, []]]], "a batch inside a batch"),
        ({"type": "BlockRemoved"}, "block_hashes is NoneType"),
        ({"type": "BlockRemoved", "block_hashes": ["a"]}, "a block's id is str"),
        (stored([1.5], TOKENS[:4]), "a block's id is float"),
        (stored([1], TOKENS[:5]), "token_ids has 5 tokens; allowed: 4"),
        (stored([1, 2], TOKENS[:4]), "token_ids has 4 tokens; allowed: 8"),
        (stored([1], [(1, 2)] * 4), "token_ids has shape"),
        (stored([1], ["a"] * 4), "token_ids"),
        (stored([1], 4), "token_ids is int"),
        (stored([1], TOKENS[:4], extra_keys=[3]), "extra_keys has a int"),
        ([b"\xff"], "event is a \ufffd"),
        ({"type": None}, "event is a None"),
        (stored([1], TOKENS[:4], parent="x"), "a block's id is str"),
        (stored([1], TOKENS[:4], extra_keys=[None, None]), "extra_keys"),
        ({**stored([1], TOKENS[:4]), "block_size": 0}, "block_size is 0"),
        ({**stored([1], TOKENS[:4]), "block_size": None}, "block_size is NoneType"),
    ],
)
def test_events_that_are_refused(event, says):
    prefix = prefix_of()
    with pytest.raises(infcore.InfcoreError) as refused:
        prefix.apply(0, event)
    assert says in str(refused.value)
    assert prefix.stats()["blocks"] == 0
