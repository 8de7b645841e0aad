"""A machine with scripted GPUs: what the tests of device telemetry share. Its libnvidia-ml.so.1 is built here by g++.

The library is found by LD_LIBRARY_PATH, which the loader reads when a process starts: so tests of it run in processes
of their own (tests/gpu/test_nvml.py starts them).
"""

import ctypes
import os
import subprocess
from pathlib import Path

from cpp_build import CXX, WARNINGS

SOURCE = Path(__file__).parent / "gpu" / "fake_nvml" / "fake_nvml.cpp"
STATE = "FAKE_NVML_STATE"
TX, RX, SPEED = 138, 139, 90  # NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, _RX, NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON

# What a card that tells everything says, in the library's units.
FULL = {
    "name": "Made-up H100",
    "compute_capability": "9 0",
    "events": 8,
    "mig": "0 0",
    "utilization": "37 12",
    "memory": f"{20 * 2**30} {80 * 2**30}",
    "power": 350_500,
    "power_limit": 700_000,
    "energy": 5_000_000,
    "temperature": 61,
    "clock_sm": 1755,
    "clock_memory": 2619,
    "throttle_reasons": 0x4 | 0x40,
    "pcie_sent": 1200,
    "pcie_received": 3400,
    "pcie_generation": 5,
    "pcie_width": 16,
    "link.0": 1,
    "link.1": 1,
    "link.2": 0,
    f"field.{TX}.0": 10,
    f"field.{TX}.1": 20,
    f"field.{RX}.0": 1,
    f"field.{RX}.1": 2,
    f"field.{SPEED}.0": 26_562,
    "ecc_corrected": 3,
    "ecc_uncorrected": 0,
}


def uuid_of(slot):
    return f"GPU-{slot:08x}-0000-0000-0000-000000000000"


def build(folder, *flags):
    """Make the library in a folder, and return the environment in which a process finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [CXX, "-std=c++20", "-O1", "-fPIC", "-shared", *WARNINGS, *flags, "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([*command, str(SOURCE), "-o", str(folder / "libnvidia-ml.so.1")], check=True)
    state = folder / "state.txt"
    state.touch()
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), STATE: str(state)}


class Machine:
    """Writes what the fake library says from now on."""

    def __init__(self, n_cards=2, path=None):
        self._path = Path(os.environ[STATE] if path is None else path)
        self.values = {"slots": " ".join(map(str, range(n_cards)))}
        self.events = []
        for slot in range(n_cards):
            self.card(slot, uuid=uuid_of(slot), **FULL)

    def card(self, slot, **values):
        """Change a card's answers; None: it gives that one no more."""
        self.put({f"gpu.{slot}.{key}": value for key, value in values.items()})

    def put(self, values):
        for key, value in values.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
        self._write()

    def xid(self, slot, number):
        self.events.append(f"event {slot} {number}")
        self._write()

    def _write(self):
        lines = [f"{key} {value}" for key, value in self.values.items()] + self.events
        beside = self._path.with_suffix(".new")
        beside.write_text("\n".join(lines) + "\n")
        beside.replace(self._path)  # a reader sees the old or the new, never half of it


def held():
    """Inits of NVML not yet shut down in this process, and event sets not yet freed."""
    library = ctypes.CDLL("libnvidia-ml.so.1")
    return library.fake_nvml_n_inits(), library.fake_nvml_n_event_sets()
