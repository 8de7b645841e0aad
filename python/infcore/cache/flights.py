"""The computations that run for a cache: who computes what, who waits for whom, and which errors are remembered."""

import asyncio
import copy
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from infcore.cache.flight import Flight
from infcore.errors import DeadlineExceeded, InvalidArgument

ERRORS_MAX = 1024  # that are remembered at once


class Failed(NamedTuple):
    """An error that others raise, too, until then."""

    error: Exception
    traceback: TracebackType | None  # of the computation
    until_s: float
    flight: Flight

    def again(self) -> Exception:
        """A copy: the error itself may be in somebody's hands, and raising it changes what it says of where it came
        from. What cannot be copied is raised itself."""
        error = self.error
        try:
            error = copy.copy(error)
        except Exception:  # noqa: BLE001  (whatever a class raises)
            error = self.error
        error.__cause__, error.__suppress_context__ = self.error.__cause__, self.error.__suppress_context__
        return error.with_traceback(self.traceback)  # without who raised it meanwhile, or it would get longer each time


class Watcher(Protocol):
    """Computes for the cache without its flights."""

    def outdate(self, key: Hashable | None = None) -> None:
        """Of that key, None: anything. What is being computed must not be kept; no lock of the cache is held."""


class Flights:
    """One flight for a key at a time, and those that somebody grew tired of waiting for.

    Thread-safe. Keys are compared under the lock, which may come back: it is one that its holder may take again, and
    nothing here is in pieces meanwhile. Values and errors that are let go are let go without it
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()
        self._forget_all()
        _all.add(self)

    def _forget_all(self) -> None:
        self._current: dict[Hashable, Flight] = {}
        self._late: dict[Hashable, list[Flight]] = {}  # others compute anew; what comes of it is kept all the same
        self._errors: dict[Hashable, Failed] = {}
        self._waits: dict[object, Flight] = {}  # by who waits: a thread's id or an asyncio task

    def join(self, mine: Flight, who: object) -> Flight:
        """The key's flight: `mine` where there was none, which the caller is to compute; else `who` waits for it.

        who         None: nobody waits. Who brings something ahead waits for no other's
        Raises      InvalidArgument where it would wait for itself, which only leave() of who waits would end
        """
        with self.lock:
            flight = self._current.setdefault(mine.key, mine)
            if flight is not mine and flight.is_over:
                flight.abandon()
                flight = self._current[mine.key] = mine
            if flight is mine:
                if mine.loop is not None and who is not None:  # a task computes it, and who began it waits as others do
                    self._waits[who] = mine
            elif who is not None and mine.instead_of is None:
                self._check_ends(flight, who)
                flight.n_wanting += 1
                self._waits[who] = flight
            return flight

    def _check_ends(self, flight: Flight, who: object) -> None:
        """Whether all that it waits for, one thing behind the other, can go on while `who` waits."""
        here, loop = threading.get_ident(), _running_loop()
        ahead, seen = [flight], {flight}
        while ahead:
            flight = ahead.pop()
            if flight.owner in (who, here):
                raise InvalidArgument("compute asks for the key that it computes; allowed: other keys")
            if who == here and flight.loop is not None and flight.loop is loop:
                raise InvalidArgument(
                    "get_or_compute() on the event loop that computes the key, or what that waits for; allowed: "
                    "aget_or_compute()"
                )
            for waiting in (flight.owner, flight.thread):
                behind = self._waits.get(waiting)
                if behind is not None and behind not in seen and not behind.is_over:  # else its waiter goes on
                    seen.add(behind)
                    ahead.append(behind)

    def wait(self, flight: Flight, who: object, timeout_s: float | None) -> Any:
        """Precondition: join() said so. Raises what the computation raised; DeadlineExceeded; Abandoned."""
        try:
            if flight.wait(timeout_s):
                return flight.result()
        finally:
            self.leave(flight, who)
        raise self._late_for(flight, timeout_s)

    async def await_result(self, flight: Flight, who: object, timeout_s: float | None) -> Any:
        """The same on an event loop."""
        try:
            if await flight.await_end(timeout_s):
                return flight.result()
        finally:
            self.leave(flight, who)
        raise self._late_for(flight, timeout_s)

    def leave(self, flight: Flight, who: object) -> None:
        """Nobody wants what a task computes any more: it is stopped."""
        with self.lock:
            self._waits.pop(who, None)
            flight.n_wanting -= 1
            if flight.n_wanting > 0 or flight.task is None or flight.is_over:
                return
            self._outdate(flight)
        with suppress(RuntimeError):  # its loop is closed, and so the task is gone
            flight.task.get_loop().call_soon_threadsafe(flight.task.cancel)

    def _late_for(self, flight: Flight, timeout_s: float | None) -> DeadlineExceeded:
        with self.lock:
            if self._current.get(flight.key) is flight:
                del self._current[flight.key]
                self._late.setdefault(flight.key, []).append(flight)
        return DeadlineExceeded(f"timeout_s is {timeout_s}, and it is not computed yet; the next call computes it anew")

    def land(self, flight: Flight, value: object, keep: Callable[[], object]) -> None:
        """Keep what came of it, where it is the newest that is known."""
        with self.lock:  # or the key could be deleted between the question and the answer
            if flight.is_outdated:
                return
            keep()
            for other in self._of_key(flight.key):
                if other.order > flight.order:
                    other.over = value
                else:
                    other.is_outdated |= other is not flight

    def end(self, flight: Flight) -> None:
        """It is computed, or will not be."""
        with self.lock:
            if self._current.get(flight.key) is flight:
                del self._current[flight.key]
            late = self._late.get(flight.key, [])
            if flight in late:
                late.remove(flight)
                if not late:
                    del self._late[flight.key]

    def drop(self, flight: Flight) -> None:
        """Who was to compute it was stopped; without effect where it has ended."""
        self.end(flight)
        flight.abandon()

    def _outdate(self, flight: Flight) -> None:
        flight.is_outdated = True
        if self._current.get(flight.key) is flight:  # who asks from now on must not be answered by it
            del self._current[flight.key]

    def _of_key(self, key: Hashable) -> list[Flight]:
        current = self._current.get(key)
        return [*([] if current is None else [current]), *self._late.get(key, ())]

    def _all_flights(self) -> Iterator[Flight]:
        yield from list(self._current.values())
        for late in list(self._late.values()):
            yield from late

    def outdate_key(self, key: Hashable) -> None:
        """What is being computed for it must not be kept, nor its error be remembered."""
        with self.lock:
            failed = self._errors.pop(key, None)
            for flight in self._of_key(key):
                self._outdate(flight)
        del failed  # not before: its destructors may wait for who wants the lock
        for watcher in list(self.watchers):
            watcher.outdate(key)

    def outdate_where(self, concerns: Callable[[Flight], bool]) -> None:
        with self.lock:
            for flight in self._all_flights():
                if concerns(flight):
                    self._outdate(flight)
            gone = [failed for failed in self._errors.values() if concerns(failed.flight)]
            for failed in gone:
                self._errors.pop(failed.flight.key, None)
        watchers = list(self.watchers)
        if watchers and concerns(Flight(None, {}, owner=None, loop=None)):
            for watcher in watchers:
                watcher.outdate()

    def remember(self, flight: Flight, error: Exception, until_s: float) -> None:
        gone: list[Failed | None] = []  # until the lock is free: their destructors may wait for who wants it
        with self.lock:
            if flight.is_outdated:
                return
            while len(self._errors) >= ERRORS_MAX:
                gone.append(self._errors.pop(next(iter(self._errors))))
            gone.append(self._errors.get(flight.key))
            self._errors[flight.key] = Failed(error, error.__traceback__, until_s, flight)

    @property
    def has_errors(self) -> bool:
        return bool(self._errors)

    def known_error(self, key: Hashable, now_s: float) -> Failed | None:
        with self.lock:
            failed = self._errors.get(key)
            is_over = failed is not None and now_s >= failed.until_s
            if is_over:
                del self._errors[key]
        return None if is_over else failed


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_all: "weakref.WeakSet[Flights]" = weakref.WeakSet()


def _after_fork() -> None:
    # The threads that computed are not in this process, and one of them may have had the lock.
    for flights in list(_all):
        flights.lock = threading.RLock()
        flights._forget_all()  # noqa: SLF001  (its own module)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
