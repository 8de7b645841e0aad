"""What once went wrong in the engine: races, hangs and crashes, each made to happen by events."""

import _thread
import asyncio
import concurrent.futures
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import engine_rig
import numpy as np
import pytest
from engine_rig import WAIT_S, Gated, answer, double, engine_of, model, wait_until, x_of

from infcore import CallableDevice, DeviceError, EmulatedDevice, EngineClosed, UnknownName

LIMIT_S = 0.2  # of a run that is to be given up
UNDRAINED_MAX = 1024  # ended requests that the engine keeps while nobody looks at them
SOON_S = 10.0  # what used to hang fails after this


class Aside:
    """A call made on a thread of its own, which a test need not wait for if it hangs."""

    def __init__(self, call):
        self._future = concurrent.futures.Future()
        threading.Thread(target=self._run, args=(call,), daemon=True).start()

    def _run(self, call):
        try:
            self._future.set_result(call())
        except Exception as error:
            self._future.set_exception(error)

    def outcome(self):
        return self._future.result(SOON_S)


class HeldWork:
    """A model's `work` that says when it is entered and waits until it is let go: a submit caught half way."""

    def __init__(self):
        self.entered, self.let = threading.Event(), threading.Event()

    def __call__(self, inputs):
        self.entered.set()
        assert self.let.wait(WAIT_S)
        return 1.0


def engine_threads():
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("infcore-"))


@pytest.fixture(autouse=True)
def no_thread_stays(monkeypatch):
    monkeypatch.setattr("infcore.engine._JOIN_S", 2 * LIMIT_S)
    yield
    wait_until(lambda: not engine_threads(), "the engine's threads to end")


@pytest.mark.parametrize(("longest", "batches"), [(4, [(2, 4, 4)]), (2**40, [(1, 2**40, 0), (1, 0, 2**40)])])
def test_padded_size_that_overflows(longest, batches):
    """Two empty inputs, padded to each other's longest axes, made a size that wrapped around."""
    entered, let, sizes = threading.Event(), threading.Event(), []

    def run(name, inputs):
        entered.set()
        assert let.wait(WAIT_S)
        sizes.append(inputs["x"].shape)
        return {"y": np.zeros((len(inputs["x"]), 2), np.float32)}

    wide = model(inputs={"x": ("int8", (None, None))}, work=lambda inputs: 1.0, max_batch_size=8)
    with engine_of(CallableDevice("d", run), models=[wide]) as engine:
        first = engine.submit("m", {"x": np.zeros((1, 1), np.int8)})
        assert entered.wait(WAIT_S)
        others = [engine.submit("m", {"x": np.empty(s, np.int8)}) for s in ((longest, 0), (0, longest))]
        let.set()
        assert [answer(future) for future in (first, *others)] == [0, 0, 0]
    assert sizes == [(1, 1, 1), *batches]


def test_model_redefined_while_a_request_to_it_is_submitted():
    """A request checked against the old definition ran as one of the new, whose inputs it doesn't have."""
    work = HeldWork()
    with engine_of(CallableDevice("d", double), models=[model(work=work)]) as engine:
        submitting = Aside(lambda: engine.submit("m", x_of(1)))
        assert work.entered.wait(WAIT_S)
        engine.unload_model("m")
        engine.load_model(model(inputs=dict.fromkeys("abcdefghijkl", ("float32", (1000,)))))
        work.let.set()
        with pytest.raises(UnknownName, match="unloaded"):
            submitting.outcome().result(timeout_s=WAIT_S)


def test_submit_that_close_overtakes():
    """A submit past its first check put its request into a closed engine, where nobody ever answered it."""
    work = HeldWork()
    engine = engine_of(CallableDevice("d", double), models=[model(work=work)]).start()
    submitting = Aside(lambda: engine.submit("m", x_of(1)))
    assert work.entered.wait(WAIT_S)
    assert engine.close() == []
    work.let.set()
    with pytest.raises(EngineClosed, match="closed"):
        submitting.outcome()
    assert engine.n_open == 0


