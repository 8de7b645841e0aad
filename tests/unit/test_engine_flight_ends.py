"""Requests with equal keys where models leave, the engine closes or is full, and the cache forgets: nothing is left."""

import asyncio
import gc
import threading
import weakref

import pytest
from engine_rig import WAIT_S, Gated, answer, loop_runner, model, wait_until, x_of
from flight_rig import SINGLE, engine_of, in_order, keyed

import infcore


@pytest.fixture
def gate():
    gate = Gated()
    yield gate
    gate.open()


def test_a_model_that_leaves_while_one_runs_answers_those_who_wait_for_it(gate):
    _, engine = engine_of(gate)
    with engine:
        leader = keyed(engine, 3.0)
        gate.wait_entered()
        other, witness = keyed(engine, 3.0), engine.submit("m", x_of(0.0))
        in_order(engine)
        leaves = threading.Thread(target=engine.unload_model, args=("m",))
        leaves.start()
        assert isinstance(witness.exception(timeout_s=WAIT_S), infcore.UnknownName)
        gate.open()
        assert answer(leader) == answer(other) == 6.0
        assert other.cached is True
        leaves.join()
        assert engine.n_open == 0
    assert gate.batches == [[3.0]]


def test_a_model_that_leaves_while_its_requests_wait_takes_all_with_it(gate):
    _, engine = engine_of(gate, models=(SINGLE, model("other", max_batch_size=1)))
    ends = []
    with engine:
        engine.submit("other", x_of(0.0))
        gate.wait_entered()
        futures = [keyed(engine, 3.0) for _ in range(3)]
        for future in futures:
            future.add_done_callback(lambda done: ends.append(type(done.exception())))
        in_order(engine)
        leaves = threading.Thread(target=engine.unload_model, args=("m",))
        leaves.start()
        wait_until(lambda: len(ends) == 3, "the requests' ends")
        gate.open()
        leaves.join()
    assert ends == [infcore.UnknownName] * 3
    assert gate.batches == [[0.0]]


def test_another_definition_of_the_model_is_another_request(gate):
    _, engine = engine_of(gate)
    with engine:
        before = keyed(engine, 3.0)
        gate.wait_entered()
        in_order(engine)
        gate.open()
        engine.unload_model("m")
        engine.load_model(SINGLE)
        after = keyed(engine, 4.0)
        assert answer(after) == 8.0
        assert answer(before) == 6.0
        assert answer(keyed(engine, 5.0)) == 8.0  # the newest definition's, which before's has not replaced
    assert gate.batches == [[3.0], [4.0]]


@pytest.mark.parametrize("drain", [False, True])
def test_close_ends_all(gate, drain):
    _, engine = engine_of(gate)
    engine.start()
    leader = keyed(engine, 3.0)
    gate.wait_entered()
    others = [keyed(engine, 3.0) for _ in range(3)]
    in_order(engine)
    if not drain:
        engine._cancel_all()  # as close(drain=False) begins; the run is still under way
    gate.open()
    engine.close(drain=drain)
    ends = [future.exception(timeout_s=0.0) for future in (leader, *others)]
    assert [type(end) for end in ends] == [type(None) if drain else infcore.EngineClosed] * 4
    assert engine._n_flights() == engine.n_open == 0


@pytest.mark.parametrize("key", [None, "k"])
def test_what_is_under_way_as_all_is_cancelled_ends_too(gate, key):
    """It was taken before, and reaches the engine's owner after: as those do whose run ends then without an answer."""
    _, engine = engine_of(gate)
    engine.start()
    leader = keyed(engine, 3.0)
    gate.wait_entered()
    engine._cancel_all()
    late = engine.submit("m", x_of(3.0), key=key)
    assert isinstance(late.exception(timeout_s=WAIT_S), infcore.EngineClosed)
    gate.open()
    engine.close(drain=False)
    assert isinstance(leader.exception(timeout_s=0.0), infcore.EngineClosed)
    assert engine.n_open == 0 and gate.batches == [[3.0]]


def test_an_answer_lives_from_its_end_though_nobody_looks_at_it(gate):
    clock = infcore.ManualClock()
    cache = infcore.Cache(1 << 16, ttl_s=5.0, clock=clock)
    device = infcore.CallableDevice("d", run=gate, run_limit_s=None)
    gate.open()
    with infcore.Engine([device], [SINGLE], cache=cache, clock=clock) as engine:
        first = keyed(engine, 1.0)
        wait_until(lambda: engine.n_open == 0, "the run")
        clock.advance(4.0)
        assert answer(keyed(engine, 2.0)) == answer(first) == 2.0  # of what was asked first
        clock.advance(1.0)
        again = keyed(engine, 2.0)
        assert answer(again) == 4.0 and again.cached is False
        old = keyed(engine, 3.0)  # from the cache
        clock.advance(6.0)
        assert answer(old) == 4.0 and cache.get("k") is None
        unseen = keyed(engine, 5.0)
        wait_until(lambda: engine.n_open == 0, "the run")
        clock.advance(5.0)
        assert answer(unseen) == 10.0 and not cache.entries()
        assert answer(keyed(engine, 6.0)) == 12.0
    assert gate.batches == [[1.0], [2.0], [5.0], [6.0]]


