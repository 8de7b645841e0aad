"""An engine that decides itself which models its devices hold: Engine(residency=)."""

import threading

import pytest
from engine_rig import PATHS, WAIT_S, Gated, answer, double, engine_of, model, wait_until, x_of

from infcore import CallableDevice, Device, DeviceError, EmulatedDevice, InvalidArgument, ManualClock, UnknownName
from infcore.sim import replay, simulate
from infcore.sim.what_if import RecordedTrace, recorded_scenario

MIB = 2**20


class Holds(Device):
    """A device that counts the bytes of what it has loaded, and answers with the version that it runs."""

    def __init__(self, name, memory_bytes, **options):
        super().__init__(name, memory_bytes=memory_bytes, **options)
        self.log = []
        self.bytes_most = 0
        self.sizes = {}
        self.fails = {}
        self.gate = None

    def load(self, model):
        if model.name in self.fails:
            raise self.fails[model.name]
        super().load(model)
        self.sizes[model.name] = model.weights_bytes
        self.bytes_most = max(self.bytes_most, sum(self.sizes.values()))
        self.log.append(("load", model.name, model.version))

    def unload(self, name):
        super().unload(name)
        self.sizes.pop(name)
        self.log.append(("unload", name))

    def run(self, model_name, inputs):
        if self.gate is not None:
            self.gate(model_name, inputs)
        return {"y": inputs["x"] * 0 + self._model(model_name).version}


def small(name, version=1, mib=1, **changes):
    return model(name, version=version, weights_bytes=mib * MIB, max_batch_delay_s=0.0, **changes)


def counted(engine, what):
    return sum(each[what] for each in engine.stats()["devices"].values())


def loaded(device):
    return [name for kind, name, *_ in device.log if kind == "load"]


@pytest.mark.parametrize("policy", PATHS)
def test_every_model_is_served_though_few_fit(policy):
    devices = [Holds(name, 2 * MIB) for name in "ab"]
    names = [f"m{i}" for i in range(9)]
    with engine_of(*devices, models=[small(name) for name in names], policy=policy, residency="lru") as engine:
        for _ in range(3):
            futures = [engine.submit(name, x_of(1)) for name in names]
            assert [answer(future) for future in futures] == [1.0] * len(names)
        for what, kind in (("loads", "load"), ("unloads", "unload")):  # some may be under way, for whom nobody waits
            wait_until(
                lambda w=what, k=kind: counted(engine, w) == sum(entry[0] == k for d in devices for entry in d.log),
                what,
            )
        wait_until(
            lambda: counted(engine, "loads") == sum(engine.stats()["models"][name]["loads"] for name in names), "all"
        )
        stats = engine.stats()
    for device in devices:
        assert 0 < device.bytes_most <= 2 * MIB
    each = [stats["devices"][device.name] for device in devices]
    assert sum(one["loads"] for one in each) >= len(names)
    assert all(one["load_s"] > 0.0 for one in each if one["loads"])


def test_what_fits_is_loaded_before_anybody_asks():
    device = Holds("d", 3 * MIB)
    with engine_of(device, models=[small("a"), small("b"), small("c"), small("d")], residency="infcore"):
        wait_until(lambda: len(device.log) == 3, "three loads")
    assert sorted(loaded(device)) == ["a", "b", "c"]  # of what nobody asked for yet, the first


def test_a_model_stays_while_it_runs():
    device = Holds("d", MIB)
    device.gate = Gated(run=lambda name, inputs: None)
    with engine_of(device, models=[small("a"), small("b")], residency="lru") as engine:
        running = engine.submit("a", x_of(1))
        device.gate.wait_entered()
        waits = engine.submit("b", x_of(1))
        engine.stats()  # the engine has heard of it
        assert (
            counted(engine, "unloads") == 0
        )  # nor is it asked for: the device's thread would do it after the run only
        device.gate.let(2)
        assert answer(running) == answer(waits) == 1.0
    assert device.log.index(("unload", "a")) < device.log.index(("load", "b", 1))