def test_requests_that_nobody_looks_at_are_let_go():
    """Ended requests whose futures were thrown away stayed, with their inputs, until some thread asked for one."""
    refs = []
    with engine_of(EmulatedDevice("d", base_s=1e-4), max_requests=64) as engine:
        for _ in range(4 * UNDRAINED_MAX):
            wait_until(lambda: engine.n_open < 64, "room")
            given = np.ones(2, np.float32)
            refs.append(weakref.ref(given))
            engine.submit("m", {"x": given})
        del given
        wait_until(lambda: engine.n_open == 0, "every request to end")
        wait_until(lambda: sum(r() is not None for r in refs) <= 2 * UNDRAINED_MAX, "their inputs to be let go")
    assert not any(r() is not None for r in refs)


def test_abandoned_emulated_worker_takes_nothing_from_its_successor():
    """The thread of a device given up in its run woke later and answered, with zeros, what was the next device's."""
    engine = engine_of(EmulatedDevice("old", base_s=0.8, run_limit_s=0.1)).start()
    old = next(thread for thread in threading.enumerate() if thread.name == "infcore-old")
    first = engine.submit("m", x_of(1))
    wait_until(lambda: engine.fleet.nodes()["state"].tolist() == ["lost"], "the run to be given up")
    assert engine.remove_device("old", timeout_s=0) is False
    engine.add_device(CallableDevice("new", double))
    assert answer(first) == 2
    old.join(SOON_S)
    assert not old.is_alive()
    assert [answer(engine.submit("m", x_of(i + 1))) for i in range(20)] == [2.0 * (i + 1) for i in range(20)]
    with pytest.warns(RuntimeWarning, match="old"):
        assert engine.close() == ["old"]


def test_error_whose_text_raises():
    """Making the DeviceError's text raised on the worker, which ended: the request stayed open for ever."""

    class Bad(Exception):
        def __str__(self):
            raise ValueError("no text")

    def run(name, inputs):
        if inputs["x"][0, 0] < 0:
            raise Bad
        return double(name, inputs)

    with engine_of(CallableDevice("d", run)) as engine:
        with pytest.raises(DeviceError, match="Bad"):
            engine.submit("m", x_of(-1)).result(timeout_s=SOON_S)
        assert answer(engine.submit("m", x_of(1))) == 2


@pytest.mark.parametrize("raised", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), BaseException("b")], ids=repr)
def test_callback_that_raises_no_exception(raised, monkeypatch):
    """What a callback raised beyond Exception ended the dispatcher, and with it every later request."""
    told, hooked, again = [], threading.Event(), threading.Event()

    def hook(kind, error, trace):
        told.append(error)
        hooked.set()
        raise SystemExit(2)  # not even this ends the thread

    def callback(future):
        raise raised

    monkeypatch.setattr(sys, "excepthook", hook)
    gated = Gated()
    with engine_of(CallableDevice("d", gated)) as engine:
        engine.submit("m", x_of(1)).add_done_callback(callback)
        gated.open()
        assert hooked.wait(SOON_S)
        engine.submit("m", x_of(1)).add_done_callback(lambda future: again.set())
        assert again.wait(SOON_S)
        assert engine_threads() == ["infcore-d", "infcore-dispatcher"]
    assert told == [raised]


def test_load_and_close_while_a_device_hangs():
    """load_model waited for the hanging device while it held the lock that close() needs: neither ever returned."""
    hanging = Gated()
    engine = engine_of(CallableDevice("a", hanging, run_limit_s=LIMIT_S)).start()
    future = engine.submit("m", x_of(1))
    hanging.wait_entered()
    Aside(lambda: engine.load_model(model("m2"))).outcome()
    Aside(lambda: engine.add_device(CallableDevice("b", double))).outcome()
    assert answer(future) == 2
    assert answer(engine.submit("m2", x_of(2))) == 4
    with pytest.warns(RuntimeWarning, match="'a'"):
        assert Aside(lambda: engine.close(drain=False, timeout_s=0.1)).outcome() == ["a"]
    hanging.open()


