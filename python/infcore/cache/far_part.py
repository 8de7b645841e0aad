"""What a coherent cache asks of Redis, step by step: generators that yield what they wait for, so that a thread that
blocks and an event loop that awaits run the same steps.
"""

import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Generator, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from infcore.cache import far_scripts as scripts
from infcore.cache.far_keys import Names
from infcore.cache.far_value import HEAD_BYTES, FarValue, NotOurs, body_of, is_mark, pack, unpack, value_of
from infcore.cache.near import Begun, Near, Seen
from infcore.cache.redis_client import Reader
from infcore.cache.redis_link import Link, Listener
from infcore.cache.sizes import estimated_bytes
from infcore.errors import CacheUnreachable

MS_MAX = 1 << 53  # some hundred thousand years: Redis refuses what ends, with its clock added, beyond 63 bits
TRIES_MAX = 16  # of a put whose tags are invalidated again and again meanwhile


class Level:
    """One Redis of the chain. The last one decides; those before it hold copies for a while."""

    def __init__(self, link: Link, reader: Reader, ear: Listener, copy_ttl_s: float):
        self.link, self.reader, self.ear = link, reader, ear
        self.copy_ttl_s = copy_ttl_s
        self._wary_until_s = 0.0

    def be_wary(self) -> None:
        """Some change may not have reached it: of its copies, those from before now are not to be read."""
        self._wary_until_s = time.monotonic() + self.copy_ttl_s

    @property
    def may_be_read(self) -> bool:
        return self.link.is_up and time.monotonic() >= self._wary_until_s


class Ask(NamedTuple):
    """Wait for what a level's Redis has under these names: bytes or None each."""

    level: Level
    names: list[bytes]


Steps = Generator[Ask | Future[list[Any]], Any, Any]


class PutOptions(NamedTuple):
    """What put() was told."""

    size_bytes: int | None
    cost_us: float
    ttl_s: float | None
    stale_s: float
    tags: tuple[str, ...]
    version: int
    reuse: float

    def near(self, value: object, **changed: Any) -> dict[str, Any]:
        size = estimated_bytes(value) if self.size_bytes is None else self.size_bytes
        return {**self._asdict(), "size_bytes": size, **changed}


class Refused(CacheUnreachable):
    """Redis answered that it does not do it."""


