"""infcore.pack and unpack: known batches, ownership, refusals."""

import math
import sys
import threading

import numpy as np
import pytest

import infcore
from infcore import InfcoreError, InvalidArgument, InvalidType, Packed

RAGGED = [np.array([1, 2, 3]), np.array([], dtype=int), np.array([4])]


def test_packed_batch():
    batch = infcore.pack(RAGGED)
    assert batch.data.tolist() == [1, 2, 3, 4]
    assert batch.cu_seqlens.tolist() == [0, 3, 3, 4]
    assert batch.cu_seqlens.dtype == batch.lengths.dtype == np.int32
    assert batch.max_seqlen == 3
    assert type(batch.max_seqlen) is int
    assert batch.lengths.tolist() == [3, 0, 1]
    assert len(batch) == 3
    assert repr(batch) == "Packed(3 rows, layout='packed', data=int64[4], max_seqlen=3)"


def test_padded_batch():
    batch = infcore.pack(RAGGED, layout="padded", pad_value=-1)
    assert batch.data.tolist() == [[1, 2, 3], [-1, -1, -1], [4, -1, -1]]
    assert batch.mask.tolist() == [[True] * 3, [False] * 3, [True, False, False]]
    across = infcore.pack(RAGGED, layout="padded", pad_value=-1, batch_axis=1)
    assert across.data.tolist() == batch.data.T.tolist()
    assert across.data.flags.c_contiguous
    assert [row.tolist() for row in infcore.unpack(across)] == [[1, 2, 3], [], [4]]


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_scalars(layout):
    batch = infcore.pack([1.5, np.float64(2.5), np.array(3.5)], layout=layout)
    assert batch.data.tolist() == [1.5, 2.5, 3.5]
    assert (batch.max_seqlen, batch.row_ndim) == (1, 0)
    assert [(row.shape, row.item()) for row in infcore.unpack(batch)] == [((), 1.5), ((), 2.5), ((), 3.5)]


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_any_iterable_and_a_dense_array(layout):
    dense = np.arange(24.0).reshape(2, 3, 4)
    for rows in (dense, tuple(dense), iter(dense), dense.tolist()):
        batch = infcore.pack(rows, layout=layout)
        assert np.array_equal(batch.data.reshape(dense.shape), dense)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_data_is_the_callers_and_fresh(layout):
    rows = [np.arange(4.0)]
    first = infcore.pack(rows, layout=layout)
    second = infcore.pack(rows, layout=layout)
    assert not np.shares_memory(first.data, rows[0])
    assert not np.shares_memory(first.data, second.data)
    assert first.data.flags.owndata
    assert first.data.flags.writeable
    held_once = Packed(np.arange(4.0), first.cu_seqlens, 4)
    references, references_once = sys.getrefcount(first.data), sys.getrefcount(held_once.data)
    assert references == references_once, "the library keeps no reference"
    infcore.unpack(first)[0][0] = 9.0
    assert first.data.ravel()[0] == 9.0, "rows are views"
    assert rows[0][0] == 0.0


