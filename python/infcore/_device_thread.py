"""A device in an engine: its node, its thread, and the calls that are made on that thread."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from infcore._core.fleet import Fleet
from infcore.device import Device
from infcore.errors import DeviceError
from infcore.token_device import TokenDevice

__all__ = ["Call", "Slot", "device_limits", "fleet_arguments", "is_lost", "name_on", "wait_until"]


class Call:
    """One call made on a device's thread; whoever asked for it waits for its outcome.

    last   the thread ends with it
    after  a model as the device knows it, of which nothing may be running any more; "": none
    """

    def __init__(self, call: Callable[[], None], *, last: bool = False, after: str = "") -> None:
        self._call = call
        self.last = last
        self.after = after
        self._done = threading.Event()
        self._error: BaseException | None = None

    def __call__(self) -> bool:
        """Returns whether the worker goes on."""
        try:
            self._call()
        except BaseException as e:
            self._error = e
        self._done.set()
        return not self.last

    def wait(self, thread: threading.Thread, hangs: Callable[[], bool]) -> None:
        while not self._done.wait(0.1):
            if hangs():
                return
            if not thread.is_alive():
                raise DeviceError(f"{thread.name} ended before it could do what it was asked")
        if self._error is not None:
            raise self._error


class Slot:
    """A device of the engine, its node in the fleet and its thread."""

    def __init__(self, device: Device, node: int, generation: int) -> None:
        self.device = device
        self.node = node
        self.generation = generation  # of that node's devices: its id may be another's later
        self.controls: deque[Call | None] = deque()  # None: the thread was abandoned
        self.thread: threading.Thread | None = None
        self.models: dict[tuple[str, int], str] = {}  # (name, version) -> the name under which it runs here
        self.load_error: str | None = None  # what a load or unload that the engine asked for failed with
        self.is_loading = False  # as the engine asked it to
        self.is_leaving = False  # then it is asked nothing more


def name_on(slot: Slot, name: str, version: int) -> str | None:
    """Under which name a device runs a model's version: "name:version" where it lists that, or holds another version
    of a model already while it serves any; else the name alone. None: it doesn't serve it."""
    full, listed = f"{name}:{version}", slot.device.models
    if listed is None:
        taken = any(known == name and key != (name, version) for key, known in slot.models.items())
        return full if taken else name
    return full if full in listed else name if name in listed else None


def is_lost(fleet: Fleet, slot: Slot) -> bool:
    nodes = fleet.nodes()
    return bool((nodes["state"][nodes["id"] == slot.node] == "lost").any())


def wait_until(done: Callable[[], bool], timeout_s: float | None) -> bool:
    end_s = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s = 1e-4
    while not done():
        if end_s is not None and time.monotonic() >= end_s:
            return False
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.01)
    return True


def device_limits(device: Device) -> tuple[float | None, int, int]:
    """What the core is told of it: how long a batch may take, the blocks of a token device's cache and their size."""
    blocks = (device.n_blocks, device.block_size) if isinstance(device, TokenDevice) else (0, 0)
    return (device.batch_limit_s, *blocks)


def fleet_arguments(device: Device) -> dict[str, Any]:
    """What Fleet.add is told of a device, but its name."""
    told = ("kind", "zone", "location", "memory_bytes", "price_per_hour", "rtt_s", "slots", "pending_max", "labels")
    return {name: getattr(device, name) for name in told}
