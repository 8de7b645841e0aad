"""Histogram's public face: figures, refusals, threads, memory."""

import copy
import json
import math
import pickle
import sys
import threading

import numpy as np
import pytest

import infcore
from infcore import Histogram, InvalidArgument, InvalidType


def test_figures_of_known_values():
    h = Histogram()
    for seconds in (0.25, 0.5, 1, np.float32(2.0)):
        h.record(seconds)
    assert h.count == 4
    assert (h.lowest_s, h.highest_s) == (0.25, 2.0)
    assert (h.quantile(0.0), h.quantile(1)) == (0.25, 2.0)
    assert h.quantile(0.5) == pytest.approx(0.75, rel=0.004)
    assert h.sum_s == pytest.approx(3.75, rel=0.004)
    assert h.mean_s == pytest.approx(3.75 / 4, rel=0.004)
    assert (h.min_s, h.max_s) == (1e-7, 3600.0)
    assert [(lower <= 0.5 < upper, n) for lower, upper, n in h.buckets()].count((True, 1)) == 1


def test_error_of_a_long_tail_to_p9999():
    values = np.random.default_rng(7).pareto(1.5, 300_000) * 1e-3 + 1e-5
    h = Histogram()
    h.record_many(values)
    for q in (0.01, 0.5, 0.9, 0.99, 0.999, 0.9999):
        assert h.quantile(q) == pytest.approx(np.quantile(values, q), rel=0.004)


def test_empty():
    h = Histogram()
    h.record_many([])
    assert h.count == 0
    assert h.sum_s == 0.0
    assert all(math.isnan(figure) for figure in (h.quantile(0.5), h.mean_s, h.lowest_s, h.highest_s))
    assert h.buckets() == []
    assert h.to_dict()["p99_s"] is None


def test_out_of_range_counts_as_the_bound():
    h = Histogram(min_s=1e-3, max_s=1.0)
    h.record_many([0.0, 1e-9, 5.0, math.inf])
    assert h.count == 4
    assert (h.lowest_s, h.highest_s) == (1e-3, 1.0)
    assert [n for *_, n in h.buckets()] == [2, 2]


@pytest.mark.parametrize("bad", [-1e-9, -math.inf, math.nan, np.float64("nan"), -1])
def test_negative_and_nan_are_refused(bad):
    h = Histogram()
    with pytest.raises(InvalidArgument, match=r"seconds is .*allowed: a number >= 0"):
        h.record(bad)
    with pytest.raises(InvalidArgument, match=r"seconds\[2\] is .*allowed: numbers >= 0"):
        h.record_many([0.1, 0.2, bad, 0.3])
    assert h.count == 0, "a refused array leaves nothing behind"


@pytest.mark.parametrize("bad", ["1", None, [1.0], 1j])
def test_no_number_is_refused(bad):
    with pytest.raises(InvalidType, match="seconds is"):
        Histogram().record(bad)


@pytest.mark.parametrize("bad", [["1"], [None], [1j], np.array(["2026"], dtype="datetime64[Y]")])
def test_no_array_of_numbers_is_refused(bad):
    with pytest.raises(InvalidType, match=r"seconds is an array of .*allowed: real numbers"):
        Histogram().record_many(bad)


def test_ragged_lists_are_refused():
    with pytest.raises(InvalidArgument, match="seconds is no array of numbers"):
        Histogram().record_many([[1.0], [1.0, 2.0]])


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3), ()])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "uint8", ">f8"])
def test_arrays_of_any_shape_and_real_dtype(shape, dtype):
    h = Histogram()
    values = np.arange(1, 1 + math.prod(shape)).reshape(shape).astype(dtype)
    h.record_many(values)
    h.record_many(values.T)
    assert h.count == 2 * values.size
    assert h.highest_s == values.max()


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_quantile_outside_0_to_1_is_refused(q):
    with pytest.raises(InvalidArgument, match=r"q is .*allowed: 0 <= q <= 1"):
        Histogram().quantile(q)


