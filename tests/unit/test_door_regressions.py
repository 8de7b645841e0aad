"""What once went wrong at the engine's door; times are made up, nothing sleeps."""

import asyncio
import sys

import pytest
from engine_rig import Gated, engine_of, model, x_of
from machine_rig import FAST, MS, Rig, S, dispatched, ended

from infcore import CallableDevice, sim


def test_device_that_comes_is_asked_though_none_was_in_time_just_before():
    rig = Rig((10.0, 0.0, 0.0, 0.0), admission=("infeasible",))
    assert ended(rig.arrive(0, 1, deadline_ns=S)) == {1: ("reject", "infeasible")}
    node = rig.fleet.add("late")
    rig.machine.add_node(node)
    rig.machine.set_resident(1 * MS, rig.model, node, prior=FAST)
    assert dispatched(rig.arrive(11 * MS, 2, deadline_ns=S)) == {2: node}


def test_device_that_fails_early_is_asked_though_it_was_to_be_busy_for_long():
    rig = Rig((60.0, 0.0, 1.0, 0.0), admission=("infeasible",), model={"max_batch_size": 1})
    rig.arrive(0, 1, work=3000.0)
    batch_id, _ = rig.run(0, 0)
    assert ended(rig.arrive(S, 2, work=1.0, deadline_ns=70 * S)) == {2: ("reject", "infeasible")}
    rig.complete(2 * S, 0, batch_id, ok=False)
    assert dispatched(rig.arrive(3 * S, 3, work=1.0, deadline_ns=70 * S)) == {3: 0}


def test_nobody_is_given_up_for_what_comes_too_late():
    rig = Rig(FAST, model={"max_batch_size": 1}, max_requests=2, shed_lowest=True)
    rig.arrive(0, 1)
    rig.run(0, 0)
    rig.arrive(0, 2, tier=1)
    assert ended(rig.arrive(10 * MS, 3, deadline_ns=5 * MS)) == {3: ("reject", "queue_full")}
    unloaded = rig.machine.add_model("gone")
    rig.machine.remove_model(10 * MS, unloaded)
    assert ended(rig.arrive(10 * MS, 4, model=unloaded)) == {4: ("reject", "queue_full")}
    assert ended(rig.arrive(10 * MS, 5)) == {2: ("shed", "displaced")}


def test_asking_for_figures_changes_no_decision(tmp_path):
    """Half of the devices are lost between the question and the next arrival, which must look for itself."""
    path = tmp_path / "door.log"
    curve = (10e-3, 0.0, 0.0, 0.0)
    rig = Rig(curve, curve, model={"max_batch_size": 1}, admission=("refuse",), overload_wait_ns=15 * MS, log=str(path))
    rig.arrive(0, 1, 2)
    for node in (0, 1):
        rig.run(0, node)
    for at_ms in range(1, 400):
        now_ns = at_ms * MS
        rig.machine.admission(now_ns, rig.model)
        if at_ms % 50 == 7:
            rig.lose(now_ns, 1)
        if at_ms % 50 == 30:
            rig.machine.node_back(now_ns, 1)
        rig.arrive(now_ns, 10 + at_ms, deadline_ns=now_ns + 100 * MS)
        for node in (0, 1):
            if at_ms % 10 == 0 and rig.machine.has_open_batch(node):
                batch_id, _ = rig.run(now_ns, node)
                rig.complete(now_ns, node, batch_id)
    rig.machine.end_log()
    assert rig.machine.counts(model=rig.model)["overloaded"] > 10
    result = sim.replay(path)
    assert result.equal, result.first_difference


def test_what_is_put_off_is_no_load_until_it_is_let_in():
    """And once the load has gone, no more is let in at once than half of the device's time takes."""
    ms10 = (10e-3, 0.0, 0.0, 0.0)
    rig = Rig(ms10, model={"max_batch_size": 1}, admission=("off_peak",), overload_wait_ns=100 * MS)
    rig.arrive(0, *range(20))
    rig.arrive(60 * MS, 20)
    rig.arrive(110 * MS, 21)  # a whole period was one of overload
    assert rig.machine.admission(110 * MS, rig.model)["n_open"] == 22
    assert set(ended(rig.arrive(111 * MS, *range(30, 50), defer_ns=3600 * S)).values()) == {("defer", "off_peak")}
    door = rig.machine.admission(111 * MS, rig.model)
    assert (door["n_open"], door["n_put_off"]) == (22, 20) and door["wait_s"] == pytest.approx(0.22)
    rig.machine.cancel(111 * MS, rig.handles[30])
    assert rig.machine.admission(111 * MS, rig.model)["n_open"] == 22
    for cookie in range(22):
        rig.machine.cancel(112 * MS, rig.handles[cookie])
    now_ns, let_in = 112 * MS, 0
    while let_in == 0:
        now_ns = rig.machine.next_timer_ns
        rig.step(now_ns)
        let_in = int(rig.machine.admission(now_ns, rig.model)["n_open"])
    assert now_ns < S and let_in == 3  # one, and what half of a look's 50 ms takes


