"""infcore.Queue does what its docstrings say."""

import asyncio
import contextlib
import gc
import math
import os
import queue as std_queue
import signal
import sys
import threading
import weakref

import pytest

import infcore


@pytest.fixture
def clock() -> infcore.ManualClock:
    return infcore.ManualClock()


class Item:
    """Something that can be watched being released."""


def test_first_come_first_served() -> None:
    q = infcore.Queue(3)
    for i in range(3):
        q.put(i)
    assert [q.get_nowait(), q.get(), q.get(timeout_s=0.0)] == [0, 1, 2]


def test_order_is_tier_then_deadline_then_arrival(clock: infcore.ManualClock) -> None:
    q = infcore.Queue(10, tiers=2, clock=clock)
    q.put("low, soon", tier=1, deadline_s=1.0)
    q.put("none, first")
    q.put("late", deadline_s=9.0)
    q.put("soon, first", deadline_s=5.0)
    q.put("soon, second", deadline_s=5.0)
    q.put("none, second")
    assert q.drain(10) == ["soon, first", "soon, second", "late", "none, first", "none, second", "low, soon"]


def test_any_object_with_now_s_is_a_clock() -> None:
    class Sundial:
        at_s = 0.0

        def now_s(self) -> float:
            len(q)  # a clock may look at what it times
            return self.at_s

    sundial = Sundial()
    q = infcore.Queue(10, clock=sundial)
    q.put("over", deadline_s=1.0)
    q.put("due", deadline_s=5.0)
    sundial.at_s = 2.0
    assert q.get_nowait() == "due"
    assert q.drain(5) == []


def test_ageing_overrides_tier_and_deadline(clock: infcore.ManualClock) -> None:
    q = infcore.Queue(10, tiers=2, ageing_s=5.0, clock=clock)
    q.put("old", tier=1)
    clock.advance(1.0)
    q.put("old, a second younger", tier=1)
    clock.advance(3.999)
    q.put("urgent", deadline_s=1.0)
    assert q.get_nowait() == "urgent"
    q.put("urgent", deadline_s=1.0)
    clock.advance(0.001)
    assert q.drain(3) == ["old", "urgent", "old, a second younger"]


def test_none_and_equal_items_are_items() -> None:
    q = infcore.Queue(3)
    q.put(None)
    first = q.put(1)
    second = q.put(1)
    assert first != second
    assert len({first, second, first}) == 2
    assert q.cancel(first)
    assert q.drain(3) == [None, 1]


def test_rejects_when_full() -> None:
    q = infcore.Queue(2)
    q.put(1)
    q.put(2)
    with pytest.raises(infcore.QueueFull, match="2 items"):
        q.put(3)
    with pytest.raises(std_queue.Full):
        q.put(3)
    assert q.put_many([4, 5]) == 0
    assert q.get_nowait() == 1
    assert q.put_many([4, 5]) == 1
    assert q.drain(9) == [2, 4]


def test_tier_capacity_bounds_one_tier() -> None:
    q = infcore.Queue(5, tiers=2, tier_capacity=[1, 2])
    q.put("a")
    with pytest.raises(infcore.QueueFull, match="tier 0"):
        q.put("b")
    assert q.put_many("cde", tier=1) == 2
    assert q.drain(9) == ["a", "c", "d"]


def test_sheds_the_lowest_for_a_higher(clock: infcore.ManualClock) -> None:
    dropped: list[tuple[str, str]] = []
    q = infcore.Queue(3, tiers=2, overflow="shed_lowest", on_drop=lambda *told: dropped.append(told), clock=clock)
    q.put("low, deadline", tier=1, deadline_s=5.0)
    q.put("low, none", tier=1)
    q.put("low, none, newer", tier=1)
    q.put("high")
    assert dropped == [("low, none, newer", "shed")]
    q.put("low, earlier", tier=1, deadline_s=4.0)
    assert dropped[1:] == [("low, none", "shed")]
    with pytest.raises(infcore.QueueFull):
        q.put("lowest of all", tier=1, deadline_s=5.0)
    assert q.drain(9) == ["high", "low, earlier", "low, deadline"]
    assert len(dropped) == 2


