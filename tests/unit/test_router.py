"""Router's public face: choices, credit, leases, deadlines, learning, refusals."""

import math
import threading

import numpy as np
import pytest

import infcore
from infcore import DeadlineInfeasible, Fleet, InvalidArgument, InvalidType, ManualClock, NoNodeAvailable, Router


def fleet_of(n, clock=None, **figures):
    fleet = Fleet(clock=clock or ManualClock())
    for i in range(n):
        fleet.load_model(fleet.add(f"n{i}", **figures), "m")
    return fleet


def inflight(fleet):
    return fleet.nodes()["inflight"].tolist()


def test_policies_and_default():
    names = Router.policies()
    assert {"round_robin", "least_outstanding", "power_of_two", "peak_ewma", "fastest_finish"} <= set(names)
    assert Router(fleet_of(1)).policy == "slo_cost"
    for name in names:
        assert Router(fleet_of(1), policy=name).policy == name


def test_round_robin_takes_turns_per_model():
    fleet = fleet_of(3)
    for node in (0, 2):
        fleet.load_model(node, "n")
    router = Router(fleet, policy="round_robin")
    assert [router.pick("m").node for _ in range(4)] == [0, 1, 2, 0]
    assert [router.pick("n").node for _ in range(3)] == [0, 2, 0]
    assert router.pick("m").node == 1


def test_least_outstanding_counts_signals_and_ours():
    fleet = fleet_of(3)
    fleet.signal(0, inflight=2)
    fleet.signal(1, inflight=1)
    router = Router(fleet, policy="least_outstanding")
    assert [router.pick("m").node for _ in range(5)] == [2, 1, 2, 0, 1]


def test_fastest_finish_weighs_waiting_against_speed():
    fleet = fleet_of(2)
    router = Router(fleet, policy="fastest_finish")
    router.set_prior("m", 0, base_s=0.010)
    router.set_prior("m", 1, base_s=0.025)
    # Ends at 10, 20, (25 on the slow one), 30 ms ...
    assert [router.pick("m").node for _ in range(4)] == [0, 0, 1, 0]


def test_no_work_on_a_node_that_is_slow_beyond_measure_has_a_cost():
    """In float32 its seconds for a unit of work were infinite, and no work times that no number."""
    router = Router(fleet_of(1))
    router.set_prior("m", 0, base_s=0.010, per_work_s=1e100)
    decision = router.pick("m", work=0.0)
    assert (decision.node, decision.service_s) == (0, pytest.approx(0.010))


def test_decision_terms():
    fleet = Fleet(clock=ManualClock())
    fleet.load_model(fleet.add("a", rtt_s=0.004, price_per_hour=3.6, slots=2), "m")
    router = Router(fleet, price_us_per_usd=1e9)
    router.set_prior("m", 0, base_s=0.010, per_work_s=0.001)
    fleet.signal(0, queue_wait_s=0.2, gpu=1.0)
    decision = router.pick("m", work=5.0)
    assert decision.node == 0
    assert decision.wait_s == pytest.approx(0.2)
    assert decision.service_s == pytest.approx(0.015)
    assert decision.pressure_s == pytest.approx(0.0075)
    assert decision.load_s == 0.0
    assert decision.network_s == pytest.approx(0.004)
    assert decision.saving_s == 0.0
    assert decision.price_usd == pytest.approx(0.015 * 3.6 / 3600)
    assert decision.cost_us == pytest.approx(1e6 * (0.2 + 0.015 + 0.0075 + 0.004) + 1e9 * decision.price_usd)
    assert decision.feasible
    assert router.pick("m", work=5.0).wait_s == pytest.approx(0.2 + 0.015 / 2)


def test_credit_is_released_once():
    fleet = fleet_of(1)
    router = Router(fleet)
    first, second = router.pick("m"), router.pick("m")
    assert inflight(fleet) == [2]
    assert router.cancel(first) is True
    assert router.cancel(first) is False
    assert router.done(first) is False
    assert router.done(second, ok=False) is True
    assert router.done(second) is False
    assert router.cancel(second) is False
    assert inflight(fleet) == [0]
    assert fleet.nodes()["wait_s"].tolist() == [0.0]


