"""Devices that a monitor takes for lost, and their return: Engine.lose_device, Fleet.lose."""

import threading

import pytest
from engine_rig import PATHS, Gated, answer, double, engine_of, wait_until, x_of

import infcore
import infcore.sim
from infcore import CallableDevice, EmulatedDevice, ManualClock

LIMIT_S = 5.0


def state_of(engine, name):
    return next(str(row["state"]) for row in engine.fleet.nodes() if str(row["name"]) == name)


@pytest.mark.parametrize("policy", PATHS)
def test_a_lost_device_gets_nothing_until_it_is_restored(policy):
    with engine_of(CallableDevice("a", double), CallableDevice("b", double), policy=policy) as engine:
        assert engine.lose_device("a") is True
        assert engine.lose_device("a") is False
        assert state_of(engine, "a") == "lost"
        futures = [engine.submit("m", x_of(i)) for i in range(50)]
        assert [answer(future) for future in futures] == [2 * i for i in range(50)]
        assert {future.device for future in futures} == {"b"}
        assert engine.restore_device("a") is True
        assert engine.restore_device("a") is False
        engine.lose_device("b")
        assert engine.submit("m", x_of(3)).result(timeout_s=60)["y"][0] == 6


def test_what_waited_for_the_only_device_goes_on_with_it():
    with engine_of(CallableDevice("a", double)) as engine:
        engine.lose_device("a")
        waiting = [engine.submit("m", x_of(i)) for i in range(5)]
        assert not any(future.done() for future in waiting)
        engine.restore_device("a")
        assert [answer(future) for future in waiting] == [0, 2, 4, 6, 8]


def test_an_answer_does_not_bring_it_back():
    gated = Gated()
    with engine_of(CallableDevice("a", gated)) as engine:
        first = engine.submit("m", x_of(1))
        gated.wait_entered()
        engine.lose_device("a")
        gated.let()
        engine.load_model(infcore.Model("other", inputs={"x": ("float32", (1,))}, outputs={"y": ("float32", (1,))}))
        assert (state_of(engine, "a"), first.done()) == ("lost", False)
        gated.open()
        engine.restore_device("a")
        assert (answer(first), gated.batches) == (2, [[1], [1]])


@pytest.mark.parametrize("first", ["hang", "lose"])
def test_one_that_hangs_and_is_lost_too(first):
    """Whichever is seen first: an answer alone does not bring it back, and neither does restore_device() alone."""
    clock, gated = ManualClock(), Gated()
    with engine_of(CallableDevice("a", gated, run_limit_s=LIMIT_S), clock=clock) as engine:
        future = engine.submit("m", x_of(1))
        gated.wait_entered()
        if first == "hang":
            clock.advance(LIMIT_S + 1)
            wait_until(lambda: state_of(engine, "a") == "lost", "the hang to be seen")
            assert engine.lose_device("a") is False
        else:
            assert engine.lose_device("a") is True
            clock.advance(LIMIT_S + 1)
        assert engine.restore_device("a") is True
        assert state_of(engine, "a") == "lost"
        gated.open()
        assert answer(future) == 2
        assert state_of(engine, "a") == "up"


def test_an_emulated_device_is_lost_and_restored():
    with engine_of(EmulatedDevice("a", base_s=1e-4), EmulatedDevice("b", base_s=1e-4)) as engine:
        engine.lose_device("a")
        futures = [engine.submit("m", x_of(i)) for i in range(20)]
        for future in futures:
            future.result(timeout_s=60)
        assert {future.device for future in futures} == {"b"}
        engine.restore_device("a")
        engine.remove_device("b")
        assert engine.submit("m", x_of(1)).result(timeout_s=60) is not None


def test_a_device_of_the_same_name_starts_anew():
    with engine_of(CallableDevice("a", double)) as engine:
        engine.lose_device("a")
        assert engine.remove_device("a") is True
        engine.add_device(CallableDevice("a", double))
        assert answer(engine.submit("m", x_of(4))) == 8
        assert engine.restore_device("a") is False


