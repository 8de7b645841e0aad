"""The machine itself: processors, memory, network; through psutil where it is installed, else from /proc and /sys."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from infcore._core.base import active_isa
from infcore.telemetry.figures import HostFigures

__all__ = ["Host", "ProcFiles", "Psutil", "best_source"]

_T = TypeVar("_T")


class Memory(NamedTuple):
    """Bytes."""

    used: int
    total: int


class Traffic(NamedTuple):
    """Bytes through one interface since boot."""

    sent: int
    received: int


class Processors(NamedTuple):
    """Seconds of all processors together since boot; idle: with waiting for disks."""

    idle: float
    total: float


class ProcFiles:
    """What Linux tells in /proc.

    root  a folder that holds what / does: in tests another one
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self._proc = Path(root, "proc")

    def processors(self) -> Processors:
        for line in self._proc.joinpath("stat").read_text().splitlines():
            if line.startswith("cpu "):
                # user nice system idle iowait irq softirq steal; what guests use is in user and nice already
                ticks = [int(part) for part in line.split()[1:9]]
                return Processors(sum(ticks[3:5]), sum(ticks))
        raise ValueError("/proc/stat has no line of all processors")

    def memory(self) -> Memory:
        rows = dict(row.split(":", 1) for row in self._proc.joinpath("meminfo").read_text().splitlines() if ":" in row)
        total, available = (1024 * int(rows[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
        return Memory(total - available, total)

    def traffic(self) -> dict[str, Traffic]:
        found = {}
        for line in self._proc.joinpath("net", "dev").read_text().splitlines()[2:]:
            name, _, numbers = line.partition(":")
            columns = numbers.split()
            found[name.strip()] = Traffic(sent=int(columns[8]), received=int(columns[0]))
        return found


class Psutil:
    """The same through psutil, which knows other systems too."""

    root = "/"

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil

    def processors(self) -> Processors:
        times = self._psutil.cpu_times()._asdict()
        guests = times.pop("guest", 0.0) + times.pop("guest_nice", 0.0)
        if platform.system() != "Linux":  # only Linux counts guests twice
            times["guest"] = guests
        return Processors(times["idle"] + times.get("iowait", 0.0), sum(times.values()))

    def memory(self) -> Memory:
        memory = self._psutil.virtual_memory()
        return Memory(memory.total - memory.available, memory.total)

    def traffic(self) -> dict[str, Traffic]:
        rows = self._psutil.net_io_counters(pernic=True, nowrap=False)
        return {name: Traffic(row.bytes_sent, row.bytes_recv) for name, row in rows.items()}


def best_source() -> ProcFiles | Psutil:
    """psutil where it is installed, else /proc."""
    try:
        return Psutil()
    except ImportError:
        return ProcFiles()


class Host:
    """Reads the machine; what one reading needs of the one before is kept here. Not for several threads at once.

    source  None: psutil where it is installed, else /proc. Its root is also where /sys is looked for
    """

    def __init__(self, source: ProcFiles | Psutil | None = None) -> None:
        self._source = best_source() if source is None else source
        self._root = self._source.root
        self._name = processor_name(self._root)
        self._isa = active_isa()
        self._processors: Processors | None = None
        self._traffic: tuple[float, Traffic] | None = None

    def read(self, now_s: float) -> HostFigures:
        """All figures. `now_s` is the clock's time now: rates are bytes per its seconds."""
        load = _told(os.getloadavg) or (None, None, None)
        memory = _told(self._source.memory)
        utilization = self._utilization()
        return HostFigures(
            name=self._name,
            cores=os.cpu_count(),
            isa=self._isa,
            utilization=utilization,
            load_1min=load[0],
            load_5min=load[1],
            load_15min=load[2],
            memory_used_bytes=None if memory is None else memory.used,
            memory_total_bytes=None if memory is None else memory.total,
            **self._network(now_s),
        )

    def _utilization(self) -> float | None:
        now, before = _told(self._source.processors), self._processors
        self._processors = now
        if now is None or before is None or now.total <= before.total:
            return None
        # Linux lets the idle counters of a processor step back a little.
        return min(1.0, max(0.0, 1.0 - (now.idle - before.idle) / (now.total - before.total)))

    def _network(self, now_s: float) -> dict[str, Any]:
        rows = _told(self._source.traffic)
        before, self._traffic = self._traffic, None
        if not rows:
            return {}
        names = carrying(rows, self._root)
        sum_of = Traffic(sum(rows[name].sent for name in names), sum(rows[name].received for name in names))
        self._traffic = (now_s, sum_of)
        figures: dict[str, Any] = {
            "network_sent_bytes": sum_of.sent,
            "network_received_bytes": sum_of.received,
            "network_bytes_per_s_max": speed_bytes_per_s(names, self._root),
        }
        if before is not None and now_s > before[0]:
            gone_s, then = now_s - before[0], before[1]
            # An interface that went away takes its count with it: no rate then, rather than a negative one.
            if sum_of.sent >= then.sent and sum_of.received >= then.received:
                figures["network_sent_bytes_per_s"] = (sum_of.sent - then.sent) / gone_s
                figures["network_received_bytes_per_s"] = (sum_of.received - then.received) / gone_s
        return figures


def processor_name(root: str = "/") -> str:
    """As Linux tells it; elsewhere the architecture."""
    text = _told(Path(root, "proc", "cpuinfo").read_text) or ""
    named = (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def carrying(names: Iterable[str], root: str = "/") -> list[str]:
    """Interfaces whose bytes count: those with a device behind them, or, as inside containers, all but loopback. A
    bridge and the wire behind it would count everything twice."""
    others = sorted(name for name in names if name not in ("lo", "lo0"))
    with_device = [name for name in others if Path(root, "sys/class/net", name, "device").exists()]
    return with_device or others


def speed_bytes_per_s(names: Iterable[str], root: str = "/") -> float | None:
    """What they carry in one direction, together, as far as they say; None where none does."""
    told = [_told(Path(root, "sys/class/net", name, "speed").read_text) for name in names]
    speeds = [int(text) for text in told if text is not None and text.strip().lstrip("-").isdigit()]
    known = [mbit for mbit in speeds if mbit > 0]  # -1: down, or it does not know
    return sum(known) * 1e6 / 8 if known else None


def _told(ask: Callable[[], _T]) -> _T | None:
    """What a source says, or None: whatever is wrong with one figure, the others are still good."""
    try:
        return ask()
    except Exception:
        return None
