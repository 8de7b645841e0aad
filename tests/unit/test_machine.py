"""One situation each that the state machine must decide well; times are made up, nothing sleeps."""

import random
from collections import Counter

import pytest
from machine_rig import FAST, MS, SLOW, Rig, S, dispatched, ended

from infcore._core.machine import Machine
from infcore.errors import InvalidArgument, InvalidType, UnknownName

# ---- a free device is used


def test_second_slot_takes_what_the_first_has_no_room_for():
    rig = Rig(FAST, slots=2, model={"max_batch_size": 1})
    assert dispatched(rig.arrive(0, 1, 2, 3)) == {1: 0, 2: 0}


def test_request_goes_though_its_marginal_cost_drowns_in_the_fixed_cost():
    rig = Rig((1.0, 1e-13, 0.0, 0.0))
    assert dispatched(rig.arrive(0, 1, 2, 3)) == {1: 0, 2: 0, 3: 0}


def test_who_must_run_alone_waits_beside_an_open_batch_of_a_bounded_node():
    """It can't join, and once was asked to without end."""
    rig = Rig(model={"max_batch_size": 4})
    node = rig.fleet.add("bounded", slots=2, pending_max=8)
    rig.machine.add_node(node)
    rig.machine.set_resident(0, rig.model, node, prior=FAST)
    rig.arrive(0, 1, 2)
    batch, _ = rig.run(0, node)
    assert dispatched(rig.arrive(0, 3)) == {3: node}
    assert dispatched(rig.complete(MS, node, batch, False)) == {}
    assert dispatched(rig.arrive(MS, 4)) == {}, "behind them"
    batch, members = rig.run(MS, node)
    assert members == [3]
    assert dispatched(rig.complete(2 * MS, node, batch)) == {1: node, 2: node}
    assert [rig.run(2 * MS, node)[1] for _ in range(2)] == [[1], [2]], "each alone"


def test_full_open_batch_counts_as_busy_and_sets_no_timer_for_right_now():
    rig = Rig(FAST, (5e-3, 5e-3, 0.0, 0.0), model={"max_batch_size": 2})
    assert dispatched(rig.arrive(0, 1, 2, 3)) == {1: 0, 2: 0}
    assert rig.machine.next_timer_ns >= 1 * MS  # when the batch of two should be done


def test_estimate_of_an_open_batch_grows_with_those_that_join_it():
    rig = Rig(FAST, (4.5e-3, 0.0, 0.0, 0.0), model={"max_batch_size": 32})
    rig.arrive(0, 31)
    rig.arrive(0, *range(31))
    batch_id, cookies = rig.machine.claim(0, 0)[0::2]
    assert len(cookies) == 32
    rig.arrive(0, 99)  # node 0: 4.2 ms of work, then 1.1 ms; node 1 is done at 4.5 ms
    assert rig.machine.claim(0, 1)[2] == [99]
    assert rig.machine.complete(4 * MS, 0, batch_id)


@pytest.mark.parametrize("how", ["lost", "drained", "unloaded"])
def test_what_waited_for_a_busy_device_goes_elsewhere_once_that_is_out(how):
    rig = Rig((1.0, 0.0, 0.0, 0.0), (1.5, 0.0, 0.0, 0.0), model={"max_batch_size": 1})
    rig.arrive(0, 1)
    rig.run(0, 0)
    assert dispatched(rig.arrive(int(0.9 * S), 2)) == {}  # node 0 should be free in 0.1 s
    if how == "lost":
        actions = rig.lose(int(0.95 * S), 0)
    elif how == "drained":
        rig.machine.drain_node(int(0.95 * S), 0)
        actions = rig.step(int(0.95 * S))
    else:
        rig.machine.set_resident(int(0.95 * S), rig.model, 0, False)
        actions = rig.step(int(0.95 * S))
    assert 1 in dispatched(actions).values()