def test_rows_are_let_go():
    row = np.arange(3.0)
    before = sys.getrefcount(row)
    infcore.pack([row, row])
    assert sys.getrefcount(row) == before


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_large_batch_without_the_gil(layout):
    """Above the size where the GIL is given up, while other threads do the same."""
    rows = [np.full((length, 64), length, np.float32) for length in (2000, 1, 3000, 0)]
    expected = infcore.pack([row[:, :1] for row in rows], layout=layout).data.sum() * 64
    sums = []

    def run():
        sums.extend(infcore.pack(rows, layout=layout).data.sum(dtype=np.float64) for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [pytest.approx(float(expected))] * 15


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        ([], InvalidArgument, "rows is empty; allowed: at least one row"),
        (3, InvalidType, "rows is int; allowed: a sequence of arrays"),
        (np.array(3), InvalidType, "rows is ndarray"),
        ([np.zeros(2), np.zeros(2, "f4")], InvalidType, r"rows\[1\] has dtype float32; allowed: float64, that of rows"),
        ([np.zeros(2), np.zeros((2, 1))], InvalidArgument, r"rows\[1\] has shape \(2, 1\); allowed: \(any\), as rows"),
        ([np.zeros((2, 3, 4)), np.zeros((2, 4, 3))], InvalidArgument, r"\(2, 4, 3\); allowed: \(any, 3, 4\), as rows"),
        ([1.0, [1.0]], InvalidArgument, r"rows\[1\] has shape \(1,\); allowed: \(\), as rows\[0\]"),
        ([[1], [None]], InvalidType, r"rows\[1\] has dtype object; allowed: int64"),
        ([object()], InvalidType, r"rows\[0\] has dtype object; allowed: a number or bool of fixed size"),
        (["text"], InvalidType, r"rows\[0\] has dtype <U4; allowed"),
        ([np.zeros(2, "M8[s]")], InvalidType, r"rows\[0\] has dtype datetime64"),
        ([np.zeros(2, [("a", "f4")])], InvalidType, r"rows\[0\] has dtype \[\('a'"),
        ([np.zeros((1,) * 9)], InvalidArgument, r"rows\[0\] has 9 axes; allowed: at most 8"),
        ([[1], [[1], [2, 3]]], InvalidArgument, r"rows\[1\] is no array"),
        ([np.zeros((2**30, 0))] * 2, InvalidArgument, r"rows hold 2147483648 steps in all; allowed: 2147483647"),
    ],
)
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_rows_that_make_no_batch_are_refused(rows, error, says, layout):
    with pytest.raises(error, match=says) as raised:
        infcore.pack(rows, layout=layout)
    assert isinstance(raised.value, InfcoreError)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"layout": "dense"}, InvalidArgument, "layout is 'dense'; allowed: 'packed', 'padded'"),
        ({"device": "cuda"}, InvalidArgument, "device is 'cuda'; allowed: 'cpu'"),
        ({"batch_axis": 1}, InvalidArgument, "batch_axis is 1; allowed: 0 to 0 for these rows, packed"),
        ({"layout": "padded", "batch_axis": 2}, InvalidArgument, "batch_axis is 2; allowed: 0 to 1 for these rows"),
        ({"layout": "padded", "batch_axis": -1}, InvalidArgument, "batch_axis is -1; allowed: 0 to 1"),
        ({"layout": "padded", "batch_axis": 0.0}, InvalidType, "batch_axis is float; allowed: an integer"),
        ({"layout": "padded", "pad_value": "0"}, InvalidType, "pad_value is '0'; allowed: one number"),
        ({"layout": "padded", "pad_value": [0]}, InvalidType, "allowed: one number"),
        ({"layout": "padded", "pad_value": None}, InvalidType, "allowed: one number"),
    ],
)
def test_options_that_cannot_be_are_refused(options, error, says):
    with pytest.raises(error, match=says):
        infcore.pack(RAGGED, **options)


@pytest.mark.parametrize(
    ("dtype", "fit", "unfit"),
    [
        ("uint8", [0, 255, True, 7.0], [-1, 256, 0.5, math.nan, math.inf, 1j]),
        ("int64", [-(2**63), 2**63 - 1], [2**63, 1e30]),
        ("bool", [0, 1, True], [2, 0.5]),
        ("float16", [0.1, -65504, math.inf, math.nan], [1e6, 1j]),
        ("float32", [0.1, 2**24 + 1, -math.inf], [1e300]),
        ("complex64", [1j, 0.1, math.nan], [1e300]),
        (">i4", [1, -2], [2**31]),
    ],
)
def test_pad_value_must_be_one_the_dtype_holds(dtype, fit, unfit):
    rows = [np.zeros(2, dtype), np.zeros(1, dtype)]
    for pad_value in fit:
        padded = infcore.pack(rows, layout="padded", pad_value=pad_value).data
        assert np.array_equal(padded[1, 1], np.asarray(pad_value).astype(dtype), equal_nan=padded.dtype.kind in "fc")
        assert padded.dtype == rows[0].dtype
    for pad_value in unfit:
        with pytest.raises(InvalidArgument, match=rf"pad_value is .*; allowed: a value that {np.dtype(dtype)} holds"):
            infcore.pack(rows, layout="padded", pad_value=pad_value)


def test_unpack_refuses_what_pack_did_not_make():
    with pytest.raises(InvalidType, match="packed is list; allowed: what"):
        infcore.unpack([])


def test_unpack_takes_a_models_output_in_place_of_its_input():
    batch = infcore.pack([np.ones((3, 4)), np.ones((1, 4))])
    answers = Packed(batch.data.sum(axis=1), batch.cu_seqlens, batch.max_seqlen)
    assert [row.tolist() for row in infcore.unpack(answers)] == [[4.0] * 3, [4.0]]
