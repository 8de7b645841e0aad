"""Fleet's public face: membership, models, signals, refusals."""

import os
import subprocess
import sys

import numpy as np
import pytest

import infcore
from infcore import Fleet, InvalidArgument, InvalidType, ManualClock, Router, UnknownName


def row_of(fleet, node):
    rows = fleet.nodes()
    return rows[rows["id"] == node][0]


def test_nodes_as_added():
    fleet = Fleet(max_nodes=4)
    node = fleet.add("a100", kind="gpu", zone="z1", location="on-prem", memory_bytes=80 << 30, price_per_hour=3.5,
                     rtt_s=0.001, slots=2, labels={"team": "speech"})  # fmt: skip
    assert node == 0
    assert fleet.add("ÿ€", kind="cpu") == 1
    assert len(fleet) == 2
    row = row_of(fleet, node)
    assert (row["name"], row["kind"], row["zone"], row["location"], row["state"]) == (
        "a100", "gpu", "z1", "on-prem", "up")  # fmt: skip
    assert (row["slots"], row["memory_bytes"], row["price_per_hour"], row["rtt_s"]) == (2, 80 << 30, 3.5, 0.001)
    assert (row["inflight"], row["wait_s"]) == (0, 0.0)
    assert np.isnan(row["gpu"])
    assert row_of(fleet, 1)["name"] == "ÿ€"


def test_no_nodes():
    fleet = Fleet()
    assert len(fleet) == 0
    assert fleet.nodes().shape == (0,)
    assert "none yet" in repr(fleet)


def test_ids_are_the_lowest_free_and_names_are_free_again():
    fleet = Fleet(max_nodes=3)
    assert [fleet.add(name) for name in "abc"] == [0, 1, 2]
    fleet.remove(1)
    fleet.remove("a")
    assert fleet.add("a") == 0
    assert fleet.add("b") == 1
    with pytest.raises(InvalidArgument, match="max_nodes is 3"):
        fleet.add("d")


def test_id_of_a_removed_node_waits_for_its_credit():
    fleet = Fleet(max_nodes=2)
    fleet.add("a")
    fleet.load_model(0, "m")
    router = Router(fleet)
    decision = router.pick("m")
    fleet.remove(0)
    assert fleet.add("b") == 1
    with pytest.raises(InvalidArgument, match="in flight"):
        fleet.add("c")
    assert router.done(decision)
    assert fleet.add("c") == 0
    assert row_of(fleet, 0)["inflight"] == 0


def test_a_new_node_with_an_old_id_inherits_nothing():
    fleet = Fleet(max_nodes=1)
    fleet.add("a", labels={"k": "v"})
    fleet.load_model(0, "m")
    fleet.signal(0, queue_wait_s=3.0, inflight=9, gpu=1.0)
    router = Router(fleet)
    router.set_prior("m", 0, base_s=7.0)
    assert router.explain("m", require={"k": "v"})[0]["reason"] is None
    fleet.remove(0)
    fleet.add("b")
    row = row_of(fleet, 0)
    assert (row["inflight"], row["wait_s"]) == (0, 0.0)
    assert np.isnan(row["queue_wait_s"])
    assert router.explain("m")[0]["reason"] == "model 'm' is not loaded"
    fleet.load_model(0, "m")
    assert "label" in router.explain("m", require={"k": "v"})[0]["reason"]
    assert router.explain("m")[0]["terms"]["service"] == pytest.approx(1000.0)


def test_drained_takes_nothing_new():
    fleet = Fleet()
    for name in "ab":
        fleet.load_model(fleet.add(name), "m")
    fleet.drain("a")
    assert fleet.nodes()["state"].tolist() == ["draining", "up"]
    assert Router(fleet).pick("m").node == 1


def test_versions():
    fleet = Fleet()
    a, b = fleet.add("a"), fleet.add("b")
    fleet.load_model(a, "m", version=1)
    fleet.load_model(a, "m", version=2)
    fleet.load_model(b, "m", version=2)
    router = Router(fleet)
    fleet.unload_model(a, "m", version=1)
    assert [row["reason"] for row in router.explain("m")] == [None, None]
    fleet.unload_model(a, "m", version=2)
    assert [row["reason"] for row in router.explain("m")] == ["model 'm' is not loaded", None]
    fleet.unload_model(b, "m", version=1)  # which it does not hold
    assert router.pick("m").node == b


