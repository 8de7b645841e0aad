"""Requests with equal keys that are under way together run once; what ends one of them ends no other."""

import asyncio

import pytest
from engine_rig import WAIT_S, Gated, answer, loop_runner, wait_until, x_of
from flight_rig import SINGLE, engine_of, in_order, keyed

import infcore
from infcore import sim


@pytest.fixture
def gate():
    gate = Gated()
    yield gate
    gate.open()


def test_equal_ones_run_once_and_are_counted(gate):
    cache, engine = engine_of(gate)
    with engine:
        leader = keyed(engine, 3.0)
        gate.wait_entered()
        others = [keyed(engine, 90.0 + i) for i in range(3)]
        assert in_order(engine)["attached"] == 0
        assert engine.n_open == 4
        assert [other.cached for other in others] == [None] * 3
        gate.let()
        assert [answer(other) for other in others] == [6.0] * 3
        assert answer(leader) == 6.0
        assert leader.cached is False
        assert [(other.cached, other.device, other.degraded) for other in others] == [(True, None, None)] * 3
        stats = in_order(engine)
        assert engine._n_flights() == engine.n_open == 0
    assert gate.batches == [[3.0]]
    assert (stats["requests"], stats["cached"], stats["attached"]) == (1, 3, 3)
    assert len(cache) == 1
    assert cache.stats().bytes_used == 8
    assert cache.stats().cost_missed_us == pytest.approx(1e6 * leader.latency_s, abs=1.0)


def test_nobody_changes_what_another_gets(gate):
    _, engine = engine_of(gate)
    with engine:
        leader = keyed(engine, 3.0)
        gate.wait_entered()
        one, other = keyed(engine, 3.0), keyed(engine, 3.0)
        in_order(engine)
        gate.let()
        leader.result(timeout_s=WAIT_S)["y"][:] = 0.0  # his own
        mine = one.result(timeout_s=WAIT_S)
        with pytest.raises(ValueError, match="read-only"):
            mine["y"][:] = 0.0
        mine["y"] = None
        assert answer(other) == 6.0
        assert answer(keyed(engine, 3.0)) == 6.0


def test_who_asks_first_does_not_matter(gate):
    cache, engine = engine_of(gate)
    with engine:
        leader = keyed(engine, 3.0)
        gate.wait_entered()
        other = keyed(engine, 3.0)
        in_order(engine)
        gate.let()
        assert answer(other) == 6.0
        assert len(cache) == 1
        assert answer(leader) == 6.0
        leader.result()["y"][:] = 1.0  # writable, as without a key
        assert answer(keyed(engine, 3.0)) == 6.0


def test_what_has_ended_and_was_not_asked_for_is_there_for_the_next(gate):
    cache, engine = engine_of(gate)
    with engine:
        leader = keyed(engine, 3.0)
        gate.let()
        wait_until(lambda: engine.n_open == 0, "the run")
        assert len(cache) == 0
        next_one = keyed(engine, 4.0)
        assert len(cache) == 1
        assert (answer(next_one), next_one.cached) == (6.0, True)
        assert answer(leader) == 6.0
        assert engine._n_flights() == 0
    assert gate.batches == [[3.0]]


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_on_a_loop_all_end_in_one_turn(gate, kind):
    _, engine = engine_of(gate)
    turns, turn = [], 0

    async def ask():
        nonlocal turn
        leader = engine.asubmit("m", x_of(3.0), key="k")
        others = [engine.asubmit("m", x_of(9.0), key="k") for _ in range(20)]
        for future in (leader, *others):
            future.add_done_callback(lambda _: turns.append(turn))
        await asyncio.to_thread(gate.wait_entered)
        await asyncio.to_thread(in_order, engine)
        gate.let()
        while len(turns) < 21:
            turn += 1
            await asyncio.sleep(0)
        return [float((await future)["y"][0]) for future in (leader, *others)]

    with engine:
        assert loop_runner(kind)(ask()) == [6.0] * 21
    assert len(set(turns)) == 1
    assert gate.batches == [[3.0]]