def test_shedding_prefers_expired_items(clock: infcore.ManualClock) -> None:
    dropped: list[tuple[str, str]] = []
    q = infcore.Queue(2, tiers=2, overflow="shed_lowest", on_drop=lambda *told: dropped.append(told), clock=clock)
    q.put("will expire", deadline_s=1.0)
    q.put("stays", tier=1)
    clock.advance(1.0)
    q.put("new")
    assert dropped == [("will expire", "expired")]
    assert q.drain(9) == ["new", "stays"]


@pytest.mark.parametrize("take", ["get_nowait", "drain", "put"])
def test_expired_items_are_told_of_once(take: str, clock: infcore.ManualClock) -> None:
    dropped: list[tuple[int, str]] = []
    q = infcore.Queue(200, on_drop=lambda *told: dropped.append(told), clock=clock)
    tickets = [q.put(i, deadline_s=1.0 + i) for i in range(200)]
    clock.advance(150.0)  # deadlines 1 .. 150 are over: the one that is due now too
    if take == "put":
        q.put("room")
        assert q.cancel(tickets[199])
        assert q.get_nowait() == 150
    elif take == "drain":
        assert q.drain(1) == [150]
    else:
        assert q.get_nowait() == 150
    assert dropped == [(i, "expired") for i in range(150)]
    q.drain(999)
    assert len(dropped) == 150
    assert not q.cancel(tickets[0])


def test_on_drop_may_use_the_queue_and_may_raise(clock: infcore.ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(args.exc_value))

    def on_drop(item: str, reason: str) -> None:
        q.put(f"{item} {reason}")
        raise KeyError(item)

    q: infcore.Queue[str] = infcore.Queue(2, on_drop=on_drop, clock=clock)
    q.put("a", deadline_s=1.0)
    clock.advance(2.0)
    assert q.get_nowait() == "a expired"
    assert [type(e) for e in seen] == [KeyError]


def test_an_interrupt_in_on_drop_is_raised_once_all_are_told(clock: infcore.ManualClock) -> None:
    told: list[int] = []

    def on_drop(item: int, reason: str) -> None:
        told.append(item)
        if item == 1:
            raise KeyboardInterrupt

    q = infcore.Queue(5, on_drop=on_drop, clock=clock)
    assert q.put_many(range(3), deadline_s=1.0) == 3
    q.put(3)
    clock.advance(1.0)
    with pytest.raises(KeyboardInterrupt):
        q.get_nowait()
    assert told == [0, 1, 2]
    assert q.get_nowait() == 3


def test_cancel_ends_once_and_releases_the_item() -> None:
    q = infcore.Queue(3)
    item = Item()
    gone = weakref.ref(item)
    ticket = q.put(item)
    del item
    assert q.cancel(ticket)
    assert gone() is None
    assert not q.cancel(ticket)
    q.put("in the same place")
    assert not q.cancel(ticket)
    assert len(q) == 1


def test_a_ticket_is_good_for_its_own_queue_only() -> None:
    ticket = infcore.Queue(1).put(1)
    with pytest.raises(infcore.InvalidArgument, match="ticket is"):
        infcore.Queue(1).cancel(ticket)
    with pytest.raises(infcore.InvalidType, match="ticket is int"):
        infcore.Queue(1).cancel(7)
    with pytest.raises(infcore.InvalidType):
        infcore.Ticket()


