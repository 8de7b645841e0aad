"""What is asked for when: learned from accesses, in bounded memory, with the past alone."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infcore import _checks
from infcore.errors import InvalidArgument

HOUR_S = 3600.0
WEEK_SLOTS = 168
_DAY = 24
_MONDAY = 72  # hours from 1970-01-01, a Thursday, back to a Monday's 00:00 UTC, modulo a week
_SUCCESSORS = 4  # of each key
_SESSIONS_MAX = 4096
_GAP_SLOTS_MAX = 8 * WEEK_SLOTS


@dataclass(slots=True)
class Item:
    """Something that may be wanted: an entry or a model."""

    key: Hashable
    size_bytes: int
    cost_us: float
    load_s: float = 0.0


def slot_of(now_s: float) -> int:
    """The hour of the week, 0 to 167, from Monday 00:00 UTC, of seconds since 1970-01-01 UTC."""
    return (int(now_s // HOUR_S) + _MONDAY) % WEEK_SLOTS


class Demand:
    """Learns how often each key is asked for in each hour of the week, and what is asked for after what.

    keys_max     that are followed, those with the most cost asked for of late; up to four times as many are on trial,
                 for an hour
    memory_weeks half of what was seen so long ago is forgotten
    shrink       a week's hour is believed against the day's hour, and that against the key's mean, as if those had been
                 seen so many times before: few samples stay near the mean
    after_s      a key follows another if it is asked for within so many seconds; 0: no sequences are learned
    Hours are those of UTC seconds since 1970; a clock with another start shifts them all alike. What is learned in an
    hour counts when it is over. The level of the last day scales a key's forecast: what stopped is soon not expected.
    Memory      168 * 4 bytes, and about 0.6 kB, for each of keys_max
    Complexity  observe() amortised O(1), an hour's end O(keys_max * 168)
    """

    def __init__(
        self,
        *,
        keys_max: int = 4096,
        memory_weeks: float = 4.0,
        shrink: float = 16.0,
        after_s: float = 60.0,
    ):
        self.keys_max = _checks.integer("keys_max", keys_max, 1, 1 << 20)
        memory_weeks = _checks.finite("memory_weeks", memory_weeks, above=True)
        self._shrink = _checks.finite("shrink", shrink, above=True)
        self._after_s = _checks.finite("after_s", after_s)
        self._week_decay = 2.0 ** (-1.0 / memory_weeks)
        self._hour_decay = 2.0 ** (-1.0 / (memory_weeks * WEEK_SLOTS))
        self._rows: dict[Hashable, int] = {}
        self._items: list[Item | None] = [None] * self.keys_max
        self._trial: dict[Hashable, tuple[Item, float]] = {}  # new in this hour, and how often
        self._counts = np.zeros((self.keys_max, WEEK_SLOTS), np.float32)
        self._hours = np.zeros(WEEK_SLOTS)  # how often each slot was seen, with the same decay
        self._now = np.zeros(self.keys_max)  # of the hour that runs
        self._total = np.zeros(self.keys_max)
        self._total_hours = 0.0
        self._born_hours = np.zeros(self.keys_max)  # what had been seen of all hours when the key came, decayed alike
        self._recent = np.zeros(self.keys_max)
        self._recent_expected = np.zeros(self.keys_max)
        self._floor = 0.0  # decayed accesses that a key which is not followed may have had at most
        self._hour: int | None = None
        self._last_s = 0.0
        self._after: list[dict[Hashable, list[float]]] = [{} for _ in range(self.keys_max)]
        self._leads = np.zeros(self.keys_max)  # how often each was followed by the chance of a successor
        self._sessions: OrderedDict[Hashable, list[tuple[Hashable, float]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def observe(
        self,
        key: Hashable,
        now_s: float,
        *,
        size_bytes: int | None = None,
        cost_us: float | None = None,
        load_s: float | None = None,
        session: Hashable = None,
    ) -> None:
        """The key was asked for at now_s, seconds that do not go back (earlier ones count as the last).

        size_bytes, cost_us, load_s  as far as they are known; what was told last stays
        session  whose accesses follow each other; None: all that have none are one
        Raises   InvalidArgument, InvalidType
        """
        size_bytes, cost_us, load_s = _checked(size_bytes, cost_us, load_s)
        now_s = self._advance(now_s)
        row = self._rows.get(key)
        if row is None:
            self._try(key, size_bytes, cost_us, load_s)
        else:
            self._now[row] += 1.0
            item = self._items[row]
            assert item is not None
            _tell(item, size_bytes, cost_us, load_s)
        if self._after_s > 0.0:
            self._follow(key, row, now_s, session)

    def observe_many(
        self,
        keys: Sequence[Any] | NDArray[Any],
        times_s: Sequence[float] | NDArray[Any],
        *,
        sizes: Sequence[int] | NDArray[Any] | None = None,
        costs: Sequence[float] | NDArray[Any] | None = None,
        sessions: Sequence[Any] | NDArray[Any] | None = None,
    ) -> None:
        """observe() for columns of one length, such as a trace's; keys and sessions as the cache's callers do."""
        n = len(keys)
        columns = [keys, times_s, sizes, costs, sessions]
        for field, column in zip(("times_s", "sizes", "costs", "sessions"), columns[1:], strict=True):
            if column is not None and len(column) != n:
                raise InvalidArgument(f"{field} has {len(column)} values; allowed: {n}, one for each of keys")
        plain: list[Any] = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns]
        for at in range(n):
            size, cost, session = (None if column is None else column[at] for column in plain[2:])
            self.observe(plain[0][at], plain[1][at], size_bytes=size, cost_us=cost, session=session)

    def know(self, item: Item) -> None:
        """What it weighs and costs, of a key that is followed or on trial; of others it is not kept."""
        row = self._rows.get(item.key)
        known = self._items[row] if row is not None else self._trial.get(item.key, (None, 0.0))[0]
        if known is not None:
            _tell(known, *_checked(item.size_bytes, item.cost_us, item.load_s))

    def advance(self, now_s: float) -> None:
        """Nothing was asked for until now_s: silence is learned, too."""
        self._advance(now_s)

    def _advance(self, now_s: float) -> float:
        now_s = max(_checks.finite("now_s", now_s, -1e15), self._last_s) if self._hour is not None else now_s
        hour = int(_checks.finite("now_s", now_s, -1e15) // HOUR_S)
        if self._hour is None:
            self._hour = hour
        self._hour = max(self._hour, hour - _GAP_SLOTS_MAX)  # what was before has no weight any more
        while self._hour < hour:
            self._end_hour(self._hour)
            self._hour += 1
        self._last_s = now_s
        return now_s

    # -- an hour ends: everything is an array over the keys
    def _end_hour(self, hour: int) -> None:
        slot = (hour + _MONDAY) % WEEK_SLOTS
        self._recent_expected = (self._recent_expected + self._plain_rates(slot)) * _LEVEL_DECAY
        self._recent = (self._recent + self._now) * _LEVEL_DECAY
        self._counts[:, slot] = self._counts[:, slot] * self._week_decay + self._now
        self._hours[slot] = self._hours[slot] * self._week_decay + 1.0
        self._total = self._total * self._hour_decay + self._now
        self._total_hours = self._total_hours * self._hour_decay + 1.0
        self._born_hours *= self._hour_decay
        self._leads *= self._hour_decay
        self._now[:] = 0.0
        self._floor *= self._hour_decay
        self._admit(slot)

    def _admit(self, slot: int) -> None:
        """Those on trial come in, for those that were worth less."""
        newcomers = sorted(self._trial.values(), key=lambda each: -each[1] * each[0].cost_us)
        self._trial = {}
        free = list(range(self.keys_max - 1, len(self._rows) - 1, -1))  # rows are never given back, only taken over
        costs = np.array([0.0 if item is None else item.cost_us for item in self._items])
        worth = self._total * costs
        order = iter(np.argsort(worth, kind="stable").tolist())
        for item, n in newcomers:
            if free:
                row = free.pop()
            else:
                row = next(order, -1)
                if row < 0 or worth[row] >= n * item.cost_us:
                    self._floor = max(self._floor, n)
                    break
                gone = self._items[row]
                assert gone is not None
                self._floor = max(self._floor, float(self._total[row]))
                del self._rows[gone.key]
            self._rows[item.key], self._items[row] = row, item
            self._counts[row] = 0.0
            self._counts[row, slot] = n
            self._total[row] = self._recent[row] = n
            self._recent_expected[row] = n
            self._born_hours[row] = self._total_hours - 1.0
            self._after[row], self._leads[row] = {}, 0.0

    def _try(self, key: Hashable, size_bytes: int | None, cost_us: float | None, load_s: float | None) -> None:
        known = self._trial.get(key)
        if known is None:
            if len(self._trial) >= 4 * self.keys_max:  # the half that was asked for least, and longest ago, goes
                ranked = sorted(self._trial, key=lambda each: self._trial[each][0].cost_us * self._trial[each][1])
                for gone in ranked[: len(ranked) // 2]:
                    self._floor = max(self._floor, self._trial.pop(gone)[1])
            known = (Item(key, 1, 1.0), 0.0)
        _tell(known[0], size_bytes, cost_us, load_s)
        self._trial[key] = (known[0], known[1] + 1.0)

    # -- rates
    def _plain_rates(self, slot: int) -> NDArray[np.float64]:
        """Accesses an hour of each key in the slot, from means over what was seen: hour of week, of day, all hours."""
        k = self._shrink
        day = np.arange(slot % _DAY, WEEK_SLOTS, _DAY)
        seen = np.maximum(self._total_hours - self._born_hours, 1.0)
        mean = self._total / np.maximum(seen, _DAY)  # what is new has not shown its day yet
        young = seen / max(1.0, self._total_hours)  # the share of all hours in which the key was there
        day_hours = self._hours[day].sum() * young
        day_rate = (self._counts[:, day].sum(axis=1) + k * mean) / (day_hours + k)
        rate: NDArray[np.float64] = (self._counts[:, slot] + k * day_rate) / (self._hours[slot] * young + k)
        return rate

    def rates(self, now_s: float) -> NDArray[np.float64]:
        """Accesses an hour that each row is expected to have in the hour of now_s, as things stand."""
        level = (self._recent + _LEVEL_PRIOR) / (self._recent_expected + _LEVEL_PRIOR)
        return self._plain_rates(slot_of(now_s)) * np.minimum(level, _LEVEL_MAX)

    def unknown_rate(self) -> float:
        """Accesses an hour that a key which is not followed has at most."""
        return self._floor / max(1.0, self._total_hours)

    def followed(self) -> Iterator[tuple[int, Item]]:
        """Rows and what is in them."""
        for row in self._rows.values():
            item = self._items[row]
            assert item is not None
            yield row, item

    def n_this_hour(self, key: Hashable) -> float:
        """How often the key was asked for in the hour that is not over."""
        row = self._rows.get(key)
        return float(self._now[row]) if row is not None else self._trial.get(key, (None, 0.0))[1]

    def row_of(self, key: Hashable) -> int | None:
        return self._rows.get(key)

    # -- sequences
    def _follow(self, key: Hashable, row: int | None, now_s: float, session: Hashable) -> None:
        before = self._sessions.pop(session, [])
        before = [each for each in before if now_s - each[1] <= self._after_s and each[0] != key][-_SUCCESSORS:]
        for earlier, at_s in before:
            earlier_row = self._rows.get(earlier)
            if earlier_row is None:
                continue
            after = self._after[earlier_row]
            found = after.get(key)
            if found is None:
                count = 0.0
                if len(after) >= 2 * _SUCCESSORS:  # space-saving: the rarest makes room and leaves its count
                    least = min(after, key=lambda each: after[each][0])
                    count = after.pop(least)[0]
                found = after[key] = [count, 0.0, count]
            found[0] += 1.0
            found[1] += now_s - at_s
        if row is not None:
            self._leads[row] += 1.0
        self._sessions[session] = [*before, (key, now_s)]
        if len(self._sessions) > _SESSIONS_MAX:
            self._sessions.popitem(last=False)

    def expected_after(self, now_s: float) -> dict[Hashable, tuple[float, float]]:
        """Key to (how often it is expected, when at the soonest) from what was asked for in the last after_s."""
        expected: dict[Hashable, tuple[float, float]] = {}
        for recent in self._sessions.values():
            for earlier, at_s in recent:
                row = self._rows.get(earlier)
                if row is None or now_s - at_s > self._after_s:
                    continue
                for key, (count, delay_s, error) in self._after[row].items():
                    sure = count - error
                    if sure < 2.0:
                        continue  # once is chance
                    due_s = at_s + delay_s / sure
                    chance = min(1.0, (sure - 1.0) / (float(self._leads[row]) + 1.0))
                    n, soonest_s = expected.get(key, (0.0, due_s))
                    expected[key] = (max(n, chance), min(soonest_s, due_s))
        return expected


_LEVEL_DECAY = 2.0 ** (-1.0 / 12.0)  # an hour's weight in a key's level halves in twelve hours
_LEVEL_PRIOR = 1.0  # accesses, as expected, that every key's level begins with
_LEVEL_MAX = 4.0


def _checked(
    size_bytes: int | None, cost_us: float | None, load_s: float | None
) -> tuple[int | None, float | None, float | None]:
    """Before anything is counted."""
    return (
        None if size_bytes is None else _checks.integer("size_bytes", size_bytes, 0) or 1,
        None if cost_us is None else _checks.finite("cost_us", cost_us),
        None if load_s is None else _checks.finite("load_s", load_s),
    )


def _tell(item: Item, size_bytes: int | None, cost_us: float | None, load_s: float | None) -> None:
    if size_bytes is not None:
        item.size_bytes = size_bytes
    if cost_us is not None:
        item.cost_us = cost_us
    if load_s is not None:
        item.load_s = load_s
