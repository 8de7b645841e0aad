"""An engine's start and end, what it answers then, and its figures."""

import asyncio
import concurrent.futures
import subprocess
import sys
import threading

import numpy as np
import pytest
from engine_rig import PATHS, WAIT_S, Counted, Gated, answer, double, engine_of, identity, model, wait_until, x_of

import infcore
from infcore import CallableDevice, Device, EmulatedDevice, Engine, EngineClosed, ManualClock


def engine_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("infcore")]


def test_before_the_start_and_after_the_end():
    engine = engine_of(CallableDevice("d", double))
    with pytest.raises(EngineClosed, match="not running"):
        engine.submit("m", x_of(1))
    assert engine.n_open == 0
    assert engine_threads() == []
    with engine as entered:
        assert entered is engine
        assert answer(engine.submit("m", x_of(1))) == 2
        with pytest.raises(EngineClosed):
            engine.start()
        assert len(engine_threads()) == 2  # the dispatcher and the device's
    assert engine_threads() == []
    for submit in (engine.submit, engine.asubmit):

        async def call(submit=submit):
            return submit("m", x_of(1))

        with pytest.raises(EngineClosed):
            asyncio.run(call())
    for call in (engine.start, lambda: engine.add_device(CallableDevice("e", double))):
        with pytest.raises(EngineClosed, match="closed"):
            call()
    assert engine.close() == []


def test_close_without_start():
    engine = engine_of(CallableDevice("d", double))
    assert engine.close() == []
    with pytest.raises(EngineClosed):
        engine.start()


@pytest.mark.parametrize("policy", PATHS)
def test_draining_answers_everything_once(policy):
    gated = Gated()
    engine = engine_of(CallableDevice("d", gated), policy=policy, models=[model(max_batch_size=3)]).start()
    told, lock = [], threading.Lock()

    def tell(ended):
        with lock:
            told.append(ended)

    futures = [engine.submit("m", x_of(i)) for i in range(20)]
    for future in futures:
        future.add_done_callback(tell)
    gated.wait_entered()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        closing = pool.submit(engine.close)
        wait_until(lambda: refused(engine), "the engine to refuse")
        assert not closing.done()
        gated.open()
        assert closing.result(WAIT_S) == []
    assert all(future.done() for future in futures)
    assert [answer(future) for future in futures] == [2 * i for i in range(20)]
    assert sorted(map(id, told)) == sorted(map(id, futures))


def refused(engine):
    try:
        engine.submit("m", x_of(0))
    except EngineClosed:
        return True
    return False


def test_closing_without_draining_ends_everything_once():
    gated = Gated()
    engine = engine_of(CallableDevice("d", gated), models=[model(max_batch_size=2)]).start()
    told = []
    futures = [engine.submit("m", x_of(i)) for i in range(10)]
    for future in futures:
        future.add_done_callback(told.append)
    gated.wait_entered()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        closing = pool.submit(engine.close, drain=False)
        for future in futures:
            with pytest.raises(EngineClosed, match="'m'"):
                future.result(timeout_s=WAIT_S)
        gated.open()
        assert closing.result(WAIT_S) == []
    wait_until(lambda: len(told) == 10, "the callbacks")
    assert sorted(map(id, told)) == sorted(map(id, futures))
    assert len(gated.batches) == 1


def test_draining_is_given_up_at_its_time_out():
    gated = Gated()
    engine = engine_of(CallableDevice("d", gated), models=[model(max_batch_size=1)]).start()
    futures = [engine.submit("m", x_of(i)) for i in range(3)]
    gated.wait_entered()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        closing = pool.submit(engine.close, timeout_s=0.01)
        for future in futures:
            assert isinstance(future.exception(timeout_s=WAIT_S), EngineClosed)
        gated.open()
        assert closing.result(WAIT_S) == []


def test_an_error_inside_the_with_block_does_not_wait():
    gated = Gated()
    with pytest.raises(ZeroDivisionError):
        with engine_of(CallableDevice("d", gated, run_limit_s=WAIT_S)) as engine:
            future = engine.submit("m", x_of(1))
            gated.wait_entered()
            threading.Timer(0.0, lambda: wait_until(future.done, "the end") or gated.open()).start()
            raise ZeroDivisionError
    assert isinstance(future.exception(timeout_s=WAIT_S), EngineClosed)


