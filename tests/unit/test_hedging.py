"""Requests that are late on one node and sent to a second; retries within their budget; what the log says of costs."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest
from engine_rig import Gated, answer, engine_of, identity, model, wait_until, x_of
from machine_rig import FAST, MS, SLOW, Rig, dispatched, ended

import infcore
from infcore import sim

ONE = {"max_batch_size": 1}
FAST_NS = 1_100_000  # what FAST takes for one


def hedged(actions):
    """{cookie: node}"""
    return {cookie: node for kind, cookie, node, *_ in actions if kind == "hedge"}


def rig(*curves, **options):
    return Rig(*curves, **{"hedge_quantile": 0.9, "model": ONE, **options})


def late(rig, *cookies, **request):
    """Requests that run on the first node while the others are free; the time at which they are hedged, and how."""
    others = [int(row["id"]) for row in rig.fleet.nodes()][1:]
    for node in others:
        rig.machine.node_lost(0, node)
    assert set(dispatched(rig.arrive(0, *cookies, **request)).values()) == {0}
    batch, _ = rig.run(0, 0)
    for node in others:
        rig.machine.node_back(0, node)
    for _ in range(20):
        now_ns = rig.machine.next_timer_ns
        if now_ns is None:
            break
        if sent := rig.step(now_ns):
            return now_ns, batch, hedged(sent)
    return None, batch, {}


# ---- when


def test_a_late_run_is_sent_to_a_second_node_once_that_is_expected_sooner():
    r = rig(FAST, FAST)
    now_ns, _, sent = late(r, 1)
    assert sent == {1: 1}
    # Twice what was expected is late; as long again as it is late it is still expected to take.
    assert 2 * FAST_NS < now_ns <= 2.5 * FAST_NS
    assert r.machine.credit(0)[0] == r.machine.credit(1)[0] == 1


def test_the_first_answer_counts_and_the_loser_s_is_not_looked_at():
    r = rig(FAST, FAST)
    now_ns, first, _ = late(r, 1)
    second, cookies = r.run(now_ns, 1)
    assert cookies == [1]
    assert ended(r.complete(now_ns + MS, 1, second)) == {1: ("complete", "ok")}
    assert r.machine.credit(0) == r.machine.credit(1) == (0, 0) and r.machine.n_pending == 0
    assert not r.machine.node_empty(0)  # it can't be interrupted
    assert r.complete(now_ns + 3 * MS, 0, first) == []
    counts = r.machine.counts(model=r.model)
    assert (counts["ok"], counts["hedged"], counts["hedge_won"]) == (1, 1, 1)
    assert counts["hedge_wasted_s"] == pytest.approx((now_ns + 3 * MS) * 1e-9)
    assert r.machine.counts(node=1)["ok"] == 1 and r.machine.counts(node=0)["ok"] == 0
    assert list(r.fleet.nodes()["state"]) == ["up", "up"]  # it is not judged by that


def test_the_first_may_still_win_and_an_unclaimed_copy_vanishes():
    r = rig(FAST, FAST)
    now_ns, first, _ = late(r, 1)
    assert r.machine.has_open_batch(1)
    assert ended(r.complete(now_ns, 0, first)) == {1: ("complete", "ok")}
    assert r.machine.claim(now_ns, 1) is None and r.machine.node_empty(1)
    assert r.machine.counts(model=r.model)["hedge_won"] == 0
    assert r.machine.counts(model=r.model)["hedge_wasted_s"] == 0.0


def test_a_cancelled_request_leaves_both():
    r = rig(FAST, FAST)
    now_ns, first, _ = late(r, 1)
    second, _ = r.run(now_ns, 1)
    assert r.machine.cancel(now_ns, r.handles[1])
    assert ended(r.step(now_ns)) == {1: ("cancel", "caller")}
    assert r.complete(now_ns + MS, 0, first) == r.complete(now_ns + MS, 1, second) == []
    assert r.machine.credit(0) == r.machine.credit(1) == (0, 0)


@pytest.mark.parametrize("how", ["fails", "is lost"])
@pytest.mark.parametrize("gone", [0, 1])
def test_where_one_of_the_two_fails_the_other_goes_on_without_a_retry(gone, how):
    r = rig(FAST, FAST)
    now_ns, first, _ = late(r, 1)
    second, _ = r.run(now_ns, 1)
    batches = [first, second]
    if how == "fails":
        assert r.complete(now_ns, gone, batches[gone], ok=False) == []
    else:
        assert r.lose(now_ns, gone) == []
    assert r.machine.credit(gone) == (0, 0)
    assert ended(r.complete(now_ns + MS, 1 - gone, batches[1 - gone])) == {1: ("complete", "ok")}
    assert r.machine.counts(model=r.model)["retried"] == 0


def test_both_lost_it_is_retried_as_often_as_it_may_be():
    r = rig(FAST, FAST, FAST, attempts_max=2)
    now_ns, _, sent = late(r, 1)
    r.run(now_ns, sent[1])
    assert r.lose(now_ns, 0) == []
    assert ended(r.lose(now_ns, sent[1])) == {1: ("complete", "device_lost")}  # it ran twice


def test_not_where_the_second_node_would_be_too_late():
    assert late(rig(FAST, FAST), 1, deadline_ns=3 * FAST_NS)[2] == {}


def test_sooner_where_the_deadline_would_pass_otherwise():
    """Where runs that take four times as long are not rare, what is late is known late; a deadline does not wait."""
    r, now_ns, n_runs = rig(FAST, FAST), 0, [0, 0]

    def run(cookie, **request):
        (node,) = dispatched(r.arrive(now_ns, cookie, **request)).values()
        return node, r.run(now_ns, node)[0]

    def hedge(cookie):
        """When it is, after its start."""
        for _ in range(10):
            if hedged(r.step(at_ns := r.machine.next_timer_ns)) == {cookie: 1 - node}:
                return at_ns - now_ns
        raise AssertionError("it is not hedged")

    for i in range(100):
        now_ns += 20 * MS
        node, batch = run(1000 + i)
        n_runs[node] += 1
        now_ns += 4 * FAST_NS if n_runs[node] % 5 == 0 else FAST_NS
        r.complete(now_ns, node, batch)
    node, batch = run(1)
    with_time = hedge(1)
    r.complete(now_ns + with_time, node, batch)
    now_ns += 20 * MS
    r.machine.claim(now_ns, 1 - node)
    node, batch = run(2, deadline_ns=now_ns + 5 * FAST_NS)
    assert FAST_NS <= hedge(2) <= 4 * FAST_NS < with_time


def test_not_to_a_node_that_would_not_be_sooner_for_long():
    r = rig(FAST, SLOW)
    now_ns, _, sent = late(r, 1)
    assert sent == {1: 1} and now_ns > FAST_NS + 2_500_000  # SLOW takes 2.5 ms for one


def test_a_batch_is_hedged_as_one():
    r = rig(FAST, FAST, model={"max_batch_size": 4})
    now_ns, first, sent = late(r, 1, 2, 3)
    assert sent == {1: 1, 2: 1, 3: 1}
    second, cookies = r.run(now_ns, 1)
    assert cookies == [1, 2, 3]
    assert set(ended(r.complete(now_ns + MS, 1, second))) == {1, 2, 3}
    assert r.complete(now_ns + MS, 0, first) == []


def test_not_a_model_that_may_not_run_twice_or_that_streams():
    for spec in ({"idempotent": False, **ONE}, {"runs_share": True, **ONE}):
        assert late(rig(FAST, FAST, model=spec), 1)[2] == {}


def test_not_without_the_option_and_not_beyond_the_budget():
    assert late(rig(FAST, FAST, hedge_quantile=0.0), 1)[2] == {}
    r, n_hedged = rig(FAST, FAST, hedge_budget=0.05), 0
    for i in range(60):
        now_ns = i * 100 * MS
        (node,) = dispatched(r.arrive(now_ns, i)).values()
        batch, _ = r.run(now_ns, node)
        at_ns = now_ns
        for _ in range(4):
            at_ns = max(at_ns, r.machine.next_timer_ns or at_ns)
            n_hedged += len(hedged(r.step(at_ns)))
        r.complete(at_ns, node, batch)
        r.machine.claim(at_ns, 1 - node)
    assert n_hedged == 16 + int(59 * 0.05) == r.machine.counts(model=r.model)["hedged"]


def test_an_unloaded_model_s_copy_goes_and_its_run_is_answered():
    r = rig(FAST, FAST)
    now_ns, first, _ = late(r, 1)
    r.machine.remove_model(now_ns, r.model)
    assert r.step(now_ns) == [] and r.machine.credit(1) == (0, 0)
    assert ended(r.complete(now_ns, 0, first)) == {1: ("complete", "ok")}


# ---- the retry budget


def test_a_broken_fleet_is_not_buried_under_retries():
    r = Rig(FAST, model={"max_batch_size": 2}, retry_budget=0.125)
    reasons = []
    for i in range(400):
        now_ns = i * 10 * MS
        actions = r.arrive(now_ns, 2 * i, 2 * i + 1)
        while (taken := r.machine.claim(now_ns, 0)) is not None:
            r.machine.started(now_ns, 0, taken[0])
            actions += r.complete(now_ns, 0, taken[0], ok=False)
        reasons += [end[1] for end in ended(actions).values()]
    counts = r.machine.counts(model=r.model)
    assert len(reasons) == 800 and set(reasons) == {"device_failed"}
    assert counts["retried"] == 100 + 100
    assert counts["failed"] == 800 and counts["unretried"] == 800 - 200


def test_who_was_in_a_batch_with_a_bad_request_does_not_use_the_budget_up():
    """One of four fails its batch, again and again: that one is in vain, the other three are answered alone."""
    r, ends = Rig(FAST, model={"max_batch_size": 4}, retry_budget=0.25), []
    for i in range(200):
        now_ns = i * 20 * MS
        actions = r.arrive(now_ns, *range(4 * i, 4 * i + 4))
        while (taken := r.machine.claim(now_ns, 0)) is not None:
            r.machine.started(now_ns, 0, taken[0])
            actions += r.complete(now_ns, 0, taken[0], ok=4 * i not in taken[2])
        ends += [(cookie % 4 == 0, end[1]) for cookie, end in ended(actions).items()]
    assert sorted(ends) == [(False, "ok")] * 600 + [(True, "device_failed")] * 200
    counts = r.machine.counts(model=r.model)
    assert counts["retried"] == 800 and counts["unretried"] == 0


def test_a_lost_device_s_queue_is_not_the_budget_s():
    """What was sent and never ran goes elsewhere whatever the budget; what ran asks it."""
    r = Rig(FAST, FAST, slots=1, model={"max_batch_size": 64}, policy="round_robin", retry_budget=0.0)
    for n_left in range(100, 0, -1):  # use it up
        r.arrive(0, 10_000 + n_left)
    for node in (0, 1):
        r.run(0, node)
    r.lose(0, 0)
    r.lose(0, 1)
    assert r.machine.counts(model=r.model)["retried"] == 100
    r.machine.node_back(0, 0)
    r.machine.node_back(0, 1)
    r.step(0)
    r.machine.cancel_all(0)
    r.step(0)
    r.machine.claim(0, 0), r.machine.claim(0, 1)
    r.arrive(0, *range(40))
    _, running = r.run(0, 0)
    waiting = set(range(40)) - set(running)
    gone = ended(r.lose(0, 0))
    assert gone == dict.fromkeys(running, ("complete", "device_lost"))
    assert r.machine.n_pending == len(waiting)


# ---- the live engine


class Slow(infcore.CallableDevice):
    """Its worker stands still before it reads a batch's inputs, until it is let go."""

    def __init__(self, name, run, **options):
        super().__init__(name, run=run, **options)
        self.entered, self.let = threading.Event(), threading.Event()

    def staging_memory(self, n_bytes):
        self.entered.set()
        assert self.let.wait(60.0)
        return super().staging_memory(n_bytes)


