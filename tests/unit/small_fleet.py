"""A fleet in a few lines of plain Python, for tests of the harness alone: a thread and a queue per device.

Faults can be planted in it: a device that answers wrongly, never, or with errors, which a real engine would stop.
"""

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from infcore.errors import Cancelled, DeadlineExceeded, DeviceError, QueueFull
from infcore.profiling.suite import DeviceSpec, ModelLoad, Suite


class SmallFuture:
    def __init__(self, deadline_s: float | None) -> None:
        self.device: str | None = None
        self.end_s: float | None = None
        self.deadline_s = None if deadline_s is None else time.monotonic() + deadline_s
        self._ended = threading.Event()
        self._outputs: Mapping[str, Any] = {}
        self._error: Exception | None = None

    def end(self, device: str, outputs: Mapping[str, Any] | None = None, error: Exception | None = None) -> None:
        if not self._ended.is_set():
            self.device, self._error, self._outputs = device, error, outputs or {}
            self.end_s = time.monotonic()
            self._ended.set()

    def done(self) -> bool:
        return self._ended.is_set()

    def result(self, timeout_s: float | None = None) -> Mapping[str, Any]:
        if not self._ended.wait(timeout_s):
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._outputs

    def cancel(self) -> bool:
        self.end("", error=Cancelled("cancelled"))
        return True


class SmallDevice(threading.Thread):
    def __init__(self, name: str, service_s: float, fault: str | None) -> None:
        super().__init__(daemon=True)
        self.spec_name, self.service_s, self.fault = name, service_s, fault
        self.waiting: queue.SimpleQueue[tuple[SmallFuture, Any] | None] = queue.SimpleQueue()
        self.busy_s, self.requests, self.depth = 0.0, 0, 0

    def run(self) -> None:
        while (item := self.waiting.get()) is not None:
            future, inputs = item
            self.depth -= 1
            if future.done() or self.fault == "hang":
                continue
            if future.deadline_s is not None and time.monotonic() > future.deadline_s:
                future.end(self.spec_name, error=DeadlineExceeded("late"))
            elif self.fault == "error":
                future.end(self.spec_name, error=DeviceError(f"{self.spec_name}: planted"))
            else:
                time.sleep(self.service_s)
                self.busy_s += self.service_s
                self.requests += 1
                wrong = 1.0 if self.fault == "wrong" else 0.0
                future.end(self.spec_name, {"y": inputs["x"] * 2.0 + wrong})


class SmallEngine:
    def __init__(self, devices: Sequence[SmallDevice], policy: str) -> None:
        self.devices, self.policy, self._next = devices, policy, 0

    def submit(
        self, model: str, inputs: Mapping[str, Any], *, tier: int = 0, deadline_s: float | None = None
    ) -> SmallFuture:
        if self.policy == "refuse":
            raise QueueFull("capacity is 0")
        self._next += 1
        if self.policy == "round_robin":
            device = self.devices[self._next % len(self.devices)]
        else:
            device = min(self.devices, key=lambda d: (d.depth + 1) * d.service_s)
        device.depth += 1
        future = SmallFuture(deadline_s)
        device.waiting.put((future, inputs))
        return future

    def stats(self) -> Mapping[str, Any]:
        rows = {d.spec_name: {"requests": d.requests, "batches": d.requests, "busy_s": d.busy_s} for d in self.devices}
        return {"devices": rows}


class SmallFleet:
    """Serves a suite whose devices take base_s of their first curve per request (callable devices: 1 ms)."""

    def __init__(self, suite: Suite, faults: Mapping[str, str] | None = None) -> None:
        self.models: Sequence[ModelLoad] = suite.models
        self.devices: Sequence[DeviceSpec] = suite.devices
        self.notes: list[str] = []
        self.faults = dict(faults or {})
        self.opened: list[str] = []

    def examples(self, model: str) -> Sequence[Mapping[str, Any]]:
        return [{"x": np.full(2, i, np.float32)} for i in range(4)]

    def check(self, model: str, example: int, outputs: Mapping[str, Any]) -> bool:
        return bool(np.array_equal(outputs["y"], self.examples(model)[example]["x"] * 2.0))

    @contextmanager
    def engine(self, policy: str) -> Iterator[SmallEngine]:
        self.opened.append(policy)
        times = [spec.curves[0].base_s if spec.curves else 0.001 for spec in self.devices]
        devices = [SmallDevice(s.name, t, self.faults.get(s.name)) for s, t in zip(self.devices, times, strict=True)]
        for device in devices:
            device.start()
        try:
            yield SmallEngine(devices, policy)
        finally:
            for device in devices:
                device.waiting.put(None)
