"""Ejection and return as routers, the state machine and the simulator show them."""

import pytest
from machine_rig import FAST, MS, Rig, S, dispatched, ended
from sim_rig import scenario

from infcore import Fleet, InvalidArgument, InvalidType, ManualClock, NoNodeAvailable, Router
from infcore.sim import replay, simulate


def fleet_of(n, clock):
    fleet = Fleet(clock=clock)
    for i in range(n):
        fleet.load_model(fleet.add(f"n{i}"), "m")
    return fleet


def states(fleet):
    return fleet.nodes()["state"].tolist()


class Served:
    """A fleet whose nodes take so many seconds, behind one or more routers that share it."""

    def __init__(self, n, n_routers=1, policy="round_robin", **options):
        self.clock = ManualClock()
        self.fleet = fleet_of(n, self.clock)
        self.routers = [Router(self.fleet, policy=policy, **options) for _ in range(n_routers)]
        self.n_picks = 0
        self.answers = [0] * n

    def serve(self, service_s, ok=lambda node: True):
        router = self.routers[self.n_picks % len(self.routers)]
        self.n_picks += 1
        decision = router.pick("m")
        self.clock.advance(0.005)
        self.answers[decision.node] += 1
        router.done(decision, ok=ok(decision.node), service_s=service_s(decision.node))
        return decision.node


@pytest.mark.parametrize("from_the_start", [False, True])
def test_a_ten_times_slower_node_is_out_within_fifty_answers_and_comes_back(from_the_start):
    served = Served(8, n_routers=2)
    if not from_the_start:
        for _ in range(400):
            served.serve(lambda node: 0.01)
        served.answers = [0] * 8
    for _ in range(800):
        served.serve(lambda node: 0.1 if node == 3 else 0.01)
        if states(served.fleet)[3] == "ejected":
            break
    assert states(served.fleet) == ["up"] * 3 + ["ejected"] + ["up"] * 4
    assert served.answers[3] <= 25
    reasons = [row["reason"] for row in served.routers[0].explain("m")]
    assert reasons[:3] == [None] * 3
    assert reasons[3].startswith("ejected for ") and ", until " in reasons[3]
    served.answers = [0] * 8
    for _ in range(2400):  # 12 s
        served.serve(lambda node: 0.01)
    assert states(served.fleet) == ["up"] * 8
    assert served.answers[3] > 100


def test_while_it_is_out_it_gets_nothing_and_then_one_at_a_time():
    served = Served(4)
    for _ in range(200):
        served.serve(lambda node: 0.01)
    while states(served.fleet)[0] == "up":
        served.serve(lambda node: 0.1 if node == 0 else 0.01)
    before = served.answers[0]
    served.clock.advance(4.9)
    for _ in range(15):
        served.serve(lambda node: 0.01)
    assert served.answers[0] == before
    served.clock.advance(0.1)
    served.routers[0].pick("m")
    assert states(served.fleet)[0] == "up"


def test_errors_eject_and_cancels_do_not():
    served = Served(4)
    for _ in range(40):
        served.serve(lambda node: 0.01)
    router = served.routers[0]
    for _ in range(200):
        router.cancel(router.pick("m"))
    assert states(served.fleet) == ["up"] * 4
    while states(served.fleet)[2] == "up":
        served.serve(lambda node: 0.01, ok=lambda node: node != 2)
    assert served.answers[2] <= 20
    assert router.explain("m")[2]["reason"].startswith("ejected for errors in a row, until ")


def test_with_all_out_the_error_says_why_each_is():
    served = Served(2)
    for _ in range(40):
        served.serve(lambda node: 0.01)
    while states(served.fleet)[0] == "up":
        served.serve(lambda node: 0.01, ok=lambda node: node != 0)
    served.fleet.drain(1)
    router = served.routers[0]
    assert router.pick("m").node == 0, "what is left comes back"
    served.fleet.drain(0)
    with pytest.raises(NoNodeAvailable, match="2 draining"):
        router.pick("m")


def test_what_others_make_of_it_is_seen_by_a_router_that_judges_nobody():
    served = Served(4)
    other = Router(served.fleet, policy="round_robin", health=False)
    for _ in range(40):
        served.serve(lambda node: 0.01)
    while states(served.fleet)[1] == "up":
        served.serve(lambda node: 0.01, ok=lambda node: node != 1)
    assert {other.pick("m").node for _ in range(12)} == {0, 2, 3}
    for _ in range(50):
        other.done(other.pick("m"), ok=False)
    assert states(served.fleet).count("ejected") == 1
    with pytest.raises(InvalidArgument, match="health is False"):
        other.report(0, ok=True)


