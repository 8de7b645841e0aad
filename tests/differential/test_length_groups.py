"""The compiled cut into length groups against every cut, and every other way to group, tried one by one."""

import random

import numpy as np
import pytest
from reference.length_groups import every_partition, length_groups, total_s

from infcore._core.batching import LengthGroups
from infcore._core.latency import LatencyModel
from infcore.errors import InvalidArgument, InvalidType


def compiled(works, curve, max_batch_size=None):
    return LengthGroups(64).split(np.array(works, np.float64), LatencyModel(curve), max_batch_size=max_batch_size)


def exact(draw, n):
    """Works and a curve whose sums have no rounding, so that what is equal is equal to the bit."""
    works = [draw.choice([0.0, 8.0, float(draw.randint(0, 100))]) for _ in range(n)]
    return works, (draw.choice([0.0, draw.randint(0, 4000) / 64]), 0.25, 0.125, draw.choice([0.0, 0.5, 1.0]))


@pytest.mark.parametrize("seed", range(3))
def test_the_same_groups_as_the_cheapest_of_every_cut(seed):
    draw = random.Random(seed)
    sizes = set()
    for _ in range(300):
        works, curve = exact(draw, draw.randint(1, 9))
        max_batch_size = draw.choice([1, 3, 9, 1000])
        groups, seconds = compiled(works, curve, max_batch_size)
        assert groups == length_groups(works, curve, max_batch_size), (works, curve, max_batch_size)
        assert seconds == total_s(groups, works, curve)
        sizes.add((len(works), len(groups)))
    assert {groups for n, groups in sizes if n == 9} >= {1, 2, 3, 4, 5}  # the draw reaches many of them


@pytest.mark.parametrize("seed", range(3))
def test_no_way_at_all_to_group_is_cheaper(seed):
    """Of 8 rows there are 4,140 ways; sorted and cut is as good as any."""
    draw = random.Random(seed)
    for n in (1, 2, 5, 7, 8):
        works = [draw.lognormvariate(4.0, 1.0) for _ in range(n)]
        curve = (10 ** draw.uniform(-4, -1), 1e-4, 1e-6, 10 ** draw.uniform(-7, -4))
        groups, seconds = compiled(works, curve)
        assert seconds == pytest.approx(total_s(groups, works, curve), rel=1e-12)
        least = min(total_s(ways, works, curve) for ways in every_partition(range(n)))
        assert seconds == pytest.approx(least, rel=1e-12)


def test_32_ragged_texts_are_cut_into_groups_of_like_length():
    """With such a curve FACTS' 32 texts take 808 ms padded together: groups beat both that and one by one."""
    works = np.random.default_rng(5).lognormal(4.2, 0.9, 32).clip(4, 512).round()
    curve = (2e-3, 0.0, 0.0, 5e-5)
    groups, seconds = compiled(works, curve)
    together, alone = total_s([list(range(32))], works, curve), total_s([[i] for i in range(32)], works, curve)
    assert 2 < len(groups) < 12
    assert seconds < 0.5 * together and seconds < 0.9 * alone


def test_rows_keep_their_order_within_equal_work():
    groups, _ = compiled([5.0, 1.0, 5.0, 1.0], (0.0, 0.0, 0.0, 1.0))
    assert groups == [[1, 3], [0, 2]]


@pytest.mark.parametrize(
    ("error", "words", "works", "options"),
    [
        (InvalidArgument, "works has 0 rows; allowed: 1 to n_rows_max=64", [], {}),
        (InvalidArgument, "works has 65 rows", [1.0] * 65, {}),
        (InvalidArgument, r"works\[1\] is nan", [1.0, float("nan")], {}),
        (InvalidArgument, r"works\[0\] is -1", [-1.0], {}),
        (InvalidArgument, r"works\[0\] is inf", [float("inf")], {}),
        (InvalidArgument, "max_batch_size is 0", [1.0], {"max_batch_size": 0}),
        (InvalidType, "max_batch_size", [1.0], {"max_batch_size": 1.5}),
    ],
)
def test_border_refuses(error, words, works, options):
    with pytest.raises(error, match=words):
        LengthGroups(64).split(np.array(works, np.float64), LatencyModel(), **options)
    with pytest.raises(InvalidArgument, match="n_rows_max is 0"):
        LengthGroups(0)
