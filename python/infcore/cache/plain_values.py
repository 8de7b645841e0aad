"""Plain values as bytes, and back the very same: None, bool, int, float, str, bytes, NumPy arrays, and lists, tuples
and dicts of these. No code runs when they are read, whatever the bytes say.

A value is a letter and what belongs to it, numbers little-endian. Only exact types are taken: of a subclass the rest
would be lost.
"""

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

Piece = bytes | memoryview

DEPTH_MAX = 64  # of containers in each other: below what the interpreter's stack takes
ITEMS_MAX = 1 << 24  # of one value: lists that hold a list twice, many times over, would otherwise never end
_I64 = struct.Struct("<q")
_F64 = struct.Struct("<d")
_N = struct.Struct("<Q")
_FORTRAN, _READ_ONLY = 1, 2


class NotPlain(Exception):
    """The value is of another kind, or the bytes are no plain value; says which, or where."""


def encode(value: object) -> list[Piece]:
    """The value's bytes, in pieces; of contiguous arrays the memory itself, which must not change until it is written.

    Raises      NotPlain
    Complexity  O(bytes)
    """
    pieces: list[Piece] = []
    _put(value, pieces, DEPTH_MAX, [ITEMS_MAX])
    return pieces


def encode_key(key: object) -> bytes:
    """The bytes of an int, str, bytes, or tuple of these. Raises NotPlain."""
    if not is_key(key, DEPTH_MAX):
        raise NotPlain(f"a key is {type(key).__name__}; allowed: int, str, bytes, tuples of these")
    return b"".join(encode(key))


def is_key(key: object, depth: int) -> bool:
    return type(key) in (int, str, bytes) or (
        type(key) is tuple and depth > 0 and all(is_key(each, depth - 1) for each in key)
    )


def _put(value: Any, out: list[Piece], depth: int, left: list[int]) -> None:
    kind = type(value)
    if kind in _SCALARS:
        out.append(_SCALARS[kind](value))
    elif kind in (str, bytes):
        data = value.encode("utf-8", "surrogatepass") if kind is str else value
        out += [(b"s" if kind is str else b"b") + _N.pack(len(data)), data]
    elif kind in (list, tuple, dict):
        if depth == 0:
            raise NotPlain(f"a value holds containers more than {DEPTH_MAX} deep in each other")
        items = list(value.items()) if kind is dict else list(value)  # at once: others may change it
        left[0] -= len(items) + 1
        if left[0] < 0:
            raise NotPlain(f"a value holds more than {ITEMS_MAX} items")
        out.append(_LETTERS[kind] + _N.pack(len(items)))
        for item in items:
            if kind is dict:
                if not is_key(item[0], depth - 1) and item[0] is not None and type(item[0]) not in (bool, float):
                    raise NotPlain(
                        f"a dict's key is {type(item[0]).__name__}; allowed: int, str, bytes, tuples of these"
                    )
                _put(item[0], out, depth - 1, left)
            _put(item[1] if kind is dict else item, out, depth - 1, left)
    elif kind is np.ndarray:
        _put_array(value, b"a", out)
    elif isinstance(value, np.generic) and kind.__module__ == "numpy":
        _put_array(np.asarray(value), b"g", out)
    else:
        raise NotPlain(f"a value holds {kind.__module__}.{kind.__qualname__}")


def _put_int(value: int) -> bytes:
    if -(1 << 63) <= value < 1 << 63:
        return b"i" + _I64.pack(value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"I" + _N.pack(len(data)) + data


_SCALARS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"n",
    bool: lambda value: b"t" if value else b"f",
    int: _put_int,
    float: lambda value: b"d" + _F64.pack(value),
}
_LETTERS: dict[type, bytes] = {list: b"l", tuple: b"u", dict: b"m"}
_CONTAINERS: dict[bytes, type] = {b"l": list, b"u": tuple}


