"""Which request goes first, to which device, and when its time is up."""

import pytest
from engine_rig import WAIT_S, Counted, Gated, answer, double, engine_of, model, wait_until, x_of

from infcore import CallableDevice, DeadlineExceeded, EmulatedDevice, Engine, ManualClock, Router


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def gated():
    return Gated()


@pytest.fixture
def blocked(gated, clock):
    """An engine of batches of one whose only device is held by a first request."""
    with engine_of(CallableDevice("d", gated), models=[model(max_batch_size=1)], clock=clock, n_tiers=4) as engine:
        first = engine.submit("m", x_of(-1))
        gated.wait_entered()
        yield engine
        gated.open()
        assert answer(first) == -2


def order_seen(gated, futures):
    gated.open()
    for future in futures:
        answer(future)
    return [batch[0] for batch in gated.batches[1:]]


def test_first_come_first_served(blocked, gated):
    futures = [blocked.submit("m", x_of(i)) for i in range(6)]
    assert order_seen(gated, futures) == [0, 1, 2, 3, 4, 5]


def test_tiers_go_first(blocked, gated):
    futures = [blocked.submit("m", x_of(i), tier=tier) for i, tier in enumerate([3, 0, 2, 1, 0, 3])]
    assert order_seen(gated, futures) == [1, 4, 3, 2, 0, 5]


def test_deadlines_go_first_inside_a_tier(blocked, gated):
    given = [(0, None), (0, 900), (0, 300), (1, 1), (0, 600), (0, None)]
    futures = [blocked.submit("m", x_of(i), tier=tier, deadline_s=at) for i, (tier, at) in enumerate(given)]
    assert order_seen(gated, futures) == [2, 4, 1, 0, 5, 3]


@pytest.mark.parametrize("ageing_s", [None, 10.0])
def test_ageing_lifts_what_has_waited(gated, clock, ageing_s):
    with engine_of(
        CallableDevice("d", gated), models=[model(max_batch_size=1)], clock=clock, ageing_s=ageing_s
    ) as engine:
        engine.submit("m", x_of(-1))
        gated.wait_entered()
        old = engine.submit("m", x_of(0), tier=5)
        clock.advance(11.0)
        futures = [old, *(engine.submit("m", x_of(i), tier=1) for i in (1, 2))]
        assert order_seen(gated, futures) == ([1, 2, 0] if ageing_s is None else [0, 1, 2])


def test_a_batch_takes_the_most_urgent(gated, clock):
    with engine_of(CallableDevice("d", gated), models=[model(max_batch_size=3)], clock=clock) as engine:
        engine.submit("m", x_of(-1))
        gated.wait_entered()
        futures = [engine.submit("m", x_of(i), tier=tier) for i, tier in enumerate([1, 0, 1, 0, 1, 0])]
        gated.open()
        assert [answer(future) for future in futures] == [2 * i for i in range(6)]
    assert [sorted(batch) for batch in gated.batches[1:]] == [[1, 3, 5], [0, 2, 4]]


def test_a_deadline_passes_while_every_device_is_busy(blocked, gated, clock):
    late = blocked.submit("m", x_of(1), deadline_s=5.0)
    later = blocked.submit("m", x_of(2), deadline_s=50.0)
    clock.advance(5.5)
    with pytest.raises(DeadlineExceeded, match=r"'m'.*deadline_s of 5\b") as caught:
        late.result(timeout_s=WAIT_S)
    assert isinstance(caught.value, TimeoutError)
    assert late.latency_s == 5.5
    assert late.device is None
    assert not later.done()
    gated.open()
    assert answer(later) == 4
    assert blocked.stats()["models"]["m"]["expired"] == 1
    assert [1.0] not in gated.batches


def test_a_deadline_passes_by_the_real_clock(gated):
    with engine_of(CallableDevice("d", gated)) as engine:
        first = engine.submit("m", x_of(0))
        gated.wait_entered()
        late = engine.submit("m", x_of(1), deadline_s=0.01)
        with pytest.raises(DeadlineExceeded):
            late.result(timeout_s=WAIT_S)
        assert late.latency_s >= 0.01
        gated.open()
        assert answer(first) == 0