def test_signals_and_credit_since():
    """In flight = signalled + our reserves - our releases since the signal's time stamp."""
    clock = ManualClock()
    fleet = Fleet(clock=clock)
    node = fleet.add("a", slots=2)
    fleet.load_model(node, "m")
    router = Router(fleet)
    router.set_prior("m", node, base_s=0.5)
    before = [router.pick("m") for _ in range(3)]
    assert row_of(fleet, node)["inflight"] == 3
    assert row_of(fleet, node)["wait_s"] == pytest.approx(3 * 0.5 / 2)
    clock.advance(1.0)
    fleet.signal(node, inflight=5, queue_wait_s=1.0)  # ours and two of others
    assert row_of(fleet, node)["inflight"] == 5
    assert row_of(fleet, node)["wait_s"] == pytest.approx(1.0)
    clock.advance(1.0)
    router.pick("m")
    assert row_of(fleet, node)["inflight"] == 6
    assert row_of(fleet, node)["wait_s"] == pytest.approx(1.25)
    router.done(before[0], service_s=0.5)
    assert row_of(fleet, node)["inflight"] == 5
    # One that was under way since before the last pick: that pick is not in it.
    assert fleet.signal(node, as_of_s=1.5, inflight=4)
    assert row_of(fleet, node)["inflight"] == 4
    assert not fleet.signal(node, as_of_s=1.25, inflight=100)
    assert row_of(fleet, node)["inflight"] == 4
    for decision in before[1:]:
        router.done(decision, service_s=0.5)
    assert row_of(fleet, node)["inflight"] == 2


def test_signal_later_than_now_counts_as_now():
    clock = ManualClock(start_s=5.0)
    fleet = Fleet(clock=clock)
    fleet.add("a")
    assert fleet.signal("a", as_of_s=100.0, inflight=2)
    assert fleet.signal("a", inflight=3)
    assert row_of(fleet, 0)["inflight"] == 3


def test_signal_many():
    fleet = Fleet()
    for name in "abc":
        fleet.add(name)
    rows = np.zeros(2, dtype=[("node", "i8"), ("inflight", "i4"), ("gpu", "f4"), ("as_of_s", "f8")])
    rows["node"], rows["inflight"], rows["gpu"], rows["as_of_s"] = [2, 0], [7, 8], [0.5, np.nan], np.nan
    assert fleet.signal_many(rows) == 2
    nodes = fleet.nodes()
    assert nodes["inflight"].tolist() == [8, 0, 7]
    assert nodes["gpu"][2] == 0.5 and np.isnan(nodes["gpu"][0])
    rows["inflight"], rows["gpu"] = [1, 1], [0.5, 1.5]
    with pytest.raises(InvalidArgument, match=r"gpu is 1.5 in row 1"):
        fleet.signal_many(rows)
    assert fleet.nodes()["inflight"].tolist() == [8, 0, 7]


def test_signal_many_refuses_what_is_no_table():
    fleet = Fleet()
    with pytest.raises(InvalidType, match="structured array"):
        fleet.signal_many([1, 2])
    with pytest.raises(InvalidArgument, match="nonsense"):
        fleet.signal_many(np.zeros(1, dtype=[("node", "u4"), ("nonsense", "f8")]))
    with pytest.raises(InvalidArgument, match="2 dimensions"):
        fleet.signal_many(np.zeros((1, 2), dtype=[("node", "u4"), ("cpu", "f8")]))
    for kind in ("U3", "c16", "(2,)f8"):
        with pytest.raises(InvalidType, match="cpu is a field of"):
            fleet.signal_many(np.zeros(1, dtype=[("node", "u4"), ("cpu", kind)]))
    with pytest.raises(UnknownName, match="node is 0"):
        fleet.signal_many(np.zeros(1, dtype=[("node", "u4"), ("cpu", "f8")]))


