"""The result cache with its computations: one for many waiters, stale values while new ones are made, errors shared."""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Any

from infcore._core.base import Clock
from infcore._core.cache import Store
from infcore.cache.flight import Abandoned, Flight
from infcore.cache.sizes import estimated_bytes
from infcore.cache.stats import CacheStats
from infcore.errors import DeadlineExceeded, InvalidArgument, InvalidType

_absent = object()
ERRORS_MAX = 1024  # that are remembered at once


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

    __slots__ = ("_errors", "_flights", "_lock")

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
        self._lock = threading.RLock()  # of the two below; nobody computes under it, but keys are compared
        self._flights: dict[Hashable, Flight] = {}
        self._errors: dict[Hashable, tuple[Exception, float]] = {}  # and until when

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
        self._outdate(lambda flight_key, _: flight_key == key)
        return super().delete(key)

    def clear(self) -> None:
        """Let go of everything, pinned or not. What is being computed will not be kept."""
        self._outdate(lambda *_: True)
        super().clear()

    def invalidate_tag(self, tag: str) -> int:
        """What bears the tag is gone; how many that were. What is being computed with it will not be kept.

        O(1) and what is being computed: the room is freed when somebody meets them
        """
        self._outdate(lambda _, flight: tag in flight.tags)
        return super().invalidate_tag(tag)

    def invalidate_older(self, version: int, *, tag: str | None = None) -> None:
        """What bears the tag (None: everything) is gone unless its version is at least this, and later puts of an older
        one are refused. O(1); such a tag is remembered for good."""
        super().invalidate_older(version, tag=tag)

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
        it raises, all of them raise; then it is forgotten, unless error_ttl_s says for how long others raise it, too.
        timeout_s   how long to wait for another's computation; after that the next caller computes anew
        stale_s     what has expired for no longer is returned at once, while one thread makes it anew
        Raises      what compute raises; DeadlineExceeded; InvalidArgument where compute asks for its own key
        """
        while True:
            value = self.get(key, _absent)
            if value is not _absent:
                return value
            self._raise_known(key)
            value = self.stale(key, _absent) if put.get("stale_s") else _absent
            # Who serves what is stale does not wait for the new value: nobody is its owner.
            flight, leads = self._join(key, threading.get_ident() if value is _absent else None, put)
            if value is not _absent:
                if leads:
                    work = (key, flight, compute, put, error_ttl_s)
                    threading.Thread(target=self._refresh, args=work, daemon=True).start()
                return value
            if leads:
                return self._compute(key, flight, compute, put, error_ttl_s)
            try:
                return flight.result(timeout_s)
            except Abandoned:
                continue
            except DeadlineExceeded:
                self._forget(key, flight)
                raise

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

        The computation is a task of its own: cancelling who waits for it stops it only where nobody else waits
        """
        while True:
            value = self.get(key, _absent)
            if value is not _absent:
                return value
            self._raise_known(key)
            value = self.stale(key, _absent) if put.get("stale_s") else _absent
            flight, leads = self._join(key, asyncio.current_task() if value is _absent else None, put)
            if leads:
                flight.task = asyncio.ensure_future(self._acompute(key, flight, compute, put, error_ttl_s))
                flight.owner = flight.task
            if value is not _absent:
                return value
            try:
                return await flight.aresult(timeout_s)
            except Abandoned:
                continue
            except DeadlineExceeded:
                self._forget(key, flight)
                raise
            finally:
                if flight.n_waiting == 0 and flight.task is not None and not flight.is_done:
                    self._forget(key, flight)
                    with contextlib.suppress(RuntimeError):  # its loop is closed, and so the task is gone
                        flight.task.get_loop().call_soon_threadsafe(flight.task.cancel)

    def compute_ahead(
        self, key: Hashable, compute: Callable[[], Any], *, instead_of: Iterable[Hashable] = (), **put: Any
    ) -> bool:
        """Compute and keep what nobody asked for yet; who asks meanwhile waits for it.

        instead_of  keys that go for it once it is computed. Nothing else is evicted: without room it is not kept
        Returns     whether it is kept; False where it is there already, or somebody computes it
        Raises      what compute raises
        """
        if key in self:
            return False
        flight, leads = self._join(key, threading.get_ident(), put)
        if leads:
            flight.instead_of = tuple(instead_of)
            self._compute(key, flight, compute, put, None)
        return flight.is_kept

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
        flight, leads = self._join(key, asyncio.current_task(), put)
        if not leads:
            return False
        flight.instead_of = tuple(instead_of)
        flight.task = asyncio.ensure_future(self._acompute(key, flight, compute, put, None))
        flight.owner = flight.task
        try:
            await flight.aresult(None)
        finally:
            if flight.n_waiting == 0 and not flight.is_done:
                self._forget(key, flight)
                flight.task.cancel()
        return flight.is_kept

    def _join(self, key: Hashable, owner: object, put: dict[str, Any]) -> tuple[Flight, bool]:
        """The flight that computes the key, and whether the caller is to do it."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = Flight(owner, frozenset(put.get("tags", ())))
                return flight, True
        if owner is not None and flight.owner == owner:
            raise InvalidArgument("compute asks for the key that it computes; allowed: other keys")
        return flight, False

    def _forget(self, key: Hashable, flight: Flight) -> None:
        """Others need not wait for it any more, and what comes of it is not kept: a newer value may be there."""
        flight.is_outdated = True
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def _outdate(self, concerns: Callable[[Hashable, Flight], bool]) -> None:
        with self._lock:
            for key, flight in self._flights.items():
                if concerns(key, flight):
                    flight.is_outdated = True
            self._errors.clear()

    def _compute(self, key: Hashable, flight: Flight, compute: Callable[[], Any], put: dict[str, Any],
                 error_ttl_s: float | None) -> Any:  # fmt: skip
        try:
            value = self.peek(key, _absent)  # another flight may have ended just before this one was begun
            if value is _absent:
                value = compute()
                if inspect.isawaitable(value):
                    raise InvalidType("compute returned an awaitable; allowed here: a value (aget_or_compute awaits)")
                self._land(key, flight, value, put)
        except Exception as error:
            self._crash(key, flight, error, error_ttl_s)
            raise
        except BaseException:
            self._forget(key, flight)
            flight.abandon()
            raise
        self._end(key, flight)
        flight.succeed(value)
        return value

    def _refresh(self, *work: Any) -> None:
        try:
            self._compute(*work)
        except Exception:  # noqa: BLE001  (whoever waited for it was told; the old value goes on until stale_s ends)
            return

    async def _acompute(self, key: Hashable, flight: Flight, compute: Callable[[], Any], put: dict[str, Any],
                        error_ttl_s: float | None) -> None:  # fmt: skip
        try:
            value = self.peek(key, _absent)
            if value is _absent:
                value = compute()
                if inspect.isawaitable(value):
                    value = await value
                self._land(key, flight, value, put)
        except Exception as error:  # noqa: BLE001  (who waits raises it)
            self._crash(key, flight, error, error_ttl_s)
            return
        except BaseException:
            self._forget(key, flight)
            flight.abandon()
            raise
        self._end(key, flight)
        flight.succeed(value)

    def _land(self, key: Hashable, flight: Flight, value: object, put: dict[str, Any]) -> None:
        if flight.is_outdated:
            return
        if flight.instead_of is None:
            self.put(key, value, **put)
            return
        for gone in flight.instead_of:
            self.evict(gone)
        flight.is_kept = self.bring(key, value, **put)

    def _end(self, key: Hashable, flight: Flight) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def _crash(self, key: Hashable, flight: Flight, error: Exception, error_ttl_s: float | None) -> None:
        if error_ttl_s is not None and not flight.is_outdated:
            until_s = self.now_s() + error_ttl_s
            with self._lock:
                while len(self._errors) >= ERRORS_MAX:
                    del self._errors[next(iter(self._errors))]
                self._errors[key] = (error, until_s)
        self._end(key, flight)
        flight.fail(error)

    def _raise_known(self, key: Hashable) -> None:
        if not self._errors:
            return
        with self._lock:
            error, until_s = self._errors.get(key, (None, 0.0))
            if error is not None and self.now_s() >= until_s:
                del self._errors[key]
                return
        if error is not None:
            raise error