def test_one_that_is_being_removed_can_be_lost():
    """Its run may never end on a card that fell off the bus, and remove_device() waits for it."""
    gated = Gated()
    with engine_of(CallableDevice("a", gated, run_limit_s=None)) as engine:
        future = engine.submit("m", x_of(1))
        gated.wait_entered()
        engine.add_device(CallableDevice("b", double))
        removed = []
        removing = threading.Thread(target=lambda: removed.append(engine.remove_device("a")))
        removing.start()
        wait_until(lambda: state_of(engine, "a") == "draining", "the removal to begin")
        assert engine.lose_device("a") is True
        gated.open()  # after the loss: what it was given has gone elsewhere already
        assert (answer(future), future.device) == (2, "b")
        removing.join(60)
        assert removed == [True]
        assert answer(engine.submit("m", x_of(3))) == 6
        with pytest.raises(infcore.UnknownName, match=r"device is 'a'; allowed: one of \['b'\]"):
            engine.lose_device("a")


def test_a_call_for_a_device_that_is_gone_leaves_its_successor_alone():
    """A monitor that has found the device and is interrupted, until another one has the id."""
    with engine_of(CallableDevice("a", double)) as engine:
        old = engine._present("a")
        engine.remove_device("a")
        assert engine._lose_node(old.node, old.generation) is False
        engine._own_fleet(None)
        node = engine.fleet.add("c")  # as add_device() does, before it tells the driver
        assert node == old.node
        assert engine._lose_node(old.node, old.generation) is False
        assert state_of(engine, "c") == "up"
        engine.fleet.remove("c")
        engine._own_fleet("an Engine")


@pytest.mark.parametrize("name", ["b", "", None, 0])
def test_names_that_are_not_there(name):
    with engine_of(CallableDevice("a", double)) as engine:
        for call in (engine.lose_device, engine.restore_device):
            with pytest.raises(infcore.UnknownName, match=r"device is .*; allowed: one of \['a'\]"):
                call(name)


def test_the_log_tells_it_again(tmp_path):
    path = tmp_path / "engine.log"
    gated = Gated()
    with engine_of(CallableDevice("a", gated), CallableDevice("b", double), log=path) as engine:
        engine.lose_device("b")
        first = engine.submit("m", x_of(1))
        gated.wait_entered()
        engine.restore_device("b")
        engine.lose_device("a")
        assert (answer(first), first.device) == (2, "b")
        gated.open()
        engine.restore_device("a")
        assert [answer(engine.submit("m", x_of(i))) for i in range(10)] == [2 * i for i in range(10)]
    told = infcore.sim.replay(path)
    assert told.equal
    kinds = [event.kind for event in infcore.sim.events(path)]
    assert (kinds.count("node_lost"), kinds.count("node_back")) == (2, 2)


def test_nodes_of_a_fleet():
    fleet = infcore.Fleet()
    for name in ("a", "b"):
        fleet.add(name)
        fleet.load_model(name, "m")
    router = infcore.Router(fleet, policy="round_robin")
    assert fleet.lose("a") is True
    assert fleet.lose("a") is False
    assert {router.pick("m").node for _ in range(4)} == {fleet.nodes()["id"][1]}
    assert fleet.restore("a") is True
    assert fleet.restore(0) is False
    assert {router.pick("m").node for _ in range(4)} == {0, 1}
    fleet.drain("a")
    assert (fleet.lose("a"), fleet.restore("a")) == (False, False)
    for call in (fleet.lose, fleet.restore):
        with pytest.raises(infcore.UnknownName, match="node is 'c'"):
            call("c")


def test_an_engines_fleet_is_the_engines():
    with engine_of(CallableDevice("a", double)) as engine:
        for call in (engine.fleet.lose, engine.fleet.restore):
            with pytest.raises(
                infcore.InvalidArgument, match=r"on the fleet of an Engine; allowed there: .*lose_device"
            ):
                call("a")
