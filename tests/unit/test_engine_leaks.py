"""What an engine leaves behind when it is closed: no objects, threads or descriptors."""

import asyncio
import gc
import os
import threading
import weakref

import numpy as np
import pytest

import infcore


class Watched(np.ndarray):
    """An array that can be watched being released."""


def _model():
    return infcore.Model("m", inputs={"x": ("float32", (4,))}, outputs={"y": ("float32", (4,))})


def _engine(**options):
    devices = [
        infcore.CallableDevice("a", run=lambda name, inputs: {"y": inputs["x"] + 1}),
        infcore.EmulatedDevice("b", base_s=1e-4),
    ]
    return infcore.Engine(devices, [_model()], **options)


def _counts():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count()


@pytest.mark.parametrize("drain", [True, False])
def test_nothing_is_left_after_close(drain):
    released = []

    def once():
        engine = _engine().start()
        for _ in range(50):
            x = np.zeros(4, np.float32).view(Watched)
            released.append(weakref.ref(x))
            future = engine.submit("m", {"x": x})  # some are asked for their answer, most are forgotten
        future.result(timeout_s=30.0)

        async def ask():
            await asyncio.gather(*[engine.asubmit("m", {"x": np.zeros(4, np.float32)}) for _ in range(20)])

        asyncio.run(ask())
        engine.close(drain=drain)
        assert engine.n_open == 0

    once()  # the first one imports asyncio and the like
    before = _counts()
    for _ in range(5):
        once()
    assert _counts() == before
    assert sum(ref() is not None for ref in released) == 0


def test_many_loops_use_the_same_descriptors():
    with _engine() as engine:

        async def ask():
            return await engine.asubmit("m", {"x": np.zeros(4, np.float32)})

        for _ in range(3):
            asyncio.run(ask())
        before = _counts()
        for _ in range(20):
            asyncio.run(ask())
        assert _counts() == before
