"""What is loaded where, decision by decision: what must come of each event where the engine decides that."""

import pytest
from engine_rig import PATHS
from residency_rig import MILLISECOND_EACH, SECOND, World


@pytest.mark.parametrize("how", ["node_lost", "drain_node", "remove_node"])
def test_who_waited_for_a_load_of_a_node_that_leaves_has_another_one_load(how):
    world = World()
    world.model("a", "b", "m")
    world.node("one", 1, holds="a")
    world.node("two", 1, holds="b")
    world.step()
    world.ask("m")
    assert world.loading == {"one": "m"}
    world.told(how, "one")
    assert world.loading["two"] == "m"
    world.loaded("two")
    assert world.runs("two") == "m"


@pytest.mark.parametrize("how", ["cancelled", "its deadline passes"])
def test_what_was_loaded_for_who_leaves_makes_room(how):
    world = World()
    world.model("runs", "other", "left", "wanted")
    world.node("one", 2, holds=["runs", "other"], loads_beside_runs=True)
    world.ask("runs")
    assert world.begins("one") == "runs"
    leaves = world.ask("left", deadline_s=1.0)
    world.loaded("one")
    waits = world.ask("wanted")
    assert world.loading == {}  # one runs, and for the other somebody waits
    if how == "cancelled":
        world.cancel(leaves)
    else:
        world.step(1.0)
    assert world.ends[leaves][0] in ("cancel", "shed")
    assert world.loading == {"one": "wanted"}
    world.loaded("one")
    world.ends_run("one")
    assert world.runs("one") == "wanted"
    assert world.ends[waits] == ("complete", "ok")


def test_what_no_device_could_load_ends_though_another_one_is_too_small():
    world = World()
    world.model("big", mib=2)
    world.node("small", 1)
    world.node("large", 2)
    waits = world.ask("big")
    assert world.loading == {"large": "big"}
    world.loaded("large", ok=False)
    assert world.ends[waits] == ("complete", "device_failed")


def test_what_no_device_with_the_labels_could_load_ends_though_others_hold_it():
    world = World()
    world.model("m")
    world.node("eu", 1, labels={"region": "eu"})
    world.node("us", 1, holds=["m"])
    waits = world.ask("m", require={"region": "eu"})
    assert world.loading == {"eu": "m"}
    world.loaded("eu", ok=False)
    assert world.ends[waits] == ("complete", "device_failed")
    other = world.ask("m")
    assert world.runs("us") == "m"
    assert world.ends[other] == ("complete", "ok")


@pytest.mark.parametrize("policy", PATHS)
def test_what_was_bound_to_a_device_that_cannot_load_it_goes_to_another_one(policy):
    world = World(policy=policy)
    world.model("a", "b")
    world.node("broken", 1, holds=["b"])
    world.node("well", 1, holds=["b"])
    waits = [world.ask("a") for _ in range(4)]
    for _ in range(6):
        if "broken" in world.loading:
            world.loaded("broken", ok=False)
        if "well" in world.loading:
            world.loaded("well")
        while world.runs("well"):
            pass
    assert [world.ends[each] for each in waits] == [("complete", "ok")] * 4
    assert world.loads.count(("broken", "a")) <= 1
    later = world.ask("a")
    world.step(10.0)  # then it is tried again, where anybody wants it
    assert world.runs("well") == "a"
    assert world.ends[later] == ("complete", "ok")


@pytest.mark.parametrize("policy", PATHS)
def test_nothing_is_sent_to_a_device_that_is_too_small(policy):
    world = World(policy=policy)
    world.model("big", mib=2)
    world.node("small", 1)
    world.node("large", 2)
    waits = [world.ask("big") for _ in range(4)]
    world.loaded("large")
    while world.runs("large"):
        pass
    assert [world.ends[each] for each in waits] == [("complete", "ok")] * 4


def test_what_every_device_failed_at_is_tried_again_later_where_a_policy_binds():
    world = World(policy="round_robin")
    world.model("a")
    world.node("one", 1)
    world.step()
    world.loaded("one", ok=False)
    waits = world.ask("a")  # no device takes it now
    assert world.loading == {}
    world.step(10.0)
    world.loaded("one")
    assert world.runs("one") == "a"
    assert world.ends[waits] == ("complete", "ok")


def test_what_the_old_definition_failed_at_says_nothing_of_the_new_one():
    world = World()
    world.model("m")
    world.node("one", 1)
    world.step()
    world.loaded("one", ok=False)
    for may in (False, True):  # as where it is loaded anew under its name
        world.allow("m", "one", may)
    waits = world.ask("m")
    assert world.loading == {"one": "m"}
    for may in (False, True):  # and once more, while it loads
        world.allow("m", "one", may)
    world.loaded("one", ok=False)
    assert waits not in world.ends
    assert world.loading == {"one": "m"}
    world.loaded("one")
    assert world.runs("one") == "m"
    assert world.ends[waits] == ("complete", "ok")


@pytest.mark.parametrize("curve", [None, MILLISECOND_EACH])
def test_who_cannot_wait_until_a_failed_load_is_tried_again_is_told_at_once(curve):
    world = World()
    world.model("m")
    world.node("one", 1, curve=curve)
    world.step()
    world.loaded("one", ok=False)
    soon, later = world.ask("m", deadline_s=9.0), world.ask("m", deadline_s=11.0)
    assert world.ends == {soon: ("shed", "deadline")}
    world.step(10.0)
    world.loaded("one")
    assert world.runs("one") == "m"
    assert world.ends[later] == ("complete", "ok")