def test_service_that_nobody_measured_is_told_from_the_time_since_the_pick():
    clock = ManualClock()
    fleet = fleet_of(6, clock)
    router = Router(fleet, policy="round_robin")
    for i in range(600):
        decisions = [router.pick("m") for _ in range(6)]
        for decision in sorted(decisions, key=lambda d: d.node):
            slow = decision.node == 5 and i >= 60
            clock.advance(0.1 if slow else 0.001)
            router.done(decision)
        if "ejected" in states(fleet):
            break
    assert states(fleet) == ["up"] * 5 + ["ejected"]
    assert i < 110


def test_checks_of_the_node_itself():
    clock = ManualClock()
    fleet = fleet_of(4, clock)
    router = Router(fleet)
    for _ in range(5):
        router.report("n1", ok=False)
    assert router.explain("m")[1]["reason"].startswith("ejected for failed checks, until ")
    assert router.probe_due() == []
    clock.advance(1.0)
    assert router.probe_due() == [1]
    assert router.probe_due() == []
    for _ in range(3):
        router.report(1, ok=True)
    router.pick("m")
    assert states(fleet) == ["up"] * 4


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"slow_factor": 1.0}, "slow_factor"),
        ({"errors_in_a_row": 0}, "errors_in_a_row"),
        ({"error_rate": 2.0}, "error_rate"),
        ({"eject_s": 9.0, "eject_s_max": 3.0}, "eject_s_max"),
        ({"ejected_share_max": -0.1}, "ejected_share_max"),
        ({"patience": 3}, "patience"),
    ],
)
def test_options_out_of_bounds_are_named(options, field):
    with pytest.raises(InvalidArgument, match=field):
        Router(Fleet(), health=options)
    with pytest.raises(InvalidType, match="health is str"):
        Router(Fleet(), health="yes")


def test_one_fleet_is_judged_one_way():
    fleet = Fleet()
    Router(fleet, health={"slow_factor": 3.0})
    Router(fleet, health={"slow_factor": 3.0})
    Router(fleet)
    with pytest.raises(InvalidArgument, match="as the fleet's first Router has it"):
        Router(fleet, health={"slow_factor": 5.0})


# ---- the engine's state machine


def busy(rig, now, factors, rounds, *, ok=lambda node: True, until=lambda: False):
    """All nodes at work all the time, and in the end none; returns the time and how often each has answered."""
    due, cookie, n_answers = {}, int(now), {}
    arriving = True
    while True:
        arriving = arriving and sum(n_answers.values()) < rounds and not until()
        rig.step(now)
        n_nodes = len(rig.fleet)
        while arriving and len(due) + sum(rig.machine.has_open_batch(n) for n in range(n_nodes)) < n_nodes:
            if not dispatched(rig.arrive(now, cookie := cookie + 1)):
                break
        for node in range(n_nodes):
            if rig.machine.has_open_batch(node):
                batch, _ = rig.run(now, node)
                due[node] = (now + int(factors.get(node, 1.0) * 1.1 * MS), batch)
        if not due:
            return now, n_answers
        node = min(due, key=lambda n: due[n])
        now, batch = due.pop(node)
        n_answers[node] = n_answers.get(node, 0) + 1
        rig.complete(now, node, batch, ok(node))


def rig_of(n, **machine):
    return Rig(*[FAST] * n, model={"max_batch_size": 1}, health=True, policy="round_robin", **machine)


def test_a_device_that_fails_all_gets_nothing_more_and_what_waits_for_it_is_bound_anew():
    rig = rig_of(4)
    now, _ = busy(rig, S, {}, 80)
    rig.handles.clear()
    now, n_answers = busy(rig, now, {}, 400, ok=lambda node: node != 2, until=lambda: states(rig.fleet)[2] == "ejected")
    assert states(rig.fleet)[2] == "ejected"
    assert n_answers[2] <= 8
    assert rig.machine.counts(node=2)["ejections"] == 1
    later = rig.arrive(now, *range(10**12, 10**12 + 12))
    assert 2 not in dispatched(later).values()


def test_requests_that_fail_alone_are_tried_elsewhere_until_their_device_is_out():
    rig = rig_of(4)
    now, _ = busy(rig, S, {}, 80)
    ends = {}
    for cookie in range(10**12, 10**12 + 60):
        for node in dispatched(rig.arrive(now, cookie)).values():
            batch, _ = rig.run(now, node)
            now += MS
            actions = rig.complete(now, node, batch, node != 1)
            ends.update(ended(actions))
            for again, at in dispatched(actions).items():
                assert at != 1
                batch, _ = rig.run(now, at)
                now += MS
                ends.update({again: ended(rig.complete(now, at, batch)).get(again, ("open", ""))})
    assert states(rig.fleet)[1] == "ejected"
    assert len(ends) == 60 and set(ends.values()) == {("complete", "ok")}


