"""Device counters, read off the hot path and told to the fleet that serves on those devices."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from infcore import _checks
from infcore._core.base import Clock
from infcore._core.fleet import Fleet
from infcore.engine import Engine
from infcore.errors import ForkedProcess, InvalidArgument, InvalidType, UnknownName
from infcore.telemetry.figures import GpuFigures, HostFigures
from infcore.telemetry.host import Host, ProcFiles, Psutil
from infcore.telemetry.nvml import Session, SessionOver, open_session

__all__ = ["Sampler", "SamplerStats"]

CPU = "cpu"
REOPEN_S = 30.0  # how often a card that is lost is looked for anew: NVML finds it only after a shutdown and an init


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerStats:
    """What a sampler did. as_of_s: the clock's time of the last round; missing: names that the fleet does not have."""

    n_samples: int
    n_errors: int
    last_error: str | None
    as_of_s: float | None
    lost: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(slots=True)
class _Watched:
    card: str  # CPU, or a GPU's UUID
    lost: bool = False
    missing: bool = False


@dataclass(slots=True)
class _Energy:
    last_j: float
    sum_j: float = 0.0


class Sampler:
    """Reads devices once per interval on a thread of its own, and tells a fleet or an engine what they say.

    target      infcore.Engine, or a Fleet that belongs to none
    cards       {name of a device or node: "cpu", a GPU's UUID, or its index in NVML and nvidia-smi}. An index is taken
                for the card that has it now: that one is followed, whatever number it gets later
    interval_s  between two rounds; a round takes some 40 ms per GPU, since NVML measures PCIe over 20 ms in each
                direction (so its documentation), without the GIL
    clock       the target's own: None or an object with now_s()
    source      of the host's figures: None (psutil where it is installed, else /proc)
    Raises      InvalidArgument, InvalidType, UnknownName naming the argument: a card that is not there, and why

    Signals: a GPU's node gets its gpu (utilization) and memory; every node the host's cpu and network, and a "cpu" node
    the host's memory. What a device does not say is not signalled.
    A card that fell off the bus (NVML says it is lost or gone, or XID 79) takes its node out: Engine.lose_device(), or
    in a bare fleet Fleet.lose(). It is looked for anew every 30 s, and its node restored once it answers.
    Nothing that goes wrong here reaches the target: it is counted, and shown in stats().
    """

    def __init__(
        self,
        target: Engine | Fleet,
        cards: Mapping[str, str | int],
        *,
        interval_s: float = 1.0,
        clock: Any = None,
        source: ProcFiles | Psutil | None = None,
    ) -> None:
        if not isinstance(target, (Engine, Fleet)):
            raise InvalidType(f"target is {type(target).__name__}; allowed: infcore.Engine or infcore.Fleet")
        self._fleet = target.fleet if isinstance(target, Engine) else target
        self._lose: Callable[[str], bool] = target.lose_device if isinstance(target, Engine) else target.lose
        self._restore: Callable[[str], bool] = target.restore_device if isinstance(target, Engine) else target.restore
        self._interval_s = min(_checks.finite("interval_s", interval_s, above=True), threading.TIMEOUT_MAX)
        clock = Clock() if clock is None else clock
        if not callable(getattr(clock, "now_s", None)):
            raise InvalidType(f"clock is {type(clock).__name__}; allowed: None or an object with now_s()")
        self._now_s: Callable[[], float] = clock.now_s
        self._pid = os.getpid()
        self._host = Host(source)
        self._session: Session | None = None
        self._opened_s = -float("inf")
        self._sampling = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._watched: dict[str, _Watched] = {}
        self._latest: dict[str, HostFigures | GpuFigures] = {}  # by card; a new one each round, so read without a lock
        self._energy: dict[str, _Energy] = {}
        self._n_samples = self._n_errors = 0
        self._last_error: str | None = None
        self._as_of_s: float | None = None
        try:
            for name, card in _checks.mapping("cards", cards).items():
                self.watch(name, card)
        except BaseException:
            self.close()
            raise

    # ---- life

    def start(self) -> Sampler:
        """Sample on a thread from now on; `with sampler:` does."""
        self._check_open()
        if self._thread is not None:
            raise InvalidArgument("start() was called before; allowed: once")
        self._thread = threading.Thread(target=self._loop, name="infcore-telemetry", daemon=True)
        self._thread.start()
        return self

    def close(self, *, timeout_s: float = 5.0) -> bool:
        """End the thread and give NVML back. The target's nodes stay as they are.

        Returns  False where the thread hangs in the driver and was left behind; it ends when the driver answers
        """
        limit_s = min(_checks.finite("timeout_s", timeout_s), threading.TIMEOUT_MAX)
        self._stop.set()
        if os.getpid() != self._pid:  # the thread and NVML are the parent's
            return True
        thread = self._thread
        if thread is not None and thread.ident is not None and thread is not threading.current_thread():
            thread.join(limit_s)
            return not thread.is_alive()
        if not self._sampling.acquire(timeout=limit_s):
            return False
        try:
            self._shut()
        finally:
            self._sampling.release()
        return True

    def __enter__(self) -> Sampler:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _loop(self) -> None:
        try:
            while not self._stop.is_set():
                self._round(None)
                self._stop.wait(self._interval_s)
        finally:
            with self._sampling:
                self._shut()

    def _shut(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _check_not_forked(self) -> None:
        """Before any lock is taken: in a child it may be held by a thread that is not there."""
        if os.getpid() != self._pid:
            raise ForkedProcess("this Sampler was made before a fork; allowed in the child: one of its own")

    def _check_open(self) -> None:
        self._check_not_forked()
        if self._stop.is_set():
            raise InvalidArgument("the Sampler is closed; allowed: use before close()")

    # ---- what is watched

    def watch(self, name: str, card: str | int) -> None:
        """Sample a further device; one of that name is replaced. The target need not have it yet.

        Raises  UnknownName for a card that is not there
        """
        _checks.text("a key of cards", name)
        self._check_not_forked()
        with self._sampling:
            self._check_open()
            before = self._watched.get(name)
            was_lost = before is not None and before.lost  # the node is still out: who brings it back must know
            self._watched[name] = _Watched(self._card(f"cards[{name!r}]", card), lost=was_lost)

    def unwatch(self, name: str) -> None:
        """Sample it no more; nothing happens if it was not watched. A node that was taken out stays out."""
        self._check_not_forked()
        with self._sampling:
            self._check_open()
            self._watched.pop(name, None)

    def _card(self, field: str, card: object) -> str:
        if card == CPU:
            return CPU
        if isinstance(card, bool) or not isinstance(card, (str, int)):
            raise InvalidType(f'{field} is {type(card).__name__}; allowed: "cpu", the UUID or the index of a GPU')
        why = "" if self._session is not None else self._open(self._now_s())
        if self._session is None:
            raise UnknownName(f'{field} is {card!r}; allowed: "cpu": {why}')
        named = {found.uuid: found.index for found in self._session.cards if found.uuid is not None}
        for uuid, index in named.items():
            if card in (uuid, index):
                return uuid
        there = ", ".join(f"{index} ({uuid})" for uuid, index in named.items())
        raise UnknownName(f'{field} is {card!r}; allowed: "cpu" or one of {there}')

    def _open(self, now_s: float) -> str:
        self._opened_s = now_s
        self._shut()
        self._session, why = open_session(watch_xids=True)
        return why

    # ---- a round

    def sample_once(self, now_s: float | None = None) -> None:
        """One round on the caller's thread: for those who have a thread of their own, and for tests.

        now_s   the clock's time; None: it is asked
        Raises  ForkedProcess, or InvalidArgument after close(); nothing of what goes wrong with a device
        """
        self._check_open()
        self._round(None if now_s is None else _checks.finite("now_s", now_s, -9e9))

    def _round(self, now_s: float | None) -> None:
        with self._sampling:
            if self._stop.is_set():
                return
            try:
                now_s = self._now_s() if now_s is None else now_s
                self._latest = self._read(now_s)
                for name, watched in list(self._watched.items()):
                    self._tell(name, watched, now_s)
                self._as_of_s = now_s
            except Exception as e:
                self._count(e)
            self._n_samples += 1

    def _count(self, e: BaseException | str) -> None:
        self._n_errors += 1
        self._last_error = e if isinstance(e, str) else f"{type(e).__name__}: {e}"

    def _read(self, now_s: float) -> dict[str, HostFigures | GpuFigures]:
        found: dict[str, HostFigures | GpuFigures] = {CPU: self._host.read(now_s)}
        wanted = {watched.card for watched in self._watched.values()} - {CPU}
        if not wanted:
            return found
        any_lost = any(watched.lost for watched in self._watched.values())
        if now_s - self._opened_s >= REOPEN_S and (self._session is None or any_lost):
            why = self._open(now_s)
            if why:
                self._count(why)
        session = self._session
        if session is None:
            return found
        try:
            session.look_for_xids()
            for uuid in wanted:
                figures = _read_card(session, uuid)
                if figures is not None:
                    found[uuid] = figures
                    self._add_energy(uuid, figures.energy_j)
        except SessionOver as e:
            self._count(e)
            self._session, self._opened_s = None, -float("inf")  # not ours to shut down any more; opened anew next time
        return found

    def _add_energy(self, uuid: str, energy_j: float | None) -> None:
        if energy_j is None:
            return
        energy = self._energy.setdefault(uuid, _Energy(energy_j))
        energy.sum_j += max(0.0, energy_j - energy.last_j)  # the counter begins anew with the driver
        energy.last_j = energy_j

    def _tell(self, name: str, watched: _Watched, now_s: float) -> None:
        figures = self._latest.get(watched.card)
        host = self._latest[CPU]
        assert isinstance(host, HostFigures)
        try:
            if isinstance(figures, GpuFigures) and figures.lost:
                watched.lost = True
                self._lose(name)  # in each round: a device of this name may have been added again meanwhile
            else:
                if watched.lost and figures is not None:
                    self._restore(name)
                    watched.lost = False
                signals = _signals(host, figures)
                if signals:
                    self._fleet.signal(name, as_of_s=now_s, **signals)
            watched.missing = False
        except UnknownName:
            watched.missing = True
        except Exception as e:
            self._count(e)

    # ---- figures

    def latest(self) -> dict[str, HostFigures | GpuFigures]:
        """Figures of each watched name as of the last round; a device that could not be read is left out."""
        latest = self._latest
        return {name: latest[w.card] for name, w in list(self._watched.items()) if w.card in latest}

    def energy_j(self) -> dict[str, float | None]:
        """Joules of each watched name's card between the first and the last round; None where it has no such counter.

        The card's whole energy, idle times included; names that share a card each get all of it.
        """
        found = {name: self._energy.get(w.card) for name, w in list(self._watched.items())}
        return {name: None if energy is None else energy.sum_j for name, energy in found.items()}

    def stats(self) -> SamplerStats:
        """Rounds, errors, and whose card is lost."""
        watched = list(self._watched.items())
        return SamplerStats(
            n_samples=self._n_samples,
            n_errors=self._n_errors,
            last_error=self._last_error,
            as_of_s=self._as_of_s,
            lost=tuple(name for name, w in watched if w.lost),
            missing=tuple(name for name, w in watched if w.missing),
        )


def _read_card(session: Session, uuid: str) -> GpuFigures | None:
    """A card's figures; None: not known, as with a driver that does not show it to us any more."""
    card = session.find(uuid)
    if card is not None:
        return session.read(card)
    return GpuFigures(index=-1, uuid=uuid, lost=True) if session.sees_all else None


def _signals(host: HostFigures, figures: HostFigures | GpuFigures | None) -> dict[str, float]:
    given = {"cpu": host.utilization, "network": host.network_fraction}
    if figures is not None:
        given["memory"] = figures.memory_fraction
    if isinstance(figures, GpuFigures):
        given["gpu"] = figures.utilization
    return {name: value for name, value in given.items() if value is not None}