KNOWN = {"curves": {"m": (1e-3, 0.0, 0.0, 0.0)}}  # what is late is late against that


def test_a_hung_device_s_request_is_answered_by_the_other():
    gate = Gated(identity)
    stuck = infcore.CallableDevice("stuck", run=gate, **KNOWN)
    other = infcore.CallableDevice("other", run=identity, **KNOWN)
    with engine_of(stuck, other, models=[model(max_batch_size=1)], hedge_quantile=0.9) as engine:
        engine.lose_device("other")
        future = engine.submit("m", x_of(7.0))
        gate.wait_entered()
        engine.restore_device("other")
        assert answer(future) == 7.0 and future.device == "other"
        wait_until(lambda: engine.n_open == 0, "the request to end")
        stats = engine.stats()["models"]["m"]
        assert (stats["hedged"], stats["hedge_won"], stats["retried"]) == (1, 1, 0)
        gate.open()


@contextmanager
def running_twice():
    """A request that runs on one device while another has claimed its copy, and not yet read the inputs."""
    gate = Gated(identity)
    first, second = infcore.CallableDevice("first", run=gate, **KNOWN), Slow("second", identity, **KNOWN)
    with engine_of(first, second, models=[model(max_batch_size=1)], hedge_quantile=0.9) as engine:
        engine.lose_device("second")
        future = engine.submit("m", x_of(7.0))
        gate.wait_entered()
        engine.restore_device("second")
        assert second.entered.wait(60.0)
        yield engine, future, gate, second


