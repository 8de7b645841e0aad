"""Who is ejected, in plain Python: what csrc/infcore/health must do, answer by answer, on a fleet of which it is told
the states. Curves are given: {(model, node): (base_s, per_request_s, per_work_s, per_padded_work_s)}."""

from __future__ import annotations

from dataclasses import dataclass, field

SECOND = 1_000_000_000
LOSSES = "having been lost again and again"  # lost before it had come back from what was before
DEFAULTS = {
    "errors_in_a_row": 5, "error_rate": 0.1, "slow_factor": 4.0, "ejected_share_max": 0.5, "eject_s": 5.0,
    "eject_s_max": 60.0, "forgive_s": 60.0, "probes": 3, "slow_start_s": 4.0, "forget_s": 60.0,
}  # fmt: skip
Curve = tuple[float, float, float, float]
Shape = tuple[float, float, float, float]  # 1, n, sum(work), n * max(work); or sums of those


def seconds(curve: Curve, shape: Shape) -> float:
    return curve[0] * shape[0] + curve[1] * shape[1] + curve[2] * shape[2] + curve[3] * shape[3]


@dataclass
class Reference:
    """What a class takes for a model: the curve of its median node, and the batches seen since that was chosen."""

    curve: Curve | None = None
    typical_s: float = 0.0
    wanted: int = 8
    n: int = 0
    sums: Shape = (0.0, 0.0, 0.0, 0.0)


@dataclass
class Node:
    stage: str = "well"
    why: str = "nothing"
    until_ns: float = float("inf")
    ejections: int = 0
    state: str = "up"
    bounded: bool = False
    good: int = 0
    step: int = 0
    last_ns: int = 0
    well_since_ns: int = 0
    in_a_row: int = 0
    unasked: int = 0
    errors: list[bool] = field(default_factory=list)  # the newest last, 64 at most
    slow: list[bool] = field(default_factory=list)
    apart: list[bool] = field(default_factory=list)

    def forget(self) -> None:
        self.errors, self.slow, self.apart = [], [], []
        self.in_a_row = 0