def test_close_does_not_wait_for_requests_that_no_device_is_left_for():
    """close() drained without end when the only device hung."""
    hanging = Gated()
    engine = engine_of(CallableDevice("a", hanging, run_limit_s=LIMIT_S)).start()
    future = engine.submit("m", x_of(1))
    hanging.wait_entered()
    with pytest.warns(RuntimeWarning, match="'a'"):
        assert Aside(engine.close).outcome() == ["a"]
    with pytest.raises(EngineClosed):
        future.result(timeout_s=0)
    hanging.open()


def test_device_whose_close_raises():
    """The error left close() half way: threads of the other devices and the dispatcher stayed, the engine "closing"."""

    class BadlyClosed(CallableDevice):
        def close(self):
            raise OSError("gone")

    engine = engine_of(BadlyClosed("a", double), CallableDevice("b", double)).start()
    with pytest.raises(OSError, match="gone"):
        engine.close()
    assert engine_threads() == []
    assert engine.close() == []


def test_close_again_after_an_interrupt():
    """Ctrl-C in close() left threads and open requests behind, and a second close() did nothing."""
    gated = Gated()
    engine = engine_of(CallableDevice("d", gated), models=[model(max_batch_size=1)]).start()
    futures = [engine.submit("m", x_of(1)) for _ in range(2)]
    gated.wait_entered()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have background jobs ignore it
    interrupting = Aside(lambda: (wait_until(lambda: engine._state == "closing", "close()"), _thread.interrupt_main()))
    with pytest.raises(KeyboardInterrupt):
        engine.close()
    interrupting.outcome()
    signal.signal(signal.SIGINT, before)
    gated.open()
    assert engine.close() == []
    assert [answer(future) for future in futures] == [2, 2]


def test_loop_that_stands_still_while_the_engine_closes():
    """The loop's tasks were woken from close(), outside of their loop, and failed at their next await."""
    gated = Gated()
    loop = asyncio.new_event_loop()
    engine = engine_of(CallableDevice("d", gated)).start()

    async def job():
        outputs = await engine.asubmit("m", x_of(1))
        await asyncio.sleep(0.001)
        return float(outputs["y"][0])

    async def begin():
        task = asyncio.get_running_loop().create_task(job())
        await asyncio.sleep(0)
        return task

    task = loop.run_until_complete(begin())
    gated.wait_entered()
    gated.open()
    engine.close()
    assert loop.run_until_complete(asyncio.wait_for(task, SOON_S)) == 2
    loop.close()


def test_forked_child():
    """A child used the parent's engine without its threads: it waited for ever for answers, and in close()."""
    rig = str(Path(engine_rig.__file__).parent)
    done = subprocess.run([sys.executable, "-c", FORKING, rig], capture_output=True, text=True, timeout=WAIT_S)
    assert done.stdout.split() == ["ForkedProcess"] * 3 + ["[]", "0", "parent"], done.stderr


FORKING = """
import os, signal, sys, threading, infcore

entered, let = threading.Event(), threading.Event()
def run(name, inputs):
    entered.set()
    let.wait()
    return {"y": inputs["x"]}
sys.path.insert(0, sys.argv[1])
from engine_rig import engine_of, x_of
engine = engine_of(infcore.CallableDevice("d", run)).start()
future = engine.submit("m", x_of(1))
entered.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    for call in (lambda: engine.submit("m", x_of(1)), engine.stats, future.result):
        try:
            print("returned", call(), flush=True)
        except Exception as e:
            print(type(e).__name__, flush=True)
    print(engine.close(), flush=True)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
let.set()
engine.close()
print("parent")
"""