def test_a_loop_that_stands_still_keeps_nobody_waiting(gate):
    _, engine = engine_of(gate)
    standing, turning = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def begin(loop_of):
        return engine.asubmit("m", x_of(3.0), key="k")

    async def wait(future):
        return float((await future)["y"][0])

    with engine:
        leader = standing.run_until_complete(begin(standing))
        gate.wait_entered()
        other, on_thread = turning.run_until_complete(begin(turning)), keyed(engine, 3.0)
        in_order(engine)
        gate.let()
        assert answer(on_thread) == 6.0
        assert turning.run_until_complete(asyncio.wait_for(wait(other), WAIT_S)) == 6.0
        assert standing.run_until_complete(wait(leader)) == 6.0
    for loop in (standing, turning):
        loop.close()
    assert gate.batches == [[3.0]]


def test_who_waits_may_go(gate):
    _, engine = engine_of(gate)
    with engine:
        leader = keyed(engine, 3.0)
        gate.wait_entered()
        gone, stays = keyed(engine, 3.0), keyed(engine, 3.0)
        assert gone.cancel()
        with pytest.raises(infcore.Cancelled):
            gone.result(timeout_s=WAIT_S)
        assert in_order(engine)["cancelled"] == 1
        assert engine.n_open == 2
        gate.let()
        assert answer(leader) == answer(stays) == 6.0
        assert gone.cancelled()
        assert engine._n_flights() == 0
    assert gate.batches == [[3.0]]


def test_a_deadline_of_ones_own_is_kept():
    clock, gate = infcore.ManualClock(), Gated()
    _, engine = engine_of(gate, clock=clock)
    with engine:
        leader = keyed(engine, 3.0, deadline_s=5.0)
        gate.wait_entered()
        early, late = keyed(engine, 3.0, deadline_s=6.0), keyed(engine, 3.0, deadline_s=8.0)
        in_order(engine)
        clock.advance(5.75)
        in_order(engine)
        assert not early.done()
        clock.advance(0.25)
        with pytest.raises(infcore.DeadlineExceeded, match="deadline_s of 6 any more, after 6 s") as raised:
            early.result(timeout_s=WAIT_S)  # by the engine's own timer
        assert raised.value.reason == "deadline"
        assert early.latency_s == 6.0
        assert not leader.done()
        assert in_order(engine)["expired"] == 1
        gate.open()
        assert answer(leader) == answer(late) == 6.0
        assert engine._n_flights() == 0
    assert gate.batches == [[3.0]]


def test_a_deadline_wakes_the_engine(gate):
    _, engine = engine_of(gate)
    with engine:
        leader = keyed(engine, 3.0, deadline_s=0.05)
        other = keyed(engine, 3.0, deadline_s=0.06)
        with pytest.raises(infcore.DeadlineExceeded):
            other.result(timeout_s=WAIT_S)
        gate.open()
        leader.exception(timeout_s=WAIT_S)


@pytest.mark.parametrize("begun", [False, True])
def test_the_next_runs_in_place_of_one_that_is_cancelled(gate, begun):
    _, engine = engine_of(gate)
    with engine:
        before = None if begun else engine.submit("m", x_of(0.0))
        if before:
            gate.wait_entered()
        leader = keyed(engine, 1.0)
        if begun:
            gate.wait_entered()
        gone, heir, other = (keyed(engine, value) for value in (2.0, 3.0, 4.0))
        assert gone.cancel()
        assert leader.cancel()
        in_order(engine)
        gate.open()
        assert answer(heir) == answer(other) == 6.0
        assert (heir.cached, other.cached) == (False, True)
        assert answer(keyed(engine, 9.0)) == 6.0
    assert gate.batches == [[1.0] if begun else [0.0], [3.0]]


