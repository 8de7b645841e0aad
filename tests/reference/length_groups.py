"""Length groups, readably: every way to cut the rows, in order of their work, into groups; the cheapest wins.

The compiled one (csrc/infcore/batch/length_groups.hpp) finds the same groups without trying them all.
"""

from collections.abc import Iterator, Sequence

Curve = tuple[float, float, float, float]  # base_s, per_request_s, per_work_s, per_padded_work_s
Groups = list[list[int]]


def seconds(works: Sequence[float], curve: Curve) -> float:
    """What one batch of these rows takes."""
    base_s, per_request_s, per_work_s, per_padded_work_s = curve
    n = len(works)
    return base_s + per_request_s * n + per_work_s * sum(works) + per_padded_work_s * (n * max(works))


def total_s(groups: Groups, works: Sequence[float], curve: Curve) -> float:
    """What the groups take, one after the other."""
    return sum(seconds([works[i] for i in group], curve) for group in groups)


def added_s(groups: Groups, works: Sequence[float], curve: Curve) -> float:
    """What the groups take of the two terms that a split changes, added up from the first group on."""
    cost_s = 0.0
    for group in groups:
        cost_s += curve[0] + curve[3] * (len(group) * max(works[i] for i in group))
    return cost_s


def every_cut(order: Sequence[int], max_batch_size: int) -> Iterator[Groups]:
    """Every way to cut a sequence into pieces of at most max_batch_size."""
    if not order:
        yield []
        return
    for size in range(1, min(len(order), max_batch_size) + 1):
        for rest in every_cut(order[:-size], max_batch_size):
            yield [*rest, list(order[-size:])]


def every_partition(rows: Sequence[int]) -> Iterator[Groups]:
    """Every way to put the rows into groups, in whatever order they are."""
    if not rows:
        yield []
        return
    first, rest = rows[0], rows[1:]
    for groups in every_partition(rest):
        yield [[first], *groups]
        for g in range(len(groups)):
            yield [*groups[:g], [first, *groups[g]], *groups[g + 1 :]]


def length_groups(works: Sequence[float], curve: Curve, max_batch_size: int) -> Groups:
    """The cheapest groups; of equal ones the fewest, then those with the larger last group, and so on backwards."""
    order = sorted(range(len(works)), key=lambda i: (works[i], i))

    def rank(groups: Groups) -> tuple[float, int, list[int]]:
        return added_s(groups, works, curve), len(groups), [-len(group) for group in reversed(groups)]

    return min(every_cut(order, max_batch_size), key=rank)
