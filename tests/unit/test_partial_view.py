"""infcore.integrations.partial_view: one of several routers, corrected by what replicas report."""

import gc
import heapq
import importlib
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

import infcore
from infcore.integrations.partial_view import PartialView, Pick, Replica


def view_of(*names: str, clock: infcore.Clock, seed: int = 0, **options: object) -> PartialView:
    view = PartialView("m", seed=seed, clock=clock, **options)
    view.update([Replica(name, pending_max=100) for name in names])
    return view


def figure(view: PartialView, name: str, field: str) -> float:
    return next(float(row[field]) for row in view.fleet.nodes() if row["name"] == name)


@pytest.fixture
def clock() -> infcore.ManualClock:
    return infcore.ManualClock(100.0)


def test_what_others_sent_is_seen_through_reports(clock):
    view = view_of("a", "b", clock=clock)
    view.heard("a", 4)
    assert [view.pick().name for _ in range(4)] == ["b"] * 4  # each given back at once
    view.heard("b", 9)
    clock.advance(1.0)
    view.heard("a", 0)
    assert view.pick().name == "a"


def test_a_report_holds_as_of_the_request_that_brought_it(clock):
    view = view_of("a", clock=clock)
    first = view.pick()
    clock.advance(0.001)
    later = [view.pick() for _ in range(3)]
    clock.advance(0.001)
    first.accepted(1 + 5)  # itself and five of others; what we sent since has not arrived
    assert figure(view, "a", "inflight") == 5 + 1 + len(later)


@pytest.mark.parametrize("end", ["ended", "dropped", "cancelled", "removed"])
def test_credit_goes_with_its_request_whatever_becomes_of_it(clock, end):
    view = view_of("a", clock=clock)
    pick: Pick | None = view.pick()
    assert figure(view, "a", "wait_s") > 0.0 and figure(view, "a", "inflight") == 1
    if end == "removed":
        view.remove("a")
        view.heard("a", 3)
        view.update([Replica("a"), Replica("b")])  # another of that name
        assert figure(view, "a", "inflight") == 0 and len(view) == len(view.fleet) == 2
        return
    if end != "dropped":
        pick.accepted(1)
        clock.advance(0.01)
        assert pick.ended(True if end == "ended" else None)
        assert not pick.ended(True)
    pick = None
    gc.collect()
    view.heard("a", 0)
    assert figure(view, "a", "wait_s") == 0.0 and figure(view, "a", "inflight") == 0


def test_time_counts_as_shared_by_what_ran_beside_it(clock):
    view = view_of("a", clock=clock)
    for _ in range(20):
        pick = view.pick()
        pick.accepted(4)
        clock.advance(0.4)
        pick.ended(True)
        view.heard("a", 0)
    [row] = view.router.explain("m")
    assert row["terms"]["service"] == pytest.approx(0.1e6, rel=0.01)


def test_failures_teach_no_time_and_eject(clock):
    view = view_of("a", "b", clock=clock)
    failed = 0
    for _ in range(200):
        pick = view.pick()
        pick.accepted(1)
        clock.advance(0.001)  # a fails at once
        failed += pick.name == "a"
        pick.ended(pick.name != "a")
    assert 0 < failed < 20


def test_who_was_silent_is_asked_longest_first(clock):
    view = view_of("a", "b", "c", clock=clock, ask_s=0.25)
    assert view.to_ask(2) == ["a", "b"]
    assert view.to_ask(2) == ["c"]
    assert view.to_ask(2) == []
    clock.advance(0.2)
    view.heard("a", 0)
    clock.advance(0.1)
    assert view.to_ask(3) == ["b", "c"]
    assert view.to_ask(1, silent_s=0.0) == ["a"]


def test_who_does_not_answer_gets_nothing_until_it_does(clock):
    view = view_of("a", "b", clock=clock)
    view.lost("a")
    assert {view.pick().name for _ in range(20)} == {"b"}
    view.lost("b")
    with pytest.raises(infcore.NoNodeAvailable, match="2 lost"):
        view.pick()
    view.heard("a", 0)
    assert view.pick().name == "a"
    assert "a" in view and len(view) == 2


def test_nobody_is_sent_more_than_it_takes(clock):
    view = PartialView("m", clock=clock)
    view.update([Replica("a", pending_max=2), Replica("b", pending_max=1)])
    picks = [view.pick() for _ in range(3)]
    assert Counter(pick.name for pick in picks) == {"a": 2, "b": 1}
    with pytest.raises(infcore.NoNodeAvailable, match="2 at their bound"):
        view.pick()
    view.update([Replica("a", pending_max=3), Replica("b", pending_max=1)])
    assert view.pick().name == "a"


def test_a_model_goes_where_it_is_and_is_believed_there_until_it_is_listed(clock):
    view = view_of("a", "b", "c", clock=clock, load_s=1.0, models_max=1, believe_s=5.0)
    pick = view.pick("m/x")
    where = pick.name
    pick.accepted(1)
    clock.advance(2.0)  # it loads
    pick.ended(True)
    assert {view.pick("m/x").name for _ in range(20)} == {where}
    assert {row["terms"]["service"] for row in view.router.explain("m/x")} == {1e3}  # loading taught nothing
    other = view.pick("m/y")
    assert other.name != where  # nothing has to go for it
    view.update([Replica(name) for name in "abc"])
    assert {view.pick("m/x").name for _ in range(20)} == {where}
    clock.advance(5.0)
    there = next(name for name in "abc" if name != where)
    view.update([Replica(name, models=frozenset({"m/x"} if name == there else ())) for name in "abc"])
    assert {view.pick("m/x").name for _ in range(20)} == {there}


