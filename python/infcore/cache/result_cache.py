"""The result cache with its computations: one for many waiters, stale values while new ones are made, errors shared."""

import asyncio
import inspect
import math
import numbers
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple

from infcore._core.base import Clock
from infcore._core.cache import Store
from infcore.cache.flight import Abandoned, Flight, is_cancelled
from infcore.cache.flights import Failed, Flights, Watcher
from infcore.cache.sizes import estimated_bytes
from infcore.cache.stats import CacheStats
from infcore.errors import InvalidArgument, InvalidType

_absent = object()


class Work(NamedTuple):
    """What is to be done for a key, checked before it is begun."""

    compute: Callable[[], Any]
    put: dict[str, Any]
    error_ttl_s: float | None
    timeout_s: float | None


class Cache(Store):
    """Values by key, kept by what they save: cost to make again, size, how often and how lately they were asked for.

    capacity_bytes  of the values' size_bytes together, >= 0; 0 keeps nothing
    policy          one of infcore.cache.policies(): what goes when there is no room
    ttl_s           seconds until an entry expires where put() does not say; None: never
    shards          independent parts, a power of two, each with its share of the capacity; None: one, which is best
                    under the GIL, where calls never run side by side
    clock           of ttl_s, None: monotonic time
    Keys and values are any objects, held until they are evicted, expired (when met), deleted or replaced, and let go
    after the call that found so: their destructors may use the cache. Values are handed out as they are, not copied.
    Threads and event loops may share one. Raises InvalidArgument, InvalidType, UnknownName.
    Complexity      get, put, delete: amortised O(1), and what the policy says
    """

    __slots__ = ("_flights",)

    def __init__(
        self,
        capacity_bytes: int,
        *,
        policy: str = "infcore",
        ttl_s: float | None = None,
        shards: int | None = None,
        clock: Clock | None = None,
    ):
        super().__init__(
            capacity_bytes, estimate=estimated_bytes, policy=policy, ttl_s=ttl_s, shards=shards, clock=clock
        )
        self._flights = Flights()

    def _watch(self, watcher: Watcher) -> None:
        """It puts answers here that have no tag and no version, and is told what is to be forgotten."""
        self._flights.watchers.add(watcher)

    def stats(self) -> CacheStats:
        """What was counted since it was made. A cost counts as missed when its value is put."""
        c = self.counters()
        return CacheStats(
            requests=c["hits"] + c["misses"],
            hits=c["hits"],
            misses=c["misses"],
            evictions=c["evictions"],
            rejected=c["rejected"],
            expired=c["expired"],
            invalidated=c["invalidated"],
            bytes_used=c["bytes_used"],
            bytes_requested=c["bytes_hit"] + c["bytes_missed"],
            bytes_missed=c["bytes_missed"],
            cost_requested_us=c["cost_hit_us"] + c["cost_missed_us"],
            cost_missed_us=c["cost_missed_us"],
        )

    def delete(self, key: Hashable) -> bool:
        """Let go of the key's value; whether there was one. What is being computed for it will not be kept."""
        self.peek(key)  # for the error where it cannot be a key
        self._flights.outdate_key(key)
        return super().delete(key)

    def clear(self) -> None:
        """Let go of everything, pinned or not. What is being computed will not be kept."""
        self._flights.outdate_where(lambda _: True)
        super().clear()

    def invalidate_tag(self, tag: str) -> int:
        """What bears the tag is gone; how many that were, with those that had died otherwise and were not met yet.

        What is being computed with it will not be kept. O(1) and what is being computed: the room is freed when
        somebody meets them
        """
        self._flights.outdate_where(lambda flight: tag in flight.tags)
        return super().invalidate_tag(tag)

    def invalidate_older(self, version: int, *, tag: str | None = None) -> None:
        """What bears the tag (None: everything) is gone unless its version is at least this, and later puts of an older
        one are refused. O(1) and what is being computed; such a tag is remembered for good."""
        super().invalidate_older(version, tag=tag)
        self._flights.outdate_where(lambda flight: flight.version < version and (tag is None or tag in flight.tags))

    def get_or_compute(
        self,
        key: Hashable,
        compute: Callable[[], Any],
        *,
        timeout_s: float | None = None,
        error_ttl_s: float | None = None,
        **put: Any,
    ) -> Any:
        """The key's value, or what compute() returns, which is put() with the other arguments.

        One computation runs for a key at a time: who asks meanwhile waits for it, threads and event loops alike. What
        it raises, all of them raise; then it is forgotten, unless error_ttl_s says for how long others raise a copy.
        What somebody put meanwhile stays, unless its version is older.
        timeout_s   how long to wait for another's computation; after that the next caller computes anew, and what comes
                    of either is kept, of the one that began last if of both
        stale_s     what has expired for no longer is returned at once, while one thread makes it anew
        Raises      what compute raises; DeadlineExceeded; InvalidArgument, InvalidType of an argument, before compute()
                    is called; InvalidArgument where computations would wait for each other
        """
        value = self.get(key, _absent)
        if value is not _absent:
            return value
        work = self._work(compute, put, error_ttl_s, timeout_s)
        while True:
            value = self._old_value(key, work)
            if value is not _absent:
                self._refresh_beside(Flight(key, work.put, owner=None, loop=None), work)
                return value
            who = threading.get_ident()
            mine = Flight(key, work.put, owner=who, loop=None)
            try:  # from before others may know of the flight: whatever stops this thread, they must not wait for it
                flight = self._flights.join(mine, who)
                if flight is mine:
                    return self._compute(mine, work)
                return self._flights.wait(flight, who, timeout_s)
            except Abandoned:
                pass
            finally:
                if not mine.is_done:
                    self._flights.drop(mine)
            value = self.get(key, _absent)
            if value is not _absent:
                return value

    async def aget_or_compute(
        self,
        key: Hashable,
        compute: Callable[[], Awaitable[Any] | Any],
        *,
        timeout_s: float | None = None,
        error_ttl_s: float | None = None,
        **put: Any,
    ) -> Any:
        """The same on an event loop; compute may be a coroutine function.

        The computation is a task of its own: cancelling who waits for it, or its timeout_s, stops it only where nobody
        else waits
        """
        value = self.get(key, _absent)
        if value is not _absent:
            return value
        work = self._work(compute, put, error_ttl_s, timeout_s)
        while True:
            value = self._old_value(key, work)
            if value is not _absent and self._known_error(key) is not None:
                return value
            who = asyncio.current_task() if value is _absent else None
            mine = Flight(key, work.put, owner=who, loop=asyncio.get_running_loop())
            try:
                flight = self._flights.join(mine, who)
                if flight is mine:
                    self._begin(mine, work)
            except BaseException:
                self._flights.drop(mine)
                raise
            if value is not _absent:
                return value
            try:
                return await self._flights.await_result(flight, who, timeout_s)
            except Abandoned:
                value = self.get(key, _absent)
                if value is not _absent:
                    return value

    def compute_ahead(
        self, key: Hashable, compute: Callable[[], Any], *, instead_of: Iterable[Hashable] = (), **put: Any
    ) -> bool:
        """Compute and keep what nobody asked for yet; who asks meanwhile waits for it.

        instead_of  keys that go for it once it is computed, where it is kept. Nothing else is evicted: without room it
                    is not kept
        Returns     whether it is kept; False where it is there already, or somebody computes it
        Raises      what compute raises
        """
        if key in self:
            return False
        work = self._work(compute, put, None, None)
        mine = Flight(key, work.put, owner=threading.get_ident(), loop=None)
        mine.instead_of = tuple(instead_of)
        try:
            if self._flights.join(mine, None) is mine:
                self._compute(mine, work)
        finally:
            if not mine.is_done:
                self._flights.drop(mine)
        return mine.is_kept

    async def acompute_ahead(
        self,
        key: Hashable,
        compute: Callable[[], Awaitable[Any] | Any],
        *,
        instead_of: Iterable[Hashable] = (),
        **put: Any,
    ) -> bool:
        """The same on an event loop; compute may be a coroutine function. Cancelling it stops the computation only
        where nobody else waits."""
        if key in self:
            return False
        work, who = self._work(compute, put, None, None), asyncio.current_task()
        mine = Flight(key, work.put, owner=who, loop=asyncio.get_running_loop())
        mine.instead_of = tuple(instead_of)
        try:
            if self._flights.join(mine, who) is not mine:
                return False
            self._begin(mine, work)
        except BaseException:
            self._flights.drop(mine)
            raise
        try:
            await self._flights.await_result(mine, who, None)
        except Abandoned:
            raise asyncio.CancelledError("its computation was cancelled") from None
        return mine.is_kept

    def _work(self, compute: Callable[[], Any], put: dict[str, Any], error_ttl_s: float | None,
              timeout_s: float | None) -> Work:  # fmt: skip
        for name, given in (("error_ttl_s", error_ttl_s), ("timeout_s", timeout_s)):
            if given is not None and not isinstance(given, numbers.Real):
                raise InvalidType(f"{name} is {type(given).__name__}; allowed: seconds as a number, or None")
            if given is not None and not 0 <= given < math.inf:
                raise InvalidArgument(f"{name} is {given!r}; allowed: finite seconds >= 0, or None")
        if isinstance(put.get("tags"), Iterator):
            put["tags"] = tuple(put["tags"])  # which are there once
        self.check_put(**put)
        return Work(compute, put, error_ttl_s, timeout_s)

    def _old_value(self, key: Hashable, work: Work) -> Any:
        """What has expired and may be served. Raises the error that is remembered where there is none."""
        value = self.stale(key, _absent) if work.put.get("stale_s") else _absent
        failed = self._known_error(key) if value is _absent else None
        if failed is not None:
            raise failed.again()
        return value

    def _known_error(self, key: Hashable) -> Failed | None:
        return self._flights.known_error(key, self.now_s()) if self._flights.has_errors else None

    def _refresh_beside(self, mine: Flight, work: Work) -> None:
        if self._known_error(mine.key) is not None:
            return
        try:
            if self._flights.join(mine, None) is mine:
                threading.Thread(target=self._refresh, args=(mine, work), daemon=True).start()
        except RuntimeError:  # no more threads are to be had: the next caller tries again
            self._flights.drop(mine)
        except BaseException:
            self._flights.drop(mine)
            raise

    def _refresh(self, flight: Flight, work: Work) -> None:
        flight.owner = threading.get_ident()
        try:
            self._compute(flight, work)
        except Exception:  # noqa: BLE001  (whoever waited for it was told; the old value goes on until stale_s ends)
            return
        finally:
            if not flight.is_done:
                self._flights.drop(flight)

    def _compute(self, flight: Flight, work: Work) -> Any:
        try:
            value = self.peek(flight.key, _absent)  # another flight may have ended just before this one was begun
            if value is _absent:
                value = work.compute()
                if inspect.isawaitable(value):
                    if inspect.iscoroutine(value):
                        value.close()
                    raise InvalidType("compute returned an awaitable; allowed here: a value (aget_or_compute awaits)")
                self._land(flight, value, work.put)
        except Exception as error:
            self._crash(flight, error, work)
            raise
        self._flights.end(flight)
        flight.succeed(value)
        return value

    def _begin(self, flight: Flight, work: Work) -> None:
        """On a task of its own, which tells of its end even where it is stopped before it ran."""
        flight.task = flight.owner = asyncio.ensure_future(self._acompute(flight, work))
        flight.task.add_done_callback(lambda _: None if flight.is_done else self._flights.drop(flight))

    async def _acompute(self, flight: Flight, work: Work) -> None:
        try:
            value = self.peek(flight.key, _absent)
            if value is _absent:
                value = work.compute()
                if inspect.isawaitable(value):
                    value = await value
                self._land(flight, value, work.put)
        except Exception as error:  # noqa: BLE001  (who waits raises it)
            self._crash(flight, error, work)
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise  # who waits tries again
            self._flights.end(flight)
            flight.fail(error)  # of something that compute awaits: trying again would find it cancelled again
        else:
            self._flights.end(flight)
            flight.succeed(value)
        finally:
            if not flight.is_done:
                self._flights.drop(flight)

    def _land(self, flight: Flight, value: object, put: dict[str, Any]) -> None:
        if put.get("size_bytes") is None:
            put = {**put, "size_bytes": estimated_bytes(value)}  # asks the value, which is not for under a lock
        gone: list[object] = []  # until the flights' lock is free: their destructors may wait for who wants it
        self._flights.land(flight, value, lambda: self._keep(flight, value, put, gone))

    def _keep(self, flight: Flight, value: object, put: dict[str, Any], gone: list[object]) -> None:
        if flight.instead_of is None:
            self.land(flight.key, value, over=flight.over, gone=gone, told=put)
        else:
            flight.is_kept = self.bring(flight.key, value, instead_of=flight.instead_of, gone=gone, **put)

    def _crash(self, flight: Flight, error: Exception, work: Work) -> None:
        if work.error_ttl_s is not None:
            self._flights.remember(flight, error, self.now_s() + work.error_ttl_s)
        self._flights.end(flight)
        flight.fail(error)
