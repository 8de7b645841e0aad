"""What slo_cost's joint choice weighs beside the time of finishing, readably: money and work. For reference.joint.

Arithmetic in float32 where csrc/infcore/engine/finish_times.hpp has it, and in its order.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from reference.batching import NEVER_NS
from reference.lanes import Lane, Request

F = np.float32
STRICTLY = F(1 - 2**-16)
TAIL_STEP = 0.01  # that the running quantile moves by, as a share of itself
N_TOLD_MAX = 64  # requests of a lane that one may tell it for
WAIT_SLACK = F(1.5)  # what a busy device still takes, and what was waited already, count so many times
N_LOOKS_MAX = 8  # devices that are looked at, the cheapest first, for one that is surely in time
UNLIKE = F(1.25)  # devices whose seconds for a unit of work are within this factor are alike
WORTH_SORTING = F(0.1)  # of a run, that the largest must gain over the smallest by who gets whom
N_TRIES_FREE, N_TAKEN_A_TRY = 16, 128  # requests that go to devices only so that these are known: at first, then
TRY_SHARE = 0.25  # of the time that its deadline leaves a request
N_PASSED_MAX = 4  # devices that are looked at in vain
N_SORTED_MAX = 256  # of those that wait, sorted by work


@dataclass
class Weights:
    """route::JointWeights."""

    price_us_per_usd: float = 0.0
    goal_share: float = 0.0
    tail: float = 0.0
    by_work: bool = False


def has_prices(engine: Any) -> bool:
    """Not all nodes cost the same."""
    return len({float(usd_per_s(engine, node.id)) for node in engine.fleet}) > 1


def usd_per_s(engine: Any, id: int) -> Any:
    return F(engine.price_per_hour[id] / 3600.0 / engine.fleet[id].slots)


def untried(engine: Any, now_ns: int, lane: Lane, candidates: list[Any]) -> Any:
    """A free device that was never given anything of the model, and is believed to be like its class, if it leaves the
    first in the lane most of its time; as long as few requests go so."""
    model = engine.models[lane.model]
    if model.n_tries > N_TRIES_FREE + model.n_taken // N_TAKEN_A_TRY:
        return None
    head = lane.front(now_ns, engine.ageing_ns)
    n_passed = 0
    for c in sorted(candidates, key=lambda c: c.node):
        if not c.takes or c.node in model.tried:
            continue
        if engine.latency.at(lane.model, c.node).has_prior:
            model.tried.add(c.node)
            continue
        left_s = float(head.deadline_ns - now_ns) * 1e-9
        if head.deadline_ns != NEVER_NS and c.alone_s(head.work) > TRY_SHARE * left_s:
            n_passed += 1
            if n_passed == N_PASSED_MAX:
                return None
            continue
        model.n_tries += 1
        return c
    return None


def note_fastest(engine: Any, latency_s: float, n_requests: int) -> None:
    """Moves the running quantile of what requests would take on whatever is fastest for them."""
    if engine.tail_s <= 0.0:
        engine.tail_s = latency_s
    for _ in range(n_requests):
        if latency_s > engine.tail_s:
            engine.tail_s += engine.tail_s * (TAIL_STEP * engine.weights.tail)
        else:
            engine.tail_s -= engine.tail_s * (TAIL_STEP * (1.0 - engine.weights.tail))


def goal_s(engine: Any, r: Request) -> float:
    """What money may let it wait and take, from its arrival on."""
    if r.deadline_ns == NEVER_NS:
        return float(engine.tail_s)
    return float(min(engine.tail_s, engine.weights.goal_share * (float(r.deadline_ns - r.arrival_ns) * 1e-9)))


def surely_by(engine: Any, now_ns: int, lane: Lane, n: int, c: Any) -> bool:
    """Whether so many of the lane would be done there in that time also in a long run, with the largest in it."""
    head = lane.front(now_ns, engine.ageing_ns)
    waited_s = float(now_ns - head.arrival_ns) * 1e-9
    latency = engine.latency.at(lane.model, c.node)
    run_s = latency.upper_s(n, lane.work_mean() * n, lane.work_most)
    return float(WAIT_SLACK) * (float(c.free_in_s) + waited_s) + run_s <= goal_s(engine, head)


def cheapest(engine: Any, now_ns: int, lane: Lane, candidates: list[Any]) -> tuple[Any, int, Any]:
    """Where all that waits costs least in one batch, of those that are surely done with it in the time that money may
    cost; how many that are; and until when the first of all devices is done with them, whatever it costs."""
    head = lane.front(now_ns, engine.ageing_ns)
    n = min(len(lane.requests), engine.models[lane.model].max_batch_size)
    if n < len(lane.requests):
        return None, n, F(np.inf)  # each would wait for the same cheap one, as if it were the only one
    waited_s = float(now_ns - head.arrival_ns) * 1e-9
    s_per_usd = F(engine.weights.price_us_per_usd * 1e-6) / F(n)
    in_order = sorted(candidates, key=lambda c: c.node)
    first_s = min((c.free_in_s + c.batch_s(n) for c in in_order), default=F(np.inf))

    def priced(by_s: Any) -> list[Any]:
        in_time = [c for c in in_order if WAIT_SLACK * c.free_in_s + c.batch_s(n) <= by_s]
        costs = [c.free_in_s + c.batch_s(n) + s_per_usd * usd_per_s(engine, c.node) * c.batch_s(n) for c in in_time]
        return [c for _, c in sorted(zip(costs, in_time, strict=True), key=lambda pair: (pair[0], pair[1].node))]

    by_s = F(goal_s(engine, head) - float(WAIT_SLACK) * waited_s)
    first = priced(by_s)[:1]
    if waited_s == 0.0 and len(lane.requests) == 1:  # those who wait do so for money
        note_fastest(engine, float(first_s), min(max(lane.n_untold, 1), N_TOLD_MAX))
        lane.n_untold = 0
        by_s = F(goal_s(engine, head) - float(WAIT_SLACK) * waited_s)
    if not first:
        return None, n, first_s
    looked = first + [c for c in priced(by_s) if c is not first[0]]
    best = next((c for c in looked[:N_LOOKS_MAX] if surely_by(engine, now_ns, lane, n, c)), None)
    return best, n, first_s


def suited(engine: Any, now_ns: int, lane: Lane, c: Any, candidates: list[Any]) -> list[Request]:
    """Of those that wait, those who stand where the first does, in the order in which the device should have them: the
    small first where the device that is first for the others does more work in the time, the large first where it does
    less. Empty where it does not matter."""
    head = lane.front(now_ns, engine.ageing_ns)
    n_max = max(64, engine.models[lane.model].max_batch_size)
    if len(lane.requests) < 2 or lane.work_least == lane.work_most or head.solo or n_max > N_SORTED_MAX:
        return []
    others = [other for other in candidates if other is not c and other.open is None]
    if not others:
        return []
    rest = min(others, key=lambda other: (other.free_in_s + other.batch_s(1), other.node))
    if c.per_work_s <= rest.per_work_s * UNLIKE and rest.per_work_s <= c.per_work_s * UNLIKE:
        return []
    apart_s = abs(c.per_work_s - rest.per_work_s) * F(lane.work_most - lane.work_least)
    if apart_s < WORTH_SORTING * c.batch_s(1):
        return []
    _, _, per_work_s, per_padded_work_s = engine.latency.at(lane.model, c.node).curve
    if engine.models[lane.model].max_batch_size > 1 and per_padded_work_s > per_work_s:
        return []

    def aged(r: Request) -> bool:
        return bool(now_ns - r.arrival_ns >= engine.ageing_ns)

    listed: list[Request] = []
    for r in lane.in_order(now_ns, engine.ageing_ns):
        if r.tier != head.tier or aged(r) != aged(head) or len(listed) == n_max:
            break
        listed.append(r)
    waited_s, left_s = F((now_ns - head.arrival_ns) * 1e-9), F((head.deadline_ns - now_ns) * 1e-9)
    alone_s = F(c.alone_s(head.work)) * STRICTLY
    n_kept = 1 if alone_s <= waited_s and alone_s <= left_s else 0
    sign = 1.0 if c.per_work_s > rest.per_work_s else -1.0
    return listed[:n_kept] + sorted(listed[n_kept:], key=lambda r: sign * r.work)


def share_by_work(
    engine: Any, now_ns: int, lane: Lane, c: Any, candidates: list[Any], listed: list[Request], finished: Any
) -> int:
    """How many of them it can have, as joint.share_of(), where the others have the rest."""
    n_requests, max_batch_size = len(lane.requests), engine.models[lane.model].max_batch_size
    head = lane.front(now_ns, engine.ageing_ns)
    waited_s, left_s = F((now_ns - head.arrival_ns) * 1e-9), F((head.deadline_ns - now_ns) * 1e-9)
    finished_by, in_further_slots = finished
    before = [0.0]
    for r in listed:
        before.append(before[-1] + r.work)

    def can_have(n: int) -> bool:
        t_s = (c.base_s + (c.per_request_s * F(n) + c.per_work_s * F(before[n]))) * STRICTLY
        if t_s <= waited_s and t_s <= left_s:
            return True
        n_enough = n_requests - n + 1
        mean = F(max(max(0.0, lane.work_pending - before[n - 1]) / n_enough, listed[n - 1].work))
        done = 0
        for other in (candidate.with_work(mean) for candidate in candidates):
            if other.node != c.node and other.open is None:
                done += finished_by(t_s, other, n_requests, max_batch_size)
            done += in_further_slots(engine, now_ns, lane, t_s, other, n_requests, max_batch_size)
        return done < n_enough

    least, beyond = 0, min(len(listed), max_batch_size) + 1
    while beyond - least > 1:
        n = (least + beyond) // 2
        least, beyond = (n, beyond) if can_have(n) else (least, n)
    return least
