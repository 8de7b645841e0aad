"""Whatever is done to a snapshot's bytes: it is refused, or what it was; never another value, never another error."""

import os
import tempfile
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import infcore
from infcore.cache import load_snapshot, save_snapshot
from infcore.cache.plain_values import NotPlain, decode, encode

keys: Any = st.recursive(
    st.integers() | st.text() | st.binary(), lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
dtypes = arrays.scalar_dtypes()
values: Any = st.recursive(
    scalars | arrays.arrays(dtypes, arrays.array_shapes(min_dims=0, min_side=0, max_side=3)),
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple) | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=8,
)


def bytes_of(value: object) -> bytes:
    return b"".join(encode(value))


def _snapshot() -> bytes:
    cache = infcore.Cache(1 << 20, policy="lru", clock=infcore.ManualClock(0.0))
    cache.put("a", {"x": [1, 2.0, None]}, cost_us=4.0, tags=("t",), version=2)
    cache.put(("b", 1), b"bytes", ttl_s=5.0)
    cache.put(3, "text")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "s")
        save_snapshot(cache, path)
        with open(path, "rb") as file:
            return file.read()


WHOLE = _snapshot()


def _refused(data: bytes) -> None:
    cache = infcore.Cache(1 << 20, policy="lru", clock=infcore.ManualClock(0.0))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "s")
        with open(path, "wb") as file:
            file.write(data)
        with pytest.raises(infcore.SnapshotError) as refused:
            load_snapshot(cache, path, pickle=True)
    assert path in str(refused.value) and 0 <= refused.value.offset <= len(data)
    assert len(cache) == 0


@settings(max_examples=60, deadline=None)
@given(values)
def test_every_plain_value_comes_back(value: Any) -> None:
    data = bytes_of(value)
    assert bytes_of(decode(data)) == data  # the very same, also where a NaN is not itself


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(keys, values, max_size=5))
def test_a_cache_comes_back(content: dict[Any, Any]) -> None:
    cache, other = (infcore.Cache(1 << 30, policy="lru", clock=infcore.ManualClock(0.0)) for _ in range(2))
    for key, value in content.items():
        cache.put(key, value)
    with tempfile.TemporaryDirectory() as folder:
        assert save_snapshot(cache, os.path.join(folder, "s")).skipped == 0
        assert load_snapshot(other, os.path.join(folder, "s")).entries == len(content)
    assert {key: bytes_of(value) for key, value, _ in other.entries()} == {
        key: bytes_of(value) for key, value in content.items()
    }


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(WHOLE[:28])
def test_random_bytes_are_refused(data: bytes) -> None:
    _refused(data)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8 * len(WHOLE) - 1)), min_size=1, max_size=8, unique=True))
def test_flipped_bits_are_refused(flips: list[tuple[int]]) -> None:
    data = bytearray(WHOLE)
    for (bit,) in flips:
        data[bit // 8] ^= 1 << bit % 8
    _refused(bytes(data))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=20))
def test_cut_off_or_patched_is_refused(end: int, more: bytes) -> None:
    if WHOLE[:end] + more != WHOLE:
        _refused(WHOLE[:end] + more)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE)))
def test_with_a_piece_missing_or_twice_is_refused(a: int, b: int) -> None:
    if a != b:
        _refused(WHOLE[:a] + WHOLE[b:])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.tuples(st.sampled_from(list(b"iIdbslumag")), st.binary(max_size=40)).map(
    lambda pair: bytes([pair[0]]) + pair[1]))  # fmt: skip
@example(b"l" + b"\xff" * 8)
@example(bytes_of(arrays.np.zeros(0, "S0"))[:-8] + b"\0" * 8)
def test_bytes_that_no_value_wrote_give_a_plain_value_or_are_refused(data: bytes) -> None:
    try:
        encode(decode(data))
    except NotPlain:
        return
