"""Staged rows: which bytes lie where, and what is refused. NumPy alone."""

import numpy as np
import pytest

from infcore.kernels import dtypes, staging


def test_bytes_of_a_region() -> None:
    rows = [np.array([1, 2, 3], np.int16).view(np.float16), np.zeros(0, np.float16), np.arange(9).astype(np.float16)]
    memory = np.full(160, 0xEE, np.uint8)
    staged = staging.stage(rows, memory, at=16)
    # Three offsets and four sums are 40 bytes, so rows begin at 16 + 48; each takes a multiple of 16.
    assert memory[16:40].view(np.int64).tolist() == [64, 80, 80]
    assert memory[40:56].view(np.int32).tolist() == [0, 3, 3, 12]
    assert memory[64:70].view(np.float16).tolist() == rows[0].tolist()
    assert memory[80:98].view(np.float16).tolist() == rows[2].tolist()
    assert (memory[:16] == 0xEE).all() and (memory[112:] == 0xEE).all()
    assert staged[:4] == (16, 3, "float16", ())
    assert staged.lengths.tolist() == [3, 0, 9]
    assert staged.n_bytes == staging.staged_bytes([3, 0, 9], 2) == 112 - 16


def test_lengths_take_less_than_the_row() -> None:
    rows = [np.arange(12, dtype=np.int32).reshape(4, 3), np.arange(6, dtype=np.int32).reshape(2, 3)]
    memory = np.zeros(staging.staged_bytes([2, 0], 12), np.uint8)
    staged = staging.stage(rows, memory, lengths=[2, 0])
    assert (staged.lengths.tolist(), staged.trailing, staged.step_bytes) == ([2, 0], (3,), 12)
    begin = int(memory[:8].view(np.int64)[0])
    assert memory[begin : begin + 24].view(np.int32).tolist() == [0, 1, 2, 3, 4, 5]


ROWS = [np.zeros((2, 3), np.float32), np.zeros((1, 3), np.float32)]
BIG = np.zeros(1024, np.uint8)


@pytest.mark.parametrize(
    ("rows", "arguments", "error", "named"),
    [
        ([], {}, ValueError, "rows is empty"),
        ([np.zeros(2), np.zeros(2)], {}, TypeError, "rows.0..dtype is dtype.'float64'"),
        ([ROWS[0], ROWS[1].astype(np.float16)], {}, TypeError, "rows.1. is float16"),
        ([ROWS[0], np.zeros((1, 4), np.float32)], {}, ValueError, r"rows.1. has shape \(1, 4\)"),
        ([ROWS[0], np.zeros((1, 3, 1), np.float32)], {}, ValueError, r"rows.1. has shape \(1, 3, 1\)"),
        ([np.float32(1)], {}, ValueError, "no axis"),
        ([ROWS[0][::-1]], {}, ValueError, "negative|C-contiguous"),
        ([np.zeros((3, 2), np.float32).T], {}, ValueError, "C-contiguous"),
        (ROWS, {"lengths": [3, 0]}, ValueError, r"lengths\[0\] is 3, allowed is 0 to its row's 2"),
        (ROWS, {"lengths": [0, -1]}, ValueError, r"lengths\[1\] is -1"),
        (ROWS, {"lengths": [1]}, ValueError, "one for each"),
        (ROWS, {"lengths": [1.0, 1.0]}, TypeError, "float64"),
        (ROWS, {"at": 8}, ValueError, "at is 8"),
        (ROWS, {"at": -16}, ValueError, "at is -16"),
        (ROWS, {"at": 1008}, ValueError, "1024 bytes"),
        (ROWS, {"memory": BIG.view(np.int8)}, ValueError, "int8"),
        (ROWS, {"memory": BIG[::2]}, ValueError, "C-contiguous"),
    ],
)
def test_refused(rows: list, arguments: dict, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        staging.stage(rows, arguments.pop("memory", BIG), **arguments)
    assert not BIG.any()


def test_sums_over_int32_are_refused() -> None:
    for few in ([], [0] * 300):
        assert staging.extent_of(np.array([2**31 - 2, 1, *few])).total == 2**31 - 1
        with pytest.raises(ValueError, match="sum to 2147483648"):
            staging.extent_of(np.array([2**31 - 1, 1, *few]))
        with pytest.raises(ValueError, match="sum to 18446744073709551614"):
            staging.extent_of(np.array([2**63 - 1, 2**63 - 1, *few]))
        with pytest.raises(ValueError, match=r"lengths\[1\] is -1"):
            staging.extent_of(np.array([2, -1, *few]))
        assert staging.extent_of(np.array([2, 5, *few]))[1:] == (5, 7)


@pytest.mark.parametrize(
    ("value", "name", "pattern"),
    [
        (1, "float32", "3f800000" * 2),
        (-1, "int8", "ff" * 8),
        (2, "int64", "0000000000000002"),
        (1.5, "bfloat16", "3fc0" * 4),
        (1.00390625, "bfloat16", "3f80" * 4),  # half way to the next: to even
        (1.01171875, "bfloat16", "3f82" * 4),
        (float("-inf"), "float16", "fc00" * 4),
        (float("-inf"), "bfloat16", "ff80" * 4),
        (True, "uint8", "01" * 8),
        (3.0, "int32", "00000003" * 2),
    ],
)
def test_bits_of_a_pad_value(value: float, name: str, pattern: str) -> None:
    assert dtypes.value_bits(value, name) == int(pattern, 16)


@pytest.mark.parametrize("first", [0.0, -0.0])
@pytest.mark.parametrize(
    ("name", "minus"), [("float32", "80000000" * 2), ("float16", "8000" * 4), ("bfloat16", "8000" * 4)]
)
def test_zero_and_minus_zero_are_two_pad_values_whichever_came_first(first: float, name: str, minus: str) -> None:
    dtypes._number_bits.cache_clear()
    dtypes.value_bits(first, name)
    assert (dtypes.value_bits(0.0, name), dtypes.value_bits(-0.0, name)) == (0, int(minus, 16))


@pytest.mark.parametrize(
    ("value", "name", "error"),
    [
        (0.5, "int32", ValueError),
        (-1, "uint8", ValueError),
        (256, "uint8", ValueError),
        (float("nan"), "int8", ValueError),
        (1e6, "float16", ValueError),
        (1e39, "float32", ValueError),
        (1e39, "bfloat16", ValueError),
        (10**400, "float32", ValueError),
        (10**400, "int8", ValueError),
        ("0", "float32", TypeError),
        (1j, "float32", TypeError),
        ([1], "float32", TypeError),
        (None, "float32", TypeError),
    ],
)
def test_pad_values_that_a_type_cannot_hold(value: object, name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"pad_value (is|has)"):
        dtypes.value_bits(value, name)


def test_bfloat16_rounds_as_ml_dtypes_does() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    values = np.random.default_rng(3).integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    values = np.concatenate([values, np.array([0.0, -0.0, np.inf, -np.inf, 3.4e38, 1e-45], np.float32)])
    values = values[~np.isnan(values)]
    np.testing.assert_array_equal(dtypes.bfloat16_bits(values), values.astype(ml_dtypes.bfloat16).view(np.uint16))
    assert np.isnan(dtypes.bfloat16_bits(np.float32("nan")).view(ml_dtypes.bfloat16))
