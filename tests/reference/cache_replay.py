"""A replayed cache, readably: the compiled loop must count the same, whatever the policy."""

import math
from dataclasses import dataclass, field
from typing import Any

from reference.eviction import Limits


@dataclass
class Entry:
    key: int
    bytes: int
    cost_us: float
    made_s: float
    next_use: int | None
    parent: int | None = None
    n_uses: int = 0


@dataclass
class Trace:
    """Columns as replay takes them, none missing."""

    keys: list[int]
    sizes: list[int]
    costs: list[float]
    times_s: list[float]
    admit: list[bool]
    requests: list[int] | None = None

    def next_uses(self) -> list[int | None]:
        last: dict[int, int] = {}
        next_uses: list[int | None] = [None] * len(self.keys)
        for i in reversed(range(len(self.keys))):
            next_uses[i] = last.get(self.keys[i])
            last[self.keys[i]] = i
        return next_uses


@dataclass
class ReplayedCache:
    """The view of its policy; ids are given out from the lowest, those that come back first again first."""

    capacity: int
    policy: Any
    ttl_s: float = math.inf
    entries: dict[int, Entry] = field(default_factory=dict)
    free: list[int] = field(default_factory=lambda: list(reversed(range(1024))))
    told: set[int] = field(default_factory=set)  # what the policy knows to be evictable

    def __post_init__(self) -> None:
        self.counts = dict.fromkeys(("requests", "hits", "misses", "evictions", "rejected", "expired"), 0)
        self.missed: list[tuple[int, float]] = []
        self.n_places = 16  # that the policy knows of
        self.policy.attach(self, Limits(self.n_places, self.capacity))

    def key(self, id_: int) -> int:
        return self.entries[id_].key

    def bytes(self, id_: int) -> int:
        return self.entries[id_].bytes

    def cost_us(self, id_: int) -> float:
        return self.entries[id_].cost_us

    def next_use(self, id_: int) -> int | None:
        return self.entries[id_].next_use

    def used(self) -> int:
        return sum(entry.bytes for entry in self.entries.values())

    def find(self, key: int) -> int | None:
        return next((id_ for id_, entry in self.entries.items() if entry.key == key), None)

    def children(self, id_: int) -> list[int]:
        return [child for child, entry in self.entries.items() if entry.parent == id_]

    def held(self, id_: int) -> bool:
        return self.entries[id_].n_uses > 0 or any(self.held(child) for child in self.children(id_))

    def tell(self) -> None:
        now = {id_ for id_ in self.entries if not self.held(id_) and not self.children(id_)}
        for id_ in sorted(self.told - now):
            self.policy.on_held(id_)
        for id_ in sorted(now - self.told):
            self.policy.on_evictable(id_)
        self.told = now

    def add(self, trace: Trace, i: int, parent: int | None = None, n_uses: int = 0) -> int:
        id_ = self.free.pop()
        size, cost_us = max(trace.sizes[i], 1), trace.costs[i]
        self.entries[id_] = Entry(trace.keys[i], size, cost_us, trace.times_s[i], self.nexts[i], parent, n_uses)
        if id_ >= self.n_places:
            self.n_places = id_ + 1 + (id_ + 1) // 8
            if hasattr(self.policy, "grow"):
                self.policy.grow(self.n_places)
        self.policy.on_insert(id_)
        return id_

    def remove(self, id_: int) -> None:
        self.policy.on_remove(id_)
        self.told.discard(id_)
        del self.entries[id_]
        self.free.append(id_)

    def count(self, trace: Trace, i: int, what: str) -> None:
        self.counts["requests"] += 1
        self.counts[what] += 1
        if what == "misses":
            self.missed.append((max(trace.sizes[i], 1), trace.costs[i]))

    def touch(self, trace: Trace, i: int, id_: int) -> None:
        self.entries[id_].cost_us, self.entries[id_].next_use = trace.costs[i], self.nexts[i]

    def run(self, trace: Trace) -> dict[str, float]:
        self.nexts = trace.next_uses()
        if trace.requests is None:
            for i in range(len(trace.keys)):
                self.access(trace, i)
        else:
            for request in dict.fromkeys(trace.requests):
                self.prompt(trace, [i for i, each in enumerate(trace.requests) if each == request])
        sizes = [max(size, 1) for size in trace.sizes]
        return self.counts | {
            "bytes_used": self.used(),
            "bytes_requested": sum(sizes),
            "bytes_missed": sum(size for size, _ in self.missed),
            "cost_requested_us": sum(trace.costs),
            "cost_missed_us": sum(cost_us for _, cost_us in self.missed),
        }

    def access(self, trace: Trace, i: int) -> None:
        found = self.find(trace.keys[i])
        size = max(trace.sizes[i], 1)
        is_old = found is not None and trace.times_s[i] - self.entries[found].made_s >= self.ttl_s
        if found is not None and not is_old and self.entries[found].bytes == size:
            self.count(trace, i, "hits")
            self.touch(trace, i, found)
            self.policy.on_hit([found])
            return
        self.count(trace, i, "misses")
        if found is not None:
            self.counts["expired"] += is_old
            self.remove(found)
        if not trace.admit[i] or size > self.capacity:
            self.counts["rejected"] += 1
            return
        added = self.add(trace, i)
        self.tell()
        while self.used() > self.capacity:
            victim = self.policy.victim()
            assert victim in self.told
            self.remove(victim)
            self.counts["rejected" if victim == added else "evictions"] += 1

    def prompt(self, trace: Trace, places: list[int]) -> None:
        used: list[int] = []
        while len(used) < len(places) and (found := self.find(trace.keys[places[len(used)]])) is not None:
            i = places[len(used)]
            self.count(trace, i, "hits")
            self.touch(trace, i, found)
            self.entries[found].n_uses += 1
            self.tell()
            used.append(found)
        if used:
            self.policy.on_hit(used)
        is_chain = True
        for i in places[len(used) :]:
            self.count(trace, i, "misses")
            found = self.find(trace.keys[i]) if is_chain else None
            if found is not None:
                self.touch(trace, i, found)
                self.entries[found].n_uses += 1
                self.tell()
                used.append(found)
                self.policy.on_hit([found])
            elif is_chain and trace.admit[i] and self.make_room(max(trace.sizes[i], 1)):
                used.append(self.add(trace, i, used[-1] if used else None, n_uses=1))
            else:
                is_chain = False
                self.counts["rejected"] += 1
        if used:
            self.policy.on_release(used)
        for id_ in reversed(used):
            self.entries[id_].n_uses -= 1
            self.tell()

    def make_room(self, size: int) -> bool:
        if size + sum(entry.bytes for id_, entry in self.entries.items() if self.held(id_)) > self.capacity:
            return False
        while self.used() + size > self.capacity:
            victim = self.policy.victim()
            assert victim in self.told
            self.remove(victim)
            self.tell()
            self.counts["evictions"] += 1
        return True
