"""Routing policies in Python: in Router, Engine and simulate; what they raise; what they are shown."""

import threading

import numpy as np
import pytest

import infcore
from infcore import Fleet, InvalidArgument, InvalidType, ManualClock, NoNodeAvailable, Router


class LeastCost:
    """fastest_finish in Python."""

    name = "least_cost"

    def __init__(self, seed=0, fail_at=None):
        self.seed, self.fail_at, self.outcomes, self.n = seed, fail_at, [], 0

    def select(self, query, view):
        self.query, self.view = query, view
        self.n += 1
        if self.n == self.fail_at:
            raise RuntimeError("it went wrong")
        return view.nodes[np.argmin(view.cost_us)]

    def observe(self, outcome):
        self.outcomes.append((outcome.node, outcome.model, outcome.ok, outcome.confidence, outcome.latency_s))


def fleet_of(n):
    fleet = Fleet(clock=ManualClock())
    for i in range(n):
        fleet.load_model(fleet.add(f"n{i}", slots=1 + i % 3, price_per_hour=float(i)), "m")
    return fleet


def test_an_object_decides_as_the_compiled_one():
    fleets, policy = [fleet_of(9), fleet_of(9)], LeastCost()
    ours, theirs = Router(fleets[0], policy=policy), Router(fleets[1], policy="fastest_finish")
    for router in (ours, theirs):
        for i in range(0, 9, 2):
            router.set_prior("m", i, base_s=0.001 * (1 + i % 4), per_work_s=1e-4)
    for i in range(60):
        a, b = ours.pick("m", work=i % 7), theirs.pick("m", work=i % 7)
        assert (a.node, a.cost_us) == (b.node, b.cost_us)
        if i % 3:
            ours.done(a, ok=False)
            theirs.done(b, ok=False)
    assert ours.policy == "least_cost"
    assert len(policy.outcomes) == 40
    assert policy.outcomes[0][1:4] == ("m", False, None)


def test_what_it_is_shown():
    fleet, policy = fleet_of(5), LeastCost()
    fleet.drain(1)
    fleet.signal(3, inflight=4)
    router = Router(fleet, policy=policy)
    blocks = np.arange(3, dtype=np.uint64)
    router.pick("m", work=2.5, tier=3, deadline_s=9.0, session="s", blocks=blocks)
    query, view = policy.query, policy.view
    assert (query.model, query.work, query.tier, query.now_s, query.deadline_s) == ("m", 2.5, 3, 0.0, 9.0)
    assert query.session != 0
    assert query.blocks.tolist() == [0, 1, 2]
    assert view.nodes.tolist() == [0, 2, 3, 4]
    assert view.inflight.tolist() == [0.0, 0.0, 4.0, 0.0]
    assert view.slots.tolist() == [1.0, 3.0, 1.0, 2.0]
    assert view.price_per_hour.tolist() == [0.0, 2.0, 3.0, 4.0]
    terms = [row["terms"] for row in router.explain("m", work=2.5) if row["node"] in (2, 3, 4)]
    assert view.service_us[1:].tolist() == [row["service"] for row in terms]
    with pytest.raises(AttributeError, match="wait_us"):
        _ = view.weight


def test_what_it_raises_reaches_the_caller():
    router = Router(fleet_of(3), policy=LeastCost(fail_at=2))
    router.pick("m")
    with pytest.raises(RuntimeError, match="it went wrong"):
        router.pick("m", deadline_s=1.0, allow_late=True)
    assert router.pick("m").node in (0, 1, 2), "the next pick asks it again"
    with pytest.raises(RuntimeError, match="it went wrong"):
        Router(fleet_of(3), policy=LeastCost(fail_at=3)).pick_many("m", np.ones(5))


def test_what_observe_raises_reaches_the_next_pick():
    class Broken(LeastCost):
        def observe(self, outcome):
            raise RuntimeError("it went wrong")

    fleet = fleet_of(3)
    router = Router(fleet, policy=Broken())
    assert router.done(router.pick("m")) is True
    with pytest.raises(RuntimeError, match="it went wrong"):
        router.pick("m")
    assert router.pick("m").node in (0, 1, 2)
    assert fleet.nodes()["inflight"].sum() == 1


