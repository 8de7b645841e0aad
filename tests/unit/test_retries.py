"""A request that failed alone: its device may be at fault, or it; one more try elsewhere tells."""

import pytest
from engine_rig import PATHS, WAIT_S, answer, engine_of, x_of
from machine_rig import FAST, MS, Rig, dispatched, ended

from infcore import CallableDevice, DeviceError
from infcore.sim import replay


def rig_of(*curves, **machine):
    return Rig(*curves, model={"max_batch_size": 1}, health=True, **machine)


def failed(rig, now, node):
    """What follows where the node fails the one request that it was sent."""
    batch, _ = rig.run(now, node)
    return rig.complete(now + MS, node, batch, ok=False)


@pytest.mark.parametrize("policy", PATHS)
def test_it_goes_to_another_device_at_once_and_is_answered_there(policy):
    rig = rig_of(FAST, FAST, policy=policy)
    (first,) = dispatched(rig.arrive(0, 1)).values()
    again = failed(rig, 0, first)
    assert [action[:2] for action in again] == [("retry", 1), ("dispatch", 1)]
    assert dispatched(again) == {1: 1 - first}
    batch, _ = rig.run(2 * MS, 1 - first)
    assert ended(rig.complete(3 * MS, 1 - first, batch)) == {1: ("complete", "ok")}


@pytest.mark.parametrize("policy", PATHS)
def test_a_bad_request_fails_on_two_devices_and_no_more(policy):
    rig = rig_of(FAST, FAST, FAST, policy=policy)
    (first,) = dispatched(rig.arrive(0, 1)).values()
    (second,) = dispatched(failed(rig, 0, first)).values()
    assert second != first
    assert ended(failed(rig, 2 * MS, second)) == {1: ("complete", "device_failed")}


def test_where_there_is_no_other_device_it_fails_at_once():
    for others in ({"idempotent": False}, {}):
        rig = Rig(FAST, FAST, model={"max_batch_size": 1, **others}, health=True)
        if not others:
            rig.machine.set_resident(0, rig.model, 1, False)
        assert dispatched(rig.arrive(0, 1)) == {1: 0}
        assert ended(failed(rig, 0, 0)) == {1: ("complete", "device_failed")}


def test_with_none_of_the_others_free_it_waits_for_its_turn():
    rig = rig_of(FAST, FAST)
    sent = dispatched(rig.arrive(0, 1, 2))
    assert sorted(sent.values()) == [0, 1]
    again = failed(rig, 0, sent[1])
    assert ("retry", 1) in [action[:2] for action in again]
    assert ended(again) == {} and rig.machine.n_pending == 2


def test_tries_in_vain_are_within_the_retry_budget():
    rig = rig_of(FAST, FAST, retry_budget=0.0)
    for cookie in range(120):
        now = 10 * cookie * MS
        (at,) = dispatched(rig.arrive(now, cookie)).values()
        actions = failed(rig, now, at)
        for node in dispatched(actions).values():
            assert ended(failed(rig, now + 2 * MS, node)) == {cookie: ("complete", "device_failed")}
    counts = rig.machine.counts(model=rig.model)
    assert counts["retried"] == 100, "what there is to start with"
    assert counts["unretried"] == 20 and counts["failed"] == 120


def test_a_recorded_retry_is_replayed(tmp_path):
    path = str(tmp_path / "log")
    rig = rig_of(FAST, FAST, FAST, log=path)
    for cookie in range(20):
        now = 10 * cookie * MS
        (at,) = dispatched(rig.arrive(now, cookie)).values()
        for node in dispatched(failed(rig, now, at)).values():
            batch, _ = rig.run(now + 2 * MS, node)
            rig.complete(now + 3 * MS, node, batch, ok=cookie % 3 != 0)
    rig.machine.end_log()
    result = replay(path)
    assert result.equal, result.first_difference


def test_of_live_devices_one_that_fails_now_and_then_costs_nobody_an_answer():
    calls = []

    def sick(name, inputs):
        calls.append("sick")
        raise OSError("planned")

    with engine_of(
        CallableDevice("a", sick), CallableDevice("b", lambda name, inputs: {"y": inputs["x"] * 2})
    ) as engine:
        assert [answer(engine.submit("m", x_of(i))) for i in range(8)] == [2.0 * i for i in range(8)]
        assert calls
        both = engine.submit("m", {"x": x_of(1)["x"]}, require={"kind": "cpu"})
        assert answer(both) == 2.0


def test_what_every_live_device_refuses_fails_with_the_last_one_s_error():
    def refuses(name, inputs):
        raise ValueError("not this")

    with engine_of(CallableDevice("a", refuses), CallableDevice("b", refuses)) as engine:
        error = engine.submit("m", x_of(1)).exception(timeout_s=WAIT_S)
        assert isinstance(error, DeviceError) and "not this" in str(error)
        assert engine.stats()["models"]["m"]["retried"] == 1
