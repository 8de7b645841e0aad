"""infcore.block_table on the CPU: what it gives, and what it refuses."""

import numpy as np
import pytest

import infcore


def tables(blocks=((4, 2), (7,)), **options):
    return infcore.block_table(blocks, **{"computed": [3, 0], "query_lens": [2, 1], "block_size": 4, **options})


def test_tables_and_slots_as_vllm_has_them():
    made = tables()
    assert made.table.dtype == np.int32 and made.table.tolist() == [[4, 2], [7, -1]]
    # Positions 3 and 4 of the first request, position 0 of the second.
    assert made.slot_mapping.dtype == np.int64 and made.slot_mapping.tolist() == [4 * 4 + 3, 2 * 4 + 0, 7 * 4 + 0]
    assert made.query_start_loc.dtype == np.int32 and made.query_start_loc.tolist() == [0, 2, 3]


def test_sizes_may_be_fixed():
    made = tables(max_blocks=3, n_slots=5, pad_block=0)
    assert made.table.tolist() == [[4, 2, 0], [7, 0, 0]]
    assert made.slot_mapping.tolist() == [19, 8, 28, -1, -1]


def test_requests_without_blocks_or_tokens():
    made = infcore.block_table([[], [5]], computed=[0, 4], query_lens=[0, 0], block_size=4)
    assert made.table.tolist() == [[-1], [5]]
    assert made.slot_mapping.shape == (0,) and made.query_start_loc.tolist() == [0, 0, 0]
    assert infcore.block_table([[]], computed=[0], query_lens=[0], block_size=1).table.shape == (1, 0)


def test_arrays_and_lists_give_the_same():
    as_arrays = tables([np.array([4, 2], np.int32), np.array([7], np.int32)], computed=np.array([3, 0], np.int64))
    assert all(np.array_equal(one, other) for one, other in zip(as_arrays, tables(), strict=True))


def test_large_tables_and_slots_without_the_gil():
    ids = [np.arange(i, i + 1000, dtype=np.int32) for i in range(100)]
    lengths = np.full(100, 900)
    made = infcore.block_table(ids, computed=np.arange(100), query_lens=lengths, block_size=2)
    assert np.array_equal(made.table, np.stack(ids))
    at = np.arange(900) + np.arange(100)[:, None]
    expected = (at // 2 + np.arange(100)[:, None]) * 2 + at % 2
    assert np.array_equal(made.slot_mapping, expected.reshape(-1))


# blocks, options, the error, what it must name.
REFUSED = [
    ([], {}, infcore.InvalidArgument, "blocks is empty"),
    (3, {}, infcore.InvalidType, "blocks is int"),
    ("ab", {}, infcore.InvalidType, "blocks is str"),
    ([[1, 2], "a"], {}, infcore.InvalidType, r"blocks\[1\] has dtype <U1"),
    ([[1, 2], [[1]]], {}, infcore.InvalidType, r"blocks\[1\] has dtype"),
    ([[1, 2], [1.5]], {}, infcore.InvalidType, r"blocks\[1\] has dtype float64"),
    ([[1, 2], [[1], [2, 3]]], {}, infcore.InvalidType, r"blocks\[1\] is no list of ids"),
    ([np.array([1, 2]), [7]], {}, infcore.InvalidType, r"blocks\[0\] has dtype int64; allowed: int32"),
    ([np.ones(4, np.int32)[::2], [7]], {}, infcore.InvalidArgument, r"blocks\[0\] .*C-contiguous"),
    ([np.ones((2, 2), np.int32), [7]], {}, infcore.InvalidArgument, r"blocks\[0\] has shape \(2, 2\)"),
    ([np.array([1, 2], ">i4"), [7]], {}, infcore.InvalidType, r"blocks\[0\] has dtype >i4"),
    ([[4, 2], [-1]], {}, infcore.InvalidArgument, r"blocks\[1\]\[0\] is -1; allowed: 0 to 2147483647"),
    ([[4, 2**31], [1]], {}, infcore.InvalidArgument, r"blocks\[0\]\[1\] is 2147483648"),
    ([[4, 2], [7]], {"n_blocks": 7}, infcore.InvalidArgument, r"blocks\[1\]\[0\] is 7; allowed: 0 to 6"),
    ([[4, 2], [7]], {"n_blocks": 2.5}, infcore.InvalidType, "n_blocks is 2.5"),
    ([[4, 2], [7]], {"block_size": 0}, infcore.InvalidArgument, "block_size is 0"),
    ([[4, 2], [7]], {"block_size": True}, infcore.InvalidType, "block_size is True"),
    ([[4, 2], [7]], {"computed": [3]}, infcore.InvalidArgument, r"computed has shape \(1,\); allowed: \(2,\)"),
    ([[4, 2], [7]], {"computed": [3.0, 0.0]}, infcore.InvalidType, "computed has dtype float64"),
    ([[4, 2], [7]], {"query_lens": [2, -1]}, infcore.InvalidArgument, r"query_lens\[1\] is -1"),
    ([[4, 2], [7]], {"query_lens": [2, 5]}, infcore.InvalidArgument, r"blocks\[1\] has 1 blocks .* at least 2"),
    ([[4, 2], [7]], {"computed": [2**31, 0]}, infcore.InvalidArgument, r"computed\[0\] is 2147483648"),
    ([[4], [7]], {"computed": [2**31 - 1, 0]}, infcore.InvalidArgument, r"computed\[0\] \+ query_lens\[0\] is"),
    (
        [[1], [1]],
        {"computed": [0, 0], "query_lens": [2**30, 2**30], "block_size": 2**30},
        infcore.InvalidArgument,
        "query_lens sum to 2147483648",
    ),
    ([[4, 2], [7]], {"max_blocks": 1}, infcore.InvalidArgument, "max_blocks is 1; allowed: at least 2"),
    ([[4, 2], [7]], {"n_slots": 2}, infcore.InvalidArgument, "n_slots is 2; allowed: at least 3"),
    ([[4, 2], [7]], {"pad_block": 2**31}, infcore.InvalidArgument, "pad_block is 2147483648"),
    ([[4, 2], [7]], {"stream": 3}, infcore.InvalidArgument, "stream is 3"),
    ([[4, 2], [7]], {"device": "tpu"}, infcore.InvalidArgument, "device is 'tpu'"),
]


@pytest.mark.parametrize(("blocks", "options", "error", "named"), REFUSED)
def test_refused(blocks, options, error, named):
    with pytest.raises(error, match=named):
        tables(blocks, **options)


@pytest.mark.parametrize(
    ("blocks", "options", "error", "named"),
    [case for case in REFUSED if not {"stream", "device"} & set(case[1])],
)
def test_what_the_cpu_path_refuses_staging_for_a_gpu_refuses_in_the_same_words(blocks, options, error, named):
    from infcore.kernels.block_table import reference

    with pytest.raises((ValueError, TypeError), match=named):
        reference.block_table(blocks, **{"computed": [3, 0], "query_lens": [2, 1], "block_size": 4, **options})
