"""What the cut into length groups promises, whatever the works and the curve."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from reference.length_groups import every_partition, seconds, total_s

from infcore._core.batching import LengthGroups
from infcore._core.latency import LatencyModel

SPLITTER = LengthGroups()  # one for all examples: nothing of the last call may show in the next
terms = st.floats(0.0, 1e3)
curves = st.tuples(terms, terms, terms, terms)
works_of = st.floats(0.0, 1e6)


def slack(total):
    """Sums in another order."""
    return 1e-9 * total + 1e-300


@given(works=st.lists(works_of, min_size=1, max_size=200), curve=curves, max_batch_size=st.integers(1, 300))
def test_each_row_once_in_order_and_never_worse_than_together_or_alone(works, curve, max_batch_size):
    groups, total = SPLITTER.split(np.array(works), LatencyModel(curve), max_batch_size=max_batch_size)
    assert sorted(row for group in groups for row in group) == list(range(len(works)))
    assert all(1 <= len(group) <= max_batch_size for group in groups)
    order = [works[row] for group in groups for row in group]
    assert order == sorted(works)
    assert abs(total - total_s(groups, works, curve)) <= slack(total)
    alone = sum(seconds([work], curve) for work in works)
    assert total <= alone + slack(alone)
    if len(works) <= max_batch_size:
        together = seconds(works, curve)
        assert total <= together + slack(together)


@given(works=st.lists(works_of, min_size=1, max_size=7), curve=curves)
def test_no_way_to_group_is_cheaper(works, curve):
    _, total = SPLITTER.split(np.array(works), LatencyModel(curve))
    least = min(total_s(groups, works, curve) for groups in every_partition(range(len(works))))
    assert abs(total - least) <= slack(least)
