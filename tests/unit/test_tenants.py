"""Tenants share: in infcore.Queue, in the engine, in its log, in the simulator."""

import io
import json
import random
from collections import Counter

import pytest
from engine_rig import Gated, answer, engine_of, model, x_of

import infcore
from infcore import CallableDevice
from infcore.sim import RecordedTrace, events, parse, replay, simulate


@pytest.fixture
def clock() -> infcore.ManualClock:
    return infcore.ManualClock()


def taken(q: infcore.Queue, n: int) -> list:
    return [q.get_nowait() for _ in range(n)]


def test_a_flood_gets_every_other_turn() -> None:
    q = infcore.Queue(100)
    q.put_many((f"a{i}" for i in range(50)), tenant="a")
    for i in range(3):
        q.put(f"b{i}", tenant="b")
    assert taken(q, 8) == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "a4"]


def test_nobody_in_particular_is_a_tenant_too() -> None:
    q = infcore.Queue(100)
    q.put_many(range(5))
    q.put("b", tenant="b")
    assert taken(q, 3) == [0, "b", 1]


def test_work_is_what_counts() -> None:
    q = infcore.Queue(100)
    q.put_many(["A"] * 3, tenant="a", work=4.0)
    q.put_many(["b"] * 9, tenant="b", work=2)
    assert "".join(taken(q, 12)) == "AbbAbbAbbbbb"


def test_work_of_nothing_and_huge_work_starve_nobody() -> None:
    q = infcore.Queue(10_000)
    q.put_many(["0"] * 5000, tenant="a", work=0.0)
    q.put_many(["h"] * 3, tenant="b", work=1e300)
    q.put_many(["1"] * 3, tenant="c")
    assert Counter(taken(q, 5006)) == {"0": 5000, "h": 3, "1": 3}
    q.put_many(["0"] * 5000, tenant="a", work=0.0)
    q.put_many(["1"] * 3, tenant="c")
    assert "1" in taken(q, 1100)  # a request of nothing counts a 1,024th


def test_tiers_and_deadlines_keep_their_places(clock: infcore.ManualClock) -> None:
    q = infcore.Queue(100, tiers=2, clock=clock)
    q.put("a, last tier", tier=1, tenant="a", deadline_s=1.0)
    q.put("b, late", tenant="b", deadline_s=9.0)
    q.put("b, soon", tenant="b", deadline_s=5.0)
    q.put("a, none", tenant="a")
    q.put("a, later", tenant="a", deadline_s=7.0)
    # Both were served nothing: the earlier deadline. Then in turn, each by its own deadlines.
    assert taken(q, 5) == ["b, soon", "a, later", "b, late", "a, none", "a, last tier"]


def test_ageing_goes_before_tenants(clock: infcore.ManualClock) -> None:
    q = infcore.Queue(100, ageing_s=5.0, clock=clock)
    q.put_many(["a"] * 3, tenant="a")
    clock.advance(5.0)
    q.put_many(["b"] * 3, tenant="b")
    assert "".join(taken(q, 6)) == "aaabbb"


def test_an_expired_or_cancelled_item_is_nobody_s_service(clock: infcore.ManualClock) -> None:
    q = infcore.Queue(100, clock=clock)
    q.put_many(["gone"] * 5, tenant="a", deadline_s=1.0)
    tickets = [q.put("cancelled", tenant="a") for _ in range(5)]
    q.put_many("aa", tenant="a")
    q.put_many("bb", tenant="b")
    clock.advance(1.0)
    assert all(q.cancel(ticket) for ticket in tickets)
    assert "".join(taken(q, 4)) == "abab"


def test_more_names_than_are_kept() -> None:
    q = infcore.Queue(70_000)
    for i in range(70_000):
        q.put(i, tenant=f"tenant {i}")
    assert sorted(q.drain(70_000)) == list(range(70_000))
    q.put_many("aa", tenant="one more")
    q.put_many("b", tenant="\ud800")  # not UTF-8, and still a name
    assert "".join(q.drain(3)) == "aba"


@pytest.mark.parametrize(
    ("error", "field", "call"),
    [
        (infcore.InvalidType, "tenant", lambda q: q.put(1, tenant=b"a")),
        (infcore.InvalidType, "tenant", lambda q: q.put_many([1], tenant=3)),
        (infcore.InvalidArgument, "tenant", lambda q: q.put(1, tenant="x" * 257)),
        (infcore.InvalidArgument, "work", lambda q: q.put(1, work=-1.0)),
        (infcore.InvalidArgument, "work", lambda q: q.put(1, work=float("nan"))),
        (infcore.InvalidArgument, "work", lambda q: q.put(1, work=float("inf"))),
        (infcore.InvalidType, "work", lambda q: q.put_many([1], work="1")),
    ],
)
def test_bad_arguments(error, field, call) -> None:
    q = infcore.Queue(5)
    q.put("kept", tenant="x" * 256)
    with pytest.raises(error, match=f"^{field} is .*; allowed: "):
        call(q)
    assert q.drain(9) == ["kept"]


