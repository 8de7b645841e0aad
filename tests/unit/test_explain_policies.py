"""explain() under policies that look at some of the nodes alone: each of the others says why not."""

import math

import pytest

from infcore import Fleet, ManualClock, Router


def fleet_of(**nodes):
    fleet = Fleet(clock=ManualClock(start_s=10.0))
    for name, spec in nodes.items():
        fleet.load_model(fleet.add(name, **spec), "m")
    return fleet


def reasons(router, **query):
    rows = router.explain("m", **query)
    assert all((row["cost_us"] is None) == (row["reason"] is not None) for row in rows)
    return {row["name"]: row["reason"] for row in rows}


def chosen(router, **query):
    """Where pick sends it; the reasons before must not have named that one, nor must having asked change it."""
    before = reasons(router, **query)
    decision = router.pick("m", **query)
    names = dict(zip(router_ids(router), before, strict=True))
    assert before[names[decision.node]] is None
    return names[decision.node]


def router_ids(router):
    return [row["node"] for row in router.explain("m")]


def test_locality():
    fleet = fleet_of(near={"zone": "z", "rtt_s": 1e-3}, far={"zone": "y"}, other={"zone": "x"})
    router = Router(fleet, policy="locality", zone="z", explore=0.0)
    far = "a nearer node costs little enough"
    assert reasons(router) == {"near": None, "far": far, "other": far}
    assert chosen(router) == "near"
    fleet.signal("near", queue_wait_s=10.0)
    assert reasons(router) == {"near": None, "far": None, "other": None}, "nobody is left out: the best of all"
    assert chosen(router) != "near"


def test_locality_of_data_and_zone():
    fleet = fleet_of(
        both={"zone": "z", "labels": {"data": "d"}},
        data={"rtt_s": 5e-4, "labels": {"data": "d"}},
        zone={"zone": "z"},
        none={},
    )
    router = Router(fleet, policy="locality", zone="z", data="d", explore=0.0)
    fleet.signal("both", queue_wait_s=10.0)
    assert reasons(router) == {
        "both": "nearer, but the best of its level costs more than spill allows",
        "data": None,
        "zone": "a nearer node costs little enough",
        "none": "a nearer node costs little enough",
    }
    assert chosen(router) == "data"


def test_edge_first():
    fleet = fleet_of(shop={"location": "edge"}, till={"location": "edge"}, cloud={})
    router = Router(fleet, policy="edge_first", load=1.0, explore=0.0)
    assert reasons(router) == {"shop": None, "till": None, "cloud": "a node at the edge will do"}
    full = "its share of requests in flight at the edge is full"
    assert chosen(router) in ("shop", "till")
    assert list(reasons(router).values()).count(full) == 1
    assert chosen(router) in ("shop", "till")
    assert reasons(router) == {"shop": full, "till": full, "cloud": None}
    assert chosen(router) == "cloud"


def test_priority():
    fleet = fleet_of(a={"slots": 2}, b={"slots": 2})
    router = Router(fleet, policy="priority", reserve=0.5, explore=0.0)
    assert reasons(router, tier=1) == {"a": None, "b": None}
    first = chosen(router, tier=1)
    assert reasons(router, tier=1)[first] == "what it has left is kept for tier 0"
    assert reasons(router, tier=0) == {"a": None, "b": None}


@pytest.mark.parametrize("session", ["s", 7])
def test_consistent_hash(session):
    fleet = fleet_of(**{name: {} for name in "abcdef"})
    router = Router(fleet, policy="consistent_hash")
    left_out = {name for name, reason in reasons(router, session=session).items() if reason}
    assert len(left_out) == 5
    assert set(reasons(router, session=session).values()) == {
        None,
        "another node comes first for the session, and has room",
    }
    assert chosen(router, session=session) not in left_out
    assert set(reasons(router).values()) == {None}, "without a session the emptiest gets it"


def test_weighted():
    fleet = fleet_of(a={"slots": 1}, b={"slots": 3})
    router = Router(fleet, policy="weighted")
    turns = [chosen(router) for _ in range(8)]
    assert sorted(turns) == ["a"] * 2 + ["b"] * 6
    assert sorted(map(str, reasons(router).values())) == ["None", "it is another node's turn"]


