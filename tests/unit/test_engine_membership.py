"""Devices, models and versions that come and go while an engine runs; labels, bounds and figures."""

import concurrent.futures
import threading

import pytest
from engine_rig import WAIT_S, Gated, answer, double, engine_of, model, wait_until, x_of

from infcore import (
    CallableDevice,
    Device,
    DeviceError,
    EngineClosed,
    InvalidArgument,
    NoNodeAvailable,
    QueueFull,
    UnknownName,
)


class Tells(Device):
    """Answers with the version that it has loaded, and keeps what was asked of it."""

    def __init__(self, name, **options):
        super().__init__(name, **options)
        self.log = []

    def load(self, model):
        super().load(model)
        self.log.append(("load", model.name, model.version, threading.current_thread().name))

    def unload(self, name):
        super().unload(name)
        self.log.append(("unload", name))

    def run(self, model_name, inputs):
        return {"y": inputs["x"] * 0 + self._model(model_name).version}

    def close(self):
        super().close()
        self.log.append(("close",))


def versions(engine, n, name="m", **options):
    return [answer(engine.submit(name, x_of(1), **options)) for _ in range(n)]


def test_a_device_is_loaded_before_its_first_run_and_closed_at_the_end():
    device = Tells("d")
    with engine_of(device, models=[model("a"), model("b")]) as engine:
        assert [entry[:3] for entry in device.log] == [("load", "a", 1), ("load", "b", 1)]
        assert all("d" in entry[3] for entry in device.log)  # on the device's own thread
        assert versions(engine, 1, "b") == [1]
    assert device.log.count(("close",)) == 1
    assert device.log[-1] == ("close",)


def test_a_device_serves_only_the_models_it_names():
    only = Tells("only", models=["a"])
    with engine_of(only, CallableDevice("any", double), models=[model("a"), model("b")]) as engine:
        futures = [engine.submit("b", x_of(i)) for i in range(8)]
        assert [answer(future) for future in futures] == [2 * i for i in range(8)]
        assert {future.device for future in futures} == {"any"}
    assert [entry[1] for entry in only.log if entry[0] == "load"] == ["a"]


def test_a_device_is_added_and_removed():
    with engine_of(CallableDevice("first", double)) as engine:
        second = Tells("second")
        engine.add_device(second)
        assert engine.remove_device("first") is True
        future = engine.submit("m", x_of(5))
        assert answer(future) == 1
        assert future.device == "second"
        assert list(engine.stats()["devices"]) == ["second"]
        assert engine.remove_device("second") is True
        assert second.log[-1] == ("close",)
        waiting = engine.submit("m", x_of(3))
        assert not waiting.done()
        engine.add_device(CallableDevice("first", double))  # the name is free again
        assert answer(waiting) == 6


def test_removing_waits_for_the_run_and_sends_the_rest_elsewhere():
    gated = Gated()
    with engine_of(CallableDevice("old", gated), policy="round_robin", models=[model(max_batch_size=1)]) as engine:
        futures = [engine.submit("m", x_of(i)) for i in range(6)]
        gated.wait_entered()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            removed = pool.submit(engine.remove_device, "old")
            added = pool.submit(lambda: removed.result() and engine.add_device(CallableDevice("new", double)))
            wait_until(lambda: engine.fleet.nodes()["state"][0] != b"up", "the device to drain")
            assert not removed.done()
            gated.open()
            assert removed.result(WAIT_S) is True
            added.result(WAIT_S)
        assert [answer(future) for future in futures] == [2 * i for i in range(6)]
    assert futures[0].device == "old"
    assert {future.device for future in futures[1:]} == {"new"}
    assert gated.batches == [[0]]


