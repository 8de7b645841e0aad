"""The result cache, readably: a dict of entries, who is dead and why, and which policy chooses what goes."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from reference.eviction import Limits

HITS_MAX = 64  # that the policy has not been told of
SWEPT = 2  # places that a put looks at


class Entry:
    """What a put said, and what has become of it since."""

    def __init__(self, id_: int, key: Hashable, value: Any, **told: Any) -> None:
        self.id = id_
        self.key = key
        self.value = value
        self.bytes: int = told["size_bytes"] or 1
        self.cost_us: float = told["cost_us"]
        self.expires_s: float = told["expires_s"]
        self.stale_until_s: float = told["stale_until_s"]
        self.tags: frozenset[str] = frozenset(told["tags"])
        self.version: int = told["version"]
        self.n_pins: int = told["n_pins"]
        self.is_invalid = False

    @property
    def is_plain(self) -> bool:
        """Nothing can be dead of its time, its tags or its version."""
        return self.expires_s == float("inf") and self.version == 0 and not self.tags and self.n_pins == 0


class Cache:
    """`policy` is one of reference/eviction.py."""

    def __init__(self, capacity_bytes: int, policy: Any, now_s: Callable[[], float], ttl_s: float = float("inf")):
        self.capacity_bytes, self.policy, self.now_s, self.ttl_s = capacity_bytes, policy, now_s, ttl_s
        self.entries: dict[Hashable, Entry] = {}
        self.by_id: dict[int, Entry] = {}
        self.free: list[int] = []  # the last is taken first
        self.gone: list[int] = []  # in this call; their keys and values are let go of at its end, the last first
        self.n_ids = 0
        self.hits: list[int] = []
        self.hand = 0
        self.floor = 0
        self.tag_floors: dict[str, int] = {}
        self.counts = dict.fromkeys(("hits", "misses", "evictions", "rejected", "expired", "invalidated"), 0)
        self.n_places = 0
        policy.attach(self, Limits(0, capacity_bytes))

    # What the policy asks of its view.
    def key(self, id_: int) -> int:
        """Of its content; policies that ask for it are modelled with ints alone."""
        key = self.by_id[id_].key
        return key % 2**64 if isinstance(key, int) else hash(key)

    def next_use(self, id_: int) -> int | None:
        return None

    def cost_us(self, id_: int) -> float:
        return self.by_id[id_].cost_us

    def bytes(self, id_: int) -> int:
        return self.by_id[id_].bytes

    @property
    def bytes_used(self) -> int:
        return sum(entry.bytes for entry in self.entries.values())

    def _is_invalid(self, entry: Entry) -> bool:
        floors = [self.floor, *(self.tag_floors.get(tag, 0) for tag in entry.tags)]
        return entry.is_invalid or entry.version < max(floors)

    def _is_live(self, entry: Entry) -> bool:
        return not self._is_invalid(entry) and self.now_s() < entry.expires_s

    def _is_stale(self, entry: Entry) -> bool:
        return not self._is_invalid(entry) and entry.expires_s <= self.now_s() < entry.stale_until_s

    def _tell_hits(self) -> None:
        if self.hits:
            self.policy.on_hit(self.hits)
            self.hits = []

    def _remove(self, entry: Entry) -> None:
        self._tell_hits()
        self.policy.on_remove(entry.id)
        del self.entries[entry.key], self.by_id[entry.id]
        self.gone.append(entry.id)

    def _let_go(self) -> None:
        self.free += reversed(self.gone)
        self.gone = []

    def _meet(self, entry: Entry) -> None:
        if self._is_live(entry) or self._is_stale(entry) or entry.n_pins:
            return
        self.counts["invalidated" if self._is_invalid(entry) else "expired"] += 1
        self._remove(entry)

    def get(self, key: Hashable, default: Any = None) -> Any:
        entry = self.entries.get(key)
        if entry is None or not self._is_live(entry):
            self.counts["misses"] += 1
            if entry is not None:
                self._meet(entry)
                self._let_go()
            return default
        self.counts["hits"] += 1
        self.hits.append(entry.id)
        if len(self.hits) == HITS_MAX:
            self._tell_hits()
        return entry.value

    def peek(self, key: Hashable, default: Any = None) -> Any:
        entry = self.entries.get(key)
        return default if entry is None or not self._is_live(entry) else entry.value

    def stale(self, key: Hashable, default: Any = None) -> Any:
        entry = self.entries.get(key)
        return default if entry is None or not (self._is_live(entry) or self._is_stale(entry)) else entry.value

    def put(self, key: Hashable, value: Any, *, size_bytes: int, cost_us: float = 1.0, ttl_s: float | None = None,
            stale_s: float = 0.0, tags: Iterable[str] = (), version: int = 0) -> bool:  # fmt: skip
        before = self.entries.get(key)
        if version < max([self.floor, *(self.tag_floors.get(tag, 0) for tag in tags)]):
            return False
        if before is not None and (self._is_live(before) or self._is_stale(before)) and version < before.version:
            return False
        if max(1, size_bytes) > self.capacity_bytes:
            self.counts["rejected"] += 1
            if before is not None:
                self._remove(before)
                self._let_go()
            return False
        self._tell_hits()
        expires_s = self.now_s() + (self.ttl_s if ttl_s is None else ttl_s)
        told = {"size_bytes": size_bytes, "cost_us": cost_us, "tags": tags, "version": version}
        told |= {"expires_s": expires_s, "stale_until_s": expires_s + stale_s}
        if before is None:
            if not self.free:
                self.free.append(self.n_ids)
                self.n_ids += 1
                self._grow()
            entry = Entry(self.free.pop(), key, value, n_pins=0, **told)
        else:
            self.policy.on_remove(before.id)
            entry = Entry(before.id, key, value, n_pins=before.n_pins, **told)
        self.entries[key] = self.by_id[entry.id] = entry
        self.policy.on_insert(entry.id)
        if not entry.n_pins:
            self.policy.on_evictable(entry.id)
        self._sweep()
        kept = self._make_room(entry)
        self._let_go()
        return kept

    def land(self, key: Hashable, value: Any, over: Any, **told: Any) -> bool:
        """What was computed: not in place of what came meanwhile, but for `over`."""
        before = self.entries.get(key)
        if before is not None and self._is_live(before) and before.value is not over:
            if before.version >= told.get("version", 0):
                return False
        return self.put(key, value, **told)

    def bring(self, key: Hashable, value: Any, instead_of: Iterable[Hashable] = (), **told: Any) -> bool:
        """What nobody asked for: where it is not there, for those and no others."""
        before, version = self.entries.get(key), told.get("version", 0)
        victims = [self.entries[each] for each in dict.fromkeys(instead_of) if each in self.entries]
        victims = [each for each in victims if each is not before and not each.n_pins]
        going = sum(each.bytes for each in [*victims, *([] if before is None else [before])])
        if max(1, told["size_bytes"]) > self.capacity_bytes - self.bytes_used + going:
            return False
        if before is not None and (self._is_live(before) or self._is_stale(before)):
            if version < before.version or (version == before.version and self._is_live(before)):
                return False
        if version < max([self.floor, *(self.tag_floors.get(tag, 0) for tag in told.get("tags", ()))]):
            return False
        for victim in victims:
            self.counts["evictions"] += 1
            self._remove(victim)
        return self.put(key, value, **told)

    def _grow(self) -> None:
        if self.n_ids > self.n_places:
            self.n_places = max(16, self.n_ids + self.n_ids // 8)
            if hasattr(self.policy, "grow"):
                self.policy.grow(self.n_places)

    def _sweep(self) -> None:
        if self.floor == 0 and all(entry.is_plain for entry in self.entries.values()):
            return
        for _ in range(SWEPT):
            self.hand = self.hand + 1 if self.hand + 1 < self.n_ids else 0
            if self.hand in self.by_id:
                self._meet(self.by_id[self.hand])

    def _make_room(self, newest: Entry) -> bool:
        while self.bytes_used > self.capacity_bytes:
            id_ = self.policy.victim()
            victim = newest if id_ is None else self.by_id[id_]
            self.counts["rejected" if victim is newest else "evictions"] += 1
            self._remove(victim)
            if victim is newest:
                return False
        return True

    def delete(self, key: Hashable) -> bool:
        entry = self.entries.get(key)
        if entry is None:
            return False
        was_there = self._is_live(entry)
        self._remove(entry)
        self._let_go()
        return was_there

    def clear(self) -> None:
        for _, entry in sorted(self.by_id.items()):
            self._remove(entry)
        self._let_go()

    def pin(self, key: Hashable) -> bool:
        entry = self.entries.get(key)
        if entry is None or not self._is_live(entry):
            return False
        entry.n_pins += 1
        if entry.n_pins == 1:
            self._tell_hits()
            self.policy.on_held(entry.id)
        return True

    def unpin(self, key: Hashable) -> bool:
        entry = self.entries.get(key)
        if entry is None or not entry.n_pins:
            return False
        entry.n_pins -= 1
        if not entry.n_pins:
            self.policy.on_evictable(entry.id)
        return True

    def invalidate_tag(self, tag: str) -> None:
        for entry in self.entries.values():
            entry.is_invalid |= tag in entry.tags

    def invalidate_older(self, version: int, tag: str | None = None) -> None:
        if tag is None:
            self.floor = max(self.floor, version)
        else:
            self.tag_floors[tag] = max(self.tag_floors.get(tag, 0), version)