@pytest.mark.parametrize(
    ("error", "field", "call"),
    [
        (infcore.InvalidArgument, "capacity", lambda q: infcore.Queue(0)),
        (infcore.InvalidArgument, "capacity", lambda q: infcore.Queue(-1)),
        (infcore.InvalidArgument, "capacity", lambda q: infcore.Queue(2**70)),
        (infcore.InvalidType, "capacity", lambda q: infcore.Queue(1.5)),
        (infcore.InvalidArgument, "tiers", lambda q: infcore.Queue(1, tiers=0)),
        (infcore.InvalidArgument, "tiers", lambda q: infcore.Queue(1, tiers=65)),
        (infcore.InvalidArgument, "overflow", lambda q: infcore.Queue(1, overflow="drop")),
        (infcore.InvalidArgument, "tier_capacity", lambda q: infcore.Queue(1, tier_capacity=0)),
        (infcore.InvalidArgument, "tier_capacity", lambda q: infcore.Queue(1, tiers=2, tier_capacity=[1])),
        (infcore.InvalidArgument, "ageing_s", lambda q: infcore.Queue(1, ageing_s=-1.0)),
        (infcore.InvalidArgument, "ageing_s", lambda q: infcore.Queue(1, ageing_s=math.nan)),
        (infcore.InvalidType, "on_drop", lambda q: infcore.Queue(1, on_drop=3)),
        (infcore.InvalidType, "clock", lambda q: infcore.Queue(1, clock=3)),
        (infcore.InvalidArgument, "tier", lambda q: q.put(1, tier=2)),
        (infcore.InvalidArgument, "tier", lambda q: q.put(1, tier=-1)),
        (infcore.InvalidType, "tier", lambda q: q.put(1, tier="0")),
        (infcore.InvalidArgument, "deadline_s", lambda q: q.put(1, deadline_s=math.nan)),
        (infcore.InvalidArgument, "deadline_s", lambda q: q.put(1, deadline_s=-0.1)),
        (infcore.InvalidType, "deadline_s", lambda q: q.put(1, deadline_s="soon")),
        (infcore.InvalidType, "tenant", lambda q: q.put(1, tenant=None)),
        (infcore.InvalidType, "items", lambda q: q.put_many(7)),
        (infcore.InvalidArgument, "tier", lambda q: q.put_many([1], tier=9)),
        (infcore.InvalidArgument, "timeout_s", lambda q: q.get(timeout_s=math.nan)),
        (infcore.InvalidType, "timeout_s", lambda q: q.get(timeout_s="1")),
        (infcore.InvalidArgument, "max_items", lambda q: q.drain(-1)),
        (infcore.InvalidType, "max_items", lambda q: q.drain(None)),
    ],
)
def test_bad_arguments_name_the_field_and_change_nothing(error, field, call) -> None:
    q = infcore.Queue(5, tiers=2)
    q.put("kept")
    with pytest.raises(error, match=f"^{field} is .*; allowed: "):
        call(q)
    assert q.drain(9) == ["kept"]


def test_empty() -> None:
    q = infcore.Queue(1)
    assert q.drain(5) == []
    for call in (q.get_nowait, lambda: q.get(timeout_s=0.0), lambda: q.get(timeout_s=0.001)):
        with pytest.raises(infcore.QueueEmpty):
            call()
    with pytest.raises(std_queue.Empty):
        q.get_nowait()


def test_close_ends_puts_at_once_and_gets_when_empty() -> None:
    q = infcore.Queue(3)
    q.put(1)
    q.close()
    q.close()
    with pytest.raises(infcore.QueueClosed):
        q.put(2)
    with pytest.raises(infcore.QueueClosed):
        q.put_many([2])
    assert q.get() == 1
    for call in (q.get_nowait, q.get, lambda: asyncio.run(q.aget())):
        with pytest.raises(infcore.QueueClosed):
            call()
    assert q.drain(1) == []


