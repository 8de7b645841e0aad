"""Warming: what was asked for at that hour, or after that, is there before it is asked for again."""

import asyncio
import itertools
import threading
from typing import Any

import numpy as np
import pytest
from cache_rig import wait_for

import infcore
from infcore.cache import Demand, Item, Load, Plan, Resident, Room, awarm, plan, warm
from infcore.cache.demand import HOUR_S, slot_of
from infcore.cache.warming import chance_of

DAY_S = 24 * HOUR_S
MONDAY_S = 4 * DAY_S  # 1970-01-05


def _weeks(demand: Demand, n: int, at: dict[str, list[int]], each: int = 5) -> float:
    """n weeks in which each key is asked for in those hours of the week; the time afterwards."""
    for hour in range(n * 168):
        now_s = MONDAY_S + hour * HOUR_S
        for key, hours in at.items():
            for i in range(each if hour % 168 in hours else 0):
                demand.observe(key, now_s + i, size_bytes=100, cost_us=1000.0)
        demand.advance(now_s + HOUR_S)
    return MONDAY_S + n * 168 * HOUR_S


def _rate(demand: Demand, key: str, now_s: float) -> float:
    row = demand.row_of(key)
    assert row is not None
    return float(demand.rates(now_s)[row])


def test_hours_of_the_week_are_those_of_utc() -> None:
    assert slot_of(0.0) == 3 * 24  # 1970-01-01, a Thursday
    assert slot_of(MONDAY_S) == 0 and slot_of(MONDAY_S - 1.0) == 167
    assert slot_of(1_795_694_400.0) == 3 * 24 + 12  # 2026-11-26 12:00 UTC, a Thursday


def test_learns_hour_of_day_and_of_week() -> None:
    demand = Demand(keys_max=32, after_s=0.0, shrink=1.0)
    now_s = _weeks(
        demand, 6, {"daily": [24 * d + 9 for d in range(7)], "weekly": [24 * 2 + 15], "always": list(range(168))}
    )
    assert _rate(demand, "daily", now_s + 9 * HOUR_S) > 3.0 and _rate(demand, "daily", now_s + 11 * HOUR_S) < 0.3
    assert _rate(demand, "weekly", now_s + 63 * HOUR_S) > 3.0 and _rate(demand, "weekly", now_s + 39 * HOUR_S) < 0.5
    assert all(4.0 < _rate(demand, "always", now_s + h * HOUR_S) < 6.0 for h in range(168))


def test_one_day_is_enough_for_hours_of_the_day() -> None:
    demand = Demand(keys_max=32, after_s=0.0, shrink=1.0)
    for hour in range(24):
        for _ in range(10 if hour == 9 else 0):
            demand.observe("k", MONDAY_S + hour * HOUR_S)
        demand.advance(MONDAY_S + (hour + 1) * HOUR_S)
    assert (
        _rate(demand, "k", MONDAY_S + DAY_S + 9 * HOUR_S)
        > 2.5
        > 1.0
        > _rate(demand, "k", MONDAY_S + DAY_S + 8 * HOUR_S)
    )


def test_what_stopped_is_not_expected_for_long() -> None:
    demand = Demand(keys_max=32, after_s=0.0, shrink=1.0)
    now_s = _weeks(demand, 3, {"k": list(range(168))})
    before = _rate(demand, "k", now_s)
    demand.advance(now_s + 3 * DAY_S)
    assert _rate(demand, "k", now_s + 3 * DAY_S) < 0.1 * before


def test_memory_is_bounded_and_the_costly_are_followed() -> None:
    demand, rng = Demand(keys_max=16, after_s=60.0), np.random.default_rng(5)
    for hour in range(48):
        for i, key in enumerate(rng.integers(0, 10**9, 400).tolist()):
            demand.observe(key, MONDAY_S + hour * HOUR_S + i, session=i, cost_us=10.0)
            if i % 10 == 0:
                demand.observe("often", MONDAY_S + hour * HOUR_S + i, session=i, cost_us=10.0)
            if i == 7:
                demand.observe("dear", MONDAY_S + hour * HOUR_S + i, session=i, cost_us=1e4)
    assert len(demand) <= 16 and len(demand._trial) <= 64 and len(demand._sessions) <= 4096
    assert {"often", "dear"} <= {item.key for _, item in demand.followed()}
    assert demand.unknown_rate() > 0.0


