"""The door of the live engine: what is refused says why and when to try again, and answers say how they were made."""

import asyncio
import threading

import numpy as np
import pytest

import infcore
from infcore import CallableDevice, Engine, ManualClock, Model

ROW = {"x": np.zeros(4, np.float32)}


def model(name="m", **options):
    arrays = {"x": ("float32", (4,))}
    return Model(name, arrays, {"y": ("float32", (4,))}, **{"max_batch_size": 1, "max_batch_delay_s": 0.0, **options})


class Gate:
    """A device whose runs last until the test lets them go; `ran` tells which models ran."""

    def __init__(self, name="gate", **options):
        self.free, self.began, self.ran = threading.Semaphore(0), threading.Semaphore(0), []
        self.device = CallableDevice(name, self.run, **options)

    def run(self, name, inputs):
        self.ran.append(name)
        self.began.release()
        assert self.free.acquire(timeout=30)
        return {"y": inputs["x"] + len(self.ran)}

    def let(self, n=1):
        for _ in range(n):
            self.free.release()


def emulated(base_s, name="e"):
    return infcore.EmulatedDevice(name, base_s=base_s, per_work_s=0.0)


def test_infeasible_is_refused_at_once_with_the_best_time():
    clock = ManualClock(start_s=10.0)
    with Engine([emulated(0.5)], [model()], clock=clock) as engine:
        error = engine.submit("m", ROW, deadline_s=0.1).exception(timeout_s=30)
        assert isinstance(error, infcore.DeadlineInfeasible) and error.reason == "infeasible"
        assert 0.1 < error.best_s <= 0.5
        stats = engine.stats()["models"]["m"]
        assert (stats["infeasible"], stats["rejected"], stats["expired"]) == (1, 1, 0)


def test_what_nobody_has_learned_is_never_refused():
    gate = Gate()
    with Engine([gate.device], [model()], clock=ManualClock()) as engine:
        future = engine.submit("m", ROW, deadline_s=1e-6)
        gate.let()
        error = future.exception(timeout_s=30)
        assert error is None or not isinstance(error, infcore.DeadlineInfeasible)


def test_without_policies_the_deadline_is_left_to_pass():
    clock = ManualClock()
    with Engine([emulated(0.5)], [model()], clock=clock, admission=()) as engine:
        error = engine.submit("m", ROW, deadline_s=0.1).exception(timeout_s=30)
        assert isinstance(error, infcore.DeadlineExceeded) and error.reason == "deadline"


def full_engine(gate, **options):
    return Engine([gate.device], [model()], max_requests=2, n_tiers=3, **options)


def test_full_is_refused_with_its_reason_and_when_to_try_again():
    gate = Gate()
    with full_engine(gate) as engine:
        taken = [engine.submit("m", ROW) for _ in range(2)]
        with pytest.raises(infcore.QueueFull) as refused:
            engine.submit("m", ROW)
        assert refused.value.reason == "queue_full" and refused.value.retry_after_s > 0.0
        gate.let(2)
        assert [f.result(timeout_s=30)["y"].shape for f in taken] == [(4,), (4,)]


def test_a_tier_is_full_before_the_engine():
    gate = Gate()
    with Engine([gate.device], [model()], n_tiers=2, tier_capacity=[2, 1]) as engine:
        taken = [engine.submit("m", ROW, tier=1), engine.submit("m", ROW)]
        with pytest.raises(infcore.QueueFull, match="tier 1"):
            engine.submit("m", ROW, tier=1)
        taken.append(engine.submit("m", ROW))
        gate.let(4)
        for future in taken:
            future.result(timeout_s=30)
        engine.submit("m", ROW, tier=1).result(timeout_s=30)  # its place is free again


