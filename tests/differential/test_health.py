"""The compiled judge of nodes against the plain one, answer by answer on random schedules; and what holds on all."""

import random

from reference.health import DEFAULTS, SECOND, Health

from infcore import Fleet
from infcore._core.health import HealthRig

N_SCHEDULES = 400


class Pair:
    """The same fleet and curves for both."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.n = rng.choice([1, 2, 3, 4, 6, 9])
        self.n_models = rng.choice([1, 2])
        holders = [{n for n in range(self.n) if m == 0 or rng.random() < 0.5} for m in range(self.n_models)]
        options = rng.choice(
            [{}, {"probes": 1, "slow_start_s": 0.0}, {"ejected_share_max": rng.choice([0.0, 0.34, 0.75])},
             {"errors_in_a_row": 2, "eject_s": 1.0, "forgive_s": 3.0, "forget_s": 5.0}, {"slow_factor": 2.0}]
        )  # fmt: skip
        self.fleet = Fleet(max_nodes=self.n)
        self.ids = []
        for n in range(self.n):
            self.fleet.add(f"n{n}")
            for m, nodes in enumerate(holders):
                if n in nodes:
                    self.fleet.load_model(n, f"m{m}")
        self.compiled = HealthRig(self.fleet, options)
        self.compiled.follow(0)
        self.plain = Health(self.n, holders, **options)
        self.now = 0
        self.holders = holders
        for n in range(self.n):
            for m in range(self.n_models):
                if n in holders[m] and rng.random() < 0.9:
                    self.prior(m, n, 1.0)

    def prior(self, model: int, node: int, factor: float) -> None:
        curve = (0.004 * factor, 0.001 * factor, 0.0005 * factor, 0.0)
        # Model ids: each name has one for "any version" before its own.
        self.compiled.prior(2 * model, node, curve)
        self.plain.curves[model, node] = curve

    def answer(self, node: int, factor: float, ok: bool) -> None:
        model = self.rng.choice([m for m in range(self.n_models) if node in self.holders[m]])
        n = self.rng.choice([1, 1, 4])
        works = [self.rng.choice([0.5, 1.0, 3.0]) for _ in range(n)]
        total, most = sum(works), max(works)
        service_s = factor * (0.004 + 0.001 * n + 0.0005 * total) * self.rng.uniform(0.8, 1.25)
        self.now += self.rng.choice([1, 20, 300]) * 1_000_000
        self.compiled.tick(self.now)
        self.plain.settle(self.now)
        self.compiled.answered(self.now, node, 2 * model, n, total, most, service_s, ok)
        self.plain.answered(self.now, node, model, (1.0, float(n), total, n * most), service_s, ok)

    def check(self, what: str) -> None:
        for n, row in enumerate(self.plain.nodes):
            stage, why, until_ns, ejections = self.compiled.status(n)
            theirs = (stage, why, until_ns, ejections)
            own = (row.stage, row.why, None if row.until_ns == float("inf") else row.until_ns, row.ejections)
            assert theirs == own, f"node {n} after {what} at {self.now}"
        states = [str(state) for state in self.fleet.nodes()["state"]]
        assert states == [row.state for row in self.plain.nodes], what
        for members in self.plain.sets:
            rows = [self.plain.nodes[n] for n in members]
            n_out = sum(row.stage == "ejected" for row in rows)
            n_there = sum(row.state in ("up", "ejected") for row in rows)
            assert n_out <= int(self.plain.o["ejected_share_max"] * n_there), f"too many are out after {what}"


def run(seed: int) -> tuple[set[str], set[str]]:
    pair = Pair(seed)
    rng = pair.rng
    ill = {n: (rng.choice([1.0, 1.0, 3.0, 12.0]), rng.choice([0.0, 0.0, 0.15, 0.6])) for n in range(pair.n)}
    whole = rng.random() < 0.15
    stages, whys = set(), set()
    for step in range(rng.choice([40, 120, 250])):
        node = rng.randrange(pair.n)
        factor, error_rate = ill[node] if (step // 60) % 2 == 1 else (1.0, 0.0)
        if whole and (step // 60) % 2 == 1:
            factor = 10.0
        dice = rng.random()
        if dice < 0.93:
            what = "an answer"
            pair.answer(node, factor, rng.random() >= error_rate)
        elif dice < 0.95:
            what = "a check"
            ok = rng.random() < 0.5
            pair.compiled.checked(pair.now, node, ok)
            pair.plain.checked(pair.now, node, ok)
        elif dice < 0.98:
            state = "up" if pair.plain.nodes[node].stage == "lost" else "lost"
            what = f"{state}"
            pair.compiled.set_state(pair.now, node, state)
            pair.plain.set_state(pair.now, node, state)
        else:
            what = "a pause"
            pair.now += rng.choice([2, 10, 70]) * SECOND
            pair.compiled.tick(pair.now)
            pair.plain.settle(pair.now)
        pair.check(f"step {step}, {what}, seed {seed}")
        stages |= {row.stage for row in pair.plain.nodes}
        whys |= {row.why for row in pair.plain.nodes}
    # All are well from here on, and asked as far as they may be: each is back within a bounded time.
    for n in range(pair.n):
        if pair.plain.nodes[n].stage == "lost":
            pair.compiled.set_state(pair.now, n, "up")
            pair.plain.set_state(pair.now, n, "up")
    if not pair.plain.o["slow_factor"] == 2.0:
        pair.now += int((pair.plain.o["eject_s_max"] + 1) * SECOND)
        for _ in range(8):
            for n in range(pair.n):
                pair.answer(n, 1.0, True)
        assert all(row.stage in ("well", "slow_start") for row in pair.plain.nodes), f"seed {seed}"
        pair.now += int((pair.plain.o["slow_start_s"] + 1) * SECOND)
        for _ in range(9):
            pair.compiled.tick(pair.now)
            pair.plain.settle(pair.now)
            pair.now += SECOND
        assert all(row.stage == "well" for row in pair.plain.nodes), f"seed {seed}"
    return stages, whys


def test_the_same_nodes_are_out_at_the_same_time() -> None:
    stages, whys = set(), set()
    for seed in range(N_SCHEDULES):
        some = run(seed)
        stages |= some[0]
        whys |= some[1]
    assert stages == {"well", "ejected", "half_open", "slow_start", "lost"}
    assert whys == {
        "nothing", "errors in a row", "its rate of errors", "having slowed down", "being slower than its class",
        "having been lost again and again", "failed checks",
    }  # fmt: skip


def test_the_defaults_are_those_of_the_core() -> None:
    plain, compiled = Pair(1), Fleet(max_nodes=1)
    HealthRig(compiled, DEFAULTS)
    assert plain.plain.o.keys() == DEFAULTS.keys()
