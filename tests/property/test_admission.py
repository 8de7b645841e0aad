"""Whatever comes, under any policies at the door: each request ends once, bounds hold, every end has its reason, the
log tells it all again, and the door refuses for its deadline only what no device could have answered in time."""

import random
from collections import Counter
from pathlib import Path

import pytest

from infcore import Fleet
from infcore._core.admission import admission_policies
from infcore._core.machine import Machine
from infcore.sim import replay

MS = 1_000_000
STEPS = [name for name, is_step in admission_policies() if is_step]
NAMES = [name for name, _ in admission_policies()]
N_TIERS = 3
ENDS = ("complete", "reject", "shed", "cancel")
HINTED = {
    ("reject", "overload"),
    ("reject", "infeasible"),
    ("reject", "queue_full"),
    ("shed", "displaced"),
    ("defer", "off_peak"),
}
BY = {  # a policy's own ends and forms
    "infeasible": {("reject", "infeasible")},
    "shorter_wait": {("dispatch", "overload")},
    "stale": {("complete", "stale")},
    "cheaper": {("dispatch", "cheaper")},
    "off_peak": {("defer", "off_peak"), ("dispatch", "off_peak")},
    "shed_last": {("reject", "overload"), ("shed", "displaced")},
    "refuse": {("reject", "overload")},
    "gradient": {("reject", "overload")},
}
ALWAYS = {
    ("dispatch", "none"), ("complete", "ok"), ("complete", "device_failed"), ("retry", "device_failed"),
    ("shed", "deadline"), ("shed", "early_drop"), ("reject", "queue_full"), ("cancel", "caller"), ("cancel", "closing"),
    ("reject", "unloaded"),
}  # fmt: skip


class History:
    """A machine under random load, with what may be asked of it at any time."""

    def __init__(self, seed: int, log: str | None = None) -> None:
        draw = self.draw = random.Random(seed)
        self.admission = draw.choice([NAMES, ["gradient"], draw.sample(NAMES, draw.randint(0, len(NAMES)))])
        self.shed_lowest = draw.random() < 0.5
        self.max_requests = draw.choice([3, 20, 200])
        self.tier_capacity = draw.choice([(), tuple(draw.randint(1, 10) for _ in range(N_TIERS))])
        fleet = Fleet(max_nodes=4)
        self.machine = Machine(
            fleet,
            max_requests=self.max_requests,
            n_tiers=N_TIERS,
            admission=self.admission,
            shed_lowest=self.shed_lowest,
            tier_capacity=self.tier_capacity,
            overload_wait_ns=draw.choice([None, 5 * MS]),
            log=log,
        )
        small = self.machine.add_model("small", max_batch_size=4)
        big = self.machine.add_model("big", max_batch_size=draw.choice([1, 4]), fallback=small)
        self.models = [small, big]
        self.nodes = []
        for at in range(draw.randint(1, 3)):
            node = fleet.add(f"n{at}", slots=draw.choice([1, 1, 2, 8]))
            self.machine.add_node(node)
            for model in self.models:
                known = draw.random() < 0.8
                prior = (1e-3 * (1 + 3 * model), 0.5e-3, 0.0, 0.0) if known else None
                self.machine.set_resident(0, model, node, prior=prior)
            self.nodes.append(node)
        self.now_ns, self.cookie = 0, 0
        self.open: dict[int, tuple[int, int]] = {}  # cookie -> tier, handle
        self.ended: Counter[int] = Counter()
        self.seen: Counter[tuple[str, str]] = Counter()
        self.running: list[tuple[int, int, int]] = []

    def arrive(self) -> None:
        draw = self.draw
        self.cookie += 1
        model, tier = draw.choice(self.models), draw.randrange(N_TIERS)
        limit = self.machine.admission(self.now_ns, model)
        handle = self.machine.arrive(
            self.now_ns,
            self.cookie,
            model,
            tier=tier,
            deadline_ns=draw.choice([None, self.now_ns + draw.randint(0, 80 * MS)]),
            defer_ns=draw.choice([0, 0, 50 * MS, 400 * MS]),
            has_stale=draw.random() < 0.1,
        )
        self.open[self.cookie] = (tier, handle)
        self.read()
        if self.admission == ["gradient"] and handle:
            assert limit["n_open"] < limit["limit"], "let in beyond the limit"

    def read(self) -> None:
        hints = {cookie: hint for kind, cookie, _, hint in self.machine.hints() if kind in ("reject", "shed", "defer")}
        for kind, cookie, _, _, _, reason in self.machine.actions():
            assert cookie in self.open, (kind, cookie, "of one that has ended")
            self.seen[kind, reason] += 1
            if (kind, reason) in HINTED:
                assert hints[cookie] > 0.0, (kind, reason)
            if kind in ENDS:
                del self.open[cookie]
                self.ended[cookie] += 1
        assert len(self.open) == self.machine.n_pending <= self.max_requests
        tiers = Counter(tier for tier, _ in self.open.values())
        assert all(tiers[tier] <= most for tier, most in enumerate(self.tier_capacity))

    def work(self) -> None:
        for node in self.nodes:
            while taken := self.machine.claim(self.now_ns, node):
                self.machine.started(self.now_ns, node, taken[0])
                long_ns = int(1.3 * MS * (1 + 3 * taken[1]) * self.draw.uniform(0.8, 1.2))
                self.running.append((self.now_ns + long_ns, node, taken[0]))

    def step(self) -> None:
        calm = self.draw.random() < 0.02
        self.now_ns += self.draw.randint(0, 100 * MS) if calm else self.draw.randint(0, MS)
        while self.running and min(self.running)[0] <= self.now_ns:
            done = min(self.running)
            self.running.remove(done)
            self.machine.complete(done[0], done[1], done[2], self.draw.random() < 0.98)
            self.settle(done[0])
        if self.draw.random() < 0.8:
            self.arrive()
        if self.open and self.draw.random() < 0.03:
            self.machine.cancel(self.now_ns, self.open[self.draw.choice(sorted(self.open))][1])
        self.settle(self.now_ns)

    def settle(self, now_ns: int) -> None:
        self.machine.tick(now_ns)
        self.machine.schedule(now_ns)
        self.read()
        self.work()

    def finish(self) -> None:
        for _ in range(10_000):
            timer_ns = self.machine.next_timer_ns
            times = [row[0] for row in self.running] + ([] if timer_ns is None else [timer_ns])
            if not self.open or not times:
                break
            self.now_ns = max(self.now_ns, min(times))
            while self.running and min(self.running)[0] <= self.now_ns:
                _, node, batch = self.running.pop(self.running.index(min(self.running)))
                self.machine.complete(self.now_ns, node, batch)
            self.settle(self.now_ns)
        assert not self.open and not self.machine.n_pending