def _put_array(array: "np.ndarray[Any, Any]", letter: bytes, out: list[Piece]) -> None:
    dtype = array.dtype
    if dtype.hasobject:
        raise NotPlain(f"a value holds an array of {dtype}")
    descr = np.lib.format.dtype_to_descr(dtype)
    if np.lib.format.descr_to_dtype(descr) != dtype or dtype.metadata:
        raise NotPlain(f"a value holds an array of {dtype}, a type of another package")
    is_fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    flat = np.ascontiguousarray(array.T if is_fortran else array)
    flags = _FORTRAN * is_fortran + _READ_ONLY * (not array.flags.writeable)
    out.append(letter)
    _put(_as_tuples(descr), out, 16, [ITEMS_MAX])
    out.append(struct.pack(f"<BB{array.ndim}Q", flags, array.ndim, *array.shape) + _N.pack(array.nbytes))
    if array.nbytes:
        out.append(flat.reshape(-1).view(np.uint8).data)


def _as_tuples(descr: Any) -> Any:
    return tuple(_as_tuples(each) for each in descr) if isinstance(descr, (list, tuple)) else descr


def _as_descr(plain: Any) -> Any:
    """What descr_to_dtype takes: text, a list of fields, or a pair of a type and a shape."""
    if isinstance(plain, tuple) and all(isinstance(each, tuple) for each in plain):
        return [(field[0], _as_descr(field[1]), *field[2:]) for field in plain]
    if isinstance(plain, tuple) and len(plain) == 2:
        return (_as_descr(plain[0]), plain[1])
    return plain


def decode(data: bytes | bytearray) -> Any:
    """The value that these bytes, all of them, stand for. Raises NotPlain, and nothing else but MemoryError."""
    reader = _Reader(data)
    try:
        value = reader.value(DEPTH_MAX)
    except (ValueError, TypeError, OverflowError, IndexError, struct.error) as error:
        raise NotPlain(f"byte {reader.at} of the value: {error}") from None
    if reader.at != len(data):
        raise NotPlain(f"byte {reader.at} of the value: it ends here, and its bytes go on")
    return value


class _Reader:
    """Where in the bytes we are."""

    def __init__(self, data: bytes | bytearray):
        self._data = memoryview(data)
        self.at = 0

    def _take(self, n: int) -> memoryview:
        if n > len(self._data) - self.at:
            raise NotPlain(f"byte {self.at} of the value: {n} bytes should follow, {len(self._data) - self.at} do")
        self.at += n
        return self._data[self.at - n : self.at]

    def _number(self) -> int:
        (n,) = _N.unpack(self._take(8))
        return int(n)

    def value(self, depth: int) -> Any:
        letter = bytes(self._take(1))
        if letter in _FIXED:
            return _FIXED[letter]
        if letter == b"i":
            return _I64.unpack(self._take(8))[0]
        if letter == b"d":
            return _F64.unpack(self._take(8))[0]
        if letter == b"I":
            return int.from_bytes(self._take(self._number()), "little", signed=True)
        if letter == b"b":
            return bytes(self._take(self._number()))
        if letter == b"s":
            return str(self._take(self._number()), "utf-8", "surrogatepass")
        if depth == 0:
            raise NotPlain(f"byte {self.at} of the value: more than {DEPTH_MAX} containers in each other")
        if letter in _CONTAINERS:
            return _CONTAINERS[letter](self.value(depth - 1) for _ in range(self._n_items()))
        if letter == b"m":
            return {self.value(depth - 1): self.value(depth - 1) for _ in range(self._n_items())}
        if letter in (b"a", b"g"):
            array = self._array()
            return array if letter == b"a" else array[()]
        raise NotPlain(f"byte {self.at - 1} of the value: no kind {letter!r}")

    def _n_items(self) -> int:
        n = self._number()
        if n > len(self._data) - self.at:  # each takes a byte at least
            raise NotPlain(f"byte {self.at} of the value: {n} items should follow")
        return n

    def _array(self) -> "np.ndarray[Any, Any]":
        dtype = np.lib.format.descr_to_dtype(_as_descr(self.value(16)))
        flags, n_dimensions = self._take(2)
        shape = struct.unpack(f"<{n_dimensions}Q", self._take(8 * n_dimensions))
        data = bytearray(self._take(self._number()))  # its own memory, which may be written
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data):
            raise NotPlain(f"byte {self.at} of the value: {len(data)} bytes are no array of {dtype}, {shape}")
        array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, data or None, order="F" if flags & _FORTRAN else "C")
        array.flags.writeable = not flags & _READ_ONLY
        return array


_FIXED: dict[bytes, Any] = {b"n": None, b"t": True, b"f": False}