def test_one_request_at_a_time_until_three_were_good():
    rig = Rig(FAST, FAST, FAST, FAST, slots=2, model={"max_batch_size": 4}, health=True)
    now = S
    rig.lose(now, 0)
    rig.machine.node_back(now, 0)
    rig.step(now)
    sent = dispatched(rig.arrive(now, *range(40)))
    assert list(sent.values()).count(0) == 1
    assert max(list(sent.values()).count(n) for n in (1, 2, 3)) > 1
    batch, _ = rig.run(now, 0)
    again = dispatched(rig.complete(now + MS, 0, batch))
    assert list(again.values()).count(0) == 1
    for i in (2, 3):
        batch, _ = rig.run(now + i * MS, 0)
        again = dispatched(rig.complete(now + i * MS, 0, batch))
    assert list(again.values()).count(0) == 2, "the slow start's first bound"


def test_a_recorded_run_with_ejections_is_replayed_to_the_letter(tmp_path):
    path = str(tmp_path / "log")
    rig = rig_of(4, log=path)
    now, _ = busy(rig, S, {}, 80)
    now, _ = busy(rig, now, {3: 10.0}, 400)
    now, _ = busy(rig, now + 6 * S, {}, 200)
    assert rig.machine.counts(node=3)["ejections"] == 1
    rig.machine.end_log()
    result = replay(path)
    assert result.equal, result.first_difference


# ---- the simulator


def world(*faults, **run):
    return scenario(
        {
            "run": {"seconds": 60.0, "warmup_s": 5.0, "run_limit_s": 1.0, "admission": [], **run},
            "node": [{"name": "n", "count": 6, "kind": "cpu", "slots": 1}],
            "model": [{"name": "m", "slo_s": 0.2, "max_batch_size": 1}],
            "latency": [{"model": "m", "node": "n", "base_s": 0.01, "cv": 0.1}],
            "workload": [{"model": "m", "rate_rps": 300.0, "arrivals": "poisson", "deadline_s": 2.0}],
            "fault": list(faults),
        }
    )


@pytest.mark.parametrize("policy", ["round_robin", "fastest_finish"])
def test_faults_that_only_answers_show_cost_next_to_nothing(policy):
    faults = (
        {"at_s": 15.0, "kind": "slow", "node": "n-1", "factor": 10.0, "for_s": 20.0},
        {"at_s": 20.0, "kind": "errors", "node": "n-3", "rate": 1.0, "for_s": 20.0},
    )
    with_it = simulate(world(*faults), policy=policy)
    without = simulate(world(*faults, health=False), policy=policy)
    assert with_it["lost"] == with_it["duplicated"] == 0
    assert with_it["availability"] > 0.999
    assert with_it["availability"] > without["availability"]


def test_a_bound_of_its_own_outlasts_what_health_does():
    """bound_pending() and add(pending_max=): after a return, in a slow start, and in a process that did not set it."""
    served = Served(4, health={"eject_s": 1.0, "slow_start_s": 1.0})
    served.fleet.bound_pending(3, 40)
    bounds = set()
    for i in range(1200):
        served.serve(lambda node: 0.01, ok=lambda node, i=i: node != 3 or i > 100)
        bounds.add(int(served.fleet.nodes()["pending_max"][3]))
    assert served.fleet.nodes()["state"][3] == "up"
    assert bounds == {40, 1, 2, 4, 8, 16, 32}
    assert served.fleet.nodes()["pending_max"].tolist() == [0, 0, 0, 40]


def test_another_process_returns_a_node_with_the_bound_that_it_was_added_with(tmp_path):
    name, clock = f"bound-{tmp_path.name}-{id(tmp_path)}", ManualClock()
    ours, theirs = (Fleet(shared=name, max_nodes=4, clock=clock) for _ in range(2))
    for i in range(4):
        ours.load_model(ours.add(f"n{i}", pending_max=5), "m")
    router = Router(theirs, policy="round_robin", health={"eject_s": 1.0, "slow_start_s": 0.0})
    ejected = False
    for i in range(600):
        decision = router.pick("m")
        clock.advance(0.005)
        router.done(decision, ok=decision.node != 3 or i > 100, service_s=0.01)
        ejected = ejected or ours.nodes()["state"][3] == "ejected"
    assert ejected and states(ours) == ["up"] * 4
    assert ours.nodes()["pending_max"].tolist() == [5] * 4
    ours.unlink()


def test_an_ejected_node_that_is_lost_is_not_let_in_again():
    served = Served(4, health={"eject_s": 1.0})
    for _ in range(100):
        served.serve(lambda node: 0.01, ok=lambda node: node != 3)
    assert states(served.fleet)[3] == "ejected"
    assert served.fleet.lose(3) is True
    for _ in range(600):  # 3 s
        served.serve(lambda node: 0.01)
    assert states(served.fleet)[3] == "lost"
    assert served.fleet.lose(3) is False
    assert served.fleet.restore(3) is True
    for _ in range(2400):
        served.serve(lambda node: 0.01)
    assert states(served.fleet) == ["up"] * 4