def test_a_future_does_not_end_while_a_worker_still_reads_its_inputs():
    with running_twice() as (engine, future, gate, second):
        gate.open()
        wait_until(lambda: engine.stats()["models"]["m"]["requests"] == 1, "the first answer")
        assert not future.done() and engine.n_open == 1
        second.let.set()
        assert answer(future) == 7.0 and future.device == "first"
        wait_until(lambda: engine.n_open == 0, "the request to end")


def test_a_cancelled_future_s_inputs_are_kept_until_they_are_read():
    with running_twice() as (engine, future, gate, second):
        assert future.cancel()
        wait_until(lambda: engine.stats()["models"]["m"]["cancelled"] == 1, "the engine to hear of it")
        assert engine.n_open == 1  # its place is not another's yet
        second.let.set()
        wait_until(lambda: engine.n_open == 0, "the request to leave")
        gate.open()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"hedge_quantile": 1.0}, "hedge_quantile is 1.0; allowed: None, or 0.5 to below 1"),
        ({"hedge_quantile": 0.1}, "hedge_quantile is 0.1; allowed: None, or 0.5 to below 1"),
        ({"hedge_budget": 1.5}, "hedge_budget is 1.5; allowed: a share of requests, 0 to 1"),
        ({"retry_budget": -0.1}, "retry_budget is -0.1; allowed: a finite number >= 0"),
        ({"log_terms": True}, "log_terms is True, and log is None; allowed: both, or neither"),
    ],
)
def test_arguments_are_checked(options, says):
    with pytest.raises(infcore.InvalidArgument, match=says):
        engine_of(**options)