def test_lease_ends_by_itself():
    clock = ManualClock()
    fleet = fleet_of(1, clock)
    router = Router(fleet)
    leased = router.pick("m", lease_s=2.0)
    kept = router.pick("m", lease_s=2.0)
    forever = router.pick("m")
    clock.advance(1.9)
    assert router.done(kept)
    assert inflight(fleet) == [2]
    clock.advance(0.1)
    assert inflight(fleet) == [1]
    assert router.done(leased) is False
    assert router.cancel(leased) is False
    assert router.done(forever) is True
    assert inflight(fleet) == [0]


def test_leases_end_whoever_asks():
    """Of a router that nobody calls any more, or that is gone."""
    clock = ManualClock()
    fleet = fleet_of(2, clock)
    idle, gone = Router(fleet), Router(fleet)
    old = idle.pick("m", lease_s=1.0)
    gone.pick("m", lease_s=1.0)
    del gone
    assert sum(inflight(fleet)) == 2
    clock.advance(1.0)
    other = Router(fleet, policy="least_outstanding")
    assert [each["terms"]["wait"] for each in other.explain("m")] == [0.0, 0.0]
    assert inflight(fleet) == [0, 0]
    assert idle.done(old) is False
    assert inflight(fleet) == [0, 0]


def test_id_of_a_removed_node_is_free_when_its_lease_is_over():
    clock = ManualClock()
    fleet = Fleet(max_nodes=1, clock=clock)
    fleet.load_model(fleet.add("a"), "m")
    Router(fleet).pick("m", lease_s=1.0)
    fleet.remove("a")
    with pytest.raises(InvalidArgument, match="in flight"):
        fleet.add("b")
    clock.advance(1.0)
    assert fleet.add("b") == 0


def test_lease_slots_are_used_again():
    clock = ManualClock()
    fleet = fleet_of(1, clock)
    router = Router(fleet)
    old = router.pick("m", lease_s=1.0)
    clock.advance(1.0)
    new = router.pick("m", lease_s=1.0)
    assert router.cancel(old) is False
    assert inflight(fleet) == [1]
    assert router.cancel(new) is True
    assert inflight(fleet) == [0]


def test_pick_many_sees_its_own_credit():
    fleet = fleet_of(3)
    router = Router(fleet)
    decisions = router.pick_many("m", np.array([1.0, 2.0, 3.0, 4.0]))
    assert len(decisions) == 4
    assert decisions.node.dtype == np.uint32
    assert decisions.node.tolist() == [0, 1, 2, 0] == [d.node for d in decisions]
    assert decisions.wait_s.tolist() == pytest.approx([0.0, 0.0, 0.0, 0.001])
    assert decisions.feasible.all()
    assert decisions[-1].cost_us == decisions.cost_us[3]
    with pytest.raises(IndexError):
        decisions[4]
    assert inflight(fleet) == [2, 1, 1]
    assert router.done(decisions[1]) is True
    assert inflight(fleet) == [2, 0, 1]
    assert router.done(decisions, service_s=[0.001, 0.002, 0.003, 0.004]) is True
    assert router.done(decisions) is False
    assert inflight(fleet) == [0, 0, 0]


def test_pick_many_is_all_or_nothing():
    fleet = fleet_of(1)
    router = Router(fleet)
    router.set_prior("m", 0, base_s=0.1)
    with pytest.raises(DeadlineInfeasible):
        router.pick_many("m", np.ones(9), deadline_s=0.5)
    assert inflight(fleet) == [0]
    assert len(router.pick_many("m", np.ones(9), deadline_s=0.5, allow_late=True)) == 9
    assert len(router.pick_many("m", [])) == 0


def test_deadlines():
    fleet = fleet_of(2)
    router = Router(fleet)
    router.set_prior("m", 0, base_s=0.5)
    router.set_prior("m", 1, base_s=0.1)
    assert router.pick("m", deadline_s=0.2).node == 1
    with pytest.raises(DeadlineInfeasible, match=r"deadline_s is 0.05.* 2 nodes"):
        router.pick("m", deadline_s=0.05)
    late = router.pick("m", deadline_s=0.05, allow_late=True)
    assert (late.node, late.feasible) == (1, False)
    assert inflight(fleet) == [0, 2]


