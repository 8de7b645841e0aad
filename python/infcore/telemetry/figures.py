"""What a device says of itself, at one moment. A figure that the device does not give is None, never 0."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["GpuFigures", "HostFigures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFigures:
    """The machine this process runs on, not what a container is allowed of it. Rates and utilization are since the
    reading before; None in a first reading.

    name                 the processor's
    utilization          of its processors, 0..1
    load_1min, load_5min, load_15min  runnable tasks, averaged
    memory_used_bytes    what is not available to a new program without swapping
    network_*            of all wired and wireless interfaces together, loopback left out; the counters since boot
    network_bytes_per_s_max  what the interfaces say they carry, in one direction; many virtual ones don't say
    isa                  which copy of infcore's vectorised loops runs: "baseline", "avx2" or "avx512"
    """

    kind: Literal["cpu"] = "cpu"
    name: str
    cores: int | None = None
    isa: str
    utilization: float | None = None
    load_1min: float | None = None
    load_5min: float | None = None
    load_15min: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    network_sent_bytes: int | None = None
    network_received_bytes: int | None = None
    network_sent_bytes_per_s: float | None = None
    network_received_bytes_per_s: float | None = None
    network_bytes_per_s_max: float | None = None

    @property
    def memory_fraction(self) -> float | None:
        """Used of total, 0..1."""
        return _fraction(self.memory_used_bytes, self.memory_total_bytes)

    @property
    def network_fraction(self) -> float | None:
        """The busier direction's part of what the interfaces carry, 0..1."""
        rates = [x for x in (self.network_sent_bytes_per_s, self.network_received_bytes_per_s) if x is not None]
        return _fraction(max(rates, default=None), self.network_bytes_per_s_max)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFigures:
    """One NVIDIA GPU, as NVML tells.

    index                NVML's and nvidia-smi's, by place on the bus; CUDA may count otherwise
    lost                 it fell off the bus, or needs a reset: nothing else is known then
    mig                  it is divided (MIG); its utilization as a whole is then not told
    utilization          part of the last sampling period (1/6 to 1 s) in which a kernel ran, 0..1; memory_utilization:
                         in which its memory was read or written
    memory_used_bytes    with what the driver keeps for itself
    power_limit_w        the one in force
    energy_j             since the driver was loaded
    throttle_reasons     why its clocks are not higher; () where nothing holds them down
    pcie_*_bytes_per_s   over 20 ms; sent by the GPU, received by it
    nvlink_links         how many are up; nvlink_*_bytes: counters, all links together, nvlink_bytes_per_s_max likewise
    ecc_corrected, ecc_uncorrected  errors since the driver was loaded
    xid                  number of the last critical error since a Sampler began to watch; a single reading has none
    """

    kind: Literal["gpu"] = "gpu"
    index: int
    name: str | None = None
    uuid: str | None = None
    driver: str | None = None
    compute_capability: tuple[int, int] | None = None
    lost: bool = False
    mig: bool | None = None
    utilization: float | None = None
    memory_utilization: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    energy_j: float | None = None
    temperature_c: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttle_reasons: tuple[str, ...] | None = None
    pcie_sent_bytes_per_s: float | None = None
    pcie_received_bytes_per_s: float | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    nvlink_links: int | None = None
    nvlink_sent_bytes: int | None = None
    nvlink_received_bytes: int | None = None
    nvlink_bytes_per_s_max: float | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    xid: int | None = None

    @property
    def memory_fraction(self) -> float | None:
        """Used of total, 0..1."""
        return _fraction(self.memory_used_bytes, self.memory_total_bytes)


def _fraction(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else min(1.0, max(0.0, part / whole))