def test_aged_request_goes_first_whatever_its_tier_and_model():
    rig = Rig(FAST, model={"max_batch_size": 1}, ageing_ns=10 * MS)
    other = rig.machine.add_model("other")
    rig.machine.set_resident(0, other, 0, prior=FAST)
    rig.arrive(0, 1)
    batch_id, _ = rig.run(0, 0)
    rig.arrive(1 * MS, 2, model=other, tier=7)
    rig.arrive(19 * MS, 3, tier=0)
    assert dispatched(rig.complete(20 * MS, 0, batch_id)) == {2: 0}


# ---- deadlines


def test_small_request_is_not_shed_because_its_neighbours_are_large():
    rig = Rig((0.0, 0.0, 1e-3, 0.0), model={"max_batch_size": 4})  # 1 ms for a unit of work
    rig.arrive(0, 0, work=1.0)
    batch_id, _ = rig.run(0, 0)
    rig.arrive(0, 1, work=1.0, deadline_ns=10 * MS)
    rig.arrive(0, 2, 3, work=1000.0)
    actions = rig.complete(1 * MS, 0, batch_id)
    assert 1 in dispatched(actions)
    assert ended(actions) == {0: ("complete", "ok")}


def test_request_that_no_device_can_finish_in_time_is_shed_before_its_deadline():
    rig = Rig(FAST, model={"max_batch_size": 1})
    rig.arrive(0, 1)
    batch_id, _ = rig.run(0, 0)
    rig.arrive(0, 2, deadline_ns=2 * MS)
    assert ended(rig.complete(1 * MS, 0, batch_id))[2] == ("shed", "deadline")


def test_shedding_all_that_waits_leaves_no_timer_behind():
    rig = Rig(FAST, (1.15e-3, 1e-4, 0.0, 0.0))
    rig.arrive(0, 1)  # an open batch on node 0, which the late ones would join first
    late = range(2, 12)
    assert ended(rig.arrive(0, *late, deadline_ns=1 * MS)) == dict.fromkeys(late, ("shed", "deadline"))
    assert rig.machine.next_timer_ns > 0


def test_expired_request_is_shed_at_its_deadline():
    rig = Rig(FAST, model={"max_batch_size": 1})
    rig.arrive(0, 1)
    rig.run(0, 0)
    rig.arrive(0, 2, deadline_ns=50 * MS)
    assert rig.machine.next_timer_ns == 50 * MS
    assert rig.step(50 * MS - 1) == []
    assert ended(rig.step(50 * MS)) == {2: ("shed", "deadline")}


def test_mean_work_forgets_what_is_gone():
    rig = Rig((0.0, 0.0, 1e-3, 0.0), model={"max_batch_size": 1})
    rig.arrive(0, 0, work=0.0)
    batch_id, _ = rig.run(0, 0)
    rig.arrive(1, 1, work=1e15)
    rig.arrive(1, 2, work=0.05)  # the sum of the two is 1e15
    assert rig.machine.cancel(1, rig.handles[1])
    assert rig.machine.cancel(1, rig.handles[2])
    rig.complete(2, 0, batch_id)
    rig.arrive(3, 3, work=0.05)
    assert rig.machine.credit(0)[1] == pytest.approx(50_000, rel=1e-3)


def test_credit_comes_back_where_rounding_leaves_less_than_no_work():
    rig = Rig((0.0, 0.0, 1e-3, 0.0), model={"max_batch_size": 1})
    rig.arrive(0, 0, work=0.0)
    batch_id, _ = rig.run(0, 0)
    for cookie, work in ((1, 0.7), (2, 0.1), (3, 0.0)):  # 0.7 + 0.1 - 0.7 - 0.1 is -2.8e-17
        rig.arrive(0, cookie, work=work)
    for _ in range(3):
        rig.complete(0, 0, batch_id)  # takes no time: nothing is learned
        batch_id, _ = rig.run(0, 0)
    rig.complete(0, 0, batch_id)
    assert rig.machine.credit(0) == (0, 0)


# ---- devices come and go


