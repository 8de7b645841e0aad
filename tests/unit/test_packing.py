"""infcore.pack and unpack: known batches, ownership, refusals."""

import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import infcore
from infcore import InfcoreError, InvalidArgument, InvalidType, MissingExtra, Packed

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


def test_padded_on_the_left():
    batch = infcore.pack(RAGGED, layout="padded", side="left", pad_value=-1)
    assert batch.data.tolist() == [[1, 2, 3], [-1, -1, -1], [-1, -1, 4]]
    assert batch.mask.tolist() == [[True] * 3, [False] * 3, [False, False, True]]
    assert batch.side == "left"
    assert [row.tolist() for row in infcore.unpack(batch)] == [[1, 2, 3], [], [4]]


def test_lengths_take_the_first_steps():
    batch = infcore.pack(RAGGED, lengths=[2, 0, 1])
    assert batch.data.tolist() == [1, 2, 4]
    assert batch.position_ids.tolist() == [0, 1, 0]
    assert batch.position_ids.dtype == np.int32
    dense = np.arange(12).reshape(3, 4)
    for rows in (dense, list(dense), dense[::-1][::-1], np.asfortranarray(dense)):
        batch = infcore.pack(rows, lengths=np.array([1, 0, 3], np.uint8))
        assert batch.data.tolist() == [0, 8, 9, 10]
        assert batch.max_seqlen == 3
    with pytest.raises(InvalidArgument, match=r"lengths is given; allowed: None, as rows\[0\] is one number"):
        infcore.pack([1, 2], lengths=[1, 1])
    with pytest.raises(InvalidArgument, match="rows hold 2147483648 steps"):
        infcore.pack(np.zeros((2, 2**31, 0)), lengths=[2**31 - 1, 1])


def test_what_the_other_layout_has_is_none():
    assert infcore.pack(RAGGED).mask is None
    assert infcore.pack(RAGGED, layout="padded").position_ids is None


def test_cast_in_the_copy():
    rows = [np.array([1.5, -2.75], np.float32), np.array([300.0], np.float32)]
    assert infcore.pack(rows, dtype="int32").data.tolist() == [1, -2, 300]
    assert infcore.pack(rows, dtype=np.float16).data.dtype == np.float16
    padded = infcore.pack([row.astype(np.int64) for row in rows], layout="padded", dtype=np.uint8, pad_value=9)
    assert padded.data.tolist() == [[1, 254], [44, 9]]
    assert infcore.pack(rows, dtype=np.float32).data.tolist() == [1.5, -2.75, 300.0]
    with pytest.raises(InvalidType, match=r"rows\[0\].dtype is float64; allowed where rows are cast: float32, float16"):
        infcore.pack([np.zeros(1)], dtype="float32")
    with pytest.raises(InvalidType, match=r"rows\[0\].dtype is >f4; allowed where"):
        infcore.pack([np.zeros(1, ">f4")], dtype="int32")


def test_a_tensor_that_is_not_in_host_memory_is_named():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    elsewhere = [torch.ones(2, device="meta"), torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16)]
    for tensor in elsewhere:
        with pytest.raises(InvalidType, match=r"rows\[1\] is Tensor; allowed: an array in host memory"):
            infcore.pack([torch.ones(2), tensor])


def test_bfloat16_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)  # as an import that fails leaves it
    with pytest.raises(MissingExtra, match="dtype 'bfloat16' needs the package 'ml_dtypes': pip install"):
        infcore.pack(RAGGED, dtype="bfloat16")


CASTS_DIGEST = """
import hashlib
import numpy as np
import infcore
names = ("float32", "float16", "int64", "int32", "int8", "uint8")
bits = np.random.default_rng(1).integers(0, 256, 8 * 5000, np.uint8)
digest = hashlib.sha256()
for of in names:
    row = bits.view(of)
    for to in names:
        digest.update(infcore.pack([row[:4999], row], dtype=to).data)
print(digest.hexdigest())
"""


def test_every_instruction_set_casts_to_the_same_bits():
    digests = {
        subprocess.run(
            [sys.executable, "-c", CASTS_DIGEST],
            env=os.environ | {"INFCORE_ISA": isa},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for isa in ("baseline", "avx2", "avx512")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_a_batch_too_large_for_the_caches(layout):
    """From 32 MiB on zeros that the kernel gives are not written again."""
    rows = [np.full((length, 512), length, np.float32) for length in (6000, 3, 5999)]
    for pad_value in (0, 0.5):
        batch = infcore.pack(rows, layout=layout, pad_value=pad_value)
        for row, expected in zip(infcore.unpack(batch), rows, strict=True):
            assert np.array_equal(row, expected)
        if layout == "padded":
            assert np.all(batch.data[1, 3:] == pad_value)
            assert np.all(batch.data[2, 5999:] == pad_value)


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
        ({"device": "gpu"}, InvalidArgument, "device is 'gpu'; allowed: 'cpu', 'cuda', 'cuda:N'"),
        ({"stream": 7}, InvalidArgument, "stream is 7; allowed: None, as device is 'cpu'"),
        ({"side": "top"}, InvalidArgument, "side is 'top'; allowed: 'right', 'left'"),
        (
            {"dtype": "float64"},
            InvalidType,
            "dtype is float64; allowed where rows are cast: float32, float16, bfloat16",
        ),
        ({"dtype": "no dtype"}, InvalidType, "dtype is 'no dtype'; allowed: None, float32, float16"),
        ({"dtype": "uint8", "layout": "padded", "pad_value": -1}, InvalidArgument, "a value that uint8 holds"),
        ({"lengths": [1, 0]}, InvalidArgument, "lengths has 2 entries; allowed: 3, one for each row"),
        ({"lengths": [1, 0, 2]}, InvalidArgument, r"lengths\[2\] is 2; allowed: 0 to 1, the steps of rows\[2\]"),
        ({"lengths": [-1, 0, 1]}, InvalidArgument, r"lengths\[0\] is -1; allowed: 0 to 3"),
        ({"lengths": np.array([2**64 - 1, 0, 0], "u8")}, InvalidArgument, r"lengths\[0\] is \d{19}; allowed: 0 to 3"),
        ({"lengths": [1.0, 0.0, 1.0]}, InvalidType, r"lengths is float64 of shape \(3,\); allowed: 3 integers"),
        ({"lengths": [[1, 0, 1]]}, InvalidType, r"lengths is int64 of shape \(1, 3\); allowed: 3 integers"),
        ({"lengths": [True, False, True]}, InvalidType, "lengths is bool"),
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