@pytest.mark.parametrize(
    ("bounds", "error"),
    [
        ({"min_s": 0.0}, InvalidArgument),
        ({"min_s": -1.0}, InvalidArgument),
        ({"min_s": math.nan}, InvalidArgument),
        ({"min_s": 1.0, "max_s": 1.0}, InvalidArgument),
        ({"max_s": math.inf}, InvalidArgument),
        ({"min_s": 1e-12, "max_s": 1e12}, InvalidArgument),
        ({"max_s": "1"}, InvalidType),
    ],
)
def test_ranges_that_cannot_be_are_refused(bounds, error):
    with pytest.raises(error, match=r"m(in|ax)_s is .*allowed"):
        Histogram(**bounds)


def test_memory_is_bounded():
    assert sys.getsizeof(Histogram()) <= 40 * 1024
    assert sys.getsizeof(Histogram(min_s=1e-9, max_s=1e-9 * 2**62)) <= 64 * 1024 + 64  # the Python object itself


def test_merge_refuses_other_ranges_and_types():
    h = Histogram()
    with pytest.raises(InvalidArgument, match=r"range is 1e-07 to 60 s; allowed: 1e-07 to 3600 s"):
        h.merge(Histogram(max_s=60.0))
    with pytest.raises(InvalidType, match="other is list; allowed: a Histogram"):
        h.merge([])


def test_merge_with_itself_doubles():
    h = Histogram()
    h.record_many([0.1, 0.2])
    h.merge(h)
    assert h.count == 4


def test_dict_goes_through_json_and_pickle():
    h = Histogram(max_s=10.0)
    h.record_many(np.random.default_rng(1).exponential(0.01, 1000))
    there = h.to_dict()
    assert Histogram.from_dict(json.loads(json.dumps(there))).to_dict() == there
    assert pickle.loads(pickle.dumps(h)).to_dict() == there
    apart = copy.copy(h)
    apart.record(1.0)
    assert apart.count == h.count + 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"buckets": [[-1, 1]]}, InvalidArgument),
        ({"buckets": [[10**6, 1]]}, InvalidArgument),
        ({"buckets": [[5, -1]]}, InvalidType),
        ({"buckets": [[5, 2**64]]}, InvalidType),
        ({"buckets": [[0, 2**63]]}, InvalidArgument),
        ({"buckets": 3}, InvalidType),
        ({"lowest_s": 0.9}, InvalidArgument),
        ({"highest_s": None}, InvalidType),
        ({"min_s": -1}, InvalidArgument),
    ],
)
def test_dicts_that_contradict_themselves_are_refused(change, error):
    h = Histogram()
    h.record_many([0.1, 0.2])
    with pytest.raises(error):
        Histogram.from_dict({**h.to_dict(), **change})
    with pytest.raises(InvalidArgument, match="state has no 'min_s'"):
        Histogram.from_dict({})


def test_threads_lose_nothing():
    """Single records, arrays and merges from four threads beside a reader; every duration is counted once."""
    h, part, rounds = Histogram(), Histogram(), 200
    part.record_many(np.full(10, 1e-3))
    block = np.full(1000, 2e-3)

    def write():
        for _ in range(rounds):
            h.record(3e-3)
            h.record_many(block)
            h.merge(part)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    seen = 0
    while any(thread.is_alive() for thread in threads):
        count = h.count
        assert count >= seen
        seen = count
    for thread in threads:
        thread.join()
    assert [n for *_, n in h.buckets()] == [4 * rounds * 10, 4 * rounds * 1000, 4 * rounds]


def test_exported():
    assert infcore.Histogram is infcore.telemetry.Histogram
    assert "count=0" in repr(Histogram())


def test_uninitialised_object_is_empty_not_fatal():
    assert Histogram.__new__(Histogram).count == 0