def test_learns_what_follows_what_in_a_session() -> None:
    demand, rng = Demand(after_s=30.0), np.random.default_rng(7)
    now_s = MONDAY_S
    for _ in range(200):
        for key, after_s in (("open", 0.0), ("other", 1.0), ("report", 10.0)):
            for user in range(2):
                name = f"other{rng.integers(50)}" if key == "other" else key
                demand.observe(name, now_s + after_s, session=user, cost_us=100.0, size_bytes=10)
        now_s += 120.0
    demand.observe("open", now_s, session=9)
    chance, due_s = demand.expected_after(now_s)["report"]
    assert chance > 0.9 and due_s == pytest.approx(now_s + 10.0)
    assert demand.expected_after(now_s + 31.0) == {}
    made = plan(demand, now_s + 1.0, 60.0, 1000.0)
    assert "report" in [load.key for load in made.loads]


def test_a_plan_is_in_time_within_the_bandwidth_and_the_worthiest_come_first() -> None:
    demand = Demand(keys_max=32, after_s=0.0, shrink=1.0)
    now_s = _weeks(demand, 4, {f"k{i}": [24 * d + 9 for d in range(7)] for i in range(10)}) + 8 * HOUR_S
    for i in range(10):
        demand.know(Item(f"k{i}", 1000, 1e6 * (i + 1), load_s=30.0))
    made = plan(demand, now_s, 2 * HOUR_S, 1.0)
    assert {load.key for load in made.loads} == {f"k{i}" for i in range(3, 10)}  # 7,200 bytes can be moved
    assert made.n_bytes == 7000
    starts = [load.start_s for load in made.loads]
    assert starts == sorted(starts) and all(b - a >= 1000.0 for a, b in itertools.pairwise(starts))
    assert min(starts) >= now_s
    relaxed = plan(demand, now_s, 2 * HOUR_S, 100.0)
    assert len(relaxed.loads) == 10
    assert all(load.start_s + 30.0 <= load.due_s == now_s + HOUR_S for load in relaxed.loads)
    assert min(load.start_s for load in relaxed.loads) >= now_s + HOUR_S - 130.0  # not before it must
    assert plan(demand, now_s, 2 * HOUR_S, 100.0) == relaxed
    slow = [Item(f"k{i}", 1000, 1e6, load_s=3 * HOUR_S) for i in range(10)]
    for item in slow:
        demand.know(item)
    assert plan(demand, now_s, 2 * HOUR_S, 100.0).loads == ()  # it would be over


def test_gives_up_nothing_worth_more() -> None:
    demand = Demand(keys_max=32, after_s=0.0, shrink=1.0)
    nine = [24 * d + 9 for d in range(7)]
    now_s = _weeks(demand, 4, {"soon": nine, "later": [24 * d + 20 for d in range(7)], "too": nine}) + 8.5 * HOUR_S
    cache = infcore.Cache(200, policy="gdsf")
    cache.put("later", "v", size_bytes=100, cost_us=1000.0)
    cache.put("too", "v", size_bytes=100, cost_us=1000.0)
    made = plan(demand, now_s, 2 * HOUR_S, 1000.0, cache=cache)
    assert [(load.key, load.evicts) for load in made.loads] == [("soon", ("later",))]
    assert made.loads[0].worth_us > made.loads[0].gives_up_us
    cache.pin("later")
    assert plan(demand, now_s, 2 * HOUR_S, 1000.0, cache=cache).loads == ()
    cache.unpin("later")
    cache.put("later", "v", size_bytes=100, cost_us=1e9)  # dear enough, whatever the hour
    assert plan(demand, now_s, 2 * HOUR_S, 1000.0, cache=cache).loads == ()


