"""Whatever the rows: the batch is the NumPy model's, to the bit, and the rows come back."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from reference import packing as reference

import infcore

DTYPES = [*"?bBhHiIqQefdgFDG", ">f4", ">i8"]


@st.composite
def ragged_rows(draw):
    """1 to 6 rows of one dtype: scalars, or arrays alike in all but the first axis, some of them not contiguous."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    n = draw(st.integers(1, 6))
    if draw(st.integers(0, 5)) == 0:
        return [np.array(draw(st_np.arrays(dtype, ()))) for _ in range(n)]
    trailing = draw(st_np.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    rows = []
    for _ in range(n):
        shape = (draw(st.integers(0, 5)), *trailing)
        form = draw(st.sampled_from(["c", "fortran", "strided", "reversed"]))
        if form == "strided":
            rows.append(draw(st_np.arrays(dtype, (shape[0] * 2, *trailing)))[::2])
        else:
            row = draw(st_np.arrays(dtype, shape))
            rows.append({"c": row, "fortran": np.asfortranarray(row), "reversed": row[::-1]}[form])
    return rows


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@given(ragged_rows())
def test_packed_is_the_model_and_comes_back(rows):
    batch = infcore.pack(rows)
    data, cu_seqlens = reference.packed(rows)
    assert same(batch.data, data.astype(rows[0].dtype))
    assert same(batch.cu_seqlens, cu_seqlens)
    assert batch.max_seqlen == max(len(np.atleast_1d(row)) for row in rows)
    assert batch.lengths.tolist() == [len(np.atleast_1d(row)) for row in rows]
    back = infcore.unpack(batch)
    assert len(back) == len(rows)
    assert all(same(there, here) for there, here in zip(back, rows, strict=True))


@given(ragged_rows(), st.data())
def test_padded_is_the_model_and_comes_back_on_every_batch_axis(rows, data):
    batch_axis = data.draw(st.integers(0, rows[0].ndim))
    pad_value = data.draw(st.sampled_from([0, 1, True]))
    batch = infcore.pack(rows, layout="padded", pad_value=pad_value, batch_axis=batch_axis)
    expected = reference.padded(rows, pad_value, batch_axis)
    assert batch.data.dtype == rows[0].dtype
    assert np.array_equal(batch.data, expected, equal_nan=rows[0].dtype.kind in "fc")
    back = infcore.unpack(batch)
    assert len(back) == len(rows)
    assert all(same(there, here) for there, here in zip(back, rows, strict=True))
    if rows[0].ndim:
        in_rows = np.moveaxis(batch.data, batch_axis, 0)
        assert batch.mask.shape == in_rows.shape[:2]
        assert np.all(in_rows[~batch.mask] == pad_value)