def test_bound_requests_wait_for_a_device_and_are_bound_once_one_is_back():
    rig = Rig(FAST, FAST, policy="round_robin", model={"max_batch_size": 1})
    rig.lose(0, 0)
    rig.lose(0, 1)
    assert dispatched(rig.arrive(0, 1, 2, 3)) == {}
    rig.machine.node_back(1 * MS, 1)
    assert dispatched(rig.step(1 * MS)) == {1: 1}
    assert rig.machine.credit(1)[0] == 3  # all are its own now, one of them runs


def test_request_without_a_device_names_none_when_it_ends():
    rig = Rig(FAST, policy="round_robin", model={"max_batch_size": 1})
    rig.arrive(0, 1)
    rig.run(0, 0)
    rig.arrive(0, 2)
    rig.lose(1, 0)
    assert rig.machine.cancel(2, rig.handles[2])
    assert rig.machine.actions() == [("cancel", 2, None, 0, 0, "caller")]
    assert rig.machine.credit(0) == (0, 0)


def test_second_model_on_a_device_moves_nobody():
    rig = Rig(FAST, policy="round_robin", model={"max_batch_size": 1})
    rig.arrive(0, 1)
    rig.run(0, 0)
    rig.arrive(0, 2)
    rig.machine.set_resident(1, rig.machine.add_model("other"), 0, prior=FAST)
    assert rig.step(1) == []


@pytest.mark.parametrize("policy", ["fastest_finish", "round_robin"])
def test_open_batch_leaves_a_device_that_drops_its_model(policy):
    rig = Rig(FAST, SLOW, policy=policy)
    assert dispatched(rig.arrive(0, 1)) == {1: 0}
    rig.machine.set_resident(1, rig.model, 0, False)
    actions = rig.step(1)
    assert ("retry", 1, 0, 1, 0, "device_removed") in actions
    assert dispatched(actions) == {1: 1}
    assert rig.machine.claim(2, 0) is None
    assert rig.machine.credit(0) == (0, 0)


def test_device_under_the_id_of_a_removed_one_has_nothing_of_it():
    rig = Rig((10.0, 0.0, 0.0, 0.0))
    rig.machine.drain_node(0, 0)
    rig.fleet.remove(0)
    node = rig.fleet.add("new")
    assert node == 0
    rig.machine.add_node(node)
    assert rig.arrive(0, 1) == []  # it holds no model yet
    rig.machine.set_resident(1, rig.model, node)
    assert dispatched(rig.step(1)) == {1: node}
    rig.run(1, node)
    # A curve of its own, not 10 s: nothing is known of it.
    assert dispatched(rig.arrive(2, 2, deadline_ns=100 * MS)) == {}
    assert ended(rig.step(3)) == {}


def test_claimed_batch_of_a_lost_device_is_given_up_once_its_inputs_are_copied():
    rig = Rig(FAST, SLOW)
    rig.arrive(0, 1)
    batch_id, _, _ = rig.machine.claim(0, 0)
    assert rig.lose(1, 0) == []  # the worker may still be reading the inputs
    rig.machine.started(2, 0, batch_id)
    actions = rig.step(2)
    assert actions[0] == ("retry", 1, 0, batch_id, 0, "device_lost")
    assert dispatched(actions) == {1: 1}
    assert not rig.machine.complete(3, 0, batch_id)


def test_removed_device_gives_back_all_that_it_has_not_finished():
    rig = Rig(FAST, SLOW, slots=2, model={"max_batch_size": 1})
    rig.arrive(0, 1)
    running, _ = rig.run(0, 0)
    rig.arrive(0, 2)  # open on the second slot
    rig.machine.remove_node(1, 0)
    assert dispatched(rig.step(1)) == {1: 1, 2: 1}
    assert rig.machine.credit(0) == (0, 0)
    assert not rig.machine.complete(2, 0, running)
    assert rig.fleet.add("next") == 0