def test_prefix_aware():
    import numpy as np

    fleet = fleet_of(a={}, b={}, c={})
    router = Router(fleet, policy="prefix_aware")
    blocks = np.arange(1, 9, dtype=np.uint64)
    router.prefix.stored("b", blocks)
    said = "another node holds more of the prompt, or is emptier"
    assert reasons(router, blocks=blocks) == {"a": said, "b": None, "c": said}
    assert chosen(router, blocks=blocks) == "b"


def test_asking_changes_no_choice():
    for policy in Router.policies():
        options = {"models": ["m"]} if policy == "cascade" else {}
        fleets = [fleet_of(**{name: {"slots": 2} for name in "abcd"}) for _ in range(2)]
        asked, silent = (Router(fleet, policy=policy, seed=3, **options) for fleet in fleets)
        for i in range(40):
            query = {"session": i % 5 + 1, "tier": 0}
            asked.explain("m", **query)
            assert asked.pick("m", **query).node == silent.pick("m", **query).node, policy


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("priority", {"reserve": 0.5}),
        ("locality", {"zone": "z"}),
        ("edge_first", {"load": 1.0}),
        ("cascade", {"models": ["m", "n"]}),
    ],
)
def test_the_least_sum_is_the_choice_where_turns_are_given_and_alike_nodes_drawn(policy, options):
    clock = ManualClock()
    fleet = Fleet(clock=clock)
    for i in range(8):
        node = fleet.add(f"n{i}", slots=4, location="edge" if i % 2 else "cloud", zone="z" if i % 3 else "y")
        fleet.load_model(node, "m" if i < 6 else "n")
    router = Router(fleet, policy=policy, seed=5, explore=0.3, **options)
    for i in range(8):
        router.set_prior("m", i, base_s=0.001 * (1 + i % 4))
        router.set_prior("n", i, base_s=0.01)
        fleet.signal(i, inflight=i % 2)
    held, drawn = [], 0
    for i in range(200):
        query = {"tier": i % 2, "deadline_s": 5.0}
        rows = {row["node"]: row for row in router.explain("m", **query) if row["reason"] is None}
        decision = router.pick("m", **query)
        least = min(rows.values(), key=lambda row: (row["cost_us"], row["node"]))
        assert (least["node"], least["cost_us"]) == (decision.node, decision.cost_us)
        drawn += least["terms"]["explore"] < 0.0
        held.append(decision)
        if len(held) == 6:
            assert router.done(held.pop(0), service_s=0.002)
    assert drawn > 20


def test_weighted_knows_new_nodes_when_it_is_asked():
    fleet = fleet_of(a={"labels": {"weight": "2"}}, b={"labels": {"weight": "1"}})
    router = Router(fleet, policy="weighted", weight="label")
    assert chosen(router) == "a"
    fleet.load_model(fleet.add("c", labels={"weight": "9"}), "m")
    assert reasons(router)["c"] is None
    assert chosen(router) == "c"
    fleet.remove("c")  # and its account with it
    fleet.load_model(fleet.add("d", labels={"weight": "1"}), "m")
    assert [chosen(router) for _ in range(4)] == ["a", "b", "a", "d"]


def test_cascade_that_is_too_late_starts_where_there_is_anybody():
    fleet = Fleet(clock=ManualClock())
    fleet.load_model(fleet.add("s"), "small")
    fleet.load_model(fleet.add("l"), "large")
    router = Router(fleet, policy="cascade", models=["small", "large"], explore=0.0)
    router.set_prior("large", "l", base_s=1.0)
    fleet.drain("s")
    query = {"deadline_s": 0.1, "allow_late": True}
    costs = {row["name"]: row["cost_us"] for row in router.explain("small", **query)}
    decision = router.pick("small", **query)
    assert (decision.model, decision.feasible, decision.cost_us) == ("large", False, costs["l"])


def test_a_wait_beyond_measure_has_a_finite_risk():
    fleet = fleet_of(a={}, b={})
    router = Router(fleet)
    router.set_prior("m", "a", base_s=1e6)
    fleet.signal("a", inflight=1e9)
    terms = {row["name"]: row["terms"] for row in router.explain("m", deadline_s=1.0)}
    assert terms["a"]["wait"] > 1e19
    assert all(math.isfinite(term) for each in terms.values() for term in each.values())
    assert terms["a"]["risk"] == pytest.approx(1e6), "it is missed for certain"
