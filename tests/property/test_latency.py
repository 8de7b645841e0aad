"""What the latency model promises, whatever it is shown."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference.latency import LatencyModel as Reference

from infcore._core.latency import LatencyModel

batches = st.lists(
    st.tuples(
        st.integers(1, 256),
        st.floats(0.0, 1e6),
        st.floats(1e-6, 1e3),
    ),
    min_size=1,
    max_size=60,
)


def shape(n, work):
    return n, n * work, work


@given(batches)
@settings(deadline=None)
def test_predictions_are_positive_and_grow(seen):
    model = LatencyModel()
    for n, work, service_s in seen:
        model.observe(*shape(n, work), service_s)
        assert min(model.curve) >= 0.0
        assert model.spread >= 0.0
    last = 0.0
    for n in (1, 2, 8, 64):
        now = model.service_s(*shape(n, 1.0))
        assert np.isfinite(now) and now > 0.0 and now >= last
        assert model.upper_s(*shape(n, 1.0)) >= now
        last = now
    assert model.service_s(8, 80.0, 10.0) >= model.service_s(8, 8.0, 1.0)


def magnitudes(low, high):
    """From 10 ** low to 10 ** high, each power of ten as likely as another; or 0."""
    return st.one_of(st.just(0.0), st.floats(low, high).map(lambda x: 10.0**x))


@given(
    prior=st.one_of(st.none(), st.lists(magnitudes(-12, 300), min_size=4, max_size=4)),
    seen=st.lists(
        st.tuples(st.integers(1, 64), magnitudes(-300, 15), st.floats(-9, 8).map(lambda x: 10.0**x)), max_size=60
    ),
)
@example(None, [(1, 0.0, 1.0), (1, 1e-200, 1.0), (3, 1e15, 1e-9), (1, 1e-290, 1e8), (2, 1.0, 1e-3)])
@settings(deadline=None, max_examples=300)
def test_figures_beyond_measure_leave_numbers(prior, seen):
    model = LatencyModel(prior)
    for n, work, service_s in seen:
        model.observe(*shape(n, work), service_s)
        assert 0.0 <= model.spread < np.inf
        assert all(0.0 <= term <= 1e9 for term in model.curve)
    for n, work in ((1, 0.0), (1, 1.0), (64, 1e9)):
        assert 0.0 < model.service_s(*shape(n, work)) <= model.upper_s(*shape(n, work)) < np.inf


@given(
    base=st.floats(1e-5, 1.0),
    slope=st.floats(0.001, 2.0),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1.0, 17.0, 1e4]),
)
@settings(deadline=None)
def test_converges_on_a_line_within_tens_of_batches(base, slope, seed, scale):
    rng = np.random.default_rng(seed)
    model = LatencyModel()
    for n in rng.integers(1, 33, 40):
        model.observe(*shape(int(n), scale), base * (1.0 + slope * n))
    for n in (1, 5, 16, 32):
        assert model.service_s(*shape(n, scale)) == pytest.approx(base * (1.0 + slope * n), rel=0.03)
    assert model.n_observed == 40


@given(seed=st.integers(0, 2**32 - 1), cv=st.floats(0.0, 0.3))
@settings(deadline=None, max_examples=30)
def test_learns_all_four_terms_through_noise(seed, cv):
    """Ragged batches: padded and summed work differ, so each term can be told from the others."""
    rng = np.random.default_rng(seed)
    truth = np.array([2e-3, 1e-4, 1e-5, 3e-6])
    model = LatencyModel()
    for _ in range(300):
        works = rng.lognormal(3.0, 0.8, rng.integers(1, 33))
        n, total, largest = len(works), works.sum(), works.max()
        service_s = truth @ [1.0, n, total, n * largest]
        model.observe(n, total, largest, service_s * max(0.1, 1.0 + cv * rng.standard_normal()))
    # Error of the prediction, not of the terms. Noise of cv averages out over what is remembered, about 50 batches.
    for n, work in ((1, 20.0), (8, 20.0), (32, 40.0)):
        expected = truth @ [1.0, n, n * work, n * work]
        assert model.service_s(*shape(n, work)) == pytest.approx(expected, rel=0.05 + 2.5 * cv)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 64), cv=st.floats(0.0, 0.2))
@settings(deadline=None, max_examples=20)
def test_one_shape_for_long_does_not_wear_out_the_others(seed, n, cv):
    """Thousands of batches of one shape: what was learned of the line before stays, up to what the noise moves."""
    rng = np.random.default_rng(seed)
    model = LatencyModel()
    for k in rng.integers(1, 65, 60):
        model.observe(*shape(int(k), 1.0), 0.004 + 0.0005 * k)
    before = [model.service_s(*shape(k, 1.0)) for k in (1, 16, 64)]
    for factor in 1.0 + cv * rng.uniform(-1.0, 1.0, 4000):
        model.observe(*shape(n, 1.0), (0.004 + 0.0005 * n) * factor)
    assert model.service_s(*shape(n, 1.0)) == pytest.approx(0.004 + 0.0005 * n, rel=0.01 + 0.5 * cv)
    for k, was in zip((1, 16, 64), before, strict=True):
        assert model.service_s(*shape(k, 1.0)) == pytest.approx(was, rel=0.05 + 2.0 * cv)


def test_an_outlier_hardly_moves_it():
    model = LatencyModel()
    rng = np.random.default_rng(5)
    for k in rng.integers(1, 17, 100):
        model.observe(*shape(int(k), 1.0), (0.004 + 0.0005 * k) * (1.0 + 0.05 * rng.standard_normal()))
    before = model.service_s(*shape(8, 1.0))
    model.observe(*shape(8, 1.0), 100.0 * before)
    assert model.service_s(*shape(8, 1.0)) == pytest.approx(before, rel=0.02)


@pytest.mark.parametrize("factor", [3.0, 100.0, 1 / 3, 1 / 100])
def test_a_changed_node_is_followed(factor):
    model = LatencyModel()
    rng = np.random.default_rng(6)
    for k in rng.integers(1, 17, 500):
        model.observe(*shape(int(k), 1.0), (0.004 + 0.0005 * k) * (1.0 + 0.05 * rng.standard_normal()))
    for k in rng.integers(1, 17, 30):
        model.observe(*shape(int(k), 1.0), factor * (0.004 + 0.0005 * k) * (1.0 + 0.05 * rng.standard_normal()))
    assert model.service_s(*shape(8, 1.0)) == pytest.approx(factor * 0.008, rel=0.15)


def test_a_slow_first_batch_is_forgotten():
    """The first batch on a GPU compiles kernels: ten seconds, then ten milliseconds."""
    model = LatencyModel()
    model.observe(*shape(1, 1.0), 10.0)
    for _ in range(12):
        model.observe(*shape(1, 1.0), 0.010)
    assert model.service_s(*shape(1, 1.0)) == pytest.approx(0.010, rel=0.1)


def test_prior_holds_until_batches_say_otherwise():
    model = LatencyModel([0.002, 0.0001, 0.0, 0.0])
    assert model.service_s(*shape(10, 1.0)) == pytest.approx(0.003)
    assert model.curve == (0.002, 0.0001, 0.0, 0.0)
    model.observe(*shape(10, 1.0), 0.006)
    assert 0.003 < model.service_s(*shape(10, 1.0)) <= 0.0061
    for _ in range(20):
        model.observe(*shape(10, 1.0), 0.006)
    assert model.service_s(*shape(10, 1.0)) == pytest.approx(0.006, rel=0.02)


def test_nothing_known_is_one_millisecond():
    assert LatencyModel().service_s(*shape(64, 5.0)) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    "bad",
    [
        (0, 1.0, 1.0, 1.0),
        (1, float("nan"), 1.0, 1.0),
        (1, 1.0, float("inf"), 1.0),
        (1, -1.0, 1.0, 1.0),
        (1, 1.0, 1.0, float("nan")),
        (1, 1.0, 1.0, 0.0),
        (1, 1.0, 1.0, -2.0),
        (1, 1.0, 1.0, float("inf")),
    ],
)
def test_figures_that_cannot_be_are_passed_over(bad):
    model = LatencyModel()
    model.observe(1, 1.0, 1.0, 0.5)
    before = model.curve
    model.observe(*bad)
    assert (model.curve, model.n_observed) == (before, 1)


def test_spread_estimates_the_noise():
    rng = np.random.default_rng(11)
    model = LatencyModel()
    for n in rng.integers(1, 33, 1000):
        model.observe(*shape(int(n), 1.0), (0.01 + 0.001 * n) * (1.0 + 0.1 * rng.standard_normal()))
    assert 0.06 < model.spread < 0.14
    upper_s = model.upper_s(*shape(8, 1.0))
    inside = np.mean(0.018 * (1.0 + 0.1 * rng.standard_normal(2000)) <= upper_s)
    assert inside > 0.95


@given(batches)
@settings(deadline=None, max_examples=60)
def test_same_as_the_reference(seen):
    """Rounding only: the reference solves by LAPACK, and the recursion is continuous but for its thresholds."""
    model, reference = LatencyModel(), Reference()
    for n, work, service_s in seen[:20]:
        n, work, service_s = n % 16 + 1, 1.0 + work % 50.0, 1e-3 * (1.0 + service_s % 3.0)
        model.observe(*shape(n, work), service_s)
        reference.observe(*shape(n, work), service_s)
        for k in (1, 9):
            assert model.service_s(*shape(k, 5.0)) == pytest.approx(reference.service_s(*shape(k, 5.0)), rel=1e-5)
    assert model.spread == pytest.approx(reference.spread, rel=1e-5)
