"""How a coherent cache hears of changes, and what it does as time goes by: it trusts what it has, or not any more."""

import math
import os
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any

from infcore.cache.near import AGES, Near
from infcore.cache.redis_link import Link

if TYPE_CHECKING:
    from infcore.cache.far_part import FarPart

HEARTBEAT_S_MAX = 1.0  # a connection that broke without a word is found by that
LOOKED_AT_S = 0.05  # a clock that was handed in may be turned at any time
LOOK_S_MAX = 3600.0  # nothing can wait for as long as a bound may be


class Ear:
    """What one cache knows of the time, and what its levels' ears tell it. It does not keep the cache alive."""

    def __init__(self, far: "FarPart", bound_s: float, age_s: float | None):
        self._far = weakref.ref(far)
        self._near = far.near
        self._bound_s, self._age_s = bound_s, age_s
        self._asked_s = self._confirmed_s = -math.inf
        self._next_age_s = self._near.now_s() + age_s if age_s is not None else math.inf
        self._is_over = True  # nothing here is served since the bound was passed
        self.is_trusted = threading.Event()
        self.n_changes = self.n_flushes = 0

    def at(self, index: int, *, is_home: bool) -> "LevelEar":
        """The ear at that level. Only the last one is listened to: whatever changes, changes there first."""
        far = self._far()
        assert far is not None  # its owner asks
        return LevelEar(self, index, far.names.prefix if is_home else b"", min(self._bound_s / 4, HEARTBEAT_S_MAX))

    def far(self) -> "FarPart | None":
        """What listens, while it is there."""
        return self._far()

    def staleness_s(self) -> float:
        """Since when something may have been missed."""
        return max(0.0, self._near.now_s() - self._confirmed_s)

    def ask(self) -> None:
        """confirm() will speak of this moment."""
        self._asked_s = self._near.now_s()

    def confirm(self) -> None:
        """Up to ask(), everything was told."""
        with self._near.guard:
            self._confirmed_s = self._asked_s
            if not self._near.is_trusted:  # it was late, and nothing is left here
                self.begin()

    def begin(self) -> None:
        """From now on everything is told."""
        with self._near.guard:
            self._asked_s = self._confirmed_s = self._near.now_s()  # who came between ask() and confirm(), too
            self._is_over = False
            self._near.trust()
        self.n_flushes += 1
        self.is_trusted.set()

    def lose(self) -> None:
        """Nothing is told any more."""
        self.is_trusted.clear()
        self._near.distrust()

    def flush(self) -> None:
        """Everything may have changed."""
        self.n_flushes += 1
        self._near.forget_all()

    def look(self) -> float:
        """What is due: nothing is served beyond the bound, nothing grows too old. In how many seconds to look again."""
        now_s = self._near.now_s()
        for _ in range(AGES + 1):
            if now_s < self._next_age_s:
                break
            self._near.grow_older()
            self._next_age_s += self._age_s or math.inf
        self._next_age_s = max(self._next_age_s, now_s)
        with self._near.guard:
            left_s = self._confirmed_s + self._bound_s - now_s
            if left_s < 0.0 and not self._is_over:
                self._is_over = True
                self.lose()
                self.flush()
        until_bound_s = left_s if left_s > 0.0 else self._bound_s / 4
        return min(until_bound_s, self._next_age_s - now_s)


class LevelEar:
    """Listens at one level. Called on the link's thread."""

    def __init__(self, ear: Ear, index: int, prefix: bytes, heartbeat_s: float):
        self._ear, self._index = ear, index
        self.prefix, self.heartbeat_s = prefix, heartbeat_s

    def _listening(self) -> "FarPart | None":
        """At the last level, while the cache is there."""
        return self._ear.far() if self.prefix else None

    def on_up(self, link: Link) -> None:
        far = self._listening()
        if far is not None:
            for level in far.levels[: self._index]:
                level.be_wary()
            self._ear.begin()
            return
        far = self._ear.far()
        if far is not None:
            far.levels[self._index].be_wary()

    def on_lost(self, link: Link) -> None:
        if self._listening() is not None:
            self._ear.lose()

    def on_changed(self, link: Link, name: bytes) -> None:
        far = self._listening()
        if far is None:
            return
        self._ear.n_changes += not far.names.is_deleted(name)  # of what was there, its own name is told, too
        if name == far.names.all:
            self.on_flushed(link)
        else:
            far.changed(name)

    def on_flushed(self, link: Link) -> None:
        far = self._listening()
        if far is not None:
            for level in far.levels[: self._index]:
                level.be_wary()
            self._ear.flush()

    def on_asked(self, link: Link) -> None:
        if self._listening() is not None:
            self._ear.ask()

    def on_confirmed(self, link: Link) -> None:
        if self._listening() is not None:
            self._ear.confirm()


def watch(ear: Ear, *, is_turned: bool) -> "queue.SimpleQueue[None]":
    """A thread that looks when something is due, until it is told to stop. is_turned: by a clock that others turn."""
    stop: queue.SimpleQueue[None] = queue.SimpleQueue()  # the one way to tell that a destructor may go

    def look() -> None:
        wait_s = 0.0
        while True:
            try:
                stop.get(timeout=wait_s)
                return
            except queue.Empty:
                wait_s = min(max(1e-3, ear.look()), LOOKED_AT_S if is_turned else LOOK_S_MAX)

    threading.Thread(target=look, name="infcore-coherence", daemon=True).start()
    return stop


_forked: "weakref.WeakKeyDictionary[Any, weakref.finalize[Any, Any]]" = weakref.WeakKeyDictionary()


def survive_fork(near: Near, finalizer: "weakref.finalize[Any, Any]") -> None:
    """In a forked child, nothing that the parent had is trusted, and its connections are let go without a word."""
    _forked[near] = finalizer


def _after_fork() -> None:
    for near, finalizer in list(_forked.items()):
        finalizer.detach()
        near.after_fork()


os.register_at_fork(after_in_child=_after_fork)