def test_who_is_more_urgent_does_not_wait_in_anothers_queue(gate):
    _, engine = engine_of(gate)
    with engine:
        blocker = engine.submit("m", x_of(0.0))
        gate.wait_entered()
        slow = keyed(engine, 1.0, tier=5, deadline_s=100.0)
        behind = keyed(engine, 2.0, tier=6, deadline_s=200.0)
        crowd = [engine.submit("m", x_of(50.0), tier=2) for _ in range(3)]
        urgent = keyed(engine, 3.0, tier=1, deadline_s=300.0)
        sooner = keyed(engine, 4.0, tier=5, deadline_s=50.0)  # than slow, and in a tier after urgent's
        waits_for_urgent = keyed(engine, 5.0, tier=1, deadline_s=400.0)
        in_order(engine)
        gate.open()
        assert [answer(urgent), answer(waits_for_urgent), answer(behind)] == [6.0, 6.0, 6.0]
        assert [answer(slow), answer(sooner), answer(blocker)] == [2.0, 8.0, 0.0]
        assert [answer(one) for one in crowd] == [100.0] * 3
        assert engine._n_flights() == 0
    assert gate.batches == [[0.0], [3.0], [50.0], [50.0], [50.0], [4.0], [1.0]]


def test_nobody_waits_for_one_that_is_put_off_or_needs_a_device_of_its_own(gate):
    cache = infcore.Cache(1 << 16)
    devices = [infcore.CallableDevice("d", run=gate, labels={"region": "eu"})]
    with infcore.Engine(devices, [SINGLE], cache=cache) as engine:
        engine.submit("m", x_of(0.0))
        gate.wait_entered()
        choosy = keyed(engine, 1.0, require={"region": "eu"})
        any_device = keyed(engine, 2.0)
        choosy_too = keyed(engine, 3.0, require={"region": "eu"})
        patient = engine.submit("m", x_of(4.0), key="other", defer_s=5.0)
        hurried = engine.submit("m", x_of(5.0), key="other")
        in_order(engine)
        gate.open()
        assert [answer(patient), answer(hurried)] == [8.0, 10.0]
        assert answer(choosy) == 2.0
        assert answer(any_device) == 4.0
        assert answer(choosy_too) == 2.0
    assert sorted(gate.batches) == [[0.0], [1.0], [2.0], [4.0], [5.0]]


def test_who_requires_labels_does_not_take_the_answer_of_a_device_that_lacks_them(gate):
    cache = infcore.Cache(1 << 16)
    at_home = infcore.CallableDevice("home", run=lambda name, inputs: {"y": inputs["x"] * 3}, labels={"region": "eu"})
    with infcore.Engine([infcore.CallableDevice("away", run=gate)], [SINGLE], cache=cache) as engine:
        leader = keyed(engine, 1.0)
        gate.wait_entered()
        engine.add_device(at_home)
        choosy = keyed(engine, 1.0, require={"region": "eu"})
        assert answer(choosy) == 3.0
        assert choosy.device == "home"
        gate.open()
        assert answer(leader) == 2.0


def test_a_failure_is_everybodys_and_is_not_kept():
    def broken(name, inputs):
        raise RuntimeError("no")

    gate = Gated(broken)
    cache, engine = engine_of(gate, retry_budget=0.0, health=False)
    with engine:
        leader = keyed(engine, 3.0)
        gate.wait_entered()
        others = [keyed(engine, 3.0) for _ in range(2)]
        in_order(engine)
        gate.let()
        errors = [future.exception(timeout_s=WAIT_S) for future in (leader, *others)]
        assert {type(e) for e in errors} == {infcore.DeviceError}
        assert len({str(e) for e in errors}) == 1
        assert "RuntimeError: no" in str(errors[2])
        assert len({id(e) for e in errors}) == 3  # each his own, to raise
        assert [(e.reason, str(e.__cause__)) for e in errors] == [("device_failed", "no")] * 3
        assert others[0].device == "d"
        assert in_order(engine)["failed"] == 3
        assert len(cache) == engine._n_flights() == 0
        again = keyed(engine, 3.0)
        gate.let()
        assert isinstance(again.exception(timeout_s=WAIT_S), infcore.DeviceError)
    assert gate.batches == [[3.0], [3.0]]


