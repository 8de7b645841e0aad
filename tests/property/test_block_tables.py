"""Whatever the requests: tables and slots are the NumPy model's, to the bit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import infcore
from infcore.kernels.block_table import reference


@st.composite
def requests(draw):
    """(blocks, options)."""
    block_size = draw(st.sampled_from([1, 2, 7, 16]))
    ids_max = draw(st.sampled_from([3, 1000, 2**31 - 1]))
    blocks, computed, query_lens = [], [], []
    for _ in range(draw(st.integers(1, 5))):
        ids = draw(st.lists(st.integers(0, ids_max), max_size=8))
        blocks.append(np.array(ids, np.int32) if draw(st.booleans()) else ids)
        room = len(ids) * block_size
        computed.append(draw(st.integers(0, room)))
        query_lens.append(draw(st.integers(0, room - computed[-1])))
    options = {
        "computed": computed,
        "query_lens": np.array(query_lens),
        "block_size": block_size,
        "n_blocks": draw(st.sampled_from([None, ids_max + 1])),
        "max_blocks": draw(st.none() | st.integers(8, 12)),
        "n_slots": draw(st.none() | st.just(sum(query_lens) + draw(st.integers(0, 9)))),
        "pad_block": draw(st.sampled_from([-1, 0, 2**31 - 1])),
    }
    return blocks, options


@given(requests())
def test_tables_and_slots_are_the_model(given_requests):
    blocks, options = given_requests
    made = infcore.block_table(blocks, **options)
    expected = reference.block_table(blocks, **options)
    for name in expected._fields:
        ours, model = getattr(made, name), getattr(expected, name)
        assert ours.dtype == model.dtype and np.array_equal(ours, model), name
