"""The choice of layout and groups, told runs that follow curves which the test knows."""

import numpy as np
import pytest
from reference.length_groups import seconds, total_s

from infcore._layout_choice import LayoutChoice

PADDED = (2e-3, 0.0, 0.0, 5e-5)  # pays for the longest row of a batch
PACKED = (4e-3, 1e-3, 6e-5, 0.0)  # pays for what is there, and more for each row
N_EXPLORED = 3  # batches a layout and size class, at most


class Run:
    """A device whose runs take what its curves say, to the bit."""

    def __init__(self, curves, **options):
        self.curves = curves
        self.choice = LayoutChoice(tuple(curves), **options)
        self.plans = []

    def __call__(self, works):
        works = np.asarray(works, np.float64)
        plan = self.choice.plan(works)
        groups = [works] if plan.groups is None else [works[group] for group in plan.groups]
        times = [seconds(group.tolist(), self.curves[plan.layout]) for group in groups]
        self.choice.learn(plan, groups, times)
        self.plans.append(plan)
        return plan, sum(times)


def texts(n, seed):
    return np.random.default_rng(seed).lognormal(4.2, 0.9, n).clip(4, 512).round()


def best_s(run, works):
    """The least that any whole batch takes, and the least of its layouts in groups is not above it."""
    return min(seconds(list(works), curve) for curve in run.curves.values())


def test_what_is_tried_first_is_fixed_and_ends():
    run, again = Run({"padded": PADDED, "packed": PACKED}), Run({"padded": PADDED, "packed": PACKED})
    for seed in range(40):
        assert run(texts(32, seed)) == again(texts(32, seed))
    reasons = [(plan.layout, plan.reason, plan.groups is not None) for plan in run.plans]
    assert reasons[:6] == [
        ("padded", "warm_up", False),
        ("packed", "warm_up", False),
        ("padded", "explore", False),
        ("packed", "explore", False),
        ("padded", "explore", True),
        ("packed", "explore", True),
    ]
    assert {reason for _, reason, _ in reasons[6:]} == {"predicted"}
    assert [len(group) for group in run.plans[4].groups] == [16, 8, 4, 2, 1, 1]
    assert sum(plan.reason == "explore" for plan in run.plans) <= 2 * N_EXPLORED


def test_every_size_is_explored_once_and_no_more():
    run = Run({"padded": PADDED, "packed": PACKED})
    draw = np.random.default_rng(1)
    for seed in range(600):
        run(texts(int(draw.integers(1, 65)), seed) if seed % 3 else [50.0] * int(draw.integers(1, 65)))
    explored = sum(plan.reason == "explore" for plan in run.plans)
    assert 2 * 2 * 7 <= explored <= 2 * N_EXPLORED * 7  # sizes 1 to 64 are seven classes


@pytest.mark.parametrize("n", [8, 32])
def test_both_curves_are_roughly_known_after_exploring_one_size(n):
    run = Run({"padded": PADDED, "packed": PACKED})
    for seed in range(8):
        run(texts(n, seed))
    figures = run.choice.figures()
    for layout, curve in run.curves.items():
        for works in ([100.0], [10.0, 500.0], list(texts(5, 99)), list(texts(n, 98))):
            known = seconds(works, figures[layout].curve)
            assert known == pytest.approx(seconds(works, curve), rel=0.25), (layout, works)


def test_takes_the_layout_that_is_faster_for_the_batch_at_hand():
    run = Run({"padded": PADDED, "packed": PACKED}, grouping=False)
    for seed in range(60):
        run(texts(1 + seed % 40, seed))
    alike, unlike = [100.0] * 16, [4.0] * 15 + [512.0]
    assert seconds(alike, PADDED) < seconds(alike, PACKED) and seconds(unlike, PADDED) > seconds(unlike, PACKED)
    for works, layout in ((alike, "padded"), (unlike, "packed")):
        plan, took_s = run(works)
        assert (plan.layout, plan.reason, plan.groups) == (layout, "predicted", None)
        assert took_s == pytest.approx(best_s(run, works))
        assert plan.predicted_s == pytest.approx(took_s, rel=0.02)