def test_lost_device_takes_the_attempts_of_what_ran_only():
    rig = Rig(FAST, attempts_max=2)
    for lost in range(5):  # never run: no attempt
        rig.arrive(lost, 1) if lost == 0 else rig.machine.node_back(lost, 0)
        rig.step(lost)
        assert rig.machine.has_open_batch(0)
        assert ended(rig.lose(lost, 0)) == {}
    for lost in (6, 7):
        rig.machine.node_back(lost, 0)
        rig.step(lost)
        rig.run(lost, 0)
        actions = rig.lose(lost, 0)
    assert ended(actions) == {1: ("complete", "device_lost")}


# ---- failures


@pytest.mark.parametrize("policy", ["fastest_finish", "slo_cost"])
def test_who_is_too_late_for_the_known_node_tries_the_unknown_one(policy):
    """It would be shed at its deadline else, with both idle."""
    rig = Rig(FAST, None, policy=policy)
    assert dispatched(rig.arrive(0, 1, deadline_ns=MS)) == {1: 1}
    rig = Rig(FAST, SLOW, policy=policy)
    assert ended(rig.arrive(0, 1, deadline_ns=MS)) == {1: ("shed", "deadline")}


@pytest.mark.parametrize("delay_ms", [0, 2])
def test_device_that_is_back_is_held_for_company_by_its_peers_curve_until_the_clock_says(delay_ms):
    """It never ran to an end, yet its class's curve is of a long run: under a clock that stands it is held for ever."""
    rig = Rig(None, None, policy="fastest_finish", batching="dynamic", model={"batch_delay_ns_max": delay_ms * MS})
    rig.arrive(0, 1)
    hung, _ = rig.run(0, 0)
    rig.arrive(0, 2)
    long, _ = rig.run(0, 1)
    assert dispatched(rig.lose(10 * S, 0)) == {}
    assert dispatched(rig.complete(10 * S, 1, long)) == {1: 1}
    rig.arrive(10 * S, 3)
    rig.arrive(10 * S, *range(4, 9))
    rig.complete(10 * S, 1, rig.run(10 * S, 1)[0])
    assert not rig.machine.complete(10 * S, 0, hung)
    rig.machine.node_back(10 * S, 0)
    rig.machine.remove_node(10 * S, 1)
    if delay_ms == 0:
        assert dispatched(rig.arrive(10 * S, 9)) == {9: 0}
    else:
        assert dispatched(rig.arrive(10 * S, 9)) == {}
        assert rig.machine.next_timer_ns == 10 * S + delay_ms * MS
        assert dispatched(rig.step(rig.machine.next_timer_ns)) == {9: 0}


def test_failing_batch_is_retried_one_by_one_and_the_bad_member_fails_alone():
    rig = Rig(FAST)
    rig.arrive(0, 1, 2, 3)
    batch_id, cookies = rig.run(0, 0)
    assert cookies == [1, 2, 3]
    actions = rig.complete(1 * MS, 0, batch_id, ok=False)
    assert [a[:2] for a in actions if a[0] == "retry"] == [("retry", 1), ("retry", 2), ("retry", 3)]
    outcomes = {}
    for at in (2, 3, 4):
        batch_id, cookies = rig.run(at * MS, 0)
        assert len(cookies) == 1
        outcomes |= ended(rig.complete(at * MS + 1, 0, batch_id, ok=cookies != [2]))
    assert outcomes == {1: ("complete", "ok"), 2: ("complete", "device_failed"), 3: ("complete", "ok")}


def test_model_that_is_not_idempotent_is_not_run_again():
    rig = Rig(FAST, model={"idempotent": False})
    rig.arrive(0, 1, 2)
    batch_id, _ = rig.run(0, 0)
    failed = ("complete", "device_failed")
    assert ended(rig.complete(1 * MS, 0, batch_id, ok=False)) == {1: failed, 2: failed}


# ---- cancel, remove