def test_two_versions_stand_side_by_side_while_traffic_moves():
    device = Holds("d", 2 * MIB, models=["m:1", "m:2", "other"])
    models = [small("m"), small("other")]
    with engine_of(device, models=models, residency="lru") as engine:
        assert [answer(engine.submit("m", x_of(1))) for _ in range(3)] == [1.0] * 3
        engine.load_model(small("m", version=2))
        engine.set_alias("m", {1: 1.0, 2: 1.0})
        both = [answer(engine.submit("m", x_of(1))) for _ in range(8)]
        assert sorted(both) == [1.0] * 4 + [2.0] * 4
        n_loads = len(device.log)
        assert [answer(engine.submit("m", x_of(1))) for _ in range(8)].count(2.0) == 4
        assert len(device.log) == n_loads  # both fit: neither pushes the other out
        engine.set_alias("m", {2: 1.0})
        assert [answer(engine.submit("m", x_of(1))) for _ in range(3)] == [2.0] * 3
        engine.unload_model("m", version=1)
        wait_until(lambda: ("unload", "m:1") in device.log, "the unload")
        assert answer(engine.submit("other", x_of(1))) == 1.0
        assert device.bytes_most <= 2 * MIB


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_what_cannot_be_loaded_is_said_and_others_go_on(error):
    clock = ManualClock()
    device = Holds("d", MIB)
    device.fails = {"bad": error("no such file")}
    with engine_of(device, models=[small("bad"), small("good")], residency="lru", clock=clock) as engine:
        first = engine.submit("bad", x_of(1))
        wait_until(lambda: counted(engine, "loads_failed") >= 1, "a load that fails")
        clock.advance(10.0)  # it may have been tried before anybody asked: then it is tried again now
        with pytest.raises(DeviceError, match="no device could load it"):
            first.result(timeout_s=WAIT_S)
        assert engine.stats()["devices"]["d"]["load_error"] == f"bad: {error.__name__}: no such file"
        assert answer(engine.submit("good", x_of(1))) == 1.0
        device.fails = {}
        later = engine.submit("bad", x_of(1))
        clock.advance(100.0)  # then it is tried again
        assert answer(later) == 1.0
        assert engine.stats()["devices"]["d"]["load_error"] is None


def test_a_device_unloads_what_it_loaded_whatever_the_name_means_by_then():
    device = Holds("d", 4 * MIB)
    with engine_of(device, models=[small("m"), small("m", version=2)], residency="lru") as engine:
        assert versions(engine, 1) == 1.0 and versions(engine, 2) == 2.0
        engine.unload_model("m", version=1)
        engine.load_model(small("m", version=3))
        engine.load_model(small("m", version=1))
        assert [versions(engine, v) for v in (1, 2, 3)] == [1.0, 2.0, 3.0]
    names = set()
    for kind, name, *_ in device.log:
        assert (kind == "load") == (name not in names), device.log
        names ^= {name}


def versions(engine, version):
    return answer(engine.submit("m", x_of(1), version=version))


def test_a_load_that_never_ends_takes_its_device_for_lost():
    clock = ManualClock()
    hangs, well = Holds("hangs", MIB, run_limit_s=5.0), Holds("well", MIB, run_limit_s=5.0)
    entered, go = threading.Event(), threading.Event()
    load = hangs.load

    def stuck(model):
        entered.set()
        assert go.wait(WAIT_S)
        load(model)

    hangs.load = stuck
    with engine_of(hangs, models=[small("a", load_s=0.1)], residency="lru", clock=clock) as engine:
        future = engine.submit("a", x_of(1))
        assert entered.wait(WAIT_S)
        engine.add_device(well)
        clock.advance(6.0)
        assert answer(future) == 1.0  # on the other one
        assert engine.fleet.nodes()["state"].tolist() == ["lost", "up"]
        go.set()
        wait_until(lambda: engine.fleet.nodes()["state"].tolist() == ["up", "up"], "the device to be back")


def test_another_device_takes_what_one_cannot_load():
    broken, well = Holds("broken", MIB), Holds("well", MIB)
    broken.fails = {name: RuntimeError("broken") for name in "ab"}
    with engine_of(broken, well, models=[small("a"), small("b")], residency="lru") as engine:
        assert [answer(engine.submit(name, x_of(1))) for name in "abab"] == [1.0] * 4
    assert broken.log == []


