"""A cache whose values are shared by processes and machines: near in this process, far in Redis, coherent."""

import asyncio
import contextvars
import inspect
import os
import queue
import threading
import weakref
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from infcore._checks import finite, flag, integer, optional_finite
from infcore._core.base import Clock
from infcore.cache.coherent_stats import CoherentStats
from infcore.cache.far_keys import Names
from infcore.cache.far_part import Ask, FarPart, Level, PutOptions, Steps
from infcore.cache.far_value import TAGS_MAX
from infcore.cache.listening import Ear, survive_fork, watch
from infcore.cache.near import AGES, Begun, Near
from infcore.cache.redis_client import Reader, checked_url, redis_errors, shown
from infcore.cache.redis_link import is_link_thread, shared
from infcore.errors import CacheUnreachable, InvalidArgument, InvalidType

_absent = object()
# Of aget_or_compute(): who has asked Redis already does not want get() to ask it again, and block the event loop.
_near_only: "contextvars.ContextVar[bool]" = contextvars.ContextVar("_near_only", default=False)


class _Get(Protocol):
    def __call__(self, key: Hashable, default: Any = None) -> Any: ...


class CoherentCache:
    """A Cache before one Redis or several: what any process puts, all find; what it changes, all forget.

    A hit here asks nobody. A miss asks Redis, nearest level first, and what it finds is kept here. Redis tells of every
    change (CLIENT TRACKING, broadcast), over one connection per process and Redis; what was read before a change that
    arrived meanwhile is not kept. All is forgotten when that connection was lost, and after FLUSHALL.

    capacity_bytes  of what is kept here, as infcore.Cache; so are policy, shards and clock (which times what is here)
    redis           addresses ("redis://host:6379/0"), the nearest first: the last one decides and is written first, the
                    others hold copies, at most copy_ttl_s old. One address: just that Redis
    namespace       of the names in Redis: caches of one see each other, 1 to 64 of A-Z a-z 0-9 _ . -
    ttl_s           until a value expires, here and there, where put() does not say; None: never
    near_ttl_s      the last bound: what is here is asked for anew after that long (at the latest, an eighth before at
                    the earliest), whatever was or was not told; None: none
    staleness_s_max when Redis has not confirmed for that long that nothing was missed, nothing here is served any more.
                    A thread sees to that, no hit looks at a clock: where a process was stopped, what it has is served
                    until that thread has had its turn, some milliseconds
    timeout_s       that a connection or a reply may take
    on_down         of put() without Redis: "raise" CacheUnreachable, or keep it "local" until Redis is back, at most
                    staleness_s_max. What invalidates raises in either case: others would go on serving it
    pickle          True: values that cannot be told otherwise are pickled, and pickles read. Only where everybody who
                    may write to that Redis is trusted: reading a pickle runs its code
    redis_options   more for each redis-py Connection, {"ssl_ca_certs": ...}
    Keys are str, int or bytes, nothing that is just equal to one: True is refused, but where 1 is here it finds that.
    Values are None, bool, int, float, str, bytes, NumPy arrays, and lists, tuples and dicts of these. What comes from
    Redis is a copy; what was put here is handed out as it is. get() answers the default without Redis (stats() count
    it), and for what is torn or not ours. Threads and event loops may share one; call close().
    What others change is let go on the thread that hears of it, which does nothing else until the value's destructor
    has returned: there a cache's get() may be called, while what writes or computes raises CacheUnreachable at once.
    On any other thread a destructor may use it, and may wait for timeout_s where it runs within a call of this cache.
    Redis >= 6.0, no cluster; before 6.2 put(), a delete and what was computed take one more round trip.
    Raises InvalidArgument, InvalidType, UnknownName, MissingExtra.
    Complexity      get of what is here: as Cache; else a round trip, and one more for each Redis without it
    """

    get: _Get  # the near cache's own, so that a hit costs no more; get(key, default=None) -> value

    def __init__(
        self,
        capacity_bytes: int,
        redis: str | Sequence[str],
        *,
        namespace: str = "infcore",
        policy: str = "infcore",
        ttl_s: float | None = None,
        near_ttl_s: float | None = 60.0,
        copy_ttl_s: float = 30.0,
        staleness_s_max: float = 5.0,
        timeout_s: float = 1.0,
        on_down: str = "raise",
        pickle: bool = False,
        shards: int | None = None,
        clock: Clock | None = None,
        redis_options: dict[str, Any] | None = None,
    ):
        urls = list(redis) if isinstance(redis, (list, tuple)) else [redis]
        self._urls = [checked_url(f"redis[{i}]", url) for i, url in enumerate(urls)]
        if not urls or len(set(urls)) != len(urls):
            places = [shown(url) for url in self._urls]
            raise InvalidArgument(f"redis is {places}; allowed: one address, or several different ones")
        if on_down not in ("raise", "local"):
            raise InvalidArgument(f"on_down is {on_down!r}; allowed: 'raise', 'local'")
        self._on_down = on_down
        self._ttl_s = optional_finite("ttl_s", ttl_s, above=True)
        self._near_ttl_s = optional_finite("near_ttl_s", near_ttl_s, above=True)
        self._copy_ttl_s = finite("copy_ttl_s", copy_ttl_s, above=True)
        self._bound_s = finite("staleness_s_max", staleness_s_max, above=True)
        self._timeout_s = finite("timeout_s", timeout_s, above=True)
        self._options = dict(redis_options or {})
        self._errors = redis_errors()
        self._n_alone = 0
        self._is_turned = clock is not None
        self._near = Near(capacity_bytes, self._missed, policy=policy, shards=shards, clock=clock)
        self._far = FarPart(self._near, Names(namespace), pickled=flag("pickle", pickle))
        self.get = self._near.get
        self._is_closed = False
        self._connecting = threading.RLock()
        self._begin()

    def _begin(self) -> None:
        """Connect, and watch the time; in a forked child, once more. Waits for the first try, timeout_s at most."""
        age_s = self._near_ttl_s / AGES if self._near_ttl_s is not None else None
        self._ear = Ear(self._far, self._bound_s, age_s)
        self._far.renew()
        self._far.levels = []
        for i, url in enumerate(self._urls):
            ear = self._ear.at(i, is_home=i == len(self._urls) - 1)
            link = shared(url, self._timeout_s, self._options)
            reader = Reader(url, self._timeout_s, self._options)
            self._far.levels.append(Level(link, reader, ear, self._copy_ttl_s))
        for level in self._far.levels:
            level.link.add(level.ear)
        for level in self._far.levels:
            level.link.tried.wait(self._timeout_s)
        self._stop = watch(self._ear, is_turned=self._is_turned)
        self._finalizer = weakref.finalize(self, _end, self._far.levels, self._stop)
        survive_fork(self._near, self._finalizer)
        self._pid = os.getpid()

    def wait_until_connected(self, timeout_s: float) -> bool:
        """Wait for the connection that tells of changes; whether it is there. It is tried again without that, too."""
        self._check_open()
        return self._ear.is_trusted.wait(finite("timeout_s", timeout_s))

    def close(self) -> None:
        """Let go of the connections and of what is here.

        From then on get() finds nothing, and what writes, computes or waits raises CacheUnreachable
        """
        self._is_closed = True
        self._finalizer()
        self._near.close()

    def __enter__(self) -> "CoherentCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_process(self) -> None:
        """In a forked child, connect anew, once for all of its threads."""
        if self._pid != os.getpid():
            with self._connecting:
                if self._pid != os.getpid():
                    self._begin()

    def _check_open(self) -> None:
        """Raises CacheUnreachable after close(), and where waiting for Redis would keep all others waiting, too."""
        if self._is_closed:
            raise CacheUnreachable("the cache is closed; allowed: get() and aget(), which find nothing")
        if is_link_thread():
            raise CacheUnreachable("a destructor on the thread that hears of changes would wait for it; allowed: get()")
        self._check_process()

    def _run(self, steps: Steps) -> Any:
        """On this thread: reads over a connection of its own, the rest over the link."""
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                wanted = steps.throw(error) if error is not None else steps.send(answer)
            except StopIteration as end:
                return end.value
            answer = error = None
            try:
                answer = self._ask(wanted) if isinstance(wanted, Ask) else self._wait(wanted)
            except BaseException as raised:
                error = raised

    def _wait(self, future: Future[list[Any]]) -> list[Any]:
        try:
            return future.result(self._timeout_s)
        except TimeoutError:
            if not future.cancel():  # it came just now
                return future.result()
            raise CacheUnreachable(_late(self._timeout_s)) from None
        except CacheUnreachable:
            raise
        except BaseException:
            future.cancel()  # what becomes of it is told as what others do
            raise

    def _ask(self, wanted: Ask) -> list[Any]:
        try:
            if len(wanted.names) == 1:
                return [wanted.level.reader.get(wanted.names[0])]
            answer = wanted.level.reader.get_many(wanted.names)
        except self._errors as error:
            raise CacheUnreachable(f"{wanted.level.link.place}: {error}") from None
        if isinstance(answer, list):
            return answer
        raise CacheUnreachable(f"{wanted.level.link.place} refused it: {answer}")

    async def _arun(self, steps: Steps) -> Any:
        """On an event loop: all over the link."""
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                wanted = steps.throw(error) if error is not None else steps.send(answer)
            except StopIteration as end:
                return end.value
            answer = error = None
            try:
                if isinstance(wanted, Ask):
                    answer = await self._await(wanted.level.link.send([(b"GET", name) for name in wanted.names]))
                else:
                    answer = await self._await(wanted)
            except BaseException as raised:
                error = raised

    async def _await(self, future: Any) -> Any:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._timeout_s)
        except TimeoutError:
            raise CacheUnreachable(_late(self._timeout_s)) from None

    def _missed(self, key: Hashable, default: Any) -> Any:
        if _near_only.get() or self._is_closed:
            return default
        self._check_process()
        return self._run(self._far.read(key, default))

    async def aget(self, key: Hashable, default: Any = None) -> Any:
        """get() on an event loop."""
        token = _near_only.set(True)
        try:
            value = self.get(key, _absent)
        finally:
            _near_only.reset(token)
        if value is not _absent:
            return value
        if self._is_closed:
            return default
        self._check_process()
        return await self._arun(self._far.read(key, default))

    def put(
        self,
        key: Hashable,
        value: Any,
        *,
        size_bytes: int | None = None,
        cost_us: float = 1.0,
        ttl_s: float | None = None,
        stale_s: float = 0.0,
        tags: Iterable[str] = (),
        version: int = 0,
        reuse: float = 1.0,
    ) -> bool:
        """Put the value under the key, in Redis and here, in place of what was there; the arguments as Cache.put's.

        version     a put with an older one than what lies in Redis loses, whoever put that
        size_bytes, stale_s, reuse: of what is kept here
        Returns     False where it lost
        Raises      CacheUnreachable: without Redis (unless on_down="local"), or where the connection was lost before
                    the answer came: then it may be done or not. InvalidArgument, InvalidType
        """
        self._check_open()
        told = self._told(size_bytes, cost_us, ttl_s, stale_s, tags, version, reuse)
        try:
            return bool(self._run(self._far.put(key, value, told)))
        except CacheUnreachable:
            return self._put_alone(key, value, told)

    async def aput(self, key: Hashable, value: Any, *, size_bytes: int | None = None, cost_us: float = 1.0,
                   ttl_s: float | None = None, stale_s: float = 0.0, tags: Iterable[str] = (), version: int = 0,
                   reuse: float = 1.0) -> bool:  # fmt: skip
        """put() on an event loop."""
        self._check_open()
        told = self._told(size_bytes, cost_us, ttl_s, stale_s, tags, version, reuse)
        try:
            return bool(await self._arun(self._far.put(key, value, told)))
        except CacheUnreachable:
            return self._put_alone(key, value, told)

    def _put_alone(self, key: Hashable, value: Any, told: PutOptions) -> bool:
        """Precondition: CacheUnreachable is being handled, and raised again where nothing is kept."""
        if self._on_down == "raise" or not self._keep_alone(key, value, told):
            raise
        return True

    def _keep_alone(self, key: Hashable, value: Any, told: PutOptions) -> bool:
        ttl_s = self._bound_s if told.ttl_s is None else min(told.ttl_s, self._bound_s)
        kept = self._near.keep_alone(key, value, **told.near(value, ttl_s=ttl_s))
        self._n_alone += kept
        return kept

    def _told(self, size_bytes: int | None = None, cost_us: float = 1.0, ttl_s: float | None = None,
              stale_s: float = 0.0, tags: Iterable[str] = (), version: int = 0, reuse: float = 1.0
              ) -> PutOptions:  # fmt: skip
        return PutOptions(
            None if size_bytes is None else integer("size_bytes", size_bytes, 0),
            finite("cost_us", cost_us),
            self._ttl_s if ttl_s is None else finite("ttl_s", ttl_s, above=True),
            finite("stale_s", stale_s),
            _tags(tags),
            integer("version", version, 0, (1 << 63) - 1),
            finite("reuse", reuse),
        )

    def delete(self, key: Hashable) -> bool:
        """Let go of the key's value everywhere; whether the last level had one. Raises CacheUnreachable."""
        self._check_open()
        return bool(self._run(self._far.delete(key)))

    async def adelete(self, key: Hashable) -> bool:
        """delete() on an event loop."""
        self._check_open()
        return bool(await self._arun(self._far.delete(key)))

    def invalidate_tag(self, tag: str) -> int:
        """What bears the tag is gone everywhere, also what is being put or computed with it; how many of those here.

        O(1): in Redis, they are met one by one or expire. Raises CacheUnreachable
        """
        self._check_open()
        return int(self._run(self._far.invalidate_tag(*_tags((tag,)))))

    async def ainvalidate_tag(self, tag: str) -> int:
        """invalidate_tag() on an event loop."""
        self._check_open()
        return int(await self._arun(self._far.invalidate_tag(*_tags((tag,)))))

    def clear(self) -> None:
        """Let go of everything in the namespace, here and in Redis. O(keys of that Redis). Raises CacheUnreachable."""
        self._check_open()
        self._run(self._far.clear())

    def get_or_compute(self, key: Hashable, compute: Callable[[], Any], *, timeout_s: float | None = None,
                       error_ttl_s: float | None = None, **put: Any) -> Any:  # fmt: skip
        """The key's value, or what compute() returns, which is put() with the other arguments; as Cache's.

        One computation at a time in this process; others may compute the same. It is not kept if the key or a tag was
        invalidated anywhere since it began. Without Redis it is computed, and kept here for staleness_s_max at most
        """
        self._check_open()
        put["tags"] = _tags(put.get("tags", ()))
        told = self._told(**put)

        def compute_and_put() -> Any:
            begun = self._near.begin(key)
            try:
                self._run(self._beginning(begun, told))
                value = compute()
                if not inspect.isawaitable(value):
                    self._run(self._landing(key, value, told, begun))
                return value
            finally:
                self._near.end(key, begun)

        return self._near.get_or_compute(key, compute_and_put, timeout_s=timeout_s, error_ttl_s=error_ttl_s, **put)

    async def aget_or_compute(self, key: Hashable, compute: Callable[[], Awaitable[Any] | Any], *,
                              timeout_s: float | None = None, error_ttl_s: float | None = None, **put: Any
                              ) -> Any:  # fmt: skip
        """get_or_compute() on an event loop; compute may be a coroutine function."""
        self._check_open()
        put["tags"] = _tags(put.get("tags", ()))
        told = self._told(**put)
        value = await self.aget(key, _absent)
        if value is not _absent:
            return value

        async def compute_and_put() -> Any:
            _near_only.set(False)  # of this task; compute may ask for other keys
            begun = self._near.begin(key)
            try:
                await self._arun(self._beginning(begun, told))
                value = compute()
                if inspect.isawaitable(value):
                    value = await value
                await self._arun(self._landing(key, value, told, begun))
                return value
            finally:
                self._near.end(key, begun)

        token = _near_only.set(True)
        try:
            return await self._near.aget_or_compute(
                key, compute_and_put, timeout_s=timeout_s, error_ttl_s=error_ttl_s, **put
            )
        finally:
            _near_only.reset(token)

    def _beginning(self, begun: Begun, told: PutOptions) -> Steps:
        """What is known before a value is made: what it is made of may change meanwhile."""
        try:
            begun.marks = (yield from self._far.open_tags(told.tags)) if told.tags else ()
        except CacheUnreachable:
            begun.marks = None

    def _landing(self, key: Hashable, value: Any, told: PutOptions, begun: Begun) -> Steps:
        try:
            if begun.marks is None or not self._near.is_trusted:
                raise CacheUnreachable
            yield from self._far.put(key, value, told, begun)
        except CacheUnreachable:
            if not begun.is_touched:
                self._keep_alone(key, value, told)

    def peek(self, key: Hashable, default: Any = None) -> Any:
        """The value if it is here; nobody is asked, and nothing of it remembered."""
        return self._near.peek(key, default)

    def __contains__(self, key: object) -> bool:
        """Whether it is here."""
        return key in self._near

    def __len__(self) -> int:
        """Entries here, those among them that are dead and were not met yet."""
        return len(self._near)

    def pin(self, key: Hashable) -> bool:
        """It is not evicted here until unpin(); what changes elsewhere goes all the same. False where it is not."""
        return self._near.pin(key)

    def unpin(self, key: Hashable) -> bool:
        """False where it is not here, or has no pin."""
        return self._near.unpin(key)

    def stats(self) -> CoherentStats:
        """What was counted since it was made, and how far what is here can be trusted now."""
        near, far, ear = self._near.stats(), self._far, self._ear
        return CoherentStats(
            **vars(near),
            connected=self._near.is_trusted,
            staleness_s=ear.staleness_s(),
            levels_connected=tuple(level.link.is_up for level in far.levels),
            far_requests=far.n_reads,
            far_hits=far.n_hits,
            unreachable=far.n_unreachable,
            refused_values=far.n_refused,
            outdated=self._near.n_outdated,
            changes_heard=ear.n_changes,
            flushes=ear.n_flushes,
            kept_alone=self._n_alone,
        )


def _tags(tags: Iterable[str]) -> tuple[str, ...]:
    if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
        raise InvalidType(f"tags is {type(tags).__name__}; allowed: an iterable of str")
    named = tuple(dict.fromkeys(tags))
    for tag in named:
        if not isinstance(tag, str):
            raise InvalidType(f"a tag is {type(tag).__name__}; allowed: str")
        if tag.startswith("\0") or len(tag) > 4096:
            raise InvalidArgument(f"a tag is {tag[:40]!r}; allowed: at most 4096 characters, the first not NUL")
    if len(named) > TAGS_MAX:
        raise InvalidArgument(f"tags has {len(named)}; allowed: at most {TAGS_MAX}")
    return named


def _late(timeout_s: float) -> str:
    return f"no answer from Redis in timeout_s = {timeout_s}; whether it was done is unknown"


def _end(levels: list[Level], stop: "queue.SimpleQueue[None]") -> None:
    """Takes no lock: the garbage collector may call it, from within whatever holds one."""
    stop.put(None)
    for level in levels:
        level.link.leave(level.ear)
        level.reader.close()