def test_devices_come_and_go_under_load():
    """Two threads keep the engine busy; every request is answered once, by whoever was there."""
    stop = threading.Event()
    with engine_of(CallableDevice("stays", double)) as engine:

        def load():
            n = 0
            while not stop.is_set():
                futures = [engine.submit("m", x_of(i)) for i in range(16)]
                assert [answer(future) for future in futures] == [2 * i for i in range(16)]
                n += 16
            return n

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            loads = [pool.submit(load) for _ in range(2)]
            try:
                for i in range(30):
                    engine.add_device(CallableDevice(f"guest{i % 2}", double))
                    assert engine.remove_device(f"guest{i % 2}") is True
            finally:
                stop.set()
            n = sum(done.result(WAIT_S) for done in loads)
        assert engine.n_open == 0
        assert engine.stats()["models"]["m"]["requests"] == n


def test_models_come_and_go():
    device = Tells("d")
    with engine_of(device) as engine:
        engine.load_model(model("late"))
        assert versions(engine, 1, "late") == [1]
        engine.unload_model("late")
        assert device.log[-1] == ("unload", "late")
        with pytest.raises(UnknownName, match=r"'late'.*'m'"):
            engine.submit("late", x_of(1))
        engine.load_model(model("late", inputs={"z": ("int8", ())}))
        with pytest.raises(UnknownName, match="'z'"):
            engine.submit("late", x_of(1))
        assert versions(engine, 1) == [1]


def test_unloading_ends_what_waits():
    gated = Gated()
    with engine_of(CallableDevice("d", gated), models=[model("m"), model("gone")]) as engine:
        running = engine.submit("m", x_of(1))
        gated.wait_entered()
        waiting = [engine.submit("gone", x_of(i)) for i in range(3)]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            unloaded = pool.submit(engine.unload_model, "gone")
            for future in waiting:
                with pytest.raises(UnknownName, match=r"'gone'.*unloaded"):
                    future.result(timeout_s=WAIT_S)
            gated.open()
            unloaded.result(WAIT_S)
        assert answer(running) == 2
        assert engine.n_open == 0


def test_a_batch_that_fails_after_its_model_was_unloaded_is_answered():
    def fails(name, inputs):
        raise ValueError("planned")

    gated = Gated(fails)
    with engine_of(CallableDevice("d", gated), models=[model("m"), model("gone")]) as engine:
        first = engine.submit("m", x_of(1))
        gated.wait_entered()
        pair = [engine.submit("gone", x_of(i)) for i in range(2)]
        gated.let()
        gated.wait_entered()  # both members of one batch are running now
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            unloaded = pool.submit(engine.unload_model, "gone")
            wait_until(lambda: refused(engine, "gone"), "the model to be unknown")
            gated.open()
            for future in pair:
                assert isinstance(future.exception(timeout_s=WAIT_S), (UnknownName, DeviceError))
            unloaded.result(WAIT_S)
        assert isinstance(first.exception(timeout_s=WAIT_S), DeviceError)
        assert engine.n_open == 0
    assert gated.batches[:2] == [[1], [0, 1]]


def refused(engine, name):
    try:
        engine.submit(name, x_of(0)).cancel()
    except UnknownName:
        return True
    return False


def test_a_new_version_takes_over():
    with engine_of(Tells("d")) as engine:
        assert versions(engine, 2) == [1, 1]
        engine.load_model(model(version=2))
        assert versions(engine, 2) == [2, 2]
        engine.unload_model("m", version=2)
        assert versions(engine, 1) == [1]


def test_versions_side_by_side():
    with engine_of(Tells("d"), models=[model(version=1), model(version=2)]) as engine:
        assert versions(engine, 2, version=1, deadline_s=2.0) == [1, 1]
        assert versions(engine, 2, version=2) == [2, 2]
        with pytest.raises(UnknownName, match=r"3.*\[1, 2\]"):
            engine.submit("m", x_of(1), version=3)


def test_an_alias_spreads_by_weight():
    with engine_of(Tells("d"), models=[model(version=1), model(version=2)]) as engine:
        assert versions(engine, 4) == [2] * 4
        engine.set_alias("m", {1: 3.0, 2: 1.0})
        seen = versions(engine, 40, deadline_s=2.0)
        assert (seen.count(1), seen.count(2)) == (30, 10)
        engine.set_alias("m", {1: 1.0})
        assert versions(engine, 4) == [1] * 4
        engine.set_alias("m", None)
        assert versions(engine, 4) == [2] * 4


