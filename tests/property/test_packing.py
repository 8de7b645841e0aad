"""Whatever the rows: the batch is the NumPy model's, to the bit, and the rows come back."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from reference import packing as reference

import infcore

DTYPES = [*"?bBhHiIqQefdgFDG", ">f4", ">i8"]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
CASTS = [*map(np.dtype, ("float32", "float16")), BFLOAT16, *map(np.dtype, ("int64", "int32", "int8", "uint8"))]
PAIRS = [pair for pair in itertools.product(CASTS, CASTS) if pair[0] != pair[1]]


@st.composite
def ragged_rows(draw, dtypes=DTYPES):
    """1 to 6 rows of one dtype: scalars, or arrays alike in all but the first axis, some not contiguous, some at odd
    addresses."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    n = draw(st.integers(1, 6))
    if draw(st.integers(0, 5)) == 0:
        return [np.array(draw(st_np.arrays(dtype, ()))) for _ in range(n)]
    trailing = draw(st_np.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    rows = []
    for _ in range(n):
        shape = (draw(st.integers(0, 5)), *trailing)
        form = draw(st.sampled_from(["c", "fortran", "strided", "reversed", "odd"]))
        row = draw(st_np.arrays(dtype, (shape[0] * 2, *trailing) if form == "strided" else shape))
        forms = {"fortran": np.asfortranarray, "strided": lambda r: r[::2], "reversed": lambda r: r[::-1], "odd": odd}
        rows.append(forms.get(form, np.ascontiguousarray)(row))
    return rows


def odd(row):
    """The same numbers from an address that is a multiple of nothing."""
    memory = np.empty(row.nbytes + 1, np.uint8)
    out = memory[1:].view(row.dtype).reshape(row.shape)
    out[...] = row
    assert not out.size or out.ctypes.data % 2
    return out


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def same_numbers(left, right):
    """Bits, but for the payload of a NaN: NumPy's own differs from CPU to CPU."""
    if left.dtype.kind in "iu":
        return same(left, right)
    nan = np.isnan(left)
    return np.array_equal(nan, np.isnan(right)) and same(left[~nan], right[~nan])


def lengths_for(rows, data):
    """None, or how many steps of each row to take."""
    if rows[0].ndim == 0 or not data.draw(st.booleans()):
        return None
    return [data.draw(st.integers(0, len(row))) for row in rows]


@given(ragged_rows(), st.data())
def test_packed_is_the_model_and_comes_back(rows, data):
    lengths = lengths_for(rows, data)
    batch = infcore.pack(rows, lengths=lengths)
    rows = reference.taken(rows, lengths)
    expected, cu_seqlens, position_ids = reference.packed(rows)
    assert same(batch.data, expected.astype(rows[0].dtype))
    assert same(batch.cu_seqlens, cu_seqlens)
    assert same(batch.position_ids, position_ids)
    assert batch.mask is None
    assert batch.max_seqlen == max(len(np.atleast_1d(row)) for row in rows)
    assert batch.lengths.tolist() == [len(np.atleast_1d(row)) for row in rows]
    back = infcore.unpack(batch)
    assert len(back) == len(rows)
    assert all(same(there, here) for there, here in zip(back, rows, strict=True))


@given(ragged_rows(), st.data())
def test_padded_is_the_model_and_comes_back_on_every_batch_axis(rows, data):
    batch_axis = data.draw(st.integers(0, rows[0].ndim))
    pad_value = data.draw(st.sampled_from([0, 1, True]))
    side = data.draw(st.sampled_from(["right", "left"]))
    lengths = lengths_for(rows, data)
    batch = infcore.pack(rows, lengths=lengths, layout="padded", pad_value=pad_value, batch_axis=batch_axis, side=side)
    rows = reference.taken(rows, lengths)
    expected = reference.padded(rows, pad_value, batch_axis, side)
    assert batch.data.dtype == rows[0].dtype
    assert np.array_equal(batch.data, expected, equal_nan=rows[0].dtype.kind in "fc")
    back = infcore.unpack(batch)
    assert len(back) == len(rows)
    assert all(same(there, here) for there, here in zip(back, rows, strict=True))
    assert batch.position_ids is None
    if rows[0].ndim:
        in_rows = np.moveaxis(batch.data, batch_axis, 0)
        assert np.array_equal(batch.mask, reference.mask([len(row) for row in rows], side))
        assert np.all(in_rows[~batch.mask] == pad_value)


@given(st.data())
def test_one_array_is_its_rows(data):
    dense = data.draw(st_np.arrays("f4", st_np.array_shapes(min_dims=2, max_dims=4, max_side=4)))
    dense = data.draw(st.sampled_from([dense, dense[::-1], np.asfortranarray(dense), dense[:, ::2]]))
    lengths = lengths_for(list(dense), data)
    layout = data.draw(st.sampled_from(["packed", "padded"]))
    whole = infcore.pack(dense, lengths=lengths, layout=layout)
    assert same(whole.data, infcore.pack(list(dense), lengths=lengths, layout=layout).data)


def numbers(dtype):
    """All numbers of a small type; of a large one random bits, and those around which rounding and ranges turn."""
    if dtype.itemsize <= 2:
        return np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(dtype)
    random = np.random.default_rng(1)
    bits = random.integers(0, 2**64, 40_000, np.uint64).astype(f"u{dtype.itemsize}")
    if dtype.kind == "f":
        halves = np.arange(2**16, dtype=np.uint16)  # each half, each bfloat16, and what lies between two of them
        turns = np.concatenate([halves.view("f2").astype("f4").view("u4"), halves.astype("u4") << 16])
        between = turns[:, np.newaxis] + np.array([0, 1, 0xFFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001], "u4")
        return np.concatenate([bits, between.ravel()]).view(dtype)
    around = [sign * 2**power + step for power in range(63) for step in range(-2, 3) for sign in (1, -1)]
    ends = np.iinfo(dtype)
    inside = [number for number in [*around, ends.min, ends.max] if ends.min <= number <= ends.max]
    small = random.integers(-70_000, 70_000, 20_000)
    return np.concatenate([bits.view(dtype), np.array(inside, dtype), small.astype(dtype)])


def in_range(values, dtype):
    """Without the floats that an integer type does not hold: what they become is unspecified."""
    if dtype.kind not in "iu" or values.dtype.kind in "iu":
        return values
    ends = np.iinfo(dtype)
    with np.errstate(all="ignore"):
        whole = np.trunc(values.astype("f8"))
        return values[(whole >= float(ends.min)) & (whole < float(ends.max) + (ends.max < 2**53))]


@pytest.mark.parametrize(("of", "to"), PAIRS, ids=[f"{of.name}-{to.name}" for of, to in PAIRS])
def test_every_number_is_cast_as_numpy_does(of, to):
    values = in_range(numbers(of), to)
    rows = [values[:1000], values[1000:1000], odd(values[1000:])]
    expected = reference.packed(reference.taken(rows, dtype=to))[0]
    assert same_numbers(infcore.pack(rows, dtype=to).data, expected.astype(to))


@pytest.mark.parametrize(("of", "to"), PAIRS, ids=[f"{of.name}-{to.name}" for of, to in PAIRS])
@settings(max_examples=10)
@given(data=st.data())
def test_cast_rows_in_every_layout(of, to, data):
    """Small numbers, which all the types hold exactly: what is asked is where they go."""
    trailing = data.draw(st_np.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows = [
        data.draw(st.sampled_from([np.array, odd]))(random.integers(0, 100, (steps, *trailing)).astype(of))
        for steps in data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=5))
    ]
    lengths = lengths_for(rows, data)
    side = data.draw(st.sampled_from(["right", "left"]))
    batch_axis = data.draw(st.integers(0, rows[0].ndim))
    cast = reference.taken(rows, lengths, to)
    packed = infcore.pack(rows, lengths=lengths, dtype=to)
    assert same(packed.data, reference.packed(cast)[0].astype(to))
    padded = infcore.pack(
        rows, lengths=lengths, layout="padded", dtype=to, pad_value=7, side=side, batch_axis=batch_axis
    )
    assert same(padded.data, reference.padded(cast, 7, batch_axis, side).astype(to))


@pytest.mark.parametrize("dtype", [None, "float16"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    "lengths", [[100_000], [0], [0, 0, 0], [99_999, 1, 0], list(range(300)), [1] * 5000], ids=lambda n: f"{len(n)} rows"
)
def test_long_empty_and_many_rows(lengths, side, dtype):
    random = np.random.default_rng(2)
    rows = [random.random((length, 3), np.float32) for length in lengths]
    cast = reference.taken(rows, dtype=dtype)
    batch = infcore.pack(rows, dtype=dtype)
    data, cu_seqlens, position_ids = reference.packed(cast)
    assert same(batch.data, data)
    assert same(batch.cu_seqlens, cu_seqlens)
    assert same(batch.position_ids, position_ids)
    padded = infcore.pack(rows, layout="padded", side=side, pad_value=-1, dtype=dtype)
    assert same(padded.data, reference.padded(cast, -1, 0, side))
    assert np.array_equal(padded.mask, reference.mask(lengths, side))
    assert all(same(there, here) for there, here in zip(infcore.unpack(padded), cast, strict=True))