def test_who_waits_for_one_that_comes_too_late_runs_in_its_place():
    clock, gate = infcore.ManualClock(), Gated()
    _, engine = engine_of(gate, clock=clock, admission=())
    with engine:
        engine.submit("m", x_of(0.0))
        gate.wait_entered()
        leader = keyed(engine, 1.0, deadline_s=5.0)
        heir, other = keyed(engine, 2.0, deadline_s=1000.0), keyed(engine, 3.0)
        in_order(engine)
        clock.advance(5.0)
        assert isinstance(leader.exception(timeout_s=WAIT_S), infcore.DeadlineExceeded)
        in_order(engine)
        assert not heir.done()
        gate.open()
        assert answer(heir) == answer(other) == 4.0
    assert gate.batches == [[0.0], [2.0]]


def test_who_waits_for_one_that_is_displaced_asks_for_itself(gate):
    _, engine = engine_of(gate, overflow="shed_lowest", max_requests=2)
    with engine:
        engine.submit("m", x_of(0.0))
        gate.wait_entered()
        leader, other = keyed(engine, 1.0, tier=2), keyed(engine, 2.0, tier=2)
        in_order(engine)
        assert engine.n_open == 3
        urgent = engine.submit("m", x_of(5.0), tier=1)  # takes the leader's place, and there is no other
        assert isinstance(leader.exception(timeout_s=WAIT_S), infcore.Overloaded)
        refused = other.exception(timeout_s=WAIT_S)
        assert (type(refused), refused.reason) == (infcore.QueueFull, "queue_full")
        gate.open()
        assert answer(urgent) == 10.0
        assert answer(keyed(engine, 3.0)) == 6.0
    assert gate.batches == [[0.0], [5.0], [3.0]]


@pytest.mark.parametrize("is_shared", [False, True])
def test_tenants_attach_only_where_they_share(gate, is_shared):
    _, engine = engine_of(gate, cache_is_shared=is_shared)
    with engine:
        first = keyed(engine, 1.0, tenant="a")
        gate.wait_entered()
        other, same = keyed(engine, 2.0, tenant="b"), keyed(engine, 3.0, tenant="a")
        in_order(engine)
        gate.open()
        assert answer(first) == answer(same) == 2.0
        assert answer(other) == (2.0 if is_shared else 4.0)


def test_versions_and_keys_do_not_attach(gate):
    _, engine = engine_of(gate)
    with engine:
        engine.load_model(SINGLE.replace(version=2))
        futures = [
            engine.submit("m", x_of(value), key=key, version=version)
            for value, key, version in ((1.0, "a", 2), (2.0, "b", 2), (3.0, "a", 2), (4.0, "a", None))
        ]
        in_order(engine)
        gate.open()
        assert [answer(future) for future in futures] == [2.0, 4.0, 2.0, 2.0]


def test_a_key_may_submit_while_it_is_compared(gate):
    _, engine = engine_of(gate)

    class Nosy:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            if self is not other and engine.n_open < 20:
                engine.submit("m", x_of(8.0), key=self)
            return self is other

    with engine:
        one = Nosy()
        futures = [engine.submit("m", x_of(1.0), key=one)]
        gate.wait_entered()
        futures += [engine.submit("m", x_of(2.0), key=Nosy()), engine.submit("m", x_of(3.0), key=one)]
        in_order(engine)
        gate.open()
        assert [answer(future) for future in futures] == [2.0, 4.0, 2.0]


def test_they_are_logged_as_hits_and_replay(gate, tmp_path):
    _, engine = engine_of(gate, log=tmp_path / "log", retry_budget=0.0)
    with engine:
        leader = keyed(engine, 3.0, deadline_s=50.0)
        gate.wait_entered()
        others = [keyed(engine, 3.0, deadline_s=60.0 + i, tenant="") for i in range(3)]
        in_order(engine)
        others[0].cancel()
        in_order(engine)
        gate.open()
        assert answer(leader) == answer(others[1]) == answer(others[2]) == 6.0
    events = list(sim.events(tmp_path / "log"))
    arrivals = [event.fields for event in events if event.kind == "arrive"]
    assert [arrival["cached"] for arrival in arrivals] == [False, True, True]
    reasons = [event.fields["reason"] for event in events if event.kind == "complete" and event.is_action]
    assert sorted(reasons) == ["cached", "cached", "ok"]
    assert sim.replay(tmp_path / "log").equal
