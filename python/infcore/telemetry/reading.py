"""One reading of every device."""

from __future__ import annotations

import os
import threading
import time

from infcore.telemetry.figures import GpuFigures, HostFigures
from infcore.telemetry.host import Host
from infcore.telemetry.nvml import SessionOver, open_session

__all__ = ["devices", "gpus", "host"]

_reading = threading.Lock()
_host: Host | None = None


def devices() -> list[HostFigures | GpuFigures]:
    """The host, then every GPU, as they are now; a machine without GPUs, driver or pynvml gives the host alone.

    Rates and utilization of the host are since the last call in this process; None in the first. Opens and closes NVML
    each time, which may take a second where nothing else holds the driver: a Sampler keeps it open.
    """
    return [host(), *gpus()[0]]


def host() -> HostFigures:
    """The host alone, likewise."""
    global _host
    with _reading:
        if _host is None:
            _host = Host()
        return _host.read(time.monotonic())


def gpus() -> tuple[list[GpuFigures], str]:
    """Every GPU, and, where there is none, why."""
    session, why = open_session()
    if session is None:
        return [], why
    try:
        return [session.read(card) for card in session.cards], ""
    except SessionOver as e:
        return [], f"NVML was shut down while it was read: {e}"
    finally:
        session.close()


def _unlock_in_child() -> None:
    """The thread that held the lock while the process forked is not in the child."""
    global _reading
    _reading = threading.Lock()


os.register_at_fork(after_in_child=_unlock_in_child)