@pytest.mark.parametrize("policy", Router.policies())
def test_no_policy_picks_one_that_is_late(policy):
    fleet = fleet_of(2)
    router = Router(fleet, policy=policy)
    router.set_prior("m", 0, base_s=10.0)
    assert [router.pick("m", deadline_s=5.0).node for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("policy", Router.policies())
def test_every_policy_respects_every_filter(policy):
    fleet = Fleet(clock=ManualClock())
    a, b, _, d = (fleet.add(name, zone=zone) for name, zone in (("a", "x"), ("b", "x"), ("c", "x"), ("d", "y")))
    for node in (a, b, d):
        fleet.load_model(node, "m")
    fleet.drain(a)
    router = Router(fleet, policy=policy)
    reasons = [row["reason"] for row in router.explain("m", require={"zone": "x"})]
    assert reasons[0] == "draining" and reasons[1] is None
    assert reasons[2] == "model 'm' is not loaded" and "label" in reasons[3]
    assert [router.pick("m", require={"zone": "x"}).node for _ in range(3)] == [b] * 3
    fleet.remove(b)
    with pytest.raises(NoNodeAvailable, match="model 'm': of 3 nodes, 1 draining, 1 without the model, 1 without"):
        router.pick("m", require={"zone": "x"})
    assert router.pick("m").node == d


def test_no_model_anywhere_names_it():
    fleet = Fleet()
    router = Router(fleet)
    with pytest.raises(NoNodeAvailable, match="'m': of 0 nodes"):
        router.pick("m")
    fleet.add("a")
    with pytest.raises(NoNodeAvailable, match="'m': of 1 nodes, none was ever told"):
        router.pick("m")
    assert [(row["node"], row["cost_us"], row["reason"]) for row in router.explain("m")] == [
        (0, None, "model 'm' is not loaded")
    ]


def test_explain_agrees_with_pick():
    fleet = fleet_of(5)
    router = Router(fleet)
    for node in range(5):
        router.set_prior("m", node, base_s=0.01 * (1 + (node * 3) % 5), per_work_s=0.001 * node)
        fleet.signal(node, gpu=node / 5, inflight=node)
    for work in (0.0, 1.0, 30.0):
        rows = router.explain("m", work=work)
        best = min(rows, key=lambda row: (row["cost_us"], row["node"]))
        decision = router.pick("m", work=work)
        assert decision.node == best["node"]
        assert decision.cost_us == best["cost_us"]
        for row in rows:
            assert list(row["terms"]) == ["wait", "service", "pressure", "load", "network", "saving", "price", "risk",
                                          "explore"]  # fmt: skip
            assert sum(row["terms"].values()) == pytest.approx(row["cost_us"], rel=1e-6)
    assert router.explain("m", deadline_s=1e-6)[0]["cost_us"] is None
    assert "late" in router.explain("m", deadline_s=1e-6)[0]["reason"]
    assert router.explain("m", deadline_s=1e-6, allow_late=True)[0]["reason"] is None


def test_learns_from_done():
    fleet = fleet_of(2, kind="x", slots=1)
    router = Router(fleet, policy="round_robin")
    for work in range(1, 41):
        decision = router.pick("m", work=float(work))
        router.done(decision, service_s=(0.002 if decision.node == 0 else 0.020) + 0.001 * work)
    service = [row["terms"]["service"] for row in router.explain("m", work=10.0)]
    assert service == pytest.approx([12_000.0, 30_000.0], rel=0.05)


def test_learns_the_time_since_pick_of_what_did_not_wait():
    clock = ManualClock()
    fleet = fleet_of(1, clock, rtt_s=0.01)
    router = Router(fleet)
    for _ in range(5):
        waiting_for_nothing, behind_it = router.pick("m"), router.pick("m")
        clock.advance(0.06)
        router.done(waiting_for_nothing)
        clock.advance(5.0)
        router.done(behind_it)
    assert router.explain("m")[0]["terms"]["service"] == pytest.approx(50_000.0, rel=0.05)


def test_failures_and_cancels_teach_nothing():
    fleet = fleet_of(1)
    router = Router(fleet)
    router.done(router.pick("m"), ok=False, service_s=9.0)
    router.cancel(router.pick("m"))
    assert router.explain("m")[0]["terms"]["service"] == pytest.approx(1000.0)


def test_unseen_nodes_start_from_their_kind():
    fleet = Fleet(clock=ManualClock())
    for name, kind in (("a", "fast"), ("b", "fast"), ("c", "slow")):
        fleet.load_model(fleet.add(name, kind=kind), "m")
    router = Router(fleet, policy="round_robin")
    router.done(router.pick("m"), service_s=0.5)
    service = [row["terms"]["service"] for row in router.explain("m")]
    assert service[0] == pytest.approx(500_000, rel=0.02)
    assert service[1] == pytest.approx(service[0])
    assert service[2] == pytest.approx(1000.0)
    fleet.load_model(fleet.add("d", kind="fast"), "m")
    assert router.explain("m")[3]["terms"]["service"] == pytest.approx(service[0])


def test_two_routers_share_credit():
    fleet = fleet_of(2)
    one, two = Router(fleet), Router(fleet)
    decision = one.pick("m")
    assert decision.node == 0
    assert two.pick("m").node == 1
    with pytest.raises(InvalidArgument, match="another router"):
        two.done(decision)
    assert one.done(decision)


def test_now_s_replaces_the_clock():
    class Broken:
        def now_s(self):
            raise AssertionError("the clock was read")

    fleet = fleet_of(1, Broken())
    router = Router(fleet)
    decision = router.pick("m", now_s=1.0, lease_s=2.0, deadline_s=1.0)
    assert router.done(decision, now_s=3.0) is False
    assert router.explain("m", now_s=3.0)


def test_clock_is_read_at_most_once_a_call():
    class Counting:
        n = 0

        def now_s(self):
            self.n += 1
            return 0.0

    clock = Counting()
    router = Router(fleet_of(1, clock))
    for call in (
        lambda: router.done(router.pick("m", deadline_s=1.0, lease_s=1.0)),
        lambda: router.cancel(router.pick_many("m", np.ones(3))),
    ):
        before = clock.n
        call()
        assert clock.n - before <= 2


@pytest.mark.parametrize(
    ("call", "error", "names"),
    [
        (lambda r: r.pick("m", work=math.nan), InvalidArgument, "work is nan"),
        (lambda r: r.pick("m", work=-1.0), InvalidArgument, "work is -1"),
        (lambda r: r.pick("m", work=math.inf), InvalidArgument, "work is inf"),
        (lambda r: r.pick("m", work="much"), InvalidType, "work is str"),
        (lambda r: r.pick(3), InvalidType, "model is int"),
        (lambda r: r.pick("m", tier=-1), InvalidArgument, "tier is -1"),
        (lambda r: r.pick("m", tier=1 << 16), InvalidArgument, "tier is 65536"),
        (lambda r: r.pick("m", tier=0.5), InvalidType, "tier is float"),
        (lambda r: r.pick("m", deadline_s=math.nan), InvalidArgument, "deadline_s is nan"),
        (lambda r: r.pick("m", deadline_s=-0.1), InvalidArgument, "deadline_s is -0.1"),
        (lambda r: r.pick("m", lease_s=-1), InvalidArgument, "lease_s is -1"),
        (lambda r: r.pick("m", now_s=math.nan), InvalidArgument, "now_s is nan"),
        (lambda r: r.pick("m", session=0.5), InvalidType, "session is float"),
        (lambda r: r.pick("m", blocks=[1]), InvalidType, "blocks is list"),
        (lambda r: r.pick("m", blocks=np.ones(3)), InvalidArgument, "blocks is float64"),
        (lambda r: r.pick("m", blocks=np.ones(8, np.uint64)[::2]), InvalidArgument, "contiguous"),
        (lambda r: r.pick("m", require=["eu"]), InvalidType, "require is list"),
        (lambda r: r.pick_many("m", [1.0, math.nan]), InvalidArgument, "work is nan at 1"),
        (lambda r: r.pick_many("m", [[1.0]]), InvalidArgument, "2 dimensions"),
        (lambda r: r.pick_many("m", ["x"]), InvalidType, "work is no array"),
        (lambda r: r.done(3), InvalidType, "decision is int"),
        (lambda r: r.cancel(None), InvalidType, "decision is NoneType"),
        (lambda r: r.done(r.pick("m"), service_s=-1.0), InvalidArgument, "service_s is -1"),
        (lambda r: r.done(r.pick("m"), service_s=math.nan), InvalidArgument, "service_s is nan"),
        (lambda r: r.done(r.pick_many("m", [1.0]), service_s=[1.0, 2.0]), InvalidArgument, "service_s"),
        (lambda r: r.explain("m", work=math.nan), InvalidArgument, "work is nan"),
        (lambda r: r.set_prior("m", 0, base_s=-1.0), InvalidArgument, "base_s is -1"),
        (lambda r: r.set_prior("m", 5), infcore.UnknownName, "node is 5"),
        (lambda r: Router(Fleet(), policy="random"), infcore.UnknownName, "policy is 'random'; known: round_robin"),
        (lambda r: Router(Fleet(), policy=None), InvalidType, "policy is NoneType"),
        (lambda r: Router(Fleet(), seed=-1), InvalidArgument, "seed is -1"),
        (lambda r: Router(Fleet(), sharpness=2), infcore.UnknownName, "slo_cost is 'sharpness'; known: price_us"),
        (lambda r: Router(Fleet(), policy="round_robin", risk=1), infcore.UnknownName, "'risk'; known: none"),
        (lambda r: Router(Fleet(), explore=1.5), InvalidArgument, "explore is 1.5.* from 0.0.* to 1.0"),
        (lambda r: Router(Fleet(), explore=math.nan), InvalidArgument, "explore is nan"),
        (lambda r: Router(Fleet(), explore="much"), InvalidArgument, "explore is 'much'"),
        (lambda r: Router(Fleet(), explore=True), InvalidType, "explore is bool"),
        (lambda r: Router(Fleet(), picker="best"), infcore.UnknownName, "picker is 'best'; known: least"),
        (lambda r: Router(Fleet(), picker=["least", 3]), InvalidType, r"picker\[1\] is int"),
        (lambda r: Router(Fleet(), picker=3), InvalidArgument, "picker is 3.* a text"),
        (lambda r: Router("fleet"), InvalidType, "fleet is str"),
        (lambda r: Router(Fleet(), clock=1), InvalidType, "clock is int"),
        (lambda r: infcore.Decision(), InvalidType, "Router.pick"),
        (lambda r: infcore.Decisions(), InvalidType, "pick_many"),
    ],
)
def test_refusals_name_field_and_value(call, error, names):
    fleet = fleet_of(1)
    with pytest.raises(error, match=names) as caught:
        call(Router(fleet))
    assert isinstance(caught.value, infcore.InfcoreError)


def test_threads_leave_no_credit_behind():
    fleet = fleet_of(8, clock=infcore.Clock())
    routers = [Router(fleet, policy=policy) for policy in Router.policies()]
    failures = []

    def work(seed):
        try:
            router = routers[seed % len(routers)]
            for i in range(300):
                decision = router.pick("m", lease_s=30.0 if i % 3 else None)
                fleet.signal(i % 8, gpu=(i % 10) / 10)
                many = router.pick_many("m", np.ones(4))
                assert router.done(decision, service_s=0.001 * (1 + seed))
                assert not router.cancel(decision)
                assert router.cancel(many)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert inflight(fleet) == [0] * 8
    assert fleet.nodes()["wait_s"].tolist() == [0.0] * 8


def test_objects_that_were_never_made_refuse_calls():
    class Forgetful(Router):
        def __init__(self):
            pass

    with pytest.raises(InvalidType, match=r"Router\.__init__ was not called"):
        Forgetful().pick("m")
    with pytest.raises(InvalidType, match=r"Fleet\.__init__ was not called"):
        Fleet.__new__(Fleet).nodes()
    with pytest.raises(InvalidArgument, match="another router"):
        Router(fleet_of(1)).done(infcore.Decision.__new__(infcore.Decision))
