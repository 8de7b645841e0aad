"""What nodes hold and could load, bounds of pending requests, large fleets."""

import time

import numpy as np
import pytest

from infcore import Fleet, InvalidArgument, InvalidType, ManualClock, NoNodeAvailable, Router, UnknownName

GIB = 1 << 30


def test_load_costs_from_add_model():
    fleet = Fleet()
    fleet.add("small", memory_bytes=1 * GIB)
    fleet.add("big", memory_bytes=4 * GIB)
    fleet.add("cpu", kind="cpu", memory_bytes=4 * GIB)
    fleet.add_model("m", weights_bytes=2 * GIB, load_s=3.0, require={"kind": "gpu"})
    assert fleet.load_costs("m").tolist() == [np.inf, 3.0, np.inf]
    fleet.load_model("small", "m")  # who says that it holds it is believed
    assert fleet.load_costs("m").tolist() == [0.0, 3.0, np.inf]
    fleet.add_model("n", weights_bytes=3 * GIB, load_s=1.0)
    fleet.load_model("big", "n")
    assert fleet.load_costs("m").tolist() == [0.0, 4.0, np.inf], "n must go, and come again"
    assert fleet.nodes()["used_bytes"].tolist() == [2 * GIB, 3 * GIB, 0]
    fleet.unload_model("small", "m")
    assert fleet.load_costs("m")[0] == np.inf


def test_what_was_picked_last_goes_last():
    clock = ManualClock(start_s=10.0)
    fleet = Fleet(clock=clock)
    fleet.add("a", memory_bytes=4 * GIB)
    for model, load_s in (("x", 1.0), ("y", 5.0)):
        fleet.add_model(model, weights_bytes=2 * GIB, load_s=load_s)
        fleet.load_model("a", model)
    fleet.add_model("z", weights_bytes=GIB, load_s=2.0)
    router = Router(fleet, policy="round_robin")
    for model, dearer in (("y", 1.0), ("x", 5.0)):
        router.pick(model)
        clock.advance(1.0)
        assert fleet.load_costs("z").tolist() == [2.0 + dearer]


def test_models():
    fleet = Fleet()
    a, b = fleet.add("a"), fleet.add("b")
    fleet.add_model("m", version=2, weights_bytes=7, load_s=0.5)
    fleet.load_model(a, "m", version=2)
    fleet.load_model(a, "n")
    fleet.load_model(b, "n")
    assert fleet.models().tolist() == [("m", 2, 7, 0.5, True, 1), ("n", 1, 0, 0.0, False, 2)]
    assert fleet.models(b)["model"].tolist() == ["n"]
    assert Fleet().models().shape == (0,)


def test_bounds_of_pending_requests():
    fleet = Fleet()
    fleet.load_model(fleet.add("a", pending_max=1), "m")
    router = Router(fleet)
    first = router.pick("m")
    with pytest.raises(NoNodeAvailable):
        router.pick("m")
    fleet.bound_pending("a", 2)
    assert fleet.nodes()["pending_max"].tolist() == [2]
    second = router.pick("m")
    with pytest.raises(NoNodeAvailable):
        router.pick("m")
    fleet.bound_pending("a")
    assert fleet.nodes()["pending_max"].tolist() == [0]
    for decision in (first, second, router.pick("m")):
        assert router.done(decision)


def test_signal_age_and_error_rate():
    clock = ManualClock(start_s=1.0)
    fleet = Fleet(clock=clock)
    fleet.add("a")
    assert np.isnan(fleet.nodes()["signal_age_s"][0])
    fleet.signal("a", as_of_s=0.25, error_rate=0.125)
    clock.advance(2.0)
    assert fleet.nodes()[["signal_age_s", "error_rate"]].tolist() == [(2.75, 0.125)]


@pytest.mark.parametrize(
    ("call", "error", "names"),
    [
        (lambda f: f.add_model(""), InvalidArgument, "model is ''"),
        (lambda f: f.add_model(3), InvalidType, "model is int"),
        (lambda f: f.add_model("m", version=0), InvalidArgument, "version is 0"),
        (lambda f: f.add_model("m", weights_bytes=-1), InvalidArgument, "weights_bytes is -1"),
        (lambda f: f.add_model("m", weights_bytes=0.5), InvalidType, "weights_bytes is float"),
        (lambda f: f.add_model("m", load_s=-0.5), InvalidArgument, "load_s is -0.5"),
        (lambda f: f.add_model("m", load_s=float("nan")), InvalidArgument, "load_s is nan"),
        (lambda f: f.add_model("m", load_s=2e6), InvalidArgument, "load_s is 2000000"),
        (lambda f: f.add_model("m", require=["x"]), InvalidType, "require is list"),
        (lambda f: f.load_costs("unknown"), UnknownName, "model is 'unknown'"),
        (lambda f: f.load_costs(None), InvalidType, "model is NoneType"),
        (lambda f: f.models("b"), UnknownName, "node is 'b'"),
        (lambda f: f.add("b", pending_max=0), InvalidArgument, "pending_max is 0"),
        (lambda f: f.bound_pending("a", 0), InvalidArgument, "pending_max is 0"),
        (lambda f: f.bound_pending("b", 1), UnknownName, "node is 'b'"),
        (lambda f: f.signal("a", error_rate=1.5), InvalidArgument, "error_rate is 1.5"),
        (lambda f: f.beat(now_s="soon"), InvalidType, "now_s is str"),
    ],
)
def test_refusals(call, error, names):
    fleet = Fleet()
    fleet.add("a")
    with pytest.raises(error, match=names):
        call(fleet)
    assert fleet.nodes()["name"].tolist() == ["a"]