def test_without_devices_a_request_waits_for_its_deadline_or_a_device(clock):
    with engine_of(clock=clock) as engine:
        late, patient = engine.submit("m", x_of(1), deadline_s=1.0), engine.submit("m", x_of(2))
        clock.advance(2.0)
        with pytest.raises(DeadlineExceeded):
            late.result(timeout_s=WAIT_S)
        assert engine.n_open == 1
        engine.add_device(CallableDevice("d", double))
        assert answer(patient) == 4


POLICIES = Router.policies()


@pytest.mark.parametrize("batching", ["greedy", "dynamic"])
@pytest.mark.parametrize("policy", POLICIES)
def test_each_policy_answers_everything(policy, batching):
    devices = [CallableDevice(name, Counted(), slots=1) for name in ("a", "b", "c")]
    with engine_of(*devices, policy=policy, batching=batching, models=[model(max_batch_size=4)]) as engine:
        futures = [engine.submit("m", x_of(i), deadline_s=WAIT_S) for i in range(200)]
        assert [answer(future) for future in futures] == [2 * i for i in range(200)]
        figures = engine.stats()
    assert figures["models"]["m"]["requests"] == 200
    assert sum(device["requests"] for device in figures["devices"].values()) == 200


@pytest.mark.parametrize("policy", POLICIES)
def test_a_blocked_device_holds_up_no_other(policy):
    gated = Gated()
    devices = [CallableDevice("held", gated), CallableDevice("free", double)]
    with engine_of(*devices, policy=policy, models=[model(max_batch_size=1)]) as engine:
        futures = [engine.submit("m", x_of(i)) for i in range(8)]
        gated.wait_entered()
        # Round robin gives each its half; the joint choice leaves the held device what it has.
        n_free = 7 if policy in ("fastest_finish", "slo_cost", "cascade") else 4
        wait_until(lambda: sum(f.done() and f.device == "free" for f in futures) >= n_free, "the free device")
        gated.open()
        assert [answer(future) for future in futures] == [2 * i for i in range(8)]


def test_round_robin_takes_turns():
    devices = [CallableDevice(name, double) for name in ("a", "b", "c")]
    with engine_of(*devices, policy="round_robin") as engine:
        futures = [engine.submit("m", x_of(i)) for i in range(9)]
        for future in futures:
            answer(future)
    assert sorted(future.device for future in futures) == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert [future.device for future in futures[:3]] == [future.device for future in futures[3:6]]


def test_least_outstanding_goes_where_less_is_open():
    gated = Gated()
    devices = [CallableDevice("held", gated), CallableDevice("free", double)]
    with engine_of(*devices, policy="least_outstanding") as engine:
        held = engine.submit("m", x_of(0))
        gated.wait_entered()
        futures = []
        for i in range(10):
            futures.append(engine.submit("m", x_of(i)))
            answer(futures[-1])
        gated.open()
        answer(held)
    assert {future.device for future in futures} == {"free"}


def test_fastest_finish_leaves_a_slow_device_alone():
    """One at a time: the fast device is always free, so the slow one is never the one that finishes first."""
    devices = [EmulatedDevice("slow", base_s=10.0), EmulatedDevice("fast", base_s=0.001)]
    with Engine(devices=devices, models=[model()]) as engine:
        futures = []
        for i in range(20):
            futures.append(engine.submit("m", x_of(i)))
            futures[-1].result(timeout_s=WAIT_S)
    assert {future.device for future in futures} == {"fast"}


def test_work_is_what_the_model_or_the_caller_says():
    of = [model("given"), model("counted", work="x"), model("called", work=lambda inputs: 10 * float(inputs["x"][0]))]
    with engine_of(CallableDevice("d", double), models=of) as engine:
        for name in ("given", "counted", "called"):
            answer(engine.submit(name, x_of(3)))
            answer(engine.submit(name, x_of(3), work=0.5))
        work = {name: figures["work"] for name, figures in engine.stats()["models"].items()}
    assert work == {"given": 1.5, "counted": 2.5, "called": 30.5}


def test_a_hold_ends_when_the_batch_is_full(gated, clock):
    """The clock stands still, so that only a full batch can end the wait."""
    of = model(max_batch_size=4, max_batch_delay_s=100.0)
    with engine_of(CallableDevice("d", gated), models=[of], clock=clock, batching="dynamic") as engine:
        gated.open()
        futures = [engine.submit("m", x_of(i)) for i in range(8)]
        assert [answer(future) for future in futures] == [2 * i for i in range(8)]
    assert sum(len(batch) for batch in gated.batches) == 8
