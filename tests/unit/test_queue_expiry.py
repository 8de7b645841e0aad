"""What infcore.Queue does when time passes: nobody calls, many wait, the clock is odd."""

import math
import threading
import time

import pytest

import infcore

WAIT_S = 60.0


class Dropped:
    """on_drop that can be waited for."""

    def __init__(self) -> None:
        self.told: list[tuple[object, str]] = []
        self.at_s: list[float] = []
        self.any = threading.Semaphore(0)

    def __call__(self, item: object, reason: str) -> None:
        self.told.append((item, reason))
        self.at_s.append(time.monotonic())
        self.any.release()

    def wait(self, n: int) -> None:
        for _ in range(n):
            assert self.any.acquire(timeout=WAIT_S), "on_drop was not called"


def watching(q: infcore.Queue) -> threading.Thread:
    thread = threading.Thread(target=q.watch)
    thread.start()
    return thread


def test_watch_tells_of_what_expires_without_any_other_call() -> None:
    dropped = Dropped()
    q = infcore.Queue(10, on_drop=dropped)
    thread = watching(q)
    begin_s = time.monotonic()
    q.put("late", deadline_s=0.06)
    q.put("soon", deadline_s=0.02)  # earlier than what the watching thread sleeps for
    q.put("never")
    dropped.wait(2)
    assert dropped.told == [("soon", "expired"), ("late", "expired")]
    assert dropped.at_s[0] - begin_s >= 0.02
    assert dropped.at_s[1] - begin_s >= 0.06
    assert len(q) == 1
    q.close()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_watch_goes_on_after_close_while_something_may_expire() -> None:
    dropped = Dropped()
    q = infcore.Queue(10, on_drop=dropped)
    q.put("left", deadline_s=0.03)
    q.close()
    q.watch()  # on this thread: it returns by itself
    assert dropped.told == [("left", "expired")]
    q.watch()


def test_watch_sees_a_clock_that_a_test_moves() -> None:
    clock, dropped = infcore.ManualClock(), Dropped()
    q = infcore.Queue(10, on_drop=dropped, clock=clock)
    thread = watching(q)
    q.put("a", deadline_s=1000.0)
    clock.advance(1000.0)
    dropped.wait(1)
    q.close()
    thread.join(WAIT_S)


def test_what_on_drop_raises_ends_watch_only_if_it_is_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda args: seen.append(args.exc_value))

    def on_drop(item: type[BaseException], reason: str) -> None:
        raise item

    q = infcore.Queue(10, on_drop=on_drop)
    q.put(KeyError, deadline_s=0.0)
    q.put(KeyboardInterrupt, deadline_s=0.001)
    with pytest.raises(KeyboardInterrupt):
        q.watch()
    assert [type(error) for error in seen] == [KeyError]
    assert q.put_many([1]) == 1


def test_two_watch_and_each_item_is_told_of_once() -> None:
    dropped = Dropped()
    q = infcore.Queue(1000, on_drop=dropped)
    threads = [watching(q) for _ in range(2)]
    for i in range(300):
        q.put(i, deadline_s=(i % 7) * 0.001)
    q.close()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(item for item, _ in dropped.told) == list(range(300))


def test_a_deadline_of_now_is_past_and_the_largest_never_comes() -> None:
    dropped = Dropped()
    clock = infcore.ManualClock()
    q = infcore.Queue(10, on_drop=dropped, clock=clock)
    q.put("now", deadline_s=0.0)
    q.put("huge", deadline_s=1e300)
    q.put("infinite", deadline_s=math.inf)
    q.put("whole", deadline_s=10**400)
    clock.advance(9e9)
    assert q.drain(10) == ["huge", "infinite", "whole"]  # beyond every clock: as if there were none
    assert dropped.told == [("now", "expired")]


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    class Back:
        at_s = 100.0

        def now_s(self) -> float:
            return self.at_s

    clock, dropped = Back(), Dropped()
    q = infcore.Queue(10, tiers=2, ageing_s=10.0, on_drop=dropped, clock=clock)
    q.put("old", tier=1, deadline_s=50.0)
    clock.at_s = 20.0
    q.put("new", deadline_s=5.0)
    assert q.get_nowait() == "new"  # the other has waited -80 s
    clock.at_s = 110.0
    q.put("newer")
    assert q.get_nowait() == "old"
    assert q.drain(9) == ["newer"]
    assert dropped.told == []
