"""Drawn requests with their KV cache blocks, for infcore.block_table and for its kernels."""

import numpy as np
from hypothesis import strategies as st


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