def test_what_only_requests_wait_for_that_may_not_go_there_makes_room():
    world = World()
    world.model("other", "m", "wanted")
    world.node("any", 1, holds=["other"])
    world.node("eu", 1, holds=["other"], labels={"region": "eu"})
    world.told("node_lost", "eu")
    gone = world.ask("m")
    assert world.loading == {"any": "m"}
    world.cancel(gone)
    world.ask("m", require={"region": "eu"})
    world.loaded("any")
    world.ask("wanted")
    assert world.loading == {"any": "wanted"}


def test_what_is_expected_pushes_out_nothing_that_somebody_waits_for():
    world = World()
    world.model("runs", "wanted", "expected")
    world.node("one", 2, holds=["wanted", "runs"], loads_beside_runs=True)
    world.ask("runs")
    assert world.begins("one") == "runs"
    waits = world.ask("wanted")
    world.preload("expected")
    assert world.unloads == []
    world.ends_run("one")
    assert world.begins("one") == "wanted"
    assert world.loading == {"one": "expected"}  # now that it begins
    world.ends_run("one")
    assert world.ends[waits] == ("complete", "ok")


@pytest.mark.parametrize(("config", "limit_s"), [({}, 600.0), ({"load_s": 2.0}, 22.0), ({"load_s": 0.1}, 5.1)])
def test_a_load_that_never_ends_loses_its_device(config, limit_s):
    world = World()
    world.model("m", **config)
    world.node("hangs", 1, run_limit_ns=5 * SECOND)
    waits = world.ask("m")
    world.node("well", 1, run_limit_ns=5 * SECOND)
    world.step(limit_s - 0.1)
    assert world.fleet.nodes()["state"].tolist() == ["up", "up"]
    world.step(0.1)
    assert world.fleet.nodes()["state"].tolist() == ["lost", "up"]
    assert world.loading == {"hangs": "m", "well": "m"}
    world.loaded("well")
    assert world.runs("well") == "m"
    assert world.ends[waits] == ("complete", "ok")


def refused_until_let_in(world, model, deadline_s):
    """Asks for it every ten seconds; how often it was refused."""
    for n in range(30):
        if (asked := world.ask(model, deadline_s=deadline_s)) not in world.ends:
            return n
        assert world.ends[asked] == ("reject", "infeasible")
        world.step(10.0)
    raise AssertionError("refused for five minutes")


def serve(world, model, load_s):
    world.loaded("one", load_s=load_s)
    assert world.runs("one") == model


def test_one_slow_load_does_not_have_deadlines_refused_for_ever():
    world = World(admission=["infeasible"])
    world.model("a", "b", load_s=0.01)
    world.node("one", 1, holds=["a"])
    world.ask("b")
    serve(world, "b", load_s=8.0)  # this once
    world.ask("a")
    serve(world, "a", load_s=0.01)
    assert 0 < refused_until_let_in(world, "b", 1.0) <= 4
    serve(world, "b", load_s=0.01)
    world.ask("a")
    serve(world, "a", load_s=0.01)
    assert refused_until_let_in(world, "b", 1.0) == 0


def test_one_slow_load_does_not_have_models_refused_that_were_never_loaded():
    world = World(admission=["infeasible"])
    world.model("slow")
    world.node("one", 1)
    world.step()
    world.loaded("one", load_s=8.0)
    world.model("other")
    assert 0 < refused_until_let_in(world, "other", 1.0) <= 6
    serve(world, "other", load_s=0.01)


def test_who_is_refused_though_the_load_is_known_to_be_slow_is_let_in_now_and_then_only():
    world = World(admission=["infeasible"])
    world.model("a", "b", load_s=8.0)
    world.node("one", 1, holds=["a"])
    world.step(1.0)
    assert refused_until_let_in(world, "b", 1.0) == 5  # 8 s twice, then 4 s, 2 s and 1 s are too long
    serve(world, "b", load_s=8.0)
    world.ask("a")
    serve(world, "a", load_s=8.0)
    assert refused_until_let_in(world, "b", 1.0) >= 3


def test_a_load_that_ends_with_its_device_says_nothing_of_the_model():
    world = World()
    world.model("m")
    world.node("one", 1)
    waits = world.ask("m")
    world.told("node_lost", "one")
    world.loaded("one", ok=False)
    assert world.ends == {}
    world.told("node_back", "one")
    assert world.loading == {"one": "m"}
    world.loaded("one")
    assert world.runs("one") == "m"
    assert world.ends[waits] == ("complete", "ok")


@pytest.mark.parametrize("policy", PATHS)
def test_a_model_whose_queue_is_never_empty_makes_way_for_who_comes_before(policy):
    world = World(policy=policy)
    world.model("flood", "urgent", load_s=0.01)
    world.node("one", 1, holds=["flood"])
    world.step(1.0)
    for _ in range(5):
        world.ask("flood", tier=3)
    assert world.begins("one") == "flood"
    urgent = world.ask("urgent", tier=0, deadline_s=0.5)
    world.ends_run("one")
    assert world.loading == {"one": "urgent"}
    world.step(0.01)
    world.loaded("one")
    assert world.runs("one") == "urgent"
    assert world.ends[urgent] == ("complete", "ok")
    world.step()
    assert world.loading == {"one": "flood"}


@pytest.mark.parametrize("policy", PATHS)
def test_it_keeps_its_place_before_who_comes_after(policy):
    world = World(policy=policy)
    world.model("flood", "other", load_s=0.01)
    world.node("one", 1, holds=["flood"])
    for _ in range(3):
        world.ask("flood", tier=0)
    assert world.begins("one") == "flood"
    world.ask("other", tier=3)
    world.ends_run("one")
    assert [world.runs("one"), world.begins("one")] == ["flood"] * 2
    assert world.loading == {}
    world.ends_run("one")
    assert world.loading == {"one": "other"}
