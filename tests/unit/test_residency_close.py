"""Devices that leave, or an engine that closes, while models are loaded and unloaded as the engine asked."""

import threading

import pytest
from engine_rig import WAIT_S, answer, engine_of, model, wait_until, x_of

import infcore.engine
from infcore import Device

MIB = 2**20


class Memory(Device):
    """`load` and `unload` call `at_load` and `at_unload` first; counts its close()."""

    def __init__(self, at_load=lambda name: None, at_unload=lambda name: None, n_mib=1):
        super().__init__("d", memory_bytes=n_mib * MIB)
        self.at_load, self.at_unload, self.n_closed = at_load, at_unload, 0

    def load(self, model):
        self.at_load(model.name)
        super().load(model)

    def unload(self, name):
        self.at_unload(name)
        super().unload(name)

    def run(self, model_name, inputs):
        return {"y": inputs["x"]}

    def close(self):
        self.n_closed += 1


def small(name):
    return model(name, weights_bytes=MIB, max_batch_delay_s=0.0)


@pytest.mark.parametrize("leave", [lambda engine: engine.close(), lambda engine: engine.remove_device("d")])
def test_a_load_under_way_is_no_hang(monkeypatch, leave):
    monkeypatch.setattr(infcore.engine, "_JOIN_S", 0.02)
    begun, go, asked = threading.Event(), threading.Event(), []

    def load(name):
        asked.append(name)
        begun.set()
        assert go.wait(WAIT_S)

    device, left = Memory(load, n_mib=2), []
    engine = engine_of(device, models=[small("a"), small("b")], residency="lru")
    engine.start()
    assert begun.wait(WAIT_S)
    leaves = threading.Thread(target=lambda: left.append(leave(engine)))
    leaves.start()
    leaves.join(0.3)  # many times what a thread that hangs in a run would be given
    assert leaves.is_alive()
    go.set()
    leaves.join(WAIT_S)
    engine.close()
    assert left in ([[]], [True]) and device.n_closed == 1
    assert len(asked) == 1, "it is asked for another load though it leaves"


def test_an_unload_that_fails_is_said():
    def fail(name):
        raise OSError("busy")

    with engine_of(Memory(at_unload=fail), models=[small("a"), small("b")], residency="lru") as engine:
        assert answer(engine.submit("a", x_of(1))) == answer(engine.submit("b", x_of(1))) == 1.0
        wait_until(lambda: engine.stats()["devices"]["d"]["load_error"] == "a: OSError: busy", "the error")