def test_groups_only_where_that_is_predicted_to_gain():
    run = Run({"padded": PADDED})
    for seed in range(8):
        run(texts(32, seed))
    plan, took_s = run(texts(32, 100))
    assert plan.reason == "predicted" and len(plan.groups) > 2
    together, alone = (total_s(g, texts(32, 100), PADDED) for g in ([list(range(32))], [[i] for i in range(32)]))
    assert took_s < 0.5 * together and took_s < alone
    plan, _ = run([100.0] * 31 + [101.0])
    assert plan.groups is None
    dear = Run({"padded": (1.0, 0.0, 0.0, 1e-6)})
    for seed in range(12):
        dear(texts(32, seed))
    assert [plan.groups for plan in dear.plans[4:]] == [None] * 8


def test_a_gain_below_what_curves_are_sure_of_is_left():
    """Two groups of these would save 3.8 %; at 8.5 % they are made."""
    for work, groups in ((3.0, None), (5.5, 2)):
        run = Run({"padded": (1.0, 0.0, 0.0, 1.0)})
        for n in (8, 8, 8, 8, 4, 4, 4, 2, 2, 2):
            run([1.0] * (n - 1) + [30.0])
        plan, _ = run([26.0 - work, 26.0])
        assert (None if plan.groups is None else len(plan.groups)) == groups, work


def test_without_anything_to_choose_nothing_is_tried():
    run = Run({"packed": PACKED}, grouping=False)
    for seed in range(5):
        run(texts(32, seed))
    alike = Run({"padded": PADDED})
    for n in (1, 8, 8, 8):
        alike([7.0] * n)
    assert {plan.reason for plan in run.plans + alike.plans} == {"only"}
    assert {plan.groups for plan in run.plans + alike.plans if plan.groups} == set()


def test_a_layout_that_became_faster_is_noticed():
    run = Run({"padded": PADDED, "packed": (3e-3, 0.0, 6e-5, 0.0)}, grouping=False)
    works = [100.0] * 16
    for _ in range(300):
        run(works)
    assert run.plans[-1].layout == "padded"
    run.curves["packed"] = (1e-3, 0.0, 1e-5, 0.0)
    for _ in range(2000):
        run(works)
    assert {plan.layout for plan in run.plans[-100:]} >= {"packed"}
    assert [plan.layout for plan in run.plans[-100:]].count("packed") >= 98
    run.curves["packed"] = (1.0, 0.0, 1e-3, 0.0)  # and one that became far slower is left
    for _ in range(500):
        run(works)
    assert [plan.layout for plan in run.plans[-100:]].count("padded") >= 99


@pytest.mark.parametrize("slower", [1.1, 3.0, 50.0])
def test_looking_at_the_slower_layout_costs_little_and_never_ends(slower):
    run = Run({"padded": (1e-3, 0.0, 0.0, 5e-5), "packed": (slower * 1e-3, 0.0, 0.0, slower * 5e-5)}, grouping=False)
    works = [100.0] * 16
    for _ in range(20):
        run(works)
    begin = len(run.plans)
    spent_s = sum(run(works)[1] for _ in range(15_000))
    looks = sum(plan.reason == "refresh" for plan in run.plans[begin:])
    assert 1 <= looks <= 1 + 15_000 / 64
    assert spent_s - 15_000 * seconds(works, run.curves["padded"]) <= spent_s / 256 * 1.01
    assert {plan.layout for plan in run.plans[begin:] if plan.reason == "predicted"} == {"padded"}


def test_the_first_run_is_not_learned_from():
    choice = LayoutChoice(("padded",))
    works = texts(4, 1)
    plan = choice.plan(works)
    choice.learn(plan, [works], [30.0])
    assert plan.reason == "warm_up" and choice.figures()["padded"].n_observed == 0
    plan = choice.plan(works)
    choice.learn(plan, [works], [0.5])
    figures = choice.figures()["padded"]
    assert (figures.n_observed, figures.measured_s, figures.n_batches, figures.n_explored) == (1, 0.5, 2, 2)


def test_a_layout_that_always_fails_is_not_tried_for_ever():
    choice = LayoutChoice(("padded", "packed"))
    taken = []
    for seed in range(40):
        works = texts(16, seed)
        plan = choice.plan(works)
        taken.append(plan.layout)
        if plan.layout == "padded":  # a packed run raises: nothing is learned
            groups = [works] if plan.groups is None else [works[group] for group in plan.groups]
            choice.learn(plan, groups, [seconds(group.tolist(), PADDED) for group in groups])
    assert taken.count("packed") == 1 + 2 and set(taken[6:]) == {"padded"}


def test_a_batch_beyond_what_is_grouped_runs_whole():
    choice = LayoutChoice(("padded",))
    assert choice.plan(np.arange(1025.0)).groups is None