def test_of_a_tier_the_latest_deadline_is_given_up_and_only_for_an_earlier_one():
    rig = Rig(FAST, model={"max_batch_size": 1}, max_requests=3, shed_lowest=True)
    rig.arrive(0, 1)
    rig.run(0, 0)
    rig.arrive(0, 2, deadline_ns=S)
    rig.arrive(0, 3, deadline_ns=2 * S)
    assert ended(rig.arrive(0, 4, deadline_ns=2 * S)) == {4: ("reject", "queue_full")}
    assert ended(rig.arrive(0, 5)) == {5: ("reject", "queue_full")}
    assert ended(rig.arrive(0, 6, deadline_ns=2 * S - 1)) == {3: ("shed", "displaced")}
    assert ended(rig.arrive(0, 7, deadline_ns=S // 2)) == {6: ("shed", "displaced")}


def test_model_that_comes_to_a_device_counts_in_the_wait_for_it():
    curve = (10e-3, 0.0, 0.0, 0.0)
    rig = Rig(curve, curve, model={"max_batch_size": 1}, admission=("refuse",), overload_wait_ns=S)
    other = rig.machine.add_model("other", max_batch_size=1)
    rig.machine.set_resident(0, rig.model, 1, False)
    rig.machine.set_resident(0, other, 1, prior=curve)
    rig.arrive(0, 1)
    rig.arrive(0, *range(10, 20), model=other)
    assert rig.machine.admission(0, rig.model)["wait_s"] == pytest.approx(0.01)
    rig.machine.set_resident(0, other, 0, prior=curve)
    rig.arrive(0, 2)
    rig.arrive(11 * MS, 20, model=other)  # who looks at what both devices can do
    assert rig.machine.admission(11 * MS, rig.model)["wait_s"] == pytest.approx(0.02 + 0.055)


def test_device_that_nobody_knows_yet_may_be_in_time():
    rig = Rig((10.0, 0.0, 0.0, 0.0), None, admission=("infeasible",))
    assert dispatched(rig.arrive(0, 1, deadline_ns=S)) == {1: 1}
    rig.run(0, 1)
    assert ended(rig.arrive(0, 2, deadline_ns=S)) == {}


def test_full_tier_keeps_no_other_one_waiting_on_a_loop():
    gate = Gated()

    async def main(engine):
        low = [engine.asubmit("m", x_of(0), tier=1)]
        await asyncio.to_thread(gate.wait_entered)
        low += [engine.asubmit("m", x_of(i), tier=1) for i in (1, 2)]  # the tier is full
        urgent = engine.asubmit("m", x_of(9))
        assert engine.n_open == 2
        gate.open()
        for future in [urgent, *low]:
            await future

    with engine_of(
        CallableDevice("d", gate), models=[model(max_batch_size=1)], n_tiers=2, tier_capacity=[4, 1], overflow="block"
    ) as engine:
        asyncio.run(main(engine))
    assert gate.batches == [[0], [9], [1], [2]]


def test_answer_of_one_that_waited_for_room_is_not_kept_until_its_deadline():
    gate = Gated()

    async def main(engine):
        futures = [engine.asubmit("m", x_of(i), deadline_s=1e5) for i in range(2)]
        gate.open()
        for future in futures:
            await future
        del future
        await asyncio.sleep(0)
        return [sys.getrefcount(future) for future in futures]

    with engine_of(CallableDevice("d", gate), models=[model(max_batch_size=1)], max_requests=1, overflow="block") as e:
        never_waited, waited = asyncio.run(main(e))
    assert waited == never_waited


@pytest.mark.parametrize("admission", [(), ("infeasible",)])
def test_device_whose_first_runs_were_slow_is_tried_again_once_it_was_idle_for_as_long(admission):
    """One slow start had every request with a shorter deadline given up for ever: nothing ran that could say better."""
    rig = Rig(None, admission=admission)
    for cookie in range(4):
        rig.arrive(cookie * S, cookie)
        batch_id, _ = rig.run(cookie * S, 0)
        rig.complete(cookie * S + 500 * MS, 0, batch_id)
    free_ns = 3 * S + 500 * MS
    assert set(ended(rig.arrive(free_ns + 100 * MS, 10, deadline_ns=free_ns + 200 * MS))) == {10}
    now_ns = free_ns + 600 * MS
    assert dispatched(rig.arrive(now_ns, 11, deadline_ns=now_ns + 100 * MS)) == {11: 0}


def test_device_that_has_seen_too_little_gives_nobody_up():
    rig = Rig(None, admission=("infeasible",))
    rig.arrive(0, 1)
    batch_id, _ = rig.run(0, 0)
    rig.complete(500 * MS, 0, batch_id)
    assert dispatched(rig.arrive(501 * MS, 2, deadline_ns=601 * MS)) == {2: 0}


@pytest.mark.parametrize("policy", ["fastest_finish", "slo_cost"])
@pytest.mark.parametrize("admission", [(), ("infeasible",)])
def test_device_whose_peer_was_slow_once_is_tried_though_the_peer_is_gone(admission, policy):
    """It never ran, and had its class's curve: of one slow start, and all with shorter deadlines were given up."""
    rig = Rig(None, None, admission=admission, policy=policy)
    rig.arrive(0, 1)
    batch_id, _ = rig.run(0, 0)
    rig.complete(500 * MS, 0, batch_id)
    rig.machine.remove_node(500 * MS, 0)
    rig.step(500 * MS)
    for cookie in range(10, 14):
        now_ns = cookie * S
        assert dispatched(rig.arrive(now_ns, cookie, deadline_ns=now_ns + 100 * MS)) == {cookie: 1}
        batch_id, _ = rig.run(now_ns, 1)
        rig.complete(now_ns + 10 * MS, 1, batch_id)


def test_device_that_was_given_a_curve_is_believed_however_long_it_was_idle():
    rig = Rig((500e-3, 0.0, 0.0, 0.0), admission=("infeasible",))
    assert ended(rig.arrive(10 * S, 1, deadline_ns=10 * S + 100 * MS)) == {1: ("reject", "infeasible")}
