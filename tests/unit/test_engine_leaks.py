"""What an engine leaves behind: no objects, no threads, no descriptors; and nothing of it works after a fork."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from engine_rig import WAIT_S, Gated, answer, double, engine_of, identity, model, wait_until, x_of

from infcore import CallableDevice, DeviceError, EmulatedDevice


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def gone(refs):
    gc.collect()
    return all(ref() is None for ref in refs)


class Planned(Exception):
    """Unlike the built-in ones it can be watched."""


class Tracked:
    """Weak references to everything that went in and came out."""

    def __init__(self):
        self.refs = []

    def input(self, value):
        inputs = x_of(value)
        self.refs.append(weakref.ref(inputs["x"]))
        return inputs

    def run(self, name, inputs):
        outputs = double(name, inputs)
        self.refs += [weakref.ref(inputs["x"]), weakref.ref(outputs["y"])]
        return outputs


@pytest.mark.parametrize("drain", [True, False])
def test_nothing_is_left_of_an_engine(drain):
    tracked = Tracked()

    def life():
        device = CallableDevice("d", tracked.run)
        engine = engine_of(device, EmulatedDevice("e", base_s=1e-4)).start()
        futures = [engine.submit("m", tracked.input(i)) for i in range(50)]
        for future in futures[:25]:  # the rest is forgotten
            future.result(timeout_s=WAIT_S)
        engine.add_device(CallableDevice("guest", double))
        engine.remove_device("guest")
        futures = [engine.submit("m", tracked.input(i)) for i in range(50)]
        engine.close(drain=drain)

        async def ask():
            async with engine_of(CallableDevice("d", tracked.run)) as second:
                await asyncio.gather(*(second.asubmit("m", tracked.input(i)) for i in range(50)))

        asyncio.run(ask())
        tracked.refs += [weakref.ref(device), weakref.ref(engine)]

    life()
    gc.collect()
    threads, before = set(threading.enumerate()), descriptors()
    for _ in range(3):
        life()
    assert gone(tracked.refs)
    assert set(threading.enumerate()) == threads
    assert descriptors() == before


def test_inputs_are_let_go_when_the_request_ends():
    tracked = Tracked()
    with engine_of(CallableDevice("d", double)) as engine:
        future = engine.submit("m", tracked.input(1))
        answer(future)
        assert gone(tracked.refs)  # though the future is kept


@pytest.mark.parametrize("how", ["answered", "failed", "cancelled", "cancelled as it runs", "expired", "closed"])
def test_a_future_that_nobody_keeps(how):
    """Fire and forget, whatever becomes of it: inputs, outputs and errors go."""
    tracked = Tracked()

    def run(name, inputs):
        if how == "failed":
            error = Planned()
            tracked.refs.append(weakref.ref(error))
            raise error
        return tracked.run(name, inputs)

    gated = Gated(run)
    engine = engine_of(CallableDevice("d", gated), models=[model(max_batch_size=1)]).start()
    first = engine.submit("m", x_of(0))
    gated.wait_entered()
    for i in range(5):
        future = engine.submit("m", tracked.input(i), deadline_s=0.001 if how == "expired" else None)
        if how == "cancelled":
            future.cancel()
    if how == "cancelled as it runs":
        first.cancel()
    del first, future
    if how == "closed":
        threading.Thread(target=lambda: wait_until(lambda: engine.n_open == 0, "the end") or gated.open()).start()
        engine.close(drain=False)
    else:
        if how == "expired":
            wait_until(lambda: engine.n_open == 1, "the deadlines")
        gated.open()
        wait_until(lambda: engine.n_open == 0, "the end")
        engine.submit("m", x_of(0)).exception(timeout_s=WAIT_S)
    engine.close()
    gated.batches.clear()
    assert gone(tracked.refs)


def test_futures_of_a_loop_that_is_gone():
    tracked, gated = Tracked(), Gated()

    async def fire_and_forget():
        for i in range(5):
            engine.asubmit("m", tracked.input(i))

    with engine_of(CallableDevice("d", gated)) as engine:
        asyncio.run(fire_and_forget())
        gated.open()
        wait_until(lambda: engine.n_open == 0, "the requests to end")
    assert gone(tracked.refs)


def test_a_kept_result_keeps_its_own_batch_only():
    """The device answers with its staging memory: a result holds that of its own batch, not of others."""
    tracked = Tracked()

    def run(name, inputs):
        owner = inputs["x"]
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        tracked.refs.append(weakref.ref(owner))
        return identity(name, inputs)

    of = model(inputs={"x": ("float32", (1000,))}, outputs={"y": ("float32", (1000,))})
    with engine_of(CallableDevice("d", run), models=[of]) as engine:
        kept = [
            engine.submit("m", {"x": np.full(1000, i, np.float32)}).result(timeout_s=WAIT_S)["y"] for i in range(20)
        ]
        owners = {id(ref()): ref for ref in tracked.refs}
        assert len(owners) == 20
        last = kept.pop()
        del kept
        gc.collect()
        assert sum(ref() is not None for ref in owners.values()) <= 2  # its own, and what the device will use next
    assert last[0] == 19


def test_errors_do_not_keep_each_other():
    """The cause is shared by a batch; asking for it again and again adds nothing."""

    def fails(name, inputs):
        raise Planned

    with engine_of(CallableDevice("d", fails)) as engine:
        future = engine.submit("m", x_of(1))
        depths = []
        for _ in range(5):
            with pytest.raises(DeviceError) as caught:
                future.result(timeout_s=WAIT_S)
            depths.append(len(caught.traceback))
        assert len(set(depths[1:])) == 1
        ref = weakref.ref(future.exception().__cause__)
        del future, caught
        assert gone([ref])


def test_memory_of_a_long_run_is_bounded():
    """Nothing is kept per request: what is alive after 400 rounds is alive after 40."""
    with engine_of(CallableDevice("d", double)) as engine:

        def rounds(n):
            for i in range(n):
                futures = [engine.submit("m", x_of(j), deadline_s=WAIT_S) for j in range(8)]
                futures[i % 8].cancel()
                for future in futures:
                    if not future.cancelled():
                        answer(future)
            del futures, future
            gc.collect()
            return len(gc.get_objects())

        rounds(40)
        before = rounds(40)
        assert rounds(400) <= before + 20


FORK = """
import os, sys, threading
import numpy as np, infcore