def test_what_goes_is_that_of_who_comes_first() -> None:
    """Not of who is worth most, who comes later: what was to go would still be there."""
    demand = Demand(keys_max=8, after_s=0.0)
    for day in range(28):
        for key, hour, cost_us in (("first", 10, 500.0), ("worthier", 14, 1000.0)):
            for i in range(5):
                demand.observe(key, day * DAY_S + hour * HOUR_S + i, size_bytes=40, cost_us=cost_us)
    now_s = 28 * DAY_S + 9.5 * HOUR_S
    demand.advance(now_s)
    cache = infcore.Cache(100, policy="gdsf")
    cache.put("there", 0, size_bytes=100, cost_us=0.001)
    made = plan(demand, now_s, 6 * HOUR_S, 1000.0, cache=cache)
    assert [(load.key, load.evicts) for load in made.loads] == [("first", ("there",)), ("worthier", ())]
    clock = infcore.ManualClock(now_s)
    assert warm(made, lambda it: it.key, cache=cache, clock=clock, pause=clock.advance).loaded == 2
    cache = infcore.Cache(100, policy="gdsf")
    cache.put("there", 0, size_bytes=100, cost_us=1200.0)  # worth less than both, and more than who comes first
    demand.observe("there", now_s)
    made = plan(demand, now_s, 6 * HOUR_S, 1000.0, cache=cache)
    assert [(load.key, load.evicts) for load in made.loads] == [("worthier", ("there",))]


def test_models_on_devices_have_rooms_of_their_own() -> None:
    demand = Demand(keys_max=32, after_s=0.0, shrink=1.0)
    now_s = _weeks(demand, 3, {"a": list(range(168)), "b": list(range(168))})
    room = Room([0, 50], [Resident("x", 0, 100, 1.0), Resident("y", 1, 60, 1.0, pinned=True)])
    made = plan(demand, now_s, HOUR_S, 1e3, room=room, place_of=lambda key: int(key == "b"), held=["y"])
    assert [(load.key, load.place, load.evicts) for load in made.loads] == [("a", 0, ("x",))]


def test_room_takes_the_least_worth_and_no_more_than_needed() -> None:
    rows = [Resident(key, 0, size, worth) for key, size, worth in (("a", 10, 1.0), ("b", 100, 20.0), ("c", 50, 50.0))]
    assert Room([5], rows).take(0, 15, 2.0) == (("a",), 1.0)
    assert Room([5], rows).take(0, 105, 30.0) == (("b",), 20.0)  # a need not go
    assert Room([5], rows).take(0, 15, 1.0) is None
    assert Room([5], rows).take(0, 500, 1e9) is None
    room = Room([5], rows)
    assert room.take(0, 15, 2.0) is not None and room.free_bytes(0) == 0
    assert room.take(0, 10, 2.0) is None  # a is gone already


def test_room_knows_what_comes_in_place_of_an_older_one() -> None:
    rows = [Resident(key, 0, size, worth) for key, size, worth in (("a", 10, 1.0), ("b", 100, 20.0), ("c", 50, 50.0))]
    room = Room([5], rows)
    going = room.look(0, 20, 5.0, "b")
    assert going == ((), 0.0) and room.free_bytes(0) == 5
    room.give(0, 20, going, "b")
    assert room.free_bytes(0) == 85 and room.copy().free_bytes(0) == 85
    for each in (room.copy(), room):
        assert each.take(0, 95, 60.0) == (("a",), 1.0)  # b's row is gone
        assert each.take(0, 50, 60.0) == (("c",), 50.0)
        assert each.take(0, 1, 1e9) is None


def test_room_of_another_place_is_no_room() -> None:
    room = Room([0, 0], [Resident("m", 0, 10, 1.0), Resident("m", 1, 20, 2.0)])
    assert room.take(1, 5, 9.0) == (("m",), 2.0) and room.free_bytes(0) == 0
    assert room.take(0, 5, 9.0) == (("m",), 1.0)


def _plan(*keys: str, start_s: float = 0.0, bandwidth: float = 100.0, evicts: Any = ()) -> Plan:
    loads = [Load(key, 100, 5.0, 0.0, 0, 5.0, 0.0, start_s, start_s, evicts) for key in keys]
    return Plan(tuple(loads), bandwidth, start_s + 100.0)