# ---- the log


def test_the_log_says_what_each_choice_cost_and_replays_to_the_same(tmp_path):
    path = tmp_path / "terms.log"
    devices = [infcore.EmulatedDevice(f"gpu-{i}", base_s=0.002 * (i + 1), rtt_s=0.001) for i in range(2)]
    with engine_of(*devices, log=path, log_terms=True) as engine:
        for future in [engine.submit("m", x_of(i)) for i in range(20)]:
            future.result(timeout_s=60.0)
    found = sim.replay(path)
    assert found.equal and found.first_difference is None
    terms = [e.fields["terms"] for e in sim.events(path) if e.kind == "dispatch"]
    assert len(terms) == 20
    for each in terms:
        total = sum(each.values()) - each["cost"] - 2 * each["saving"]
        assert each["cost"] == pytest.approx(total, rel=1e-5)
        assert each["service"] > 0.0
    assert all("terms" not in e.fields for e in sim.events(path) if e.kind == "complete")


def test_a_log_without_terms_has_none_and_a_forged_one_is_found(tmp_path):
    from event_logs import blocks_of, write_blocks

    for log_terms in (False, True):
        path = str(tmp_path / f"{log_terms}.log")
        r = Rig(FAST, FAST, log=path, log_terms=log_terms)
        r.arrive(0, 1)
        batch, _ = r.run(0, 0)
        r.complete(MS, 0, batch)
        r.machine.end_log()
        (sent,) = [e for e in sim.events(path) if e.kind == "dispatch"]
        assert ("terms" in sent.fields) == log_terms
    (body,) = blocks_of(path)
    service = np.float32(sent.fields["terms"]["service"])
    assert body.count(service.tobytes()) >= 1
    forged = tmp_path / "forged.log"
    write_blocks(forged, [body.replace(service.tobytes(), np.float32(service * 2).tobytes(), 1)], like=path)
    found = sim.replay(forged)
    assert not found.equal and found.digest == found.recorded_digest
    assert found.first_difference["recorded"].startswith("service of ")


@pytest.mark.parametrize("pending_max", [None, 1, 2])
def test_copies_keep_a_node_s_bound(pending_max):
    """A circuit breaker is for copies, too: of a late batch no more go there than it may have."""
    r = Rig(FAST, model={"max_batch_size": 4}, hedge_quantile=0.9, hedge_budget=1.0)
    node = r.fleet.add("second", pending_max=pending_max)
    r.machine.add_node(node)
    assert dispatched(r.arrive(0, 1, 2, 3)) == {1: 0, 2: 0, 3: 0}
    r.run(0, 0)
    r.machine.set_resident(0, r.model, node, prior=FAST)
    actions = [action for now_ns in range(MS, 40 * MS, MS) for action in r.step(now_ns)]
    copies = [action for action in actions if action[0] == "hedge"]
    assert len(copies) == (3 if pending_max is None else pending_max)
    assert {action[2] for action in copies} == {node}
