"""Loads what will be wanted before it is: what is worth most for its bytes, within a bandwidth, and for nothing that is
worth more."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infcore import _checks
from infcore._core.base import Clock
from infcore.cache.demand import HOUR_S, WEEK_SLOTS, Demand, Item
from infcore.cache.flight import is_cancelled
from infcore.cache.result_cache import Cache
from infcore.cache.room import Room

Pause = Callable[[float], object]
_DUE_SHARE = 0.05  # of what is expected in the horizon may come before it is there
_ERRORS_MAX = 16  # that a report keeps


@dataclass(frozen=True, slots=True)
class Load:
    """One thing to bring in.

    worth_us  cost that it is expected to save within the horizon
    start_s   when to begin, so that it is there at due_s and the loads together keep to the bandwidth
    evicts    what goes for it, worth gives_up_us in all, which is less
    """

    key: Hashable
    size_bytes: int
    cost_us: float
    load_s: float
    place: int
    worth_us: float
    gives_up_us: float
    start_s: float
    due_s: float
    evicts: tuple[Hashable, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Loads in the order of their starts; nothing is begun after until_s."""

    loads: tuple[Load, ...]
    bandwidth_bytes_per_s: float
    until_s: float

    @property
    def n_bytes(self) -> int:
        """To be loaded in all."""
        return sum(load.size_bytes for load in self.loads)