class _Time:
    def __init__(self) -> None:
        self.clock = infcore.ManualClock(0.0)
        self.begun: list[tuple[str, float]] = []

    def load(self, it: Load) -> str:
        self.begun.append((str(it.key), self.clock.now_s()))
        return f"value of {it.key}"

    async def pause(self, seconds: float) -> None:
        self.clock.advance(seconds)


def test_warm_keeps_to_the_times_and_the_bandwidth() -> None:
    time, cache = _Time(), infcore.Cache(1000, policy="lru")
    report = warm(_plan("a", "b", "c", start_s=5.0), time.load, cache=cache, clock=time.clock, pause=time.clock.advance)
    assert time.begun == [("a", 5.0), ("b", 6.0), ("c", 7.0)]
    assert (report.loaded, report.n_bytes, report.left) == (3, 300, 0)
    assert cache.get("b") == "value of b" and cache.stats().bytes_used == 300


def test_warm_evicts_only_once_the_value_is_there() -> None:
    cache = infcore.Cache(100, policy="lru")
    cache.put("x", 1, size_bytes=100)

    def fails(it: Load) -> str:
        raise ValueError(it.key)

    report = warm(_plan("a", evicts=("x",)), fails, cache=cache, clock=infcore.ManualClock())
    assert (report.failed, report.loaded, "x" in cache) == (1, 0, True)
    assert report.errors[0][0] == "a" and isinstance(report.errors[0][1], ValueError)
    assert (
        warm(_plan("a"), lambda it: 2, cache=cache, clock=infcore.ManualClock()).kept_out == 1 and "x" in cache
    )  # no room
    assert warm(_plan("a", evicts=("x",)), lambda it: 2, cache=cache, clock=infcore.ManualClock()).loaded == 1
    assert cache.get("a") == 2 and "x" not in cache and cache.stats().evictions == 1
    assert (
        warm(_plan("a"), lambda it: 3, cache=cache, clock=infcore.ManualClock()).kept_out == 1 and cache.get("a") == 2
    )


def test_warm_stops_and_gives_up_what_is_too_late() -> None:
    stop = threading.Event()

    def load(it: Load) -> None:
        if it.key == "b":
            stop.set()

    report = warm(_plan("a", "b", "c", "d", bandwidth=1e9), load, stop=stop, clock=infcore.ManualClock())
    assert (report.loaded, report.left) == (2, 2)
    late = infcore.ManualClock(101.0)
    assert warm(_plan("a", "b"), load, clock=late).left == 2


def test_who_asks_meanwhile_waits_for_it() -> None:
    cache, begun, go = infcore.Cache(1000, policy="lru"), threading.Event(), threading.Event()

    def load(it: Load) -> str:
        begun.set()
        assert go.wait(10.0)
        return "warm"

    reports: list[Any] = []
    two = {"clock": infcore.ManualClock(), "parallel": 2}
    warmer = threading.Thread(target=lambda: reports.append(warm(_plan("a"), load, cache=cache, **two)))
    warmer.start()
    assert begun.wait(10.0)
    got: list[Any] = []
    asker = threading.Thread(target=lambda: got.append(cache.get_or_compute("a", lambda: "computed")))
    asker.start()
    wait_for(cache, 1)  # or it might find what is there already
    go.set()
    warmer.join(10.0)
    asker.join(10.0)
    assert got == ["warm"] and reports[0].loaded == 1


def test_what_was_invalidated_meanwhile_is_not_kept() -> None:
    cache = infcore.Cache(1000, policy="lru")

    def load(it: Load) -> int:
        cache.invalidate_tag("t")
        return 1

    report = warm(_plan("a"), load, cache=cache, put=lambda it: {"tags": ("t",)}, clock=infcore.ManualClock())
    assert (report.kept_out, report.loaded, "a" in cache) == (1, 0, False)


def test_awarm() -> None:
    time, cache = _Time(), infcore.Cache(1000, policy="lru")

    async def load(it: Load) -> str:
        await asyncio.sleep(0)
        if it.key == "b":
            raise OSError("gone")
        return time.load(it)

    report = asyncio.run(
        awarm(_plan("a", "b", "c", start_s=5.0), load, cache=cache, clock=time.clock, pause=time.pause)
    )
    assert (report.loaded, report.failed, report.left) == (2, 1, 0)
    assert cache.get("a") == "value of a" and [key for key, _ in time.begun] == ["a", "c"]
    assert asyncio.run(awarm(_plan("m"), load, clock=infcore.ManualClock(0.0))).loaded == 1