def test_models_and_devices_come_and_go():
    first = Holds("first", 2 * MIB)
    with engine_of(first, models=[small("a")], residency="gdsf") as engine:
        assert answer(engine.submit("a", x_of(1))) == 1.0
        engine.load_model(small("b"))
        assert answer(engine.submit("b", x_of(1))) == 1.0
        second = Holds("second", 2 * MIB)
        engine.add_device(second)
        wait_until(lambda: len(second.log) == 2, "two loads")  # it fills up
        assert engine.remove_device("first")
        assert answer(engine.submit("a", x_of(1))) == 1.0
        engine.unload_model("a")
        wait_until(lambda: ("unload", "a") in second.log, "the unload")
        with pytest.raises(UnknownName):
            engine.submit("a", x_of(1))
        assert answer(engine.submit("b", x_of(1))) == 1.0


def test_a_model_that_no_memory_holds_waits_for_one_that_does():
    small_one = Holds("small", MIB)
    with engine_of(small_one, models=[small("big", mib=2)], residency="lru") as engine:
        future = engine.submit("big", x_of(1))
        engine.add_device(Holds("large", 2 * MIB))
        assert answer(future) == 1.0
    assert small_one.log == []


def test_the_log_tells_the_same_decisions_again(tmp_path):
    path = tmp_path / "log"
    devices = [EmulatedDevice(name, base_s=1e-4, memory_bytes=3 * MIB, load_s=1e-4) for name in "ab"]
    names = [f"m{i}" for i in range(12)]
    with engine_of(*devices, models=[small(name) for name in names], residency="infcore", log=path) as engine:
        threads = [
            threading.Thread(target=lambda k=k: [answer_of(engine, names[(k * 5 + i * 7) % 12]) for i in range(40)])
            for k in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert counted(engine, "loads") > 12
    told = replay(path)
    assert told.first_difference is None
    assert told.complete


def answer_of(engine, name):
    engine.submit(name, x_of(1)).result(timeout_s=WAIT_S)


def test_what_is_expected_is_loaded_before_it_is_asked_for():
    device = Holds("d", 2 * MIB)
    with engine_of(device, models=[small(name) for name in "abcd"], residency="lru") as engine:
        assert [answer(engine.submit(name, x_of(1))) for name in "ab"] == [1.0] * 2
        n_loads = len(loaded(device))
        engine.preload("d")
        wait_until(lambda: "d" in loaded(device)[n_loads:], "the load")
        n_loads = len(loaded(device))
        assert answer(engine.submit("d", x_of(1))) == 1.0
        engine.preload("d")  # it is there
        assert answer(engine.submit("d", x_of(1))) == 1.0
        assert len(loaded(device)) == n_loads
        with pytest.raises(UnknownName, match="'e'"):
            engine.preload("e")
        with pytest.raises(UnknownName, match="version 3"):
            engine.preload("a", version=3)
    with engine_of(Holds("d", 0), models=[small("a")]) as engine, pytest.raises(InvalidArgument, match="residency"):
        engine.preload("a")


def test_a_recorded_day_is_told_again_with_the_memories_it_had(tmp_path):
    path = tmp_path / "log"
    device = EmulatedDevice("d", base_s=1e-4, memory_bytes=2 * MIB, load_s=1e-3)
    names = [f"m{i}" for i in range(6)]
    with engine_of(
        device, models=[small(name, load_s=1e-3) for name in names], residency="infcore", log=path
    ) as engine:
        for i in range(60):
            answer_of(engine, names[(i * i + i // 7) % 6])
    trace = RecordedTrace(path)
    row = simulate(recorded_scenario(trace), policy="slo_cost", trace=trace)
    assert (row["violations"], row["lost"], row["outcomes"]["ok"]) == (0, 0, 60)
    assert sum(node["loads"] for node in row["nodes"]) >= 4


def test_more_models_than_an_engine_has_room_for():
    device = CallableDevice("d", double)
    with pytest.raises(InvalidArgument, match="at most"):
        engine_of(device, models=[small(f"m{i}") for i in range(4)], max_models=3)
    with engine_of(device, models=[small(f"m{i}") for i in range(4)], max_models=4) as engine:
        assert answer(engine.submit("m3", x_of(1))) == 2.0


def test_bad_arguments():
    with pytest.raises(UnknownName, match="residency is 'nothing'"):
        engine_of(CallableDevice("d", lambda name, inputs: inputs), residency="nothing")
    with pytest.raises(UnknownName, match="belady"):
        engine_of(CallableDevice("d", lambda name, inputs: inputs), residency="belady")
    with pytest.raises(InvalidArgument, match="weights_bytes"):
        model("m", weights_bytes=-1)
    with pytest.raises(InvalidArgument, match="load_s"):
        model("m", load_s=float("nan"))