def chance_of(expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """That something is asked for at least once: 1 - exp(-expected) to .004, in arithmetic of no libm."""
    power = 1.0 / (1.0 + expected / 64.0)
    for _ in range(6):
        power = power * power
    return 1.0 - power


def plan(
    demand: Demand,
    now_s: float,
    horizon_s: float,
    bandwidth_bytes_per_s: float,
    *,
    cache: Cache | None = None,
    room: Room | None = None,
    place_of: Callable[[Hashable], int] = lambda _: 0,
    held: Iterable[Hashable] = (),
    chance_min: float = 0.05,
) -> Plan:
    """What to load from now on, of all that `demand` follows.

    horizon_s   how far ahead, up to a week; of what is loaded or stays, that much of the future counts
    cache       what is in it is not loaded, and what would go is worth its cost * chance; or, of models and the like:
    room        what is there and free by place, place_of(key) is where one belongs, held is what is there already
    chance_min  what is asked for with less is not loaded: a load is work, too
    Worth       cost * the chance that it is asked for at least once: with it in, that one miss is saved
    Returns     Plan. Same demand, time and room: same plan
    Complexity  O(keys followed * hours + n log n), and O(entries) of the cache
    """
    now_s = _checks.finite("now_s", now_s, -1e15)
    horizon_s = min(_checks.finite("horizon_s", horizon_s, above=True), WEEK_SLOTS * HOUR_S)
    bandwidth = _checks.finite("bandwidth_bytes_per_s", bandwidth_bytes_per_s, above=True)
    chance_min = _checks.finite("chance_min", chance_min)
    ahead = _Ahead(demand, now_s, now_s + horizon_s)
    if cache is not None:
        place_of = cache.place_of
        room = Room.of_cache(cache, ahead.worth_us)
    there: Any = cache if cache is not None else set(held)
    budget, trial = bandwidth * horizon_s, None if room is None else room.copy()
    chosen: list[Load] = []
    for item, chance, due_s in ahead.candidates(chance_min):
        slow_s = max(item.size_bytes / bandwidth, item.load_s)
        if item.size_bytes > budget or slow_s > horizon_s or item.key in there:
            continue
        place, worth_us = place_of(item.key), item.cost_us * chance
        if trial is not None:
            # A load that will be late is worth less: what goes for it must be worth less than that.
            late = ahead.chance(item.key, max(now_s + slow_s, due_s))
            if late < chance_min or trial.take(place, item.size_bytes, item.cost_us * late) is None:
                continue
        budget -= item.size_bytes
        about = (item.key, item.size_bytes, item.cost_us, item.load_s, place, worth_us)
        chosen.append(Load(*about, 0.0, now_s, due_s))
    return Plan(tuple(_scheduled(chosen, now_s, bandwidth, ahead, chance_min, room)), bandwidth, now_s + horizon_s)


class _Ahead:
    """What is expected until end_s, by hour."""

    def __init__(self, demand: Demand, now_s: float, end_s: float):
        self._demand, self._now_s, self._end_s = demand, now_s, end_s
        self._starts: list[float] = []
        hours = []
        at_s = now_s
        while at_s < end_s:
            until_s = min(end_s, (at_s // HOUR_S + 1.0) * HOUR_S)
            self._starts.append(at_s)
            hours.append(demand.rates(at_s) * ((until_s - at_s) / HOUR_S))
            at_s = until_s
        self._by_hour = np.array(hours)
        self._all = self._by_hour.sum(axis=0)
        self._chance = chance_of(self._all)
        self._after = demand.expected_after(now_s)
        self._unknown = float(chance_of(np.array(demand.unknown_rate() * (end_s - now_s) / HOUR_S)))

    def chance(self, key: Hashable, from_s: float) -> float:
        """That the key is asked for between then and the end."""
        row, (after, due_s) = self._demand.row_of(key), self._after.get(key, (0.0, 0.0))
        if row is None:
            return max(after, self._unknown)
        if from_s <= self._now_s:
            hours = float(self._chance[row])
        else:
            ends = [*self._starts[1:], self._end_s]
            shares = [
                min(1.0, max(0.0, (end - from_s) / (end - start)))
                for start, end in zip(self._starts, ends, strict=True)
            ]
            hours = float(chance_of(np.array((self._by_hour[:, row] * np.array(shares)).sum())))
        # What follows something is mostly asked for when its time has come.
        return hours + (1.0 - hours) * (after if from_s <= due_s else 0.0)

    def worth_us(self, key: Hashable, cost_us: float) -> float:
        """That the key's entry is expected to save; at least as if the present hour went on as it began."""
        hours = min(1.0, (self._end_s - self._now_s) / HOUR_S)
        lately = float(chance_of(np.array(self._demand.n_this_hour(key) * hours)))
        return cost_us * max(lately, self.chance(key, self._now_s))

    def candidates(self, chance_min: float) -> list[tuple[Item, float, float]]:
        """Item, chance, when it is due; worth most for its bytes first."""
        found = []
        for row, item in self._demand.followed():
            after, after_s = self._after.get(item.key, (0.0, 0.0))
            hours = float(self._chance[row])
            chance = hours + (1.0 - hours) * after
            if chance < chance_min or chance <= 0.0:
                continue
            due_s = self._due_s(row)
            found.append((item, chance, max(self._now_s, min(due_s, after_s) if after > hours else due_s)))
        found.sort(key=lambda each: -each[0].cost_us * each[1] / each[0].size_bytes)
        return found

    def _due_s(self, row: int) -> float:
        """The start of the hour before which hardly anything is expected."""
        so_far = 0.0
        for at, start_s in enumerate(self._starts):
            so_far += self._by_hour[at, row]
            if so_far > _DUE_SHARE * self._all[row]:
                return start_s
        return self._starts[-1]


def _scheduled(loads: list[Load], now_s: float, bandwidth: float, ahead: _Ahead, chance_min: float,
               room: Room | None) -> list[Load]:  # fmt: skip
    """As late as all can be in time, since what goes for them may be asked for until then; those that cannot be in time
    at once, one after the other. What goes is that of who needs the room first."""
    loads = sorted(loads, key=lambda load: load.due_s)  # stable: the worthiest first where they are due together
    starts = _starts(loads, now_s, bandwidth)
    kept = []
    for load, start_s in zip(loads, starts, strict=True):
        there_s = start_s + max(load.size_bytes / bandwidth, load.load_s)
        if there_s > load.due_s and ahead.chance(load.key, there_s) < chance_min:
            continue
        if room is not None:
            worth_us = load.cost_us * ahead.chance(load.key, max(there_s, load.due_s))
            going = room.take(load.place, load.size_bytes, worth_us)
            if going is None:
                continue
            load = replace(load, gives_up_us=going.worth_us, evicts=going.keys)
        kept.append(load)
    starts = _starts(kept, now_s, bandwidth)
    placed = [replace(load, start_s=start_s) for load, start_s in zip(kept, starts, strict=True)]
    return sorted(placed, key=lambda load: load.start_s)


def _starts(loads: list[Load], now_s: float, bandwidth: float) -> list[float]:
    """Of loads in the order in which they are due: the latest that are in time, and not before now."""
    starts = [0.0] * len(loads)
    free_until_s = float("inf")
    for at in range(len(loads) - 1, -1, -1):
        load = loads[at]
        moving_s = load.size_bytes / bandwidth
        there_s = load.due_s - max(0.0, load.load_s - moving_s)
        free_until_s = starts[at] = min(free_until_s, there_s) - moving_s
    free_from_s = now_s
    for at, load in enumerate(loads):
        starts[at] = max(starts[at], free_from_s)
        free_from_s = starts[at] + load.size_bytes / bandwidth
    return starts


@dataclass(kw_only=True)
class Warmed:
    """What became of a plan's loads.

    loaded   were brought in; n_bytes of them as planned
    kept_out there already, being computed by somebody, or without room when they came
    failed   whose load raised; errors has the first of them
    left     not begun: stopped, or too late
    """

    loaded: int = 0
    n_bytes: int = 0
    kept_out: int = 0
    failed: int = 0
    left: int = 0
    errors: list[tuple[Hashable, BaseException]] = field(default_factory=list)

    def _failed(self, key: Hashable, error: BaseException) -> None:
        self.failed += 1
        if len(self.errors) < _ERRORS_MAX:
            self.errors.append((key, error))

    def _ended(self, load: Load, is_kept: bool) -> None:
        if is_kept:
            self.loaded += 1
            self.n_bytes += load.size_bytes
        else:
            self.kept_out += 1


class _Pace:
    """When the next may begin: as planned, and never so that bytes begun run ahead of the bandwidth."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self._free_s = -float("inf")

    def wait_s(self, load: Load, now_s: float) -> float | None:
        """None: it is too late for any."""
        start_s = max(now_s, load.start_s, self._free_s)
        if start_s > self._plan.until_s:
            return None
        self._free_s = start_s + load.size_bytes / self._plan.bandwidth_bytes_per_s
        return start_s - now_s


def warm(
    plan: Plan,
    load: Callable[[Load], Any],
    *,
    cache: Cache | None = None,
    put: Callable[[Load], dict[str, Any]] | None = None,
    clock: Clock | None = None,
    stop: threading.Event | None = None,
    pause: Pause | None = None,
    parallel: int = 1,
) -> Warmed:
    """Carry the plan out: load(item) for each when its time has come, in order, within the bandwidth.

    load      makes the value; where there is a cache, it goes in under its key, and those who ask meanwhile wait for it
    cache     None: load() itself sees to everything, as for models
    put       more of what put() is told (ttl_s, tags, version); size and cost are the plan's
    clock     the one whose times plan() was given; None: monotonic time
    stop      when set, nothing more is begun; what is being loaded is waited for
    pause     pause(seconds) waits; None: until then, or until stop is set
    parallel  loads at once, each on a thread of its own; 1: this thread's. What ends before one that began earlier may
              find no room yet
    Returns   Warmed. What load() raises is counted there
    """
    _checks.integer("parallel", parallel, 1, 1024)
    clock, stop = Clock() if clock is None else clock, threading.Event() if stop is None else stop
    pause, report, lock = stop.wait if pause is None else pause, Warmed(), threading.Lock()
    pace = _Pace(plan)

    def run(it: Load) -> None:
        try:
            if cache is None:
                load(it)
                is_kept = True
            else:
                is_kept = cache.compute_ahead(it.key, lambda: load(it), **_told(it, put))
        except Exception as error:  # noqa: BLE001  (the caller's load: one that fails does not stop the others)
            with lock:
                report._failed(it.key, error)
        else:
            with lock:
                report._ended(it, is_kept)

    free = threading.Semaphore(parallel)
    with ThreadPoolExecutor(parallel) as threads:
        for at, it in enumerate(plan.loads):
            free.acquire()  # before the clock is read: what waits for a thread is not begun
            wait_s = pace.wait_s(it, clock.now_s())
            if wait_s is not None and wait_s > 0.0 and not stop.is_set():
                pause(wait_s)
            if wait_s is None or stop.is_set():
                report.left = len(plan.loads) - at
                break
            if parallel == 1:
                run(it)
                free.release()
            else:
                threads.submit(run, it).add_done_callback(lambda _: free.release())
    return report


async def awarm(
    plan: Plan,
    load: Callable[[Load], Awaitable[Any] | Any],
    *,
    cache: Cache | None = None,
    put: Callable[[Load], dict[str, Any]] | None = None,
    clock: Clock | None = None,
    pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    parallel: int = 1,
) -> Warmed:
    """warm() on an event loop; load may be a coroutine function. Cancelling it stops it, and what is being loaded."""
    _checks.integer("parallel", parallel, 1, 1024)
    clock = Clock() if clock is None else clock
    report, pace, free = Warmed(), _Pace(plan), asyncio.Semaphore(parallel)

    async def run(it: Load) -> None:
        try:
            if cache is None:
                loaded = load(it)
                if inspect.isawaitable(loaded):
                    await loaded
                is_kept = True
            else:
                is_kept = await cache.acompute_ahead(it.key, lambda: load(it), **_told(it, put))
            report._ended(it, is_kept)
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            report._failed(it.key, error)  # of something that load awaits
        except Exception as error:  # noqa: BLE001  (as above)
            report._failed(it.key, error)
        finally:
            free.release()

    async with asyncio.TaskGroup() as tasks:
        for at, it in enumerate(plan.loads):
            await free.acquire()
            wait_s = pace.wait_s(it, clock.now_s())
            if wait_s is None:
                report.left = len(plan.loads) - at
                break
            if wait_s > 0.0:
                await pause(wait_s)
            tasks.create_task(run(it))
    return report


def _told(it: Load, put: Callable[[Load], dict[str, Any]] | None) -> dict[str, Any]:
    more = {} if put is None else put(it)
    return {"size_bytes": it.size_bytes, "cost_us": it.cost_us, **more, "instead_of": it.evicts}