def test_shed_lowest_gives_up_the_last_tiers_latest_deadline():
    gate = Gate()
    with full_engine(gate, overflow="shed_lowest") as engine:
        running = engine.submit("m", ROW)
        assert gate.began.acquire(timeout=30)
        last = engine.submit("m", ROW, tier=2)
        urgent = engine.submit("m", ROW, tier=1)
        error = last.exception(timeout_s=30)
        assert isinstance(error, infcore.Overloaded) and error.reason == "displaced" and error.retry_after_s > 0.0
        assert isinstance(engine.submit("m", ROW, tier=2).exception(timeout_s=30), infcore.QueueFull)
        gate.let(2)
        assert running.result(timeout_s=30) and urgent.result(timeout_s=30)
        assert engine.stats()["models"]["m"]["displaced"] == 1


def test_block_waits_for_room_and_no_longer_than_the_deadline():
    gate = Gate()
    with full_engine(gate, overflow="block") as engine:
        taken = [engine.submit("m", ROW) for _ in range(2)]
        with pytest.raises(infcore.DeadlineExceeded, match="full until its deadline"):
            engine.submit("m", ROW, deadline_s=0.01)
        late: list[infcore.Future] = []
        caller = threading.Thread(target=lambda: late.append(engine.submit("m", ROW)))
        caller.start()
        gate.let(3)
        caller.join(30)
        assert all(f.result(timeout_s=30) for f in [*taken, *late]) and len(late) == 1


def test_block_on_a_loop_leaves_futures_pending_in_order():
    gate = Gate()

    async def run(engine):
        futures = [engine.asubmit("m", ROW) for _ in range(5)]
        expired = engine.asubmit("m", ROW, deadline_s=0.01)
        dropped = engine.asubmit("m", ROW)
        assert dropped.cancel() and dropped.cancelled()
        with pytest.raises(infcore.DeadlineExceeded):
            await expired
        assert not any(f.done() for f in futures)
        gate.let(5)
        return [int((await f)["y"][0]) for f in futures]

    with full_engine(gate, overflow="block") as engine:
        assert asyncio.run(run(engine)) == [1, 2, 3, 4, 5]
        assert engine.n_open == 0


def test_block_ends_when_the_engine_closes():
    gate = Gate()

    async def run():
        engine = full_engine(gate, overflow="block")
        engine.start()
        futures = [engine.asubmit("m", ROW) for _ in range(4)]
        gate.let(2)
        await asyncio.to_thread(engine.close, drain=False)
        return [await asyncio.wait_for(asyncio.shield(_outcome(f)), 30) for f in futures]

    kinds = asyncio.run(run())
    assert kinds[2:] == ["EngineClosed", "EngineClosed"]


async def _outcome(future):
    try:
        await future
    except infcore.InfcoreError as e:
        return type(e).__name__
    return "ok"


def overloaded(engine, clock, gate, n=60):
    """Fills the engine and lets time pass, until the ladder stands at its top. Returns the futures."""
    futures = []
    for _ in range(n):
        futures.append(engine.submit("m", ROW))
        clock.advance(0.01)
        engine.stats()  # a step of the owner at that time
    return futures


def learned(admission, *models, **options):
    """An engine that knows its only device: each run took a second."""
    gate, clock = Gate(), ManualClock(start_s=1.0)
    engine = Engine([gate.device], [model(), *models], clock=clock, admission=admission, **options)
    engine.start()
    for each in (m.name for m in (model(), *models)):
        future = engine.submit(each, ROW)
        assert gate.began.acquire(timeout=30)
        clock.advance(1.0)
        gate.let()
        future.result(timeout_s=30)
    return engine, clock, gate


def finish(engine, gate, futures):
    gate.let(1000)
    for future in futures:
        future.exception(timeout_s=30)
    engine.close()


def test_refuse_says_when_to_try_again():
    engine, clock, gate = learned(["refuse"])
    futures = overloaded(engine, clock, gate)
    error = futures[-1].exception(timeout_s=30)
    assert isinstance(error, infcore.Overloaded) and isinstance(error, infcore.QueueFull)
    assert error.reason == "overload" and error.retry_after_s > 1.0
    assert "try again after" in str(error)
    stats = engine.stats()["models"]["m"]
    assert stats["step"] == "refuse" and stats["overloaded"] > 0 and stats["wait_s"] >= 4.0
    finish(engine, gate, futures)