def test_each_ends_once_within_bounds_and_with_its_reason() -> None:
    seen: Counter[tuple[str, str]] = Counter()
    for seed in range(80):
        history = History(seed)
        for _ in range(200):
            history.step()
        history.finish()
        assert set(history.ended) == set(range(1, history.cookie + 1)) and set(history.ended.values()) == {1}
        allowed = ALWAYS.union(*(BY[name] for name in history.admission))
        allowed |= {("shed", "displaced")} if history.shed_lowest else set()
        assert set(history.seen) <= allowed, (seed, set(history.seen) - allowed)
        for model in history.models:
            door = history.machine.admission(history.now_ns, model)
            assert (door["n_open"], door["n_put_off"]) == (0, 0)
            assert door["limit"] >= 1.0 and door["rung"] <= sum(name in STEPS for name in history.admission)
        seen += history.seen
    assert set(seen) >= set().union(*BY.values()) - {("dispatch", "overload")}, "a step was never taken"


def test_the_log_tells_it_again(tmp_path: Path) -> None:
    for seed in (3, 4, 8, 11):
        path = tmp_path / f"{seed}.log"
        history = History(seed, str(path))
        for _ in range(250):
            history.step()
        history.finish()
        history.machine.end_log()
        told = replay(path)
        assert told.equal and told.complete and told.n_requests == history.cookie, told.first_difference


def plain_best_s(curves: dict[int, tuple[float, float]], free_s: dict[int, float]) -> float:
    """The least that any node needs for one request: until it is free, and the run."""
    return min(free_s.get(node, 0.0) + base + per_request for node, (base, per_request) in curves.items())


@pytest.mark.parametrize("seed", range(6))
def test_refused_for_its_deadline_only_what_no_node_could_do(seed: int) -> None:
    """Against every node looked at one by one: nothing is refused that one could do, and all is that is far beyond."""
    draw = random.Random(seed)
    fleet = Fleet(max_nodes=150)
    machine = Machine(fleet, admission=["infeasible"], max_requests=4096)
    model = machine.add_model("m", max_batch_size=1)
    curves: dict[int, tuple[float, float]] = {}
    free_ns: dict[int, int] = {}
    for at in range(draw.choice([1, 5, 150])):
        node = fleet.add(f"n{at}", kind=f"kind{at}")
        machine.add_node(node)
        curves[node] = (draw.uniform(1e-3, 50e-3), draw.uniform(0.0, 2e-3))
        machine.set_resident(0, model, node, prior=(*curves[node], 0.0, 0.0))
    running: list[tuple[int, int, int]] = []
    outcomes: Counter[str] = Counter()

    def go_on(now_ns: int) -> None:
        machine.tick(now_ns)
        machine.schedule(now_ns)
        machine.actions()
        for node in curves:
            while taken := machine.claim(now_ns, node):
                machine.started(now_ns, node, taken[0])
                free_ns[node] = now_ns + int(sum(curves[node]) * 1e9)
                running.append((free_ns[node], node, taken[0]))

    now_ns = 0
    for cookie in range(800):
        now_ns += draw.randrange(int(40 * MS / len(curves)))
        while running and min(running)[0] <= now_ns:
            end_ns, node, batch = running.pop(running.index(min(running)))
            del free_ns[node]
            machine.complete(end_ns, node, batch)
            go_on(end_ns)
        left_s = draw.uniform(0.0, 60e-3)
        best_s = plain_best_s(curves, {node: (at_ns - now_ns) * 1e-9 for node, at_ns in free_ns.items()})
        machine.arrive(now_ns, cookie, model, deadline_ns=now_ns + int(left_s * 1e9))
        refused = any(action[5] == "infeasible" for action in machine.actions())
        outcomes["refused" if refused else "in"] += 1
        assert best_s > left_s or not refused, (best_s, left_s)
        assert best_s * 0.49 < left_s or refused, (best_s, left_s)  # however wide the spread is taken to be
        go_on(now_ns)
    assert outcomes["refused"] > 20 and outcomes["in"] > 20