def told(call):
    try:
        call()
    except BaseException as e:
        return type(e).__name__
    return "nothing raised"

model = infcore.Model("m", inputs={"x": ("float32", (1,))}, outputs={"y": ("float32", (1,))})
x = {"x": np.zeros(1, np.float32)}
entered, go = threading.Event(), threading.Event()

def run(name, inputs):
    entered.set()
    go.wait()
    return {"y": inputs["x"]}

engine = infcore.Engine(devices=[infcore.CallableDevice("d", run)], models=[model]).start()
future = engine.submit("m", x)
entered.wait()
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: forking while threads run
pid = os.fork()
if pid == 0:
    print("submit", told(lambda: engine.submit("m", x)))
    print("result", told(lambda: future.result(timeout_s=30)))
    print("add_device", told(lambda: engine.add_device(infcore.CallableDevice("e", run))))
    print("remove_device", told(lambda: engine.remove_device("d")))
    print("load_model", told(lambda: engine.load_model(model.replace(name="n"))))
    print("unload_model", told(lambda: engine.unload_model("m")))
    print("stats", told(engine.stats))
    sys.stdout.flush()
    os._exit(0)
status = os.waitpid(pid, 0)[1]
go.set()
assert future.result(timeout_s=60)["y"][0] == 0
assert engine.close() == []
print("parent", status)
"""


def test_use_after_fork():
    ended = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=WAIT_S)
    assert (ended.returncode, ended.stderr) == (0, "")
    *child, parent = ended.stdout.splitlines()
    calls = ["submit", "result", "add_device", "remove_device", "load_model", "unload_model", "stats"]
    assert child == [f"{call} ForkedProcess" for call in calls]
    assert parent == "parent 0"


def test_a_forked_child_may_make_its_own():
    code = FORK[: FORK.index('    print("submit"')] + (
        '    with infcore.Engine(devices=[infcore.CallableDevice("d", lambda n, i: {"y": i["x"] + 5})],\n'
        "                        models=[model]) as own:\n"
        '        print(own.submit("m", x).result(timeout_s=60)["y"].tolist())\n'
        "    sys.stdout.flush()\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\ngo.set()\nengine.close()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[5.0]\n", "")