class Health:
    """One device class; `holders` says which nodes hold each model."""

    def __init__(self, n_nodes: int, holders: list[set[int]], **options: float) -> None:
        self.o = DEFAULTS | options
        self.nodes = [Node() for _ in range(n_nodes)]
        self.sets = [set(range(n_nodes)), *holders]  # the fleet first
        self.curves: dict[tuple[int, int], Curve] = {}
        self.references = [Reference() for _ in holders]
        self.levels: dict[tuple[int, int], list[float]] = {}  # ratio, answers
        self.peers_err: list[tuple[int, bool]] = []  # of the last 64 answers
        self.peers_slow: list[tuple[int, bool]] = []
        self.members_changed = False

    # ---- what nodes answer

    def answered(self, now: int, node: int, model: int, shape: Shape, service_s: float, ok: bool) -> None:
        row = self.nodes[node]
        if row.stage in ("ejected", "lost"):
            return self.settle(now)
        if now - row.last_ns > self.o["forget_s"] * SECOND:
            row.forget()
        row.last_ns = now
        judged, slow, apart = (False, False, False)
        if ok and service_s > 0.0:
            judged, slow, apart = self.judge(node, model, shape, service_s)
            if judged:
                self.peers_slow = [*self.peers_slow, (node, slow)][-64:]
        self.peers_err = [*self.peers_err, (node, not ok)][-64:]
        if row.stage == "half_open":
            self.probed(now, node, ok and not slow and not (row.why == "being slower than its class" and apart))
        else:
            self.learn(now, node, ok, judged, slow, apart)
        self.settle(now)

    def judge(self, node: int, model: int, shape: Shape, service_s: float) -> tuple[bool, bool, bool]:
        ref, factor = self.references[model], self.o["slow_factor"]
        ref.sums = (
            ref.sums[0] + shape[0], ref.sums[1] + shape[1], ref.sums[2] + shape[2], ref.sums[3] + shape[3]
        )  # fmt: skip
        ref.n += 1
        if ref.n >= ref.wanted:
            self.choose(ref, model)
        if ref.curve is None:
            return False, False, False
        least_s = 1e-9
        expected_s = max(max(max(seconds(ref.curve, shape), least_s), ref.typical_s / factor), least_s)
        ratio = service_s / expected_s
        level = self.levels.setdefault((node, model), [1.0, 0])
        settled = level[1] >= 8
        slow, apart = settled and ratio > factor * max(1.0, level[0]), ratio > factor
        if not settled:
            level[1] += 1
            counted = min(ratio, 64.0)
            level[0] = counted if level[1] == 1 else level[0] + (counted - level[0]) / level[1]
        elif ratio < level[0]:
            level[0] += (ratio - level[0]) / 64
        elif not slow:
            level[0] += (min(ratio, 2.0 * level[0]) - level[0]) / 1024
        return True, slow, apart

    def choose(self, ref: Reference, model: int) -> None:
        known = sorted(
            (seconds(self.curves[model, n], ref.sums), n)
            for n, row in enumerate(self.nodes)
            if (model, n) in self.curves and row.stage in ("well", "slow_start")
        )
        ref.wanted = max(min(2 * ref.wanted, 64), len(self.nodes))
        if known:
            mean, middle = known[(len(known) - 1) // 2]
            was = 0.0 if ref.curve is None else seconds(ref.curve, ref.sums)
            scale = was / mean if was > 0.0 and mean > 0.0 else 1.0
            for (_, of), level in self.levels.items():
                if of == model:
                    level[0] *= scale
            ref.curve, ref.typical_s = self.curves[model, middle], mean / ref.sums[0]
        ref.sums, ref.n = (0.0, 0.0, 0.0, 0.0), 0

    def learn(self, now: int, node: int, ok: bool, judged: bool, slow: bool, apart: bool) -> None:
        row = self.nodes[node]
        row.errors = [*row.errors, not ok][-64:]
        row.in_a_row = 0 if ok else row.in_a_row + 1
        if judged:
            row.slow, row.apart = [*row.slow, slow][-64:], [*row.apart, apart][-64:]
        if row.unasked > 0:
            row.unasked -= 1
            return
        if ok and not slow and not apart:
            return
        why = self.lags(node) if ok else self.errs(node)
        if why is None:
            return
        if self.may_eject(node):
            self.count_ejection(now, row)
            self.eject(now, node, why, row.ejections)
        else:
            row.unasked = 16

    @staticmethod
    def share(entries: list[tuple[int, bool]], node: int) -> tuple[float, int]:
        """Of yes among the others' last answers, and how many those are."""
        others = [yes for of, yes in entries if of != node]
        return (sum(others) / len(others) if others else 0.0), len(others)

    def share_beside(self, node: int, n_own: int) -> tuple[float, int]:
        """Of errors among the others' answers since the node's last n_own began."""
        own = [i for i, (of, _) in enumerate(self.peers_err) if of == node][-n_own:] if n_own else []
        begun = len(self.peers_err) if not n_own else own[0] if len(own) == n_own else 0
        return self.share(self.peers_err[begun:], node)

    def errs(self, node: int) -> str | None:
        row = self.nodes[node]
        n, n_errors = len(row.errors), sum(row.errors)
        in_a_row = row.in_a_row >= self.o["errors_in_a_row"]
        often = n >= 16 and n_errors >= 5 and n_errors >= self.o["error_rate"] * n
        theirs, n_peers = self.share(self.peers_err, node)
        if n_peers < 8:
            theirs = 0.0
        now, n_beside = self.share_beside(node, row.in_a_row)
        if n_beside >= 3:
            theirs = max(theirs, now)
        by_chance = 1.0
        for _ in range(min(row.in_a_row, 64)):
            by_chance *= theirs
        if in_a_row and by_chance <= 1e-4:
            return "errors in a row"
        return "its rate of errors" if often and n_errors >= 3.0 * theirs * n else None

    def lags(self, node: int) -> str | None:
        row = self.nodes[node]
        slowed_down = sum(row.slow[-16:]) >= 8
        if not slowed_down and sum(row.apart[-16:]) < 12:
            return None
        theirs, n_peers = self.share(self.peers_slow, node)
        if n_peers < 8 or theirs >= 0.25:
            return None
        if slowed_down:
            return "having slowed down"
        n_judged = n_apart = 0
        for peer in self.nodes:
            if peer.stage == "lost":
                continue
            is_out = peer.stage == "ejected" and peer.why == "being slower than its class"
            n_judged += is_out or len(peer.apart) >= 8
            n_apart += is_out or sum(peer.apart[-16:]) >= 8
        alone = n_judged >= n_apart + 3 and n_apart * 4 <= n_judged
        return "being slower than its class" if alone else None

    def probed(self, now: int, node: int, good: bool) -> None:
        row = self.nodes[node]
        if good:
            row.good += 1
            if row.good < self.o["probes"]:
                return
            row.step = 0
            if self.o["slow_start_s"] == 0:
                return self.put_well(now, node)
            return self.enter(node, "slow_start", now + self.step_ns())
        row.good = 0
        if self.may_eject(node):
            self.count_ejection(now, row)
            self.eject(now, node, LOSSES if row.why == "nothing" else row.why, row.ejections)

    def checked(self, now: int, node: int, ok: bool) -> None:
        row = self.nodes[node]
        if row.stage == "ejected":
            row.good = row.good + 1 if ok else 0
            if not ok:
                row.until_ns = max(row.until_ns, now + self.ns("eject_s"))
            if row.good >= self.o["probes"]:
                row.until_ns = now
        elif row.stage != "lost":
            row.in_a_row = 0 if ok else row.in_a_row + 1
            patient = row.stage != "half_open" and row.in_a_row < self.o["errors_in_a_row"]
            if not ok and not patient and self.may_eject(node):
                self.count_ejection(now, row)
                self.eject(now, node, "failed checks", row.ejections)
        self.settle(now)

    # ---- out and in

    def set_state(self, now: int, node: int, state: str) -> None:
        row = self.nodes[node]
        row.state = state
        if state == "lost" and row.stage != "lost":
            self.peers_err = [*self.peers_err, (node, True)][-64:]
            self.count_ejection(now, row)
            row.why = "nothing" if row.stage == "well" else LOSSES
            self.enter(node, "lost", float("inf"))
        if state == "up" and row.stage == "lost":
            if row.why == LOSSES and self.may_eject(node):
                self.eject(now, node, LOSSES, row.ejections - 1)
            else:
                self.resume(now, node)
        self.members_changed = True
        self.settle(now)

    def ns(self, name: str) -> int:
        return int(self.o[name] * SECOND)

    def step_ns(self) -> int:
        return self.ns("slow_start_s") // 8

    def count_ejection(self, now: int, row: Node) -> None:
        if row.stage == "well":
            row.ejections -= min(row.ejections, max(0, now - row.well_since_ns) // self.ns("forgive_s"))
        row.ejections = min(row.ejections + 1, 16)

    def eject(self, now: int, node: int, why: str, ejections: int) -> None:
        row = self.nodes[node]
        row.why, row.good = why, 0
        for_ns = min(self.ns("eject_s") * 2 ** (ejections - 1), self.ns("eject_s_max"))
        self.enter(node, "ejected", now + for_ns)
        row.state = "ejected"

    def resume(self, now: int, node: int) -> None:
        self.nodes[node].good = 0
        if self.is_needed(node):
            self.put_well(now, node)
        else:
            self.enter(node, "half_open", float("inf"))

    def put_well(self, now: int, node: int) -> None:
        self.nodes[node].well_since_ns = now
        self.enter(node, "well", float("inf"))

    def enter(self, node: int, stage: str, until_ns: float) -> None:
        row = self.nodes[node]
        if stage != "slow_start" and not (row.stage == "slow_start" and stage == "well"):
            row.forget()
            row.unasked = 0
        row.stage, row.until_ns = stage, until_ns
        row.bounded = stage in ("half_open", "slow_start")
        if stage in ("well", "half_open", "slow_start"):
            row.state = "up"

    def settle(self, now: int) -> None:
        """What is due, until nothing is."""
        while self.members_changed:
            out = [n for n, row in enumerate(self.nodes) if row.stage == "ejected" and self.too_many_out(n)]
            if out:
                ranks = {"having slowed down": 0, "being slower than its class": 0, "its rate of errors": 1}
                self.put_well(now, min(out, key=lambda n: (ranks.get(self.nodes[n].why, 2), n)))
            else:
                self.members_changed = False
        due = [n for n, row in enumerate(self.nodes) if row.until_ns <= now]
        if not due:
            return
        n, row = due[0], self.nodes[due[0]]
        if row.stage == "ejected":
            self.resume(now, n)
        else:
            row.step += 1
            if row.step < 8:
                self.enter(n, "slow_start", now + self.step_ns())
            else:
                self.put_well(now, n)
        self.settle(now)

    # ---- how many may be out

    def counts(self, node: int) -> list[tuple[int, int, int]]:
        """Of the fleet, and of each model's nodes where the node is one: up, ejected, up and bounded."""
        out = []
        for members in self.sets:
            if node in members:
                rows = [self.nodes[n] for n in members]
                up = [row for row in rows if row.state == "up"]
                out.append((len(up), sum(r.stage == "ejected" for r in rows), sum(r.bounded for r in up)))
        return out

    def share_of(self, n: int) -> int:
        return int(self.o["ejected_share_max"] * n)

    def may_eject(self, node: int) -> bool:
        return all(n_out + 1 <= self.share_of(n_up + n_out) for n_up, n_out, _ in self.counts(node))

    def too_many_out(self, node: int) -> bool:
        return any(n_out > self.share_of(n_up + n_out) for n_up, n_out, _ in self.counts(node))

    def is_needed(self, node: int) -> bool:
        row = self.nodes[node]
        is_up = row.state == "up" and row.stage != "ejected"
        for n_up, _, n_bounded in self.counts(node):
            n_others_well = n_up - n_bounded - (is_up and not row.bounded)
            n_with_it = n_up + (not is_up)
            if n_others_well < n_with_it - self.share_of(n_with_it):
                return True
        return False
