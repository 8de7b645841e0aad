"""Models that come and go on devices while threads ask for them, and devices that come and go. Also run under TSAN."""

import random
import threading

import numpy as np

import infcore

N_THREADS, N_EACH, N_MODELS = 3, 150, 9
MIB = 2**20


class Holds(infcore.Device):
    """Runs only what it holds, and never holds more than it has room for."""

    def __init__(self, name, **options):
        super().__init__(name, memory_bytes=3 * MIB, **options)
        self.held = set()
        self.n_loads = 0

    def load(self, model):
        super().load(model)
        assert model.name not in self.held
        self.held.add(model.name)
        self.n_loads += 1
        assert len(self.held) <= 3

    def unload(self, name):
        super().unload(name)
        self.held.remove(name)

    def run(self, model_name, inputs):
        assert model_name in self.held
        return {"y": inputs["x"] * 2.0}


def model(name):
    shape = {"x": ("float32", (2,))}
    return infcore.Model(name, shape, {"y": shape["x"]}, weights_bytes=MIB, max_batch_delay_s=0.0)


def test_models_come_and_go_under_load():
    names = [f"m{i}" for i in range(N_MODELS)]
    devices = [Holds("a"), Holds("b")]
    failures = []
    with infcore.Engine(devices, [model(name) for name in names], residency="infcore") as engine:

        def ask(seed):
            rng = random.Random(seed)
            for _ in range(N_EACH):
                name, value = rng.choice(names), np.float32(rng.randrange(100))
                future = engine.submit(name, {"x": np.full(2, value, np.float32)}, tier=rng.randrange(2))
                if rng.random() < 0.1:
                    future.cancel()
                    continue
                got = float(future.result(timeout_s=60.0)["y"][0])
                if got != 2.0 * value:
                    failures.append((name, value, got))

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(N_THREADS)]
        for thread in threads:
            thread.start()
        for i in range(3):
            devices.append(Holds(f"late-{i}"))
            engine.add_device(devices[-1])
            engine.preload(names[i])
            engine.load_model(model(f"new-{i}"))
            assert engine.remove_device(f"late-{i}")
            engine.unload_model(f"new-{i}")
        for thread in threads:
            thread.join()
        stats = engine.stats()
    assert not failures
    assert stats["open"] == 0
    assert sum(each["loads"] for each in stats["devices"].values()) > N_MODELS
    assert [each["load_error"] for each in stats["devices"].values()] == [None, None]
    assert sum(device.n_loads for device in devices) > N_MODELS
