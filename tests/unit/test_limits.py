"""What has no bound by itself is given one at the door: works, iterables without an end."""

import itertools

import numpy as np
import pytest

import infcore

ARRAYS = {"inputs": {"x": ("float32", (4,))}, "outputs": {"y": ("float32", (4,))}}
X = {"x": np.zeros(4, np.float32)}


def _device():
    return infcore.CallableDevice("d", run=lambda name, inputs: {"y": inputs["x"]})


@pytest.mark.parametrize("work", [0.0, 1e15])
def test_the_least_and_the_most_work_are_served_and_what_follows_too(work):
    with infcore.Engine([_device()], [infcore.Model("m", **ARRAYS)]) as engine:
        for each in (1.0, work, 1.0):
            assert engine.submit("m", X, work=each).result(timeout_s=10.0)["y"].shape == (4,)


@pytest.mark.parametrize("work", [1.1e15, 1e100, 1e300])
def test_work_that_no_curve_can_carry_is_refused_and_stops_nobody(work):
    models = [infcore.Model("m", **ARRAYS), infcore.Model("called", work=lambda inputs: work, **ARRAYS)]
    with infcore.Engine([_device()], models) as engine:
        with pytest.raises(infcore.InvalidArgument, match=r"work is 1.*allowed: at most 1e\+15"):
            engine.submit("m", X, work=work)
        with pytest.raises(infcore.InvalidArgument, match=r"work is 1.*allowed: at most 1e\+15"):
            engine.submit("called", X)
        assert engine.submit("m", X).result(timeout_s=10.0)["y"].shape == (4,)


def test_put_many_takes_what_fits_of_an_iterable_without_an_end():
    queue = infcore.Queue(3)
    assert queue.put_many(itertools.count()) == 3
    assert queue.drain(9) == [0, 1, 2]


def test_put_many_passes_on_what_an_iterable_raises_and_keeps_what_came_before():
    def items():
        yield "a"
        yield "b"
        raise KeyError("c")

    queue = infcore.Queue(9)
    with pytest.raises(KeyError):
        queue.put_many(items())
    assert queue.drain(9) == ["a", "b"]


def test_a_tier_capacity_that_is_one_number_is_refused_with_what_is_allowed():
    with pytest.raises(infcore.InvalidType, match="tier_capacity is int; allowed: None, or a number for each tier"):
        infcore.Engine([_device()], [infcore.Model("m", **ARRAYS)], tier_capacity=5)