def test_a_getter_waits_for_a_put_and_close_ends_the_wait() -> None:
    q: infcore.Queue[int] = infcore.Queue(3)
    got: list[object] = []

    def getter() -> None:
        try:
            while True:
                got.append(q.get())
        except infcore.QueueClosed:
            got.append("closed")

    threads = [threading.Thread(target=getter) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(20):
        while True:
            try:
                q.put(i)
                break
            except infcore.QueueFull:
                pass
    q.close()
    for thread in threads:
        thread.join(60)
    assert got.count("closed") == 2
    assert sorted(x for x in got if x != "closed") == list(range(20))


@pytest.mark.parametrize("tier_capacity", [None, 2])
def test_block_loses_and_repeats_nothing(tier_capacity: int | None) -> None:
    q: infcore.Queue[int] = infcore.Queue(3, tiers=2, overflow="block", tier_capacity=tier_capacity)
    n_each = 300
    got: list[int] = []

    def putter(first: int) -> None:
        for i in range(n_each):
            q.put(first + i, tier=i % 2)

    threads = [threading.Thread(target=putter, args=(k * n_each,)) for k in range(3)]
    for thread in threads:
        thread.start()
    while len(got) < 3 * n_each:
        got.append(q.get(timeout_s=60.0))
        got += q.drain(2)
    for thread in threads:
        thread.join(60)
    assert sorted(got) == list(range(3 * n_each))


def test_a_blocked_put_gets_the_room_of_an_expired_item() -> None:
    dropped: list[str] = []
    q = infcore.Queue(1, overflow="block", on_drop=lambda item, reason: dropped.append(item))
    q.put("short", deadline_s=0.02)
    q.put("next")  # returns, if it returns at all, because "short" expired
    assert dropped == ["short"]
    assert q.get_nowait() == "next"


def test_a_blocked_put_notices_a_manual_clock(clock: infcore.ManualClock) -> None:
    q = infcore.Queue(1, overflow="block", clock=clock)
    q.put("short", deadline_s=100.0)
    thread = threading.Thread(target=q.put, args=("next",))
    thread.start()
    clock.advance(100.0)
    thread.join(60)
    assert q.drain(2) == ["next"]


def test_close_ends_a_blocked_put() -> None:
    q = infcore.Queue(1, overflow="block")
    q.put(1)
    ended: list[type] = []

    def putter() -> None:
        try:
            q.put(2)
        except infcore.QueueClosed as error:
            ended.append(type(error))

    thread = threading.Thread(target=putter)
    thread.start()
    q.close()
    thread.join(60)
    assert ended == [infcore.QueueClosed]
    assert q.drain(5) == [1]


def test_a_signal_ends_a_blocking_get() -> None:
    class Rang(Exception):
        pass

    def ring(*_: object) -> None:
        raise Rang

    q: infcore.Queue[int] = infcore.Queue(1)
    old = signal.signal(signal.SIGALRM, ring)
    try:
        # An interval: should the first ring come before the wait has begun, another follows.
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        with pytest.raises(Rang):
            q.get()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    q.put(5)
    assert q.get() == 5


def test_items_are_released_and_cycles_collected() -> None:
    q = infcore.Queue(3)
    item = Item()
    gone = weakref.ref(item)
    item.queue = q
    q.put(item)
    del item, q
    gc.collect()
    assert gone() is None


def test_references_balance(clock: infcore.ManualClock) -> None:
    item = object()
    before = sys.getrefcount(item)
    q = infcore.Queue(4, tiers=2, overflow="shed_lowest", clock=clock)
    for i in range(40):
        with contextlib.suppress(infcore.QueueFull):
            q.put(item, deadline_s=1.0 if i % 3 else None, tier=1)
            q.put(item, deadline_s=1.0 + i)
        clock.advance(0.6)
        if i % 4 == 0:
            q.get_nowait()
        if i % 5 == 0:
            q.drain(2)
        if i % 7 == 0 and q.drain(4) is not None:
            q.cancel(q.put(item))
    q.drain(9)
    assert sys.getrefcount(item) == before


def test_use_after_fork_raises() -> None:
    q = infcore.Queue(1)
    ticket = q.put(1)
    pid = os.fork()
    if pid == 0:
        calls = (len, lambda q: q.put(1), lambda q: q.get_nowait(), lambda q: q.drain(1), lambda q: q.cancel(ticket))
        n_refused = 0
        for call in calls:
            try:
                call(q)
            except infcore.ForkedProcess:
                n_refused += 1
        fresh = infcore.Queue(1)
        fresh.put(2)
        os._exit(0 if n_refused == len(calls) and fresh.get_nowait() == 2 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert q.get_nowait() == 1


def test_uninitialised_queue_is_refused() -> None:
    with pytest.raises(infcore.InvalidArgument):
        infcore.Queue.__new__(infcore.Queue).put(1)
    q = infcore.Queue(1)
    with pytest.raises(infcore.InvalidArgument):
        q.__init__(2)
