"""The element types that the kernels know, by name, and what NumPy makes of them."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int8": 1, "uint8": 1}
FLOATS = ("float32", "float16", "bfloat16")


def name_of(dtype: Any, *, argument: str = "dtype") -> str:
    """The name of a NumPy, CuPy or PyTorch dtype, or of a name itself.

    Raises    TypeError if it is none of ITEM_BYTES.
    """
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    if name not in ITEM_BYTES:
        try:
            name = str(np.dtype(dtype))
        except TypeError:
            pass
    if name not in ITEM_BYTES:
        raise TypeError(f"{argument} is {dtype!r}; allowed are {', '.join(ITEM_BYTES)}")
    return name


def numpy_dtype(name: str) -> Any:
    """What NumPy calls it; bfloat16 is that of the package ml_dtypes.

    Raises    ValueError for bfloat16 where ml_dtypes is not installed.
    """
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError as e:
        raise ValueError("dtype is 'bfloat16', which NumPy has only with the package ml_dtypes installed") from e
    return np.dtype(ml_dtypes.bfloat16)


def bfloat16_bits(values: DTypeLike | NDArray[Any] | float) -> NDArray[np.uint16]:
    """float32 values as the bits of the nearest bfloat16, ties to even; a NaN stays one."""
    values = np.asarray(values, np.float32)
    bits = values.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), ((bits >> 16) | 0x40).astype(np.uint16), rounded)


def value_bits(value: Any, name: str, *, argument: str = "pad_value") -> int:
    """One element's bits, unsigned, repeated to 64: what a kernel fills with.

    Raises    TypeError if value is no number, ValueError if the type cannot hold it: an integer type takes integers of
              its range, a float type any number that stays finite in it, infinities and NaN.
    """
    if type(value) in (int, float) and (value or str(value)[0] != "-"):  # what most callers give, and give again
        try:
            return _number_bits(value, name, argument)  # but for -0.0, which is 0.0 to the cache
        except OverflowError:
            raise ValueError(f"{argument} has {value.bit_length()} bits, which is too large for {name}") from None
    if np.ndim(value) or np.asarray(value).dtype.kind not in "biuf":
        raise TypeError(f"{argument} is {value!r}, allowed is one real number")
    return _number_bits.__wrapped__(value, name, argument)


@lru_cache(maxsize=256, typed=True)
def _number_bits(value: Any, name: str, argument: str) -> int:
    if name in FLOATS:
        pattern = _float_pattern(value, name, argument)
    else:
        range_of = np.iinfo(name)
        if not math.isfinite(value) or value != int(value) or not range_of.min <= int(value) <= range_of.max:
            raise ValueError(f"{argument} is {value!r}; {name} takes integers from {range_of.min} to {range_of.max}")
        pattern = np.asarray(int(value), name).tobytes()
    return int.from_bytes(pattern * (8 // len(pattern)), "little")


def _float_pattern(value: Any, name: str, argument: str) -> bytes:
    with np.errstate(over="ignore"):
        if name == "bfloat16":
            bits = bfloat16_bits(np.float32(value))
            fits = (int(bits) & 0x7F80) != 0x7F80
        else:
            item = np.asarray(value).astype(name)
            bits = item.view(f"uint{8 * ITEM_BYTES[name]}")
            fits = bool(np.isfinite(item))
    if not fits and math.isfinite(value):
        raise ValueError(f"{argument} is {value!r}, which is too large for {name}")
    return bits.tobytes()
