"""block_table: Triton interpreted, CUDA under the host shim, the C++ core and NumPy give the same numbers."""

import numpy as np
import pytest
from block_requests import requests
from gpu import block_rig
from hypothesis import given, settings

import infcore
from infcore.kernels.block_table import reference

BACKENDS = [pytest.param(block_rig.by_triton, id="triton"), pytest.param(block_rig.by_cuda, id="cuda")]


def assert_same(ours, model):
    for name in model._fields:
        one, other = getattr(ours, name), getattr(model, name)
        assert one.dtype == other.dtype and one.shape == other.shape, name
        np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.parametrize("make", BACKENDS)
@given(drawn=requests())
@settings(max_examples=40)
def test_any_requests(make, drawn):
    blocks, options = drawn
    ours, moved = make(blocks, options)
    assert_same(ours, reference.block_table(blocks, **options))
    assert (moved.written_bytes, moved.overwritten_bytes) == (sum(array.nbytes for array in ours), 0)


# Rows and tokens of several tiles (512), whole and not; a table whose rows begin at multiples of 16 bytes, and not.
@pytest.mark.parametrize("make", BACKENDS)
@pytest.mark.parametrize("max_blocks", [1300, 1303])
def test_requests_of_several_tiles_as_the_core_has_them(make, max_blocks):
    random = np.random.default_rng(1)
    blocks = [random.integers(0, 2**31, n, dtype=np.int64).astype(np.int32) for n in (1300, 513, 512, 1)]
    options = {
        "computed": [7, 0, 1024, 1],
        "query_lens": [1700, 1026, 0, 1],
        "block_size": 2,
        "max_blocks": max_blocks,
        "n_slots": 2727 + 1700,
    }
    ours, moved = make(blocks, options)
    assert_same(ours, infcore.block_table(blocks, **options))
    if moved.wide_writes is not None:
        assert moved.wide_writes == (len(blocks) * max_blocks // 4 if max_blocks % 4 == 0 else 0)


@pytest.mark.parametrize("make", BACKENDS)
def test_a_hundred_thousand_new_tokens(make):
    blocks = [np.arange(70000, 70000 + 6250, dtype=np.int32)[::-1].copy()]
    options = {"computed": [0], "query_lens": [100_000], "block_size": 16}
    assert_same(make(blocks, options)[0], infcore.block_table(blocks, **options))


@pytest.mark.parametrize("make", BACKENDS)
def test_the_largest_numbers(make):
    largest = 2**31 - 1
    options = {"computed": [largest - 3], "query_lens": [3], "block_size": largest, "pad_block": -(2**31)}
    ours, _ = make([[largest]], options | {"max_blocks": 2})
    assert ours.slot_mapping.tolist() == [largest * largest + largest - k for k in (3, 2, 1)]
    assert ours.table.tolist() == [[largest, -(2**31)]]