def test_shares_differ_by_one_request_while_both_wait() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        names = "abcdef"[: draw.randint(2, 6)]
        q = infcore.Queue(10_000)
        work_max = 0.0
        for name in names:
            works = [draw.choice([0.25, 1.0, 8.0]) for _ in range(60)]
            work_max = max(work_max, *works)
            for work in works:
                q.put((name, work), tenant=name, work=work, deadline_s=draw.choice([None, 1000.0 * draw.random()]))
        served = dict.fromkeys(names, 0.0)
        left = dict.fromkeys(names, 60)
        while min(left.values()) > 0:
            name, work = q.get_nowait()
            served[name] += work
            left[name] -= 1
            assert max(served.values()) - min(served.values()) <= work_max, seed


# ---- the engine


def order_seen(gated, futures):
    gated.open()
    for future in futures:
        answer(future)
    return [batch[0] for batch in gated.batches[1:]]


@pytest.fixture
def gated():
    return Gated()


def test_tenants_take_turns_in_the_engine(gated):
    with engine_of(CallableDevice("d", gated), models=[model(max_batch_size=1)]) as engine:
        engine.submit("m", x_of(-1))
        gated.wait_entered()
        flood = [engine.submit("m", x_of(i), tenant="a") for i in range(4)]
        other = [engine.submit("m", x_of(10 + i), tenant="b") for i in range(2)]
        heavy = engine.submit("m", x_of(20), tenant="c", work=2.5)
        heavy = [heavy, engine.submit("m", x_of(21), tenant="c", work=1.0)]
        assert order_seen(gated, [*flood, *other, *heavy]) == [0, 10, 20, 1, 11, 2, 21, 3]


def test_the_engine_checks_a_tenant(gated):
    with engine_of(CallableDevice("d", gated)) as engine:
        with pytest.raises(infcore.InvalidType, match=r"^tenant is int; allowed: str"):
            engine.submit("m", x_of(0), tenant=3)
        with pytest.raises(infcore.InvalidArgument, match=r"^tenant is 300 characters"):
            engine.submit("m", x_of(0), tenant="x" * 300)
        assert engine.n_open == 0


def test_a_log_tells_tenants_and_replays(tmp_path, gated):
    path = tmp_path / "engine.log"
    with engine_of(CallableDevice("d", gated), models=[model(max_batch_size=1)], log=path) as engine:
        futures = [engine.submit("m", x_of(-1))]
        gated.wait_entered()
        futures += [engine.submit("m", x_of(i), tenant="ab"[i % 2]) for i in range(6)]
        gated.open()
        for future in futures:
            answer(future)
    told = [event.fields["tenant"] for event in events(path) if event.kind == "arrive"]
    assert told == [0, 1, 2, 1, 2, 1, 2]
    assert replay(path).equal
    trace = RecordedTrace(path)
    assert [tenant for chunk in trace for tenant in chunk.tenant.tolist()] == told


SCENARIO = """
[run]
seconds = 10.0
[[node]]
name = "n"
[[model]]
name = "m"
max_batch_size = 4
[[latency]]
model = "m"
node = "n"
base_s = 0.001
per_request_s = 0.001
[[workload]]
model = "m"
rate_rps = 1600.0
deadline_s = 0.05
[[workload]]
model = "m"
rate_rps = 100.0
work = {{ dist = "constant", mean = 1.5 }}
deadline_s = 0.05
{tenant}
"""


def in_time(own_tenant: str) -> float:
    """The share of the small workload that was answered in time, beside a flood of twice what the node carries."""
    scenario = parse(SCENARIO.format(tenant=own_tenant), "here.toml")
    log = io.BytesIO()
    simulate(scenario, policy="fastest_finish", seed=1, log=log)
    ended = [line for line in map(json.loads, log.getvalue().splitlines()) if line["work"] == 1.5]
    assert {line.get("tenant") for line in ended} == {"small" if own_tenant else None}
    return sum(line["outcome"] == "ok" for line in ended) / len(ended)


def test_a_flood_leaves_another_tenant_its_share_in_the_simulator():
    assert in_time('tenant = "small"') > 0.99
    assert in_time("") < 0.6