def test_request_cancelled_while_its_inputs_are_copied_ends_once():
    rig = Rig(FAST)
    rig.arrive(0, 1, 2)
    batch_id, _, _ = rig.machine.claim(0, 0)
    assert rig.machine.cancel(1, rig.handles[1])
    assert not rig.machine.cancel(1, rig.handles[1])
    assert rig.step(1) == []
    # The device failed before it began to run: the cancel still counts.
    assert ended(rig.complete(2, 0, batch_id, ok=False)) == {1: ("cancel", "caller")}
    assert rig.machine.n_pending == 1


def test_removed_model_refuses_what_comes_late_and_answers_what_runs():
    rig = Rig(FAST, FAST, model={"max_batch_size": 1})
    rig.arrive(0, 1, 2)
    batch_id, _ = rig.run(0, 0)
    rig.arrive(0, 3)
    rig.machine.remove_model(1, rig.model)
    # Request 2 is in an open batch: nobody has begun, and the model may be another one when somebody would.
    assert ended(rig.step(1)) == {2: ("reject", "unloaded"), 3: ("reject", "unloaded")}
    assert ended(rig.arrive(2, 4)) == {4: ("reject", "unloaded")}
    rig.machine.set_resident(3, rig.model, 0, False)
    rig.machine.set_resident(3, rig.model, 1, False)
    assert ended(rig.step(3)) == {}
    assert ended(rig.complete(4, 0, batch_id)) == {1: ("complete", "ok")}
    assert rig.machine.n_pending == 0
    assert rig.machine.counts(model=rig.model)["rejected"] == 3


def test_model_can_come_back_under_its_id():
    rig = Rig(FAST)
    rig.machine.remove_model(0, rig.model)
    rig.machine.set_resident(0, rig.model, 0, False)
    assert rig.machine.add_model("m") == rig.model
    rig.machine.set_resident(1, rig.model, 0)
    assert dispatched(rig.arrive(2, 1)) == {1: 0}


# ---- bounds


def test_full_machine_refuses():
    rig = Rig(FAST, max_requests=2)
    assert ended(rig.arrive(0, 1, 2, 3)) == {3: ("reject", "queue_full")}
    assert rig.handles[3] == 0
    assert rig.machine.n_pending == 2


def test_run_limits_leave_one_timer_a_device():
    rig = Rig(FAST, run_limit_ns=10 * S)
    for at in range(100):
        rig.arrive(at * MS, at)
        batch_id, _ = rig.run(at * MS, 0)
        rig.complete(at * MS + 1, 0, batch_id)
    n_ticks = 0
    while rig.machine.next_timer_ns is not None:
        rig.step(rig.machine.next_timer_ns)
        n_ticks += 1
    assert n_ticks <= 1


def test_label_sets_that_come_and_go_do_not_add_up():
    rig = Rig()
    rig.fleet.add("far", labels={f"k{at}": "1" for at in range(8)})
    for at in range(1, 256):
        require = {f"k{bit}": "1" for bit in range(8) if at >> bit & 1}
        rig.arrive(2 * at, at, require=require)
        assert rig.machine.cancel(2 * at + 1, rig.handles[at])
    assert rig.machine.n_lanes <= 64


def test_long_deadlines_and_short_waits_leave_few_timers():
    rig = Rig((1.0, 0.0, 0.0, 0.0), (100.0, 0.0, 0.0, 0.0), model={"max_batch_size": 1})
    rig.arrive(0, 1)
    rig.run(0, 0)
    rig.arrive(0, 2, deadline_ns=3600 * S)
    for _ in range(7):  # node 0 hangs; for 99 s its end is expected before node 1 could answer
        assert rig.machine.next_timer_ns < 3600 * S
        rig.step(rig.machine.next_timer_ns)
    assert rig.machine.n_timers <= 2