class FarPart:
    """The steps of each operation, on the levels of a chain and the near cache before them."""

    def __init__(self, near: Near, names: Names, *, pickled: bool):
        self.near, self.names, self.pickled = near, names, pickled
        self.levels: list[Level] = []
        self.n_reads = self.n_hits = self.n_refused = self.n_unreachable = 0
        self._identity, self._writes = b"", itertools.count()

    def renew(self) -> None:
        """In each process anew: what it marks must be marked by nobody else, a parent or its other children neither."""
        self._identity, self._writes = secrets.token_bytes(4), itertools.count()

    @property
    def home(self) -> Level:
        return self.levels[-1]

    def read(self, key: Hashable, default: Any) -> Steps:
        """The value, kept near unless it was outdated on the way; the default where no level has one that is good."""
        name = self.names.of_key(key)
        if not self.home.link.is_up:
            self.n_unreachable += 1
            return default
        self.n_reads += 1
        seen = self.near.seen(key)
        for at, level in enumerate(self.levels):
            if level is not self.home and not level.may_be_read:
                continue
            try:
                (data,) = yield Ask(level, [name])
                found = None if data is None else self._unpacked(data)
                if found is None or not (yield from self._is_alive(found, level)):
                    continue
                value = value_of(found, pickled=self.pickled)
            except CacheUnreachable:
                self.n_unreachable += 1
                continue
            except NotOurs:
                self.n_refused += 1
                continue
            self.n_hits += 1
            self._keep(key, value, found, data, seen, self.levels[:at])
            return value
        return default

    def _unpacked(self, data: object) -> FarValue:
        if isinstance(data, bytes):
            return unpack(data)
        raise NotOurs(str(data))  # an error reply: a list of somebody else's under that name

    def _is_alive(self, found: FarValue, level: Level) -> Steps:
        if found.expires_ms and level.link.server_s() * 1e3 >= found.expires_ms:
            return False
        if not found.tags:
            return True
        marks = yield from self._marks_of([name for name, _ in found.tags])
        return all(marks.get(name) == mark for name, mark in found.tags)

    def _marks_of(self, names: Sequence[bytes]) -> Steps:
        """What the tags bear now, as far as they bear something."""
        known = {name: self.near.marks.get(name) for name in names}
        missing = [name for name, mark in known.items() if mark is None]
        if missing:
            seen = self.near.seen("")
            marks = yield Ask(self.home, missing)
            fresh = {name: mark for name, mark in zip(missing, marks, strict=True) if is_mark(mark)}
            self.near.learn(fresh, seen)
            known.update(fresh)
        return known

    def _keep(self, key: Hashable, value: Any, found: FarValue, data: bytes, seen: Seen, nearer: list[Level]) -> None:
        tags = tuple(tag for tag in (self.names.tag_of(name) for name, _ in found.tags) if tag is not None)
        left_s = found.expires_ms / 1e3 - self.home.link.server_s() if found.expires_ms else None
        if left_s is not None and left_s <= 0.0:
            return
        size = len(data) if found.kind == 0 else estimated_bytes(value)
        kept = self.near.keep(
            key, value, seen, size_bytes=size, cost_us=found.cost_us, ttl_s=left_s, tags=tags, version=found.version
        )
        if nearer and kept:
            self._copy(key, data, seen, tags, left_s, nearer)

    def _copy(self, key: Hashable, data: bytes, seen: Seen, tags: object, left_s: float | None,
              nearer: Sequence[Level]) -> None:  # fmt: skip
        """To the levels before the one that has it. Under the guard: behind an invalidation it would stay."""
        name = self.names.of_key(key)
        for level in nearer:
            ttl_ms = _ms(level.copy_ttl_s if left_s is None else min(left_s, level.copy_ttl_s))
            with self.near.guard:
                if level.link.is_up and self.near.is_current(key, seen, tags):
                    self._tell(level, scripts.ours([name], scripts.put(name, data, ttl_ms, ())), name)

    def _tell(self, level: Level, commands: Sequence[scripts.Command], name: bytes,
              done: Callable[[Any], object] = lambda _: None) -> None:  # fmt: skip
        """Send what nobody waits for."""
        try:
            level.link.send(commands, writer=level.ear, names=[name]).add_done_callback(done)
        except CacheUnreachable:
            level.be_wary()
            done(None)

    def drop_copies(self, key: Hashable, name: bytes, nearer: Sequence[Level]) -> None:
        """The key has changed at a level: the copies before it go, the farthest first.

        What was read of one until it was gone, and copied to those before it, goes with them
        """
        if not nearer:
            return

        def done(_: object) -> None:
            self.near.forget(key)
            self.drop_copies(key, name, nearer[:-1])

        self._tell(nearer[-1], [(b"DEL", name)], name, done)

    def _write(self, names: Sequence[bytes], commands: Sequence[scripts.Command], level: Level | None = None) -> Steps:
        """Have a level do it, None: the last one, in its order with all that is told. Raises CacheUnreachable."""
        level = self.home if level is None else level
        try:
            replies = yield level.link.send(commands, writer=level.ear, names=names)
        except CacheUnreachable:
            self.n_unreachable += 1
            raise
        for reply in [*replies, *(replies[-1] if isinstance(replies[-1], list) else ())]:
            if isinstance(reply, Exception):
                raise Refused(f"{level.link.place} refused it: {reply}")
        return replies

    def _write_ours(self, names: Sequence[bytes], script: scripts.Command) -> Steps:
        """The reply of a script that writes under these names, of which everybody is told but who writes here."""
        if self.home.link.remembers_first:
            return (yield from self._write_by_first(names, script))
        replies = yield from self._write(names, scripts.ours(names, script))
        return replies[-1][0]

    def _write_by_first(self, names: Sequence[bytes], script: scripts.Command) -> Steps:
        """_write_ours() where Redis does not tell us what others do behind us in the same turn of its loop.

        Once the reply is there, that turn is over. So a second question, in a later turn, says whether what stood there
        then still stands: neither a value nor a mark comes back once it was replaced, and what others do in that later
        turn is told, as we only read there. Where it does not stand, or where that remains unknown, it is forgotten as
        if it had been told.
        Nothing else needs that. What deletes or invalidates forgets behind its reply, so behind that turn, and nothing
        is kept that was read before; the other listeners of the link are told there, too. A script that nobody touched
        anything before or behind (scripts.touched(), drop()) is not ours: Redis tells of it, us as well
        """
        outdated = names
        try:
            replies = yield from self._write(names, scripts.ours(names, script, by_first=True))
            answer, stood = replies[-1][len(names)], replies[-1][-len(names) :]
            with contextlib.suppress(Refused):  # of what is somebody else's list by now
                stands = yield from self._write((), scripts.began(names))
                outdated = [name for name, old, new in zip(names, stood, stands, strict=True) if not old or old != new]
        finally:
            for name in outdated:
                self.changed(name)
        return answer

    def changed(self, name: bytes) -> None:
        """What the name stands for has changed somewhere."""
        key, tag = self.names.key_of(name), self.names.tag_of(name)
        if key is not None:
            self.near.forget(key)  # first: who has the old value in hand copies it no more
            self.drop_copies(key, self.names.of_key(key), self.levels[:-1])
        elif tag is not None:
            self.near.forget_tag(tag, name)

    def open_tags(self, tags: Sequence[str]) -> Steps:
        """What the tags bear, after those without got something: a value made from now on is dead once one changes."""
        names = [self.names.of_tag(tag) for tag in tags]
        marks = yield from self._marks_of(names)
        missing = [name for name in names if marks[name] is None]
        if missing:
            seen = self.near.seen("")
            fresh_marks = yield from self._write_ours(missing, scripts.open_tags(missing, self._nonce()))
            fresh = dict(zip(missing, fresh_marks, strict=True))
            self.near.learn(fresh, seen)
            marks.update(fresh)
        return [(name, marks[name]) for name in names]

    def _nonce(self) -> bytes:
        return self._identity + (next(self._writes) & 0xFFFFFFFF).to_bytes(4, "big")  # next() is one step for threads

    def put(self, key: Hashable, value: Any, told: PutOptions, begun: Begun | None = None) -> Steps:
        """Written and kept near, or False where a newer version is there.

        begun       of a value that was made meanwhile. It is not written if the key or a tag has changed since, and
                    taken back if that is known only afterwards; what another put is not replaced
        """
        name = self.names.of_key(key)
        kind, body = body_of(value, pickled=self.pickled)
        dead: bytes | None = b""
        for _ in range(TRIES_MAX):
            tags = begun.marks if begun and begun.marks is not None else (yield from self.open_tags(told.tags))
            seen = self.near.seen(key)
            if begun and begun.is_touched:
                return False
            ttl_ms = 0 if told.ttl_s is None else _ms(told.ttl_s)
            expires_ms = int(self.home.link.server_s() * 1e3) + ttl_ms if ttl_ms else 0
            packed = pack(kind, body, version=told.version, expires_ms=expires_ms, nonce=self._nonce(),
                          cost_us=told.cost_us, tags=tags)  # fmt: skip
            script = scripts.put(name, packed, ttl_ms, tags, dead or b"", is_new=begun is not None)
            outcome = yield from self._put_once(key, name, script)
            if outcome > 0:
                if begun:
                    yield from self._wait_for_turn()
                if begun and begun.is_touched:
                    yield from self._write([name], scripts.drop(name, packed[:HEAD_BYTES]))
                    self.near.forget(key)
                    return False
                self._keep_written(key, value, told, seen, packed)
                return True
            if outcome < 0:  # a tag is outdated
                yield from self._write([name], scripts.drop(name, b""))
                with self.near.guard:
                    for tag, _mark in tags:
                        self.near.marks.pop(tag, None)
                if begun:
                    return False
                continue
            dead = yield from self._dead_head(name)
            if dead is None:
                self.near.forget(key)  # of two that wrote at once, the other may be the newer
                return False
        raise CacheUnreachable(f"{key!r} or a tag of it changed {TRIES_MAX} times while it was written; try again")

    def _keep_written(self, key: Hashable, value: Any, told: PutOptions, seen: Seen, packed: bytes) -> None:
        with self.near.guard:
            is_current = self.near.is_current(key, seen, told.tags)
            self.near.replace(key, value, seen, **told.near(value))
            if len(self.levels) == 1:
                return
            if is_current:
                self._copy(key, packed, self.near.seen(key), told.tags, told.ttl_s, self.levels[:-1])
            else:  # Redis does not tell who wrote, so that a copy of what was there before would stay
                self.drop_copies(key, self.names.of_key(key), self.levels[:-1])

    def _wait_for_turn(self) -> Steps:
        """What was done in the same turn of Redis' loop is told behind its replies, before those of another."""
        yield from self._write((), [(b"TIME",)])

    def _put_once(self, key: Hashable, name: bytes, script: scripts.Command) -> Steps:
        try:
            return (yield from self._write_ours([name], script))
        except Refused:
            with contextlib.suppress(CacheUnreachable):
                yield from self._write([name], scripts.drop(name, b""))
            raise
        except BaseException:  # whether it was done is unknown
            self.near.forget(key)
            self.drop_copies(key, name, self.levels[:-1])
            raise

    def _dead_head(self, name: bytes) -> Steps:
        """Of what stands in the way, the header where a tag has ended it or it is not ours; None: it is alive."""
        (data,) = yield Ask(self.home, [name])
        if not isinstance(data, bytes):
            return b""  # gone meanwhile; the next try says what else it is
        try:
            if (yield from self._is_alive(unpack(data), self.home)):
                return None
        except NotOurs:
            pass
        return data[:HEAD_BYTES]

    def delete(self, key: Hashable) -> Steps:
        name = self.names.of_key(key)
        self.near.forget(key)
        try:
            replies = yield from self._write([name], scripts.delete(name, self.names.of_deleted(name)))
            if self.home.link.remembers_first:  # it tells us, too, and not what we write next is to be forgotten
                yield from self._wait_for_turn()
        finally:  # also where nobody waits for it any more: it may be done, and Redis does not tell who did it
            self.near.forget(key)
            self.drop_copies(key, name, self.levels[:-1])
        return bool(replies[1])

    def invalidate_tag(self, tag: str) -> Steps:
        name = self.names.of_tag(tag)
        n = self.near.forget_tag(tag, name)
        try:
            yield from self._write([name], [(b"DEL", name)])
        finally:
            n += self.near.forget_tag(tag, name)
        return n

    def clear(self) -> Steps:
        """Everything of the namespace, at each level. O(keys of that Redis).

        Who computes is told before the first key goes: what was computed until then and is written behind that is met
        by the scan, and what would be written later is not written
        """
        self.near.forget_all()
        try:
            yield from self._write([self.names.all], scripts.touched(self.names.all))
            for level in reversed(self.levels):
                yield from self._clear_level(level)
        finally:
            self.near.forget_all()

    def _clear_level(self, level: Level) -> Steps:
        cursor = b"0"
        while True:
            scan = (b"SCAN", cursor, b"MATCH", self.names.prefix + b"*", b"COUNT", b"1000")
            ((cursor, names),) = yield from self._write((), [scan], level)
            if names:
                yield from self._write(names, [(b"DEL", *names)], level)
            if cursor == b"0":
                return


def _ms(ttl_s: float) -> int:
    return max(1, int(min(ttl_s * 1e3, MS_MAX)))
