"""The compiled histogram decides as its plain Python model does: same bucket, same bounds, same quantile."""

import numpy as np
import pytest
from reference.histogram import Histogram as Model

from infcore import Histogram

RANGES = [(1e-7, 3600.0), (1e-3, 1.0), (0.3, 0.31), (1e-9, 4.6e9)]


def values(seed, n, min_s, max_s):
    """Log-uniform over twice the range's width, so that some lie outside it, and the bounds themselves."""
    low, high = np.log(min_s), np.log(max_s)
    margin = (high - low) / 2
    drawn = np.exp(np.random.default_rng(seed).uniform(low - margin, high + margin, n))
    return [0.0, min_s, max_s, *drawn.tolist()]


@pytest.mark.parametrize(("min_s", "max_s"), RANGES)
@pytest.mark.parametrize("seed", range(3))
def test_same_buckets_bounds_and_quantiles(min_s, max_s, seed):
    compiled, model = Histogram(min_s=min_s, max_s=max_s), Model(min_s, max_s)
    for value in values(seed, 400, min_s, max_s):
        compiled.record(value)
        model.record(value)
    assert dict(compiled.to_dict()["buckets"]) == model.counts
    expected = [(*model.bounds(bucket), count) for bucket, count in sorted(model.counts.items())]
    assert compiled.buckets() == expected
    assert (compiled.lowest_s, compiled.highest_s) == (model.lowest_s, model.highest_s)
    for q in (0.0, 1e-9, 0.01, 0.25, 0.5, 0.9, 0.99, 0.9999, 1.0):
        assert compiled.quantile(q) == model.quantile(q)


def test_same_bucket_at_every_edge():
    """One double below and at each bucket's lower bound."""
    model = Model(1e-3, 1e-2)
    for bucket in range(1, model.bucket_of(1e-2) + 1):
        lower, _ = model.bounds(bucket)
        for value, expected in ((lower, bucket), (np.nextafter(lower, 0.0), bucket - 1)):
            compiled = Histogram(min_s=1e-3, max_s=1e-2)
            compiled.record(value)
            assert compiled.to_dict()["buckets"] == [[expected, 1]]
            assert model.bucket_of(value) == expected