def test_a_policy_that_loads_nothing_still_sends_models_to_where_they_are(clock):
    view = view_of("a", "b", "c", clock=clock, policy="power_of_two")
    pick = view.pick("m/x")
    pick.accepted(1)
    pick.ended(True)
    assert {view.pick("m/x").name for _ in range(20)} == {pick.name}
    assert len({view.pick("m/y").name for _ in range(50)}) >= 2


def test_models_beyond_what_a_fleet_can_tell_apart_are_routed_as_the_own_one(clock):
    view = view_of("a", clock=clock)
    for i in range(600):
        pick = view.pick(f"m/{i}")
        pick.accepted(1)
        assert pick.ended(True)
    view.update([Replica("a", models=frozenset(f"m/{i}" for i in range(700)))])


class Serving:
    """Replicas that run one request after the other, and views whose reports travel for 5 ms."""

    trip_s = 0.005

    def __init__(self, service_s: dict[str, float], n_views: int) -> None:
        self.clock = infcore.ManualClock(0.0)
        self.service_s, self.free_s = service_s, dict.fromkeys(service_s, 0.0)
        self.ongoing: Counter[str] = Counter()
        self.views = [view_of(*service_s, clock=self.clock, seed=seed) for seed in range(n_views)]
        self.events: list[tuple[float, int, Callable[[], object]]] = []
        self.sent: list[tuple[float, str]] = []
        self.ended = self.n_events = 0

    def at(self, delay_s: float, what: Callable[[], object]) -> None:
        self.n_events += 1
        heapq.heappush(self.events, (self.clock.now_s() + delay_s, self.n_events, what))

    def send(self, view: PartialView) -> None:
        for name in view.to_ask(1):
            self.at(self.trip_s, partial(self.answer, view, name))
        pick, now_s = view.pick(), self.clock.now_s()
        self.sent.append((now_s, pick.name))
        self.ongoing[pick.name] += 1
        counted = self.ongoing[pick.name]
        begin_s = max(now_s, self.free_s[pick.name])
        self.free_s[pick.name] = begin_s + self.service_s[pick.name]
        self.at(self.trip_s, lambda: pick.accepted(counted))
        self.at(self.trip_s + self.free_s[pick.name] - now_s, lambda: self.end(pick))

    def answer(self, view: PartialView, name: str) -> None:
        view.heard(name, self.ongoing[name])

    def end(self, pick: Pick) -> None:
        self.ongoing[pick.name] -= 1
        self.ended += pick.ended(True)

    def run(self, rate_rps: float, seconds: float) -> None:
        for i in range(int(rate_rps * seconds)):
            self.at(i / rate_rps, partial(self.send, self.views[i % len(self.views)]))
        while self.events:
            at_s, _, what = heapq.heappop(self.events)
            self.clock.advance(max(0.0, at_s - self.clock.now_s()))
            what()


def test_views_that_heard_the_same_do_not_all_run_to_one_replica(clock):
    names = [f"r{i}" for i in range(8)]
    views = [view_of(*names, clock=clock, seed=seed) for seed in range(32)]
    for view in views:
        for i, name in enumerate(names):
            view.heard(name, i % 3)
    picks = [view.pick() for view in views]
    assert max(Counter(pick.name for pick in picks).values()) <= 3 * len(views) / len(names)


def test_a_burden_of_others_is_forgotten_once_it_is_gone():
    serving = Serving({"r0": 0.01, "r1": 0.01}, n_views=1)
    serving.views[0].heard("r0", 40)
    serving.run(rate_rps=100.0, seconds=0.9)  # before exploration would have found out
    counts = Counter(name for at_s, name in serving.sent if at_s > 0.5)
    assert min(counts["r0"], counts["r1"]) > counts.total() / 4


def test_partial_views_together_spare_the_slow_and_herd_on_nobody():
    names = [f"r{i}" for i in range(8)]
    serving = Serving({name: 0.1 if name == "r0" else 0.01 for name in names}, n_views=6)
    serving.run(rate_rps=400.0, seconds=6.0)  # 57 % of the fast ones' capacity
    assert serving.ended == len(serving.sent) == 2400
    warm = [(at_s, name) for at_s, name in serving.sent if at_s > 1.0]
    counts = Counter(name for _, name in warm)
    assert counts["r0"] < len(warm) / len(names) / 4  # of an equal share
    assert min(counts[name] for name in names[1:]) > len(warm) / len(names) / 2
    for begin in range(10, 60):  # what is sent in 100 ms, and what waits anywhere
        window = Counter(name for at_s, name in warm if begin <= at_s * 10 < begin + 1)
        assert max(window.values()) <= 3 * window.total() / len(names)
    assert serving.ongoing.total() == 0
    for view in serving.views:
        view.heard("r0", 0)
        assert all(figure(view, name, "wait_s") == 0.0 for name in names)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "infcore.integrations.ray", raising=False)
    with pytest.raises(ImportError, match=r"infcore.integrations.ray needs Ray Serve: pip install 'infcore\[ray\]'"):
        importlib.import_module("infcore.integrations.ray")