@pytest.mark.parametrize("chosen", [17, -1, 2**40, 1, 0.5, "0", float("nan")])
def test_only_candidates_may_be_chosen(chosen):
    class Wrong:
        def select(self, query, view):
            return chosen

    fleet = fleet_of(3)
    fleet.drain(1)
    with pytest.raises(InvalidArgument, match=r"view\.nodes"):
        Router(fleet, policy=Wrong()).pick("m")


def test_it_may_refuse():
    class Never:
        def select(self, query, view):
            return None

    with pytest.raises(NoNodeAvailable):
        Router(fleet_of(3), policy=Never()).pick("m")


def test_registered_by_name():
    made = []

    def factory(seed, **options):
        made.append((seed, options))
        return LeastCost(seed)

    infcore.register_policy("mine", factory)
    router = Router(fleet_of(3), policy="mine", seed=4, share=0.5, names=["a", "b"], kind="x")
    assert made == [(4, {"kind": "x", "names": ["a", "b"], "share": 0.5})]
    assert router.policy == "mine"
    infcore.register_policy("mine", LeastCost)  # in its place
    assert router.pick("m").node == 0
    with pytest.raises(InvalidArgument, match="round_robin"):
        infcore.register_policy("round_robin", factory)
    with pytest.raises(InvalidType, match="factory"):
        infcore.register_policy("other", 3)
    infcore.register_policy("broken", lambda seed: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Router(fleet_of(1), policy="broken")
    infcore.register_policy("blank", lambda seed: object())
    with pytest.raises(InvalidType, match="select"):
        Router(fleet_of(1), policy="blank")


SCENARIO = """
[run]
seconds = 2.0
[[node]]
name = "n"
count = 3
[[model]]
name = "m"
slo_s = 0.1
[[latency]]
model = "m"
node = "n"
base_s = 0.004
[[workload]]
model = "m"
rate_rps = 300.0
"""


def test_in_the_simulator(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SCENARIO)
    scenario = infcore.sim.load(str(path))
    infcore.register_policy("simulated", LeastCost)
    rows = [infcore.sim.simulate(scenario, policy="simulated", seed=3) for _ in range(2)]
    assert rows[0]["digest"] == rows[1]["digest"]
    assert rows[0]["lost"] == rows[0]["duplicated"] == 0
    assert rows[0]["within_slo"] > 0.99
    infcore.register_policy("failing", lambda seed: LeastCost(seed, fail_at=50))
    with pytest.raises(RuntimeError, match="it went wrong"):
        infcore.sim.simulate(scenario, policy="failing", seed=3)


def test_in_an_engine():
    """Many threads submit while it decides: nobody waits for a lock with the GIL in hand. Of what it raises every
    request that was taken is answered nevertheless, and the next submit says so."""
    arrays = {"inputs": {"x": ("float32", (1,))}, "outputs": {"y": ("float32", (1,))}}
    model = infcore.Model("m", **arrays)
    devices = [infcore.EmulatedDevice(f"d{i}", base_s=1e-4, models=["m"]) for i in range(2)]
    infcore.register_policy("live", LeastCost)
    x = {"x": np.zeros(1, np.float32)}
    with infcore.Engine(devices, [model], policy="live") as engine:
        answers = []

        def caller():
            for _ in range(50):
                answers.append(engine.submit("m", x).result(timeout_s=30.0))

        threads = [threading.Thread(target=caller) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            engine.stats()
        for thread in threads:
            thread.join()
        assert len(answers) == 200
    infcore.register_policy("live_failing", lambda seed: LeastCost(seed, fail_at=3))
    with infcore.Engine(devices_again(), [model], policy="live_failing") as engine:
        taken = []
        with pytest.raises(RuntimeError, match="it went wrong"):
            for _ in range(50):
                taken.append(engine.submit("m", x))
                taken[-1].result(timeout_s=30.0)
        assert 3 <= len(taken) < 50
        assert all(future.result(timeout_s=30.0) for future in taken)


def devices_again():
    return [infcore.EmulatedDevice(f"e{i}", base_s=1e-4, models=["m"]) for i in range(2)]