def test_ten_thousand_nodes():
    """Membership and signals of a large fleet take time in proportion to it; the bound is tenfold what they need."""
    n = 10_000
    fleet = Fleet(max_nodes=n)
    begin_s = time.process_time()
    for i in range(n):
        fleet.add(f"node-{i}", kind=f"kind-{i % 100}", zone=f"z{i % 8}")
    rows = np.zeros(n, dtype=[("node", "u4"), ("cpu", "f8"), ("inflight", "f8")])
    rows["node"], rows["cpu"], rows["inflight"] = np.arange(n), 0.5, np.arange(n) % 7
    assert fleet.signal_many(rows) == n
    assert time.process_time() - begin_s < 1.0
    assert len(fleet) == n
    assert fleet.nodes()["inflight"].tolist() == (np.arange(n) % 7).tolist()
    for i in range(0, n, 2):
        fleet.remove(i)
    assert [fleet.add(f"new-{i}") for i in range(3)] == [0, 2, 4]


def loaded_by(n_routers, **models):
    """Two nodes that could load a model which takes 10 s, and routers over them."""
    clock = ManualClock(start_s=100.0)
    fleet = Fleet(clock=clock)
    for name in "ab":
        fleet.add(name, memory_bytes=4 * GIB)
    fleet.add_model("m", weights_bytes=3 * GIB, load_s=10.0, **models)
    return fleet, clock, [Router(fleet, explore=0.0) for _ in range(n_routers)]


def test_a_load_that_one_router_began_is_the_others_too():
    fleet, clock, (one, other) = loaded_by(2)
    first = one.pick("m")
    assert (first.node, first.begins_load, first.load_s) == (0, True, 10.0)
    clock.advance(4.0)
    picks = [other.pick("m"), one.pick("m"), other.pick("m")]
    assert [(pick.node, pick.begins_load) for pick in picks] == [(0, False)] * 3
    assert picks[0].load_s == pytest.approx(6.0), "what is left of it"
    terms = {row["name"]: row["terms"]["load"] for row in other.explain("m")}
    assert terms == pytest.approx({"a": 6e6, "b": 20e6}), "its time, and work that need not be done"
    fleet.load_model("a", "m")
    assert other.pick("m").load_s == 0.0


def test_a_load_that_never_comes_is_forgotten():
    _, clock, (one, other) = loaded_by(2)
    assert one.pick("m").begins_load
    clock.advance(19.0)
    assert not other.pick("m").begins_load
    clock.advance(2.0)
    again = other.pick("m")
    assert again.begins_load and again.load_s == 10.0


def test_a_pick_that_is_taken_back_takes_its_load_back():
    fleet, _, (one, other) = loaded_by(2)
    first = one.pick("m")
    second = other.pick("m")
    assert other.cancel(second) and not other.pick("m").begins_load, "that one had begun nothing"
    assert one.cancel(first)
    again = other.pick("m")
    assert again.begins_load
    fleet.remove(again.node)
    last = other.pick("m")
    assert last.begins_load and last.node == 1 - again.node


def test_memory_that_a_load_is_for_is_not_free():
    fleet, _, (one, other) = loaded_by(2)
    fleet.add_model("n", weights_bytes=3 * GIB, load_s=1.0)
    assert one.pick("m").node == 0
    row = {row["name"]: row for row in other.explain("n")}
    assert row["b"]["terms"]["load"] == 1e6
    assert other.pick("n").node == 1


def test_processes_see_each_other_s_loads():
    name = f"infcore-test-loads-{time.monotonic_ns()}"
    clock = ManualClock()
    one, other = (Fleet(shared=name, max_nodes=4, clock=clock) for _ in range(2))
    try:
        for node in "ab":
            one.add(node)
        one.add_model("m", load_s=1000.0)
        assert Router(one).pick("m").begins_load
        clock.advance(1.0)
        pick = Router(other).pick("m")
        assert (pick.node, pick.begins_load) == (0, False)
        assert pick.load_s == pytest.approx(999.0)
    finally:
        one.unlink()
