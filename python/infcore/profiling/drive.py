"""Driving an engine with a plan: start the generator, watch, drain; ends early when the caller says so."""

import gc
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import numpy as np
from numpy.typing import NDArray

from infcore.profiling.arrivals import Arrivals
from infcore.profiling.collect import Collector
from infcore.profiling.contract import Engine, Fleet
from infcore.profiling.load import LoadGenerator, requests_of

# The watcher's step: answers are collected and Ctrl-C is seen this often.
TICK_S = 0.05
# After an interrupt, how long cancelled requests may take to come back before they are left to the engine's close.
INTERRUPT_DRAIN_S = 0.3
# Time between building the plan and its first request, so that the generator thread is up and waiting.
LEAD_S = 0.02


class Interrupt:
    """The first Ctrl-C sets `requested`, which every step looks at; the second is KeyboardInterrupt.

    An exception in the middle of starting or closing an engine would leave its threads behind.
    """

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def handled(self) -> Iterator["Interrupt"]:
        """Installs the handler for SIGINT; main thread only."""
        before = signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@dataclass
class Drive:
    """What came of a plan. Arrays have one entry per planned request; start_s and end_s are on time.monotonic()."""

    arrivals: Arrivals
    collector: Collector
    late_s: NDArray[np.float64]
    start_s: float
    end_s: float
    interrupted: bool
    stopped_early: bool
    real_time: bool

    @property
    def seconds(self) -> float:
        """Length of the load phase: as planned, or until it was cut."""
        return min(self.arrivals.seconds, max(self.end_s - self.start_s, 1e-9))


def drive(
    engine: Engine,
    fleet: Fleet,
    arrivals: Arrivals,
    *,
    drain_s: float,
    interrupt: Interrupt,
    keep_each: int = 0,
    misses_max: int | None = None,
    on_tick: Callable[[float], None] = lambda done: None,
) -> Drive:
    """Submit `arrivals` to `engine` at their times and wait for the answers, drain_s at most after the last arrival.

    misses_max: stop as soon as more requests than this are certain to miss their SLO. keep_each: answers kept for
    checking per model and real device. Raises what the generator's thread raised; refusals by the engine are outcomes.
    """
    examples = [fleet.examples(model.name) for model in fleet.models]
    requests = requests_of(arrivals, fleet.models, examples)
    start_s = time.monotonic() + LEAD_S
    generator = LoadGenerator(engine, requests, arrivals.times_s, start_s=start_s)
    collector = Collector(
        arrivals,
        generator,
        start_s=start_s,
        slo_s=[model.slo_s for model in fleet.models],
        devices=[device.name for device in fleet.devices],
        keep_from=[device.name for device in fleet.devices if not device.emulated],
        keep_each=keep_each,
    )
    # A collection in the middle of a burst would show as the load generator's lateness: garbage waits for the end.
    gc_was_on = gc.isenabled()
    gc.disable()
    try:
        generator.start()
        stopped_early = _watch(generator, collector, start_s, drain_s, interrupt, misses_max, on_tick)
        generator.stop()
        generator.join()
        if stopped_early or interrupt.requested:
            _cancel(collector, INTERRUPT_DRAIN_S if interrupt.requested else drain_s)
    finally:
        generator.stop()
        if gc_was_on:
            gc.enable()
    if generator.failure is not None:
        raise generator.failure
    return Drive(
        arrivals,
        collector,
        np.asarray(generator.late_s),
        start_s,
        end_s=time.monotonic(),
        interrupted=interrupt.requested,
        stopped_early=stopped_early,
        real_time=generator.real_time,
    )


def _watch(
    generator: LoadGenerator,
    collector: Collector,
    start_s: float,
    drain_s: float,
    interrupt: Interrupt,
    misses_max: int | None,
    on_tick: Callable[[float], None],
) -> bool:
    """Collect until all is answered or there is a reason to stop; True if stopped for too many misses."""
    seconds = float(collector.due_s[-1] - start_s)
    give_up_s = start_s + seconds + drain_s
    while not interrupt.requested:
        alive = generator.is_alive()
        collector.harvest()
        now_s = time.monotonic()
        on_tick(min(1.0, max(0.0, (now_s - start_s) / max(seconds, 1e-9))))
        if misses_max is not None and collector.misses(now_s) > misses_max:
            return True
        if (not alive and collector.n_pending == 0) or now_s > give_up_s:
            return False
        time.sleep(TICK_S)
    return False


def _cancel(collector: Collector, wait_s: float) -> None:
    collector.harvest()
    collector.cancel_pending()
    until_s = time.monotonic() + wait_s
    while collector.n_pending and time.monotonic() < until_s:
        time.sleep(0.01)
        collector.harvest()
