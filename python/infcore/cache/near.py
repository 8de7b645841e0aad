"""The local part of a coherent cache: what lies in it is what Redis had, as far as anybody told, and never older."""

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any

from infcore._core.base import Clock
from infcore.cache.far_value import Tags
from infcore.cache.result_cache import Cache

SLOTS = 4096  # generations, by hash: two keys that share one only make each other's reads in flight go unkept
AGES = 8  # steps in which an entry grows too old
MARKS_MAX = 1 << 16

Seen = tuple[int, int, int]


class Begun:
    """A value that is being made: whether the key was changed since, by whomever."""

    __slots__ = ("is_touched", "marks")

    def __init__(self) -> None:
        self.is_touched = False
        self.marks: Tags | None = None  # of its tags, from before; None: not known


class Near(Cache):
    """A Cache that asks on a miss, and keeps nothing that was read or written before a change that came since.

    Whoever fetches a value takes seen() before, and keep() refuses it if the key's generation has moved on: what
    left Redis before an invalidation did can arrive behind it. `guard` makes the question and the answer one step
    """

    __slots__ = (
        "_age",
        "_begun",
        "_era",
        "_generations",
        "_is_closed",
        "_missed",
        "_tag_era",
        "guard",
        "is_trusted",
        "marks",
        "n_outdated",
    )

    def __init__(self, capacity_bytes: int, missed: Callable[[Hashable, Any], Any], *, policy: str,
                 shards: int | None, clock: Clock | None):  # fmt: skip
        super().__init__(capacity_bytes, policy=policy, shards=shards, clock=clock)
        self._missed = weakref.WeakMethod(missed)
        self._generations = [0] * SLOTS
        self._era = self._tag_era = self._age = self.n_outdated = 0
        self._begun: dict[Hashable, list[Begun]] = {}  # exact, where a slot is not: some take minutes
        self._is_closed = False
        self.is_trusted = False  # whether everything that changes is told
        self.marks: dict[bytes, bytes] = {}  # by tag's name; forgotten when they change
        self.guard = threading.RLock()  # who lets go of values may come back

    def missed(self, key: Hashable, default: Any) -> Any:
        missed = self._missed()
        return default if missed is None else missed(key, default)

    def put(self, key: Hashable, value: Any, **_: Any) -> bool:
        """Of what was computed, nothing: it is kept where it is written to Redis, see keep() and replace()."""
        return False

    def seen(self, key: Hashable) -> Seen:
        """What is to be handed to keep(): taken before the value is read or made."""
        return self._era, self._generations[hash(key) % SLOTS], self._tag_era

    def is_current(self, key: Hashable, seen: Seen, tags: object) -> bool:
        """Whether nothing was told since; precondition of using the answer: `guard` is held."""
        now = self.seen(key)
        return self.is_trusted and (now == seen if tags else now[:2] == seen[:2])

    def keep(self, key: Hashable, value: Any, seen: Seen, **put: Any) -> bool:
        """Keep what was read, unless it may be outdated."""
        with self.guard:
            if not self.is_current(key, seen, put["tags"]):
                self.n_outdated += 1
                return False
            return self._store(key, value, put)

    def replace(self, key: Hashable, value: Any, seen: Seen, **put: Any) -> bool:
        """Keep what was written; who read or wrote the key meanwhile must not keep theirs."""
        with self.guard:
            is_current = self.is_current(key, seen, put["tags"])
            self.forget(key)
            return is_current and self._store(key, value, put)

    def keep_alone(self, key: Hashable, value: Any, **put: Any) -> bool:
        """Keep what Redis was not told of, until it is there again or put's ttl_s has passed."""
        with self.guard:
            return not self.is_trusted and not self._is_closed and self._store(key, value, put)

    def _store(self, key: Hashable, value: Any, put: dict[str, Any]) -> bool:
        return super().put(key, value, **{**put, "tags": (*put["tags"], f"\0{self._age}")})

    def begin(self, key: Hashable) -> Begun:
        """A value is being made for the key, until end()."""
        with self.guard:
            begun = Begun()
            self._begun.setdefault(key, []).append(begun)
            return begun

    def end(self, key: Hashable, begun: Begun) -> None:
        """What came of it does not matter here any more."""
        with self.guard:
            others = self._begun.get(key, [])
            if begun in others:
                others.remove(begun)
                if not others:
                    del self._begun[key]

    def forget(self, key: Hashable) -> bool:
        """The key has changed somewhere, or may have."""
        with self.guard:
            for begun in self._begun.get(key, ()):
                begun.is_touched = True
            self._generations[hash(key) % SLOTS] += 1
            return self.delete(key)

    def forget_tag(self, tag: str, name: bytes) -> int:
        """The tag was invalidated somewhere."""
        with self.guard:
            self._tag_era += 1
            self.marks.pop(name, None)
            return self.invalidate_tag(tag)

    def forget_all(self) -> None:
        """Everything may have changed."""
        with self.guard:
            self._outdate_all()
            self.clear()

    def _outdate_all(self) -> None:
        self._era += 1
        self.marks.clear()
        for made in self._begun.values():
            for begun in made:
                begun.is_touched = True

    def distrust(self) -> None:
        """Nothing is told any more: what is read from now on is not kept."""
        with self.guard:
            self.is_trusted = False
            self._outdate_all()

    def close(self) -> None:
        """Nothing is kept from now on, whatever is told or was under way."""
        with self.guard:
            self._is_closed = True
            self.distrust()
            self.forget_all()

    def trust(self) -> None:
        """Everything is told again, from now on."""
        with self.guard:
            self.forget_all()
            self.is_trusted = not self._is_closed

    def learn(self, marks: dict[bytes, bytes], seen: Seen) -> None:
        """What tags bear, unless one has changed since."""
        with self.guard:
            if self.is_trusted and (self._era, self._tag_era) == (seen[0], seen[2]):
                while len(self.marks) + len(marks) > MARKS_MAX and self.marks:
                    del self.marks[next(iter(self.marks))]
                self.marks.update(marks)

    def grow_older(self) -> None:
        """Called AGES times in the life of an entry: what has seen so many of them is gone. O(1)."""
        with self.guard:
            self._age += 1
            self.invalidate_tag(f"\0{self._age - AGES}")

    def after_fork(self) -> None:
        """In the child: others' threads may have held the lock."""
        self.guard = threading.RLock()
        self.distrust()
        self.forget_all()