@pytest.mark.parametrize(
    ("call", "error", "names"),
    [
        (lambda f: f.add(""), InvalidArgument, "name"),
        (lambda f: f.add("a"), InvalidArgument, "name is 'a'"),
        (lambda f: f.add(7), InvalidType, "name is int"),
        (lambda f: f.add("x", price_per_hour=-1.0), InvalidArgument, "price_per_hour is -1"),
        (lambda f: f.add("x", price_per_hour=float("nan")), InvalidArgument, "price_per_hour is nan"),
        (lambda f: f.add("x", rtt_s="fast"), InvalidType, "rtt_s is str"),
        (lambda f: f.add("x", memory_bytes=-1), InvalidArgument, "memory_bytes is -1"),
        (lambda f: f.add("x", memory_bytes=1.5), InvalidType, "memory_bytes is float"),
        (lambda f: f.add("x", slots=0), InvalidArgument, "slots is 0"),
        (lambda f: f.add("x", labels={"k": 1}), InvalidType, "labels"),
        (lambda f: f.add("x", labels=["k"]), InvalidType, "labels is list"),
        (lambda f: f.signal(9, cpu=0.5), UnknownName, "node is 9"),
        (lambda f: f.signal(-1, cpu=0.5), InvalidArgument, "node is -1"),
        (lambda f: f.signal("b", cpu=0.5), UnknownName, "node is 'b'; known: a"),
        (lambda f: f.signal(0, cpu=1.01), InvalidArgument, "cpu is 1.01"),
        (lambda f: f.signal(0, inflight=10**400), InvalidArgument, "inflight is inf"),
        (lambda f: f.signal("\ud800", cpu=0.5), InvalidArgument, "node is .*UTF-8"),
        (lambda f: f.add("x\ud800"), InvalidArgument, "name is .*UTF-8"),
        (lambda f: f.add("x", labels={"k": "\ud800"}), InvalidArgument, "labels.*UTF-8"),
        (lambda f: f.load_model(0, "\ud800"), InvalidArgument, "model is .*UTF-8"),
        (lambda f: f.signal(0, inflight=-1), InvalidArgument, "inflight is -1"),
        (lambda f: f.signal(0, queue_wait_s=float("inf")), InvalidArgument, "queue_wait_s is inf"),
        (lambda f: f.signal(0, gpu=float("nan")), InvalidArgument, "gpu is nan"),
        (lambda f: f.signal(0, gpu="hot"), InvalidType, "gpu is str"),
        (lambda f: f.signal(0, as_of_s=float("nan")), InvalidArgument, "as_of_s is nan"),
        (lambda f: f.load_model(3, "m"), UnknownName, "node is 3"),
        (lambda f: f.load_model(0, ""), InvalidArgument, "model is ''"),
        (lambda f: f.load_model(0, None), InvalidType, "model is NoneType"),
        (lambda f: f.load_model(0, "m", version=0), InvalidArgument, "version is 0"),
        (lambda f: f.unload_model(0, "m"), UnknownName, "model is 'm'"),
        (lambda f: f.drain(1), UnknownName, "node is 1"),
        (lambda f: f.remove(True + 1), UnknownName, "node is 2"),
        (lambda f: Fleet(max_nodes=0), InvalidArgument, "max_nodes is 0"),
        (lambda f: Fleet(max_nodes=1 << 30), InvalidArgument, "max_nodes is 1073741824"),
        (lambda f: Fleet(max_nodes=2.5), InvalidType, "max_nodes is float"),
        (lambda f: Fleet(shared="a/b"), InvalidArgument, "shared is 'a/b'"),
        (lambda f: Fleet(clock=3), InvalidType, "clock is int"),
    ],
)
def test_refusals_name_field_and_value(call, error, names):
    fleet = Fleet()
    fleet.add("a")
    with pytest.raises(error, match=names) as caught:
        call(fleet)
    assert isinstance(caught.value, infcore.InfcoreError)
    assert fleet.nodes()["name"].tolist() == ["a"]


def test_models_are_bounded():
    fleet = Fleet(max_nodes=1)
    fleet.add("a")
    for i in range(512):  # a name and its version each
        fleet.load_model(0, f"m{i}")
    with pytest.raises(InvalidArgument, match="at most 1024"):
        fleet.load_model(0, "one too many")


def test_labels_that_requests_require_are_bounded():
    fleet = Fleet()
    for i in range(64):
        fleet.load_model(fleet.add(f"n{i}", labels={"rack": str(i)}), "m")
    router = Router(fleet)
    for i in range(63):
        assert router.pick("m", require={"rack": str(i)}).node == i
    with pytest.raises(InvalidArgument, match="at most 63"):
        router.pick("m", require={"rack": "63"})
    assert router.pick("m", require={"rack": "7"}).node == 7


def test_use_after_fork_raises():
    code = """
import os, sys, infcore
fleet = infcore.Fleet(); fleet.add("a"); fleet.load_model(0, "m")
router = infcore.Router(fleet); decision = router.pick("m")
calls = [fleet.nodes, lambda: fleet.add("b"), lambda: fleet.signal(0, cpu=0.1), lambda: fleet.drain(0),
         lambda: fleet.load_model(0, "n"), lambda: router.pick("m"), lambda: router.done(decision),
         lambda: router.cancel(decision), lambda: router.explain("m"), lambda: router.pick_many("m", [1.0])]
child = os.fork()
if child == 0:
    for call in calls:
        try:
            call()
        except infcore.ForkedProcess as error:
            assert "before fork()" in str(error)
        else:
            os._exit(1)
    infcore.Fleet().add("c")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert router.done(decision)
"""
    assert hasattr(os, "fork")
    subprocess.run([sys.executable, "-c", code], check=True)