# ---- the border


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (UnknownName, lambda m: m.arrive(0, 1, 5)),
        (InvalidArgument, lambda m: m.arrive(0, 1, 1, tier=8)),
        (InvalidArgument, lambda m: m.arrive(0, 1, 1, work=float("nan"))),
        (InvalidArgument, lambda m: m.arrive(0, 1, 1, work=1e16)),
        (InvalidArgument, lambda m: m.arrive(-1, 1, 1)),
        (InvalidType, lambda m: m.arrive(0.5, 1, 1)),
        (UnknownName, lambda m: m.node_lost(0, 3)),
        (InvalidArgument, lambda m: m.claim(0, 1000)),
        (UnknownName, lambda m: Machine(m.fleet, policy="best")),
        (UnknownName, lambda m: Machine(m.fleet, batching="best")),
        (InvalidArgument, lambda m: Machine(m.fleet, n_tiers=65)),
    ],
)
def test_border_refuses(error, call):
    rig = Rig(FAST)
    with pytest.raises(error):
        call(rig.machine)
    assert rig.machine.n_pending == 0


def test_a_retry_is_not_charged_to_its_tenant_again():
    rig = Rig(FAST, model={"max_batch_size": 1})
    rig.arrive(0, 1, tenant=1)
    rig.run(0, 0)
    rig.arrive(1, 2, tenant=1)
    rig.arrive(1, 3, 4, tenant=2)
    rig.lose(2, 0)
    rig.machine.node_back(3, 0)
    rig.step(3)
    order = []
    for now_ns in range(4, 8):
        batch_id, cookies = rig.run(now_ns, 0)
        order += cookies
        rig.complete(now_ns, 0, batch_id)
    # All were served as much when the node was lost. Request 1 comes first and costs its tenant nothing more.
    assert order == [1, 2, 3, 4]


def test_times_that_go_back_lose_nothing():
    """A driver's clock should not, but nothing ends twice or never if it does."""
    for seed in range(200):
        draw = random.Random(seed)
        rig = Rig(FAST, SLOW, slots=2, model={"max_batch_size": 3}, ageing_ns=draw.choice([None, 5 * MS]))
        ends, running = Counter(), []
        for cookie in range(60):
            now_ns = draw.randrange(100 * MS)
            seen = rig.arrive(
                now_ns,
                cookie,
                deadline_ns=draw.choice([None, draw.randrange(200 * MS)]),
                work=draw.choice([0.0, 1.0, 1e15]),
                tier=draw.randrange(8),
                tenant=draw.randrange(3),
            )
            node = draw.randrange(2)
            if (batch := rig.machine.claim(now_ns, node)) is not None:
                rig.machine.started(now_ns, node, batch[0])
                running.append((node, batch[0]))
            if running and draw.random() < 0.6:
                rig.machine.complete(draw.randrange(100 * MS), *running.pop())
            seen += rig.step(draw.randrange(100 * MS))
            ends.update(cookie for kind, cookie, *_ in seen if kind in ("complete", "shed"))
        rig.machine.cancel_all(0)
        ends.update(cookie for kind, cookie, *_ in rig.machine.actions() if kind in ("cancel", "complete", "shed"))
        assert ends == Counter(range(60)), seed
        assert rig.machine.n_pending == 0


@pytest.mark.parametrize("policy", ["fastest_finish", "slo_cost"])
def test_who_is_late_where_runs_share_goes_where_it_is_not(policy):
    """Beside its neighbours the one node is slower, alone it is not: whoever the other is too slow for goes there."""
    slow_alone, slow_beside = (5e-3, 0.0, 0.0, 0.0), (0.0, 3e-3, 0.0, 0.0)
    rig = Rig(slow_alone, slow_beside, slots=4, policy=policy, model={"max_batch_size": 1, "runs_share": True})
    assert dispatched(rig.arrive(0, 1, 2, deadline_ns=100 * MS)) == {1: 1, 2: 0}
    rig = Rig(slow_alone, slow_beside, slots=4, policy=policy, model={"max_batch_size": 1, "runs_share": True})
    for cookie in (1, 2):
        assert dispatched(rig.arrive(0, cookie, deadline_ns=100 * MS)) == {cookie: 2 - cookie}
        rig.run(0, 2 - cookie)
    assert dispatched(rig.arrive(MS, 3, deadline_ns=5 * MS)) == {3: 1}, "in time alone, and nobody else can be"