def test_closing_from_many_threads():
    engine = engine_of(CallableDevice("d", double)).start()
    futures = [engine.submit("m", x_of(i)) for i in range(100)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert [c.result(WAIT_S) for c in [pool.submit(engine.close) for _ in range(8)]] == [[]] * 8
    assert [answer(future) for future in futures] == [2 * i for i in range(100)]
    assert engine_threads() == []


def test_submitting_from_many_threads_into_the_close():
    """Whatever was accepted is answered, whatever was not is refused: nothing is left between."""
    for _ in range(20):
        engine = engine_of(CallableDevice("d", double)).start()
        together = threading.Barrier(4)

        def submit(engine=engine, together=together):
            together.wait()
            taken = []
            try:
                while True:
                    taken.append(engine.submit("m", x_of(len(taken))))
            except EngineClosed:
                return taken
            except infcore.QueueFull:
                return taken

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            submitting = [pool.submit(submit) for _ in range(3)]
            together.wait()
            engine.close()
            for taken in submitting:
                for i, future in enumerate(taken.result(WAIT_S)):
                    assert future.done()
                    assert answer(future) == 2 * i


def test_a_callback_may_ask_for_figures_while_the_engine_closes():
    gated = Gated()
    engine = engine_of(CallableDevice("d", gated), models=[model(max_batch_size=1)]).start()
    seen = []
    futures = [engine.submit("m", x_of(i)) for i in range(5)]
    for future in futures:
        future.add_done_callback(lambda ended: seen.append(engine.stats()["models"]["m"]["requests"]))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        closing = pool.submit(engine.close)
        wait_until(lambda: refused(engine), "the engine to refuse")
        gated.open()
        assert closing.result(WAIT_S) == []
    assert len(seen) == 5


@pytest.mark.xfail(raises=infcore.DeviceError, strict=True, reason="a device has one thread, whatever its slots")
def test_slots_are_runs_at_once():
    together = threading.Barrier(2)

    def run(name, inputs):
        together.wait(2.0)
        return double(name, inputs)

    with engine_of(CallableDevice("d", run, slots=2), models=[model(max_batch_size=1)]) as engine:
        futures = [engine.submit("m", x_of(i)) for i in range(6)]
        assert [answer(future) for future in futures] == [2 * i for i in range(6)]


def test_a_program_may_end_without_closing():
    code = """
import numpy as np, infcore
model = infcore.Model("m", inputs={"x": ("float32", (1,))}, outputs={"y": ("float32", (1,))})
import threading
never = threading.Event()
hangs = infcore.CallableDevice("hangs", lambda name, inputs: never.wait())
devices = [hangs, infcore.EmulatedDevice("e", base_s=0.001)]
engine = infcore.Engine(devices=devices, models=[model]).start()
futures = [engine.submit("m", {"x": np.zeros(1, np.float32)}) for _ in range(10)]
print("done")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


COUNTS = ["requests", "failed", "lost", "expired", "cancelled", "rejected", "retried", "batches"]
QUANTILES = ["queue_s", "batch_wait_s", "service_s", "latency_s"]


def test_figures_of_an_engine_that_did_nothing():
    with Engine(devices=[CallableDevice("d", double)], models=[model()]) as engine:
        figures = engine.stats()
    assert set(figures) == {"models", "devices", "open"}
    assert figures["open"] == 0
    for part in (figures["models"]["m"], figures["devices"]["d"]):
        assert [part[count] for count in COUNTS] == [0] * len(COUNTS)
        assert (part["batch_mean"], part["busy_s"], part["work"], part["throughput_rps"]) == (0, 0, 0, 0)
        for name in QUANTILES:
            assert part[name] == dict.fromkeys(["p50", "p90", "p99", "p999", "mean"])
    assert (figures["devices"]["d"]["kind"], figures["devices"]["d"]["emulated"]) == ("cpu", False)


def test_figures_by_outcome_and_stage():
    clock, gated = ManualClock(), Gated(Counted())
    with engine_of(CallableDevice("d", gated), models=[model(), model("other")], clock=clock) as engine:
        first = engine.submit("m", x_of(0))
        gated.wait_entered()
        clock.advance(2.0)  # the first runs for two seconds
        rest = [engine.submit("m", x_of(i), work=3.0) for i in range(3)]
        expired, cancelled = engine.submit("m", x_of(9), deadline_s=0.5), engine.submit("m", x_of(9))
        cancelled.cancel()
        wait_until(lambda: engine.n_open == 5, "the cancel to be seen")
        assert engine.stats()["open"] == 5
        clock.advance(1.0)  # and the rest waits for one
        assert expired.exception(timeout_s=WAIT_S) is not None
        gated.open()
        assert [answer(future) for future in [first, *rest]] == [0, 0, 2, 4]
        figures = engine.stats()
    m, d = figures["models"]["m"], figures["devices"]["d"]
    assert [m[count] for count in COUNTS] == [4, 0, 0, 1, 1, 0, 0, 2]
    assert [d[count] for count in COUNTS] == [4, 0, 0, 0, 0, 0, 0, 2]
    for part in (m, d):
        assert (part["batch_mean"], part["work"], part["busy_s"]) == (2.0, 10.0, 3.0)
        assert part["latency_s"]["mean"] == pytest.approx((3.0 + 3 * 1.0) / 4, rel=0.01)
        assert part["latency_s"]["p999"] == pytest.approx(3.0, rel=0.01)
        assert part["queue_s"]["p99"] == pytest.approx(1.0, rel=0.01)
        assert part["service_s"]["mean"] == pytest.approx(3.0 / 4, rel=0.01)
    assert figures["models"]["other"]["requests"] == 0


def test_figures_are_there_for_each_version():
    with engine_of(EmulatedDevice("e"), models=[model(version=1), model(version=2)]) as engine:
        answer(engine.submit("m", x_of(1)))
        assert engine.stats()["models"]["m:2"]["requests"] == 1


def test_a_device_of_ones_own_class():
    class Mine(Device):
        def run(self, model_name, inputs):
            return identity(model_name, {"x": np.sqrt(inputs["x"])})

    with engine_of(Mine("mine", kind="npu")) as engine:
        assert answer(engine.submit("m", x_of(16))) == 4
        assert engine.stats()["devices"]["mine"]["kind"] == "npu"
