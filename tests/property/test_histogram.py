"""What must hold for a histogram whatever is recorded."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infcore import Histogram

durations = st.floats(1e-7, 3600.0)
any_durations = st.floats(0.0, math.inf, allow_nan=False)
quantiles = st.floats(0.0, 1.0)


def holding(values):
    made = Histogram()
    made.record_many(values)
    return made


def content(histogram):
    return histogram.to_dict()


@given(st.lists(durations, min_size=1, max_size=200), quantiles)
def test_every_quantile_is_within_half_a_percent(values, q):
    exact = np.quantile(values, q)
    assert abs(holding(values).quantile(q) - exact) <= 0.004 * exact


@given(st.lists(any_durations, max_size=50), st.lists(any_durations, max_size=50))
def test_merge_is_the_union(left, right):
    merged = holding(left)
    merged.merge(holding(right))
    assert content(merged) == content(holding(left + right))


@given(st.lists(any_durations, min_size=1, max_size=50), st.lists(quantiles, min_size=2, max_size=20))
def test_quantiles_never_fall_and_stay_between_the_extremes(values, qs):
    histogram = holding(values)
    answers = [histogram.quantile(q) for q in sorted(qs)]
    assert answers == sorted(answers)
    assert histogram.lowest_s <= answers[0]
    assert answers[-1] <= histogram.highest_s


@given(st.lists(any_durations, max_size=50))
def test_one_by_one_is_as_all_at_once(values):
    one_by_one = Histogram()
    for value in values:
        one_by_one.record(value)
    assert content(one_by_one) == content(holding(values))
    assert one_by_one.count == len(values)


@given(st.lists(durations, min_size=1, max_size=100))
def test_sum_and_mean_are_within_half_a_percent(values):
    histogram = holding(values)
    assert math.isclose(histogram.sum_s, math.fsum(values), rel_tol=0.004)
    assert math.isclose(histogram.mean_s, math.fsum(values) / len(values), rel_tol=0.004)


@given(st.lists(any_durations, max_size=50))
def test_a_dict_gives_the_histogram_back(values):
    histogram = holding(values)
    assert content(Histogram.from_dict(histogram.to_dict())) == content(histogram)