def test_stale_answers_where_there_is_one():
    kept = {"y": np.arange(4, dtype=np.float32)}
    asked = []
    engine, clock, gate = learned(["stale"], stale={"m": lambda inputs: asked.append(1) or kept})
    assert not asked  # nobody is asked before the ladder has come that far
    futures = overloaded(engine, clock, gate)
    assert futures[-1].result(timeout_s=30) is kept and futures[-1].degraded == "stale"
    assert futures[-1].served_by is None and futures[-1].device is None
    assert engine.stats()["models"]["m"]["stale"] > 0 and asked
    finish(engine, gate, futures)
    assert futures[0].degraded is None and futures[0].served_by == "m"


def test_cheaper_model_answers_and_says_so():
    gate, clock = Gate(models=["m"]), ManualClock(start_s=1.0)
    fast = infcore.EmulatedDevice("fast", base_s=1e-4, per_work_s=0.0, models=["small"])
    engine = Engine([gate.device, fast], [model(fallback="small"), model("small")], clock=clock, admission=["cheaper"])
    engine.start()
    first = engine.submit("m", ROW)
    assert gate.began.acquire(timeout=30)
    clock.advance(1.0)
    gate.let()
    first.result(timeout_s=30)
    futures = overloaded(engine, clock, gate)
    assert futures[-1].result(timeout_s=30)["y"].shape == (4,)
    assert (futures[-1].served_by, futures[-1].degraded, futures[-1].device) == ("small", "cheaper", "fast")
    stats = engine.stats()["models"]
    assert stats["m"]["cheaper"] == stats["small"]["requests"] > 0 and stats["m"]["step"] == "cheaper"
    engine.unload_model("small")
    assert engine.submit("m", ROW, deadline_s=1e3).done() is False  # its own devices, as there is no fallback
    finish(engine, gate, futures)


def test_put_off_until_its_time():
    engine, clock, gate = learned(["off_peak"])
    futures = overloaded(engine, clock, gate)
    later = engine.submit("m", ROW, defer_s=5.0)
    clock.advance(0.001)
    assert engine.stats()["models"]["m"]["put_off"] == 1
    clock.advance(5.0)
    engine.stats()
    stats = engine.stats()["models"]["m"]
    assert stats["put_off"] == 0 and stats["deferred"] == 1
    finish(engine, gate, [*futures, later])
    assert later.degraded == "off_peak" and later.result()["y"].shape == (4,)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"admission": ["nothing"]}, infcore.UnknownName, "admission has 'nothing'; allowed"),
        ({"admission": ["stale", "stale"]}, infcore.InvalidArgument, "twice"),
        ({"admission": "stale"}, infcore.InvalidType, "admission is str"),
        ({"overflow": "drop"}, infcore.InvalidArgument, "overflow is 'drop'"),
        ({"tier_capacity": [1]}, infcore.InvalidArgument, "one for each of 8 tiers"),
        ({"tier_capacity": [0] * 8}, infcore.InvalidArgument, "tier_capacity"),
        ({"stale": lambda m, x: None}, infcore.InvalidArgument, "admission has no 'stale'"),
        ({"stale": 1, "admission": ["stale"]}, infcore.InvalidType, "stale is int"),
        ({"overload_wait_s": 0.0}, infcore.InvalidArgument, "overload_wait_s"),
    ],
)
def test_wrong_arguments(options, error, match):
    with pytest.raises(error, match=match):
        Engine(**options)


def test_a_fallback_takes_the_same_requests():
    other = Model("small", {"z": ("float32", (4,))}, {"y": ("float32", (4,))})
    with pytest.raises(infcore.InvalidArgument, match="fallback of model 'm' is 'small'"):
        Engine([], [model(fallback="small"), other])
    with pytest.raises(infcore.InvalidArgument, match="the model itself"):
        model(fallback="m")
    with pytest.raises(infcore.InvalidArgument, match="defer_s"):
        model(defer_s=-1.0)