def test_nothing_is_held_once_all_are_gone(gate):
    class Key:
        pass

    cache, engine = engine_of(gate)
    held = []

    def submit(value, key):
        x = x_of(value)
        held.append(weakref.ref(x["x"]))
        return engine.submit("m", x, key=key)

    with engine:
        key = Key()
        futures = [submit(float(i), key) for i in range(4)]
        gate.wait_entered()
        del futures[0], futures[-1]  # nobody will ask the one that runs
        in_order(engine)
        gate.open()
        assert [answer(future) for future in futures] == [0.0, 0.0]
        forgotten = [submit(7.0, "other") for _ in range(3)]
        wait_until(lambda: engine.n_open == 0, "the run")
        assert engine._n_flights() == 1
        assert forgotten[0].done()  # who waits on a thread looks for all
        del forgotten
        gc.collect()
        assert engine._n_flights() == 0
        assert [ref() for ref in held] == [None] * 7
        alive = weakref.ref(key)
        del key, futures
        cache.clear()
        gc.collect()
        assert alive() is None


def test_a_future_that_is_garbage_leaves_too(gate):
    _, engine = engine_of(gate)
    with engine:
        future = keyed(engine, 3.0)
        ring = [future]
        future.add_done_callback(ring.append)  # a cycle
        ring.append(ring)
        gate.wait_entered()
        assert future.cancel()
        in_order(engine)
        gate.open()
        assert future.done()
        del future, ring
        gc.collect()
        assert engine._n_flights() == 0


FORGET = {
    "clear": lambda cache: cache.clear(),
    "delete": lambda cache: cache.delete(("m", 1, "", "k")),
    "older": lambda cache: cache.invalidate_older(1),
}


@pytest.mark.parametrize("how", FORGET)
def test_what_the_cache_is_told_to_forget_is_nobodys_answer_from_then_on(gate, how):
    cache, engine = engine_of(gate)
    with engine:
        before = keyed(engine, 1.0)
        gate.wait_entered()
        waits = keyed(engine, 2.0)
        in_order(engine)
        FORGET[how](cache)
        assert engine._n_flights() == 0
        after = keyed(engine, 3.0)
        gate.let(2)
        assert answer(after) == 6.0
        assert answer(before) == answer(waits) == 2.0
        assert len(cache) == (0 if how == "older" else 1)  # which asks for versions that an answer does not have
        gate.open()
        assert answer(keyed(engine, 4.0)) == (8.0 if how == "older" else 6.0)


def test_what_concerns_other_keys_or_tags_alone_leaves_it_where_it_is(gate):
    cache, engine = engine_of(gate)
    with engine:
        before = keyed(engine, 1.0)
        gate.wait_entered()
        cache.delete("k")
        cache.invalidate_tag("t")
        cache.invalidate_older(5, tag="t")
        after = keyed(engine, 3.0)
        gate.open()
        assert answer(before) == answer(after) == 2.0
        assert len(cache) == 1


def test_a_full_engine_counts_who_waits(gate):
    _, engine = engine_of(gate, max_requests=3)
    with engine:
        futures = [keyed(engine, 3.0) for _ in range(3)]
        gate.wait_entered()
        in_order(engine)
        with pytest.raises(infcore.QueueFull):
            keyed(engine, 3.0)
        gate.open()
        assert [answer(future) for future in futures] == [6.0] * 3
        assert engine._n_flights() == 0  # the refused one is in none


def test_who_waits_for_room_joins_in_the_end(gate):
    _, engine = engine_of(gate, max_requests=2, overflow="block")

    async def ask():
        futures = [engine.asubmit("m", x_of(value), key="k") for value in (1.0, 2.0, 3.0, 4.0)]
        await asyncio.to_thread(gate.wait_entered)
        futures[3].cancel()
        gate.open()
        answers = [float((await future)["y"][0]) for future in futures[:3]]
        return answers, [future.cached for future in futures[:3]]

    with engine:
        assert loop_runner("asyncio")(ask()) == ([2.0, 2.0, 2.0], [False, True, True])
        gc.collect()
        assert engine._n_flights() == 0
    assert gate.batches == [[1.0]]


def test_a_fallbacks_answer_is_for_those_who_waited_and_for_nobody_later():
    clock, slow, fast = infcore.ManualClock(), Gated(), Gated(lambda name, inputs: {"y": inputs["x"] * 3})
    cache = infcore.Cache(1 << 16)
    devices = [
        infcore.CallableDevice("slow", run=slow, models=["m"], run_limit_s=None),
        infcore.CallableDevice("fast", run=fast, models=["small"], run_limit_s=None),
    ]
    models = [model(fallback="small", max_batch_size=1), model("small", max_batch_size=1)]
    with infcore.Engine(devices, models, cache=cache, clock=clock, admission=["cheaper"]) as engine:
        for name, gate, takes_s in (("m", slow, 1.0), ("small", fast, 0.001)):
            known = engine.submit(name, x_of(0.0))
            gate.wait_entered()
            clock.advance(takes_s)
            gate.let()
            answer(known)
        crowd = []
        while in_order(engine)["step"] is None:
            crowd.append(engine.submit("m", x_of(1.0)))
            clock.advance(0.05)
        leader, other = keyed(engine, 2.0), keyed(engine, 2.0)
        in_order(engine)
        assert not other.done()
        fast.open()
        assert (answer(leader), leader.degraded, leader.served_by) == (6.0, "cheaper", "small")
        assert (answer(other), other.degraded, other.cached) == (6.0, "cheaper", True)
        assert in_order(engine)["attached"] == 1
        assert len(cache) == engine._n_flights() == 0
        again = keyed(engine, 2.0)
        assert (answer(again), again.cached) == (6.0, False)
        slow.open()
        assert {answer(future) for future in crowd} <= {2.0, 3.0}
    assert fast.batches.count([2.0]) == 2
