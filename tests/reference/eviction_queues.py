"""Eviction by queues and marks, readably: SIEVE and S3-FIFO. Queues are lists, the oldest first."""

from reference.eviction import Limits, View


class Sieve:
    """A hand goes round from the oldest: takes marks, drops the held, names the first without; the newest last."""

    def __init__(self) -> None:
        self.queue: list[int] = []
        self.hand: int | None = None
        self.newest: int | None = None
        self.found: set[int] = set()
        self.evictable: set[int] = set()

    def attach(self, view: View, limits: Limits) -> None:
        """It asks nothing."""

    def on_insert(self, id_: int) -> None:
        self.found.discard(id_)
        self.newest = id_
        self.queue.append(id_)

    def on_hit(self, ids: list[int]) -> None:
        self.found.update(ids)

    def on_release(self, ids: list[int]) -> None:
        """No use."""

    def on_evictable(self, id_: int) -> None:
        self.evictable.add(id_)
        if id_ not in self.queue:
            self.queue.append(id_)

    def on_held(self, id_: int) -> None:
        self.evictable.remove(id_)

    def on_remove(self, id_: int) -> None:
        self.evictable.discard(id_)
        if id_ in self.queue:
            self._leave(id_)
        if id_ == self.newest:
            self.newest = None

    def _after(self, id_: int) -> int | None:
        behind = self.queue[self.queue.index(id_) + 1 :]
        return behind[0] if behind else None

    def _leave(self, id_: int) -> None:
        if id_ == self.hand:
            self.hand = self._after(id_)
        self.queue.remove(id_)

    def victim(self) -> int | None:
        while self.queue:
            if self.hand is None:
                self.hand = self.queue[0]
            if self.hand not in self.evictable:
                self._leave(self.hand)
            elif self.hand == self.newest:
                if len(self.queue) == 1:
                    return self.hand
                self.hand = self._after(self.hand)
            elif self.hand in self.found:
                self.found.remove(self.hand)
                self.hand = self._after(self.hand)
            else:
                return self.hand
        return None


class S3Fifo:
    """Small queue, main queue, keys that left the small one; the newest entry stands in none of them."""

    def __init__(self) -> None:
        self.queues: dict[str, list[int]] = {"small": [], "main": []}
        self.queue_of: dict[int, str] = {}
        self.n_hits: dict[int, int] = {}
        self.gone: list[int] = []  # keys, the latest last
        self.evictable: set[int] = set()
        self.newest: int | None = None
        self.named: int | None = None

    def attach(self, view: View, limits: Limits) -> None:
        self.view = view
        self.small_max = max(1, limits.capacity_bytes // 10)

    def on_insert(self, id_: int) -> None:
        if self.newest is not None:
            self.queues[self.queue_of[self.newest]].append(self.newest)
        self.newest = id_
        key = self.view.key(id_)
        n_entries = len(self.queue_of)
        self.queue_of[id_] = "main" if n_entries and key in self.gone[-n_entries:] else "small"
        # A place that is left empty stays one: it counts as somebody who went.
        self.gone = [each if each != key else -1 for each in self.gone]
        self.n_hits[id_] = 0

    def on_hit(self, ids: list[int]) -> None:
        for id_ in ids:
            self.n_hits[id_] = min(self.n_hits[id_] + 1, 3)

    def on_release(self, ids: list[int]) -> None:
        """No use."""

    def on_evictable(self, id_: int) -> None:
        self.evictable.add(id_)
        queue = self.queues[self.queue_of[id_]]
        if id_ != self.newest and id_ not in queue:
            queue.append(id_)

    def on_held(self, id_: int) -> None:
        self.evictable.remove(id_)

    def on_remove(self, id_: int) -> None:
        self.evictable.discard(id_)
        queue = self.queue_of.pop(id_)
        if id_ in self.queues[queue]:
            self.queues[queue].remove(id_)
        if id_ == self.newest:
            self.newest = None
        if id_ == self.named and queue == "small":
            key = self.view.key(id_)
            self.gone = [each if each != key else -1 for each in self.gone] + [key]
        self.named = None

    def victim(self) -> int | None:
        while self.queues["small"] or self.queues["main"]:
            n_bytes = sum(self.view.bytes(id_) for id_ in self.queues["small"])
            is_small = bool(self.queues["small"]) if n_bytes >= self.small_max else not self.queues["main"]
            queue = self.queues["small" if is_small else "main"]
            self.named = queue[0]
            if self.named not in self.evictable:
                queue.pop(0)
            elif self.n_hits[self.named] > (1 if is_small else 0):
                queue.pop(0)
                self.n_hits[self.named] = 0 if is_small else self.n_hits[self.named] - 1
                self.queue_of[self.named] = "main"
                self.queues["main"].append(self.named)
            else:
                return self.named
        self.named = self.newest if self.newest in self.evictable else None
        return self.named