def test_awarm_counts_what_somebody_cancelled() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        shared: asyncio.Future[str] = loop.create_future()
        shared.cancel()

        async def load(it: Load) -> str:
            return await shared if it.key == "b" else "value"

        for cache in (None, infcore.Cache(1000, policy="lru")):
            report = await awarm(_plan("a", "b", "c", bandwidth=1e9), load, cache=cache, clock=infcore.ManualClock())
            assert (report.loaded, report.failed, report.left) == (2, 1, 0)
            assert [(key, type(error)) for key, error in report.errors] == [("b", asyncio.CancelledError)]
            waits: Any = lambda it: loop.create_future()  # noqa: E731
            whole = asyncio.ensure_future(awarm(_plan("x", "y"), waits, cache=cache, clock=infcore.ManualClock()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            whole.cancel()
            assert (await asyncio.gather(whole, return_exceptions=True))[0].__class__ is asyncio.CancelledError

    asyncio.run(run())


def test_warm_gives_up_nothing_for_what_somebody_put_meanwhile() -> None:
    cache = infcore.Cache(100, policy="lru")
    cache.put("x", 1, size_bytes=60)

    def load(it: Load) -> str:
        cache.put("a", "theirs", size_bytes=10)
        return "ours"

    report = warm(_plan("a", evicts=("x",)), load, cache=cache, clock=infcore.ManualClock())
    assert (report.kept_out, cache.get("a"), "x" in cache) == (1, "theirs", True)


def _ahead_of_three(shards: int) -> tuple[infcore.Cache, list[int], list[int]]:
    """A cache with three entries in the shard of "new" and, where there are several, one elsewhere; their keys."""
    cache = infcore.Cache(100 * shards, policy="lru", shards=shards)
    at = cache.place_of("new")
    here = [key for key in range(100) if cache.place_of(key) == at][:3]
    there = [key for key in range(100) if cache.place_of(key) != at][:1]
    for key in (*here, *there):
        cache.put(key, key, size_bytes=30)
    return cache, here, there


@pytest.mark.parametrize("shards", [1, 4])
def test_what_comes_ahead_goes_in_for_what_it_names(shards: int) -> None:
    """In whichever shard that is, each once, but for what is pinned."""
    cache, here, there = _ahead_of_three(shards)
    cache.pin(here[2])
    named = [*here, here[1], *there, "absent", "new"]
    assert cache.bring("new", 1, instead_of=named, size_bytes=60)
    assert {key for key, *_ in cache.entries()} == {"new", here[2]}
    assert cache.stats().evictions == 2 + len(there) and cache.stats().bytes_used == 90


@pytest.mark.parametrize("shards", [1, 4])
def test_what_comes_ahead_and_is_not_kept_evicts_nothing(shards: int) -> None:
    cache, here, there = _ahead_of_three(shards)
    before = cache.entries()
    for version, tag in ((2, "red"), (3, "blue"), (1, "blue")):
        cache.invalidate_older(version, tag=tag)
    for key, instead_of, told in (
        ("new", here[:1], {"size_bytes": 60}),  # no room, even so
        ("new", [*here, *there], {"size_bytes": 101}),
        ("new", here, {"tags": ("blue", "red")}),
        ("new", here, {"tags": ("blue",), "version": 2}),
        (here[0], here[1:], {"size_bytes": 60}),  # it is there
    ):
        assert not cache.bring(key, 1, instead_of=instead_of, **{"size_bytes": 1} | told)
    cache.pin(here[0])
    assert not cache.bring("new", 1, instead_of=here[:2], size_bytes=60)
    assert cache.entries() == before and cache.stats().evictions == 0
    assert cache.bring("new", 1, instead_of=here, size_bytes=60, tags=("red",), version=2)
    cache.invalidate_older(4)
    n = len(cache)
    assert not cache.bring("other", 1, instead_of=["new"], size_bytes=1, version=3) and len(cache) == n
    assert cache.bring("other", 1, instead_of=["new"], size_bytes=1, version=4) and "new" not in cache


def test_what_comes_ahead_does_not_replace_what_is_newer_and_stale() -> None:
    clock = infcore.ManualClock()
    cache = infcore.Cache(100, policy="lru", clock=clock)
    cache.put("a", "stale", size_bytes=1, version=5, ttl_s=1.0, stale_s=9.0)
    cache.put("b", "other", size_bytes=1)
    clock.advance(1.0)
    assert not cache.bring("a", "older", instead_of=["b"], version=4)
    assert "b" in cache and cache.stale("a") == "stale"
    assert cache.bring("a", "as new", version=5)
    assert cache.get("a") == "as new"


def test_instead_of_is_looked_at_before_anything_changes() -> None:
    cache = infcore.Cache(100, policy="lru")
    cache.put("b", "other", size_bytes=1)
    with pytest.raises(infcore.InvalidType, match="no hash"):
        cache.bring("a", 1, instead_of=["b", []])
    with pytest.raises(infcore.InvalidType, match="colour"):
        cache.bring("a", 1, instead_of=["b"], colour=1)
    assert "b" in cache and "a" not in cache


def test_what_is_refused_was_not_counted() -> None:
    demand = Demand(keys_max=4, after_s=0.0)
    demand.observe("known", MONDAY_S, size_bytes=5, cost_us=5.0)
    demand.advance(MONDAY_S + HOUR_S)
    for key in ("known", "new"):
        for bad in ({"size_bytes": -1}, {"size_bytes": 9, "cost_us": -1.0}, {"cost_us": 9.0, "load_s": -1.0}):
            with pytest.raises(infcore.InvalidArgument):
                demand.observe(key, MONDAY_S + 5 * HOUR_S, **bad)  # type: ignore[arg-type]
    assert demand.n_this_hour("known") == demand.n_this_hour("new") == 0.0
    assert [(item.size_bytes, item.cost_us) for _, item in demand.followed()] == [(5, 5.0)]
    demand.observe("known", MONDAY_S + HOUR_S)  # nor has time gone on
    assert demand.n_this_hour("known") == 1.0 and slot_of(demand._last_s) == 1


def test_observe_many_is_observe() -> None:
    one, many, rng = Demand(), Demand(), np.random.default_rng(1)
    keys, times = rng.integers(0, 30, 500), np.sort(rng.uniform(MONDAY_S, MONDAY_S + DAY_S, 500))
    sizes, costs = rng.integers(1, 99, 500), rng.uniform(1.0, 9.0, 500)
    for at in range(500):
        one.observe(int(keys[at]), times[at], size_bytes=int(sizes[at]), cost_us=float(costs[at]))
    many.observe_many(keys, times, sizes=sizes, costs=costs)
    now_s = MONDAY_S + DAY_S
    assert plan(one, now_s, HOUR_S, 10.0) == plan(many, now_s, HOUR_S, 10.0) != Plan((), 10.0, now_s + HOUR_S)


def test_chance() -> None:
    x = np.array([0.0, 1e-3, 0.1, 0.5, 1.0, 3.0, 50.0])
    assert np.abs(chance_of(x) - (1.0 - np.exp(-x))).max() < 0.004 + 2e-3 and chance_of(x)[0] == 0.0


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Demand(keys_max=0), "keys_max is 0"),
        (lambda: Demand(memory_weeks=-1.0), "memory_weeks"),
        (lambda: Demand().observe("k", float("nan")), "now_s"),
        (lambda: Demand().observe("k", 0.0, cost_us=-1.0), "cost_us"),
        (lambda: Demand().observe_many([1, 2], [0.0]), "times_s has 1 values; allowed: 2"),
        (lambda: plan(Demand(), 0.0, 0.0, 1.0), "horizon_s"),
        (lambda: plan(Demand(), 0.0, 1.0, 0.0), "bandwidth_bytes_per_s"),
        (lambda: warm(_plan(), lambda it: None, parallel=0), "parallel is 0"),
    ],
)
def test_arguments_are_checked(call: Any, named: str) -> None:
    with pytest.raises(infcore.InvalidArgument, match=named):
        call()