def test_labels_that_a_device_must_have():
    devices = [CallableDevice(name, double, labels={"region": name, "kind": "x"}) for name in ("eu", "us")]
    with engine_of(*devices) as engine:
        futures = [engine.submit("m", x_of(i), require={"region": "us", "kind": "x"}) for i in range(8)]
        assert [answer(future) for future in futures] == [2 * i for i in range(8)]
        assert {future.device for future in futures} == {"us"}
        assert answer(engine.submit("m", x_of(1), require={})) == 2


def test_labels_that_no_device_has():
    with engine_of(CallableDevice("d", double, labels={"region": "eu"})) as engine:
        with pytest.raises(NoNodeAvailable, match="mars"):
            engine.submit("m", x_of(1), require={"region": "mars"})
        assert engine.n_open == 0
        engine.add_device(CallableDevice("rover", double, labels={"region": "mars"}))
        future = engine.submit("m", x_of(1), require={"region": "mars"})
        assert answer(future) == 2
        assert future.device == "rover"


@pytest.mark.parametrize("limit", [1, 5])
def test_a_full_engine_refuses_and_recovers(limit):
    gated = Gated()
    with engine_of(CallableDevice("d", gated), max_requests=limit) as engine:
        futures = [engine.submit("m", x_of(i)) for i in range(limit)]
        for _ in range(3):
            with pytest.raises(QueueFull, match=str(limit)):
                engine.submit("m", x_of(0))
        assert engine.n_open == limit
        gated.open()
        assert [answer(future) for future in futures] == [2 * i for i in range(limit)]
        assert answer(engine.submit("m", x_of(9))) == 18
        assert engine.stats()["models"]["m"]["rejected"] == 3


def test_a_device_that_can_not_load_is_not_added():
    class Refuses(Tells):
        def load(self, model):
            raise OSError("no such file")

    with engine_of(CallableDevice("d", double)) as engine:
        with pytest.raises(DeviceError, match=r"'bad'.*'m'.*no such file"):
            engine.add_device(Refuses("bad"))
        assert list(engine.stats()["devices"]) == ["d"]
        assert answer(engine.submit("m", x_of(1))) == 2
        engine.add_device(CallableDevice("bad", double))
    with pytest.raises(DeviceError, match="'bad'"), engine_of(Refuses("bad")):
        pass


def test_a_model_that_a_device_can_not_load_is_not_added():
    class Picky(Tells):
        def load(self, model):
            if model.name == "bad":
                raise OSError("no such file")
            super().load(model)

    with engine_of(Picky("d")) as engine:
        with pytest.raises(DeviceError, match="'bad'"):
            engine.load_model(model("bad"))
        with pytest.raises(UnknownName):
            engine.submit("bad", x_of(1))
        assert versions(engine, 1) == [1]


def test_membership_needs_a_running_engine():
    engine = engine_of(CallableDevice("d", double))
    with pytest.raises(EngineClosed):
        engine.add_device(CallableDevice("e", double))
    with pytest.raises(EngineClosed):
        engine.remove_device("d")


def test_the_fleet_of_an_engine_changes_through_the_engine_alone():
    with engine_of(CallableDevice("d", double)) as engine:
        fleet = engine.fleet
        for call in (
            lambda: fleet.add("ghost"),
            lambda: fleet.drain(0),
            lambda: fleet.remove(0),
            lambda: fleet.load_model(0, "m"),
            lambda: fleet.unload_model(0, "m"),
        ):
            with pytest.raises(InvalidArgument, match=r"fleet of an Engine; allowed there: its add_device"):
                call()
        fleet.signal(0, cpu=0.5)  # what a device says of itself may come from anywhere
        assert answer(engine.submit("m", x_of(1))) == 2
        engine.add_device(CallableDevice("e", double))
        assert fleet.nodes()["name"].tolist() == ["d", "e"]
