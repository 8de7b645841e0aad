"""pack and unpack: Triton interpreted, CUDA under the host shim, the C++ core and NumPy give the same bits."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpu import pack_rig
from gpu.pack_rig import How, Moved
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import infcore
from infcore.kernels import dtypes
from infcore.kernels.pack import plan as pack_plan
from infcore.kernels.pack import reference

pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: NumPy has no bfloat16")

Rows = list[NDArray[Any]]
Pack = Callable[[Rows, How], tuple[reference.Packed, Moved]]
Unpack = Callable[..., Rows]
BACKENDS = [
    pytest.param(pack_rig.pack_triton, pack_rig.unpack_triton, id="triton"),
    pytest.param(pack_rig.pack_cuda, pack_rig.unpack_cuda, id="cuda"),
]
# Steps of less than, exactly and more than 16 bytes, of odd sizes, and of none.
TRAILING = [(), (1,), (3,), (4,), (16,), (2, 5), (4, 24), (0,)]


@st.composite
def ragged_rows(draw: st.DrawFn) -> Rows:
    """Small whole numbers that every type holds: what is drawn is where they lie."""
    lengths = draw(st.lists(st.integers(0, 40) | st.sampled_from([0, 1, 300]), min_size=1, max_size=6))
    trailing = draw(st.sampled_from(TRAILING))
    dtype = dtypes.numpy_dtype(draw(st.sampled_from(list(dtypes.ITEM_BYTES))))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return [random.integers(0, 100, (length, *trailing)).astype(dtype) for length in lengths]


@st.composite
def ways(draw: st.DrawFn) -> How:
    layout = draw(st.sampled_from(["packed", "padded"]))
    return How(
        layout=layout,
        side=draw(st.sampled_from(["right", "left"])) if layout == "padded" else "right",
        dtype=draw(st.sampled_from([None, *dtypes.ITEM_BYTES])),
        pad_value=draw(st.integers(0, 127)),
        staged=draw(st.booleans()),
        row_shift=draw(st.sampled_from([0, 0, 1, 2])),
        out_shift=draw(st.sampled_from([0, 0, 1, 2])),
    )


def assert_there_and_back(pack: Pack, unpack: Unpack, rows: Rows, how: How, back: str | None) -> reference.Packed:
    """Packed as the reference packs, nothing written twice; unpacked as the reference unpacks. Returns the packed."""
    wanted = reference.pack(rows, **how.arguments)
    got, moved = pack(rows, how)
    assert_same_bits(got, wanted)
    assert moved.overwritten_bytes == 0

    lengths = [len(row) for row in rows]
    arguments = {"layout": how.layout, "side": how.side, "dtype": back}
    for ours, theirs in zip(
        unpack(wanted.data, lengths, how.row_shift, how.out_shift, **arguments),
        reference.unpack(wanted.data, lengths, **arguments),
        strict=True,
    ):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(bits(ours), bits(theirs))
    return wanted


def assert_same_bits(got: reference.Packed, wanted: reference.Packed) -> None:
    for field, ours, theirs in zip(wanted._fields, got, wanted, strict=True):
        if isinstance(theirs, np.ndarray):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), field
            np.testing.assert_array_equal(bits(ours), bits(theirs), err_msg=field)
        else:
            assert ours == theirs, field


def bits(array: NDArray[Any]) -> NDArray[Any]:
    return array.view(f"uint{8 * array.dtype.itemsize}")


@pytest.mark.parametrize(("pack", "unpack"), BACKENDS)
@given(rows=ragged_rows(), how=ways(), back=st.sampled_from([None, *dtypes.ITEM_BYTES]))
@settings(max_examples=40)
def test_ragged_rows_there_and_back(pack: Pack, unpack: Unpack, rows: Rows, how: How, back: str | None) -> None:
    wanted = assert_there_and_back(pack, unpack, rows, how, back)
    core = infcore.pack(rows, **how.arguments)
    assert_same_bits(reference.Packed(*(getattr(core, field) for field in wanted._fields)), wanted)


@pytest.mark.parametrize(("pack", "unpack"), BACKENDS)
@pytest.mark.parametrize(("layout", "side"), [("packed", "right"), ("padded", "right"), ("padded", "left")])
@pytest.mark.parametrize("trailing", [(), (3,), (4,), (16,)])
def test_every_way(pack: Pack, unpack: Unpack, layout: str, side: str, trailing: tuple[int, ...]) -> None:
    """What chance may leave out: each layout with steps wide before the cast alone, after it alone, and misaligned."""
    random = np.random.default_rng(6)
    whole = [random.integers(1, 100, (length, *trailing)) for length in (5, 0, 1, 40)]
    for src, dst, shift in [
        ("float32", None, 0),
        ("float32", None, 1),
        ("float32", "float16", 0),
        ("int64", "int8", 0),
        ("uint8", "float32", 0),
    ]:
        how = How(layout, side, dst, pad_value=101, staged=not shift, row_shift=shift, out_shift=shift)
        assert_there_and_back(pack, unpack, [row.astype(src) for row in whole], how, "float32")
    # The target alone is misaligned.
    assert_there_and_back(pack, unpack, [row.astype("int32") for row in whole], How(layout, side, out_shift=2), None)


def every_number(name: str) -> NDArray[Any]:
    """All numbers of a type of up to 16 bits; of a larger one its borders, ties between shorter types, and a sample."""
    dtype = dtypes.numpy_dtype(name)
    random = np.random.default_rng(7)
    if dtype.itemsize <= 2:
        return np.arange(2 ** (8 * dtype.itemsize), dtype=f"uint{8 * dtype.itemsize}").view(dtype)
    if name == "float32":
        # Every bfloat16 and Half, the numbers half way to the next, and their neighbours.
        near = np.concatenate([every_number(short).astype(np.float32).view(np.uint32) for short in dtypes.FLOATS[1:]])
        half_way = np.concatenate([near + 0x1000, near + 0x8000])
        spread = random.integers(0, 2**32, 4096, dtype=np.uint32)
        return np.concatenate([near[::7], half_way[::7], half_way[::11] + 1, half_way[::13] - 1, spread]).view(dtype)
    limits = np.iinfo(dtype)
    powers = [sign * 2**k + d for k in range(limits.bits - 1) for sign in (1, -1) for d in (-1, 0, 1)]
    spread = random.integers(limits.min, limits.max, 4096, dtype=dtype)
    return np.concatenate([np.array(powers, dtype), spread, spread >> (limits.bits // 2)])


@pytest.mark.parametrize(("pack", "unpack"), BACKENDS)
@pytest.mark.parametrize("dst", dtypes.ITEM_BYTES)
@pytest.mark.parametrize("src", dtypes.ITEM_BYTES)
def test_casts_of_every_number(pack: Pack, unpack: Unpack, src: str, dst: str) -> None:
    """As NumPy's astype, to the bit; a NaN stays one, with whatever payload."""
    with np.errstate(all="ignore"):
        numbers = every_number(src)
        if src in dtypes.FLOATS and dst not in dtypes.FLOATS:
            limits = np.iinfo(dst)
            wide = numbers.astype(np.float64)  # a NaN is unequal to all, and left out
            numbers = numbers[(np.trunc(wide) >= limits.min) & (np.trunc(wide) < float(limits.max) + 1)]
        numbers = numbers[: len(numbers) // 16 * 16].reshape(-1, 16)
        wanted = numbers.astype(dtypes.numpy_dtype(dst))
    got, _ = pack([numbers], How(dtype=dst))
    if src == dst:
        np.testing.assert_array_equal(bits(got.data), bits(wanted))
        return
    is_nan = wanted != wanted
    np.testing.assert_array_equal(got.data != got.data, is_nan)
    np.testing.assert_array_equal(bits(got.data)[~is_nan], bits(wanted)[~is_nan])


@pytest.mark.parametrize(("pack", "unpack"), BACKENDS)
@pytest.mark.parametrize(
    ("trailing", "how"),
    [((), How(dtype="int32")), ((), How(layout="padded", side="left", pad_value=-1)), ((4,), How(dtype="float32"))],
    ids=["cast", "padded", "wide"],
)
def test_a_hundred_thousand_tokens(pack: Pack, unpack: Unpack, trailing: tuple[int, ...], how: How) -> None:
    random = np.random.default_rng(1)
    lengths = [100_000] if how.layout == "packed" else [99_990, 10]
    rows = [random.integers(-50_000, 50_000, (length, *trailing)) for length in lengths]
    got, moved = pack(rows, how)
    assert_same_bits(got, reference.pack(rows, **how.arguments))
    assert moved.overwritten_bytes == 0


@pytest.mark.parametrize(("pack", "unpack"), BACKENDS)
@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize(
    ("trailing", "dtype", "tile_steps"), [((), "int32", 2048), ((4,), None, 1024), ((16,), "float16", 256)]
)
def test_borders_of_tiles(
    pack: Pack, unpack: Unpack, layout: str, trailing: tuple[int, ...], dtype: str | None, tile_steps: int
) -> None:
    """Rows one step shorter than a tile, as long, and longer: narrow, wide moved and wide cast."""
    random = np.random.default_rng(5)
    lengths = [tile_steps - 1, tile_steps, tile_steps + 1]
    rows = [random.standard_normal((length, *trailing)).astype(np.float32) for length in lengths]
    for side in ["right", "left"] if layout == "padded" else ["right"]:
        how = How(layout=layout, side=side, dtype=dtype, pad_value=3)
        got, _ = pack(rows, how)
        assert_same_bits(got, reference.pack(rows, **how.arguments))


@pytest.mark.parametrize(("pack", "unpack"), BACKENDS)
@pytest.mark.parametrize(("layout", "side"), [("packed", "right"), ("padded", "left")])
def test_more_tiles_than_a_grids_second_axis(
    pack: Pack, unpack: Unpack, layout: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of 1, 2, 3 and 5 tiles, where the third axis begins after two."""
    monkeypatch.setattr(pack_plan, "GRID_Y_MAX", 2)
    rows = [np.arange(length).astype(np.uint8) for length in (7, 4096, 6143, 8195)]
    assert_there_and_back(pack, unpack, rows, How(layout, side, "int32", pad_value=-1), None)


@pytest.mark.parametrize(("pack", "unpack"), BACKENDS)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("trailing", [(), (4,)])
def test_back_from_wider_padding_than_the_longest_row_needs(
    pack: Pack, unpack: Unpack, side: str, trailing: tuple[int, ...]
) -> None:
    data = np.arange(3 * 9 * math.prod(trailing), dtype=np.float32).reshape(3, 9, *trailing)
    for dtype in (None, "float16"):
        arguments = {"layout": "padded", "side": side, "dtype": dtype}
        for ours, theirs in zip(
            unpack(data, [2, 0, 6], **arguments), reference.unpack(data, [2, 0, 6], **arguments), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
