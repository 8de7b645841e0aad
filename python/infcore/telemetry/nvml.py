"""NVIDIA GPUs through NVML: pynvml (package nvidia-ml-py) over libnvidia-ml.so.1, which comes with the driver."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infcore.telemetry.figures import GpuFigures

__all__ = ["Session", "SessionOver", "open_session"]

XID_OFF_THE_BUS = 79  # "GPU has fallen off the bus": from NVIDIA's list of Xid errors
_N_EVENTS_MAX = 64  # of one look: a card that fails for ever must not hold the thread for ever
_N_LINKS_MAX = 36  # NVML_NVLINK_MAX_LINKS
_NOT_AVAILABLE = {0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF}  # NVML_VALUE_NOT_AVAILABLE in 32 and 64 bits
_THROTTLE_REASONS = (
    "gpu_idle", "applications_clocks_setting", "sw_power_cap", "hw_slowdown", "sync_boost", "sw_thermal_slowdown",
    "hw_thermal_slowdown", "hw_power_brake_slowdown", "display_clock_setting", "board_limit", "reliability",
)  # fmt: skip
_VALUE_FIELDS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by nvmlValueType_t


class CardLost(Exception):
    """The card does not answer any more."""


class SessionOver(Exception):
    """Somebody else in this process shut NVML down more often than they opened it."""


def open_session(*, watch_xids: bool = False) -> tuple[Session | None, str]:
    """An open session, or None and why there is none."""
    try:
        import pynvml
    except ImportError:
        return None, "the package nvidia-ml-py (module pynvml) is not installed: pip install 'infcore[telemetry]'"
    try:
        session = Session(pynvml, watch_xids=watch_xids)
    except pynvml.NVMLError as e:
        return None, _why(pynvml, e)
    except (CardLost, SessionOver) as e:
        return None, f"NVML does not start: {e.__cause__}"
    if session.cards:
        return session, ""
    session.close()
    return None, "NVML lists no GPU"


def _why(pynvml: Any, e: Any) -> str:
    known = {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "libnvidia-ml.so.1 was not found: there is no NVIDIA driver here, "
        "or this container was not given it",
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded",
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "libnvidia-ml.so.1 and the loaded NVIDIA driver are of different "
        "versions: restart the machine, or load the new driver",
        pynvml.NVML_ERROR_NO_PERMISSION: "this user may not use the NVIDIA driver",
    }
    return known.get(e.value, f"NVML does not start: {e}")


@dataclass(slots=True)
class Card:
    """One GPU of a session; handle None: it was lost, or not ours to see, before it had one."""

    index: int
    handle: Any = None
    uuid: str | None = None
    name: str | None = None
    compute_capability: tuple[int, int] | None = None
    lost: bool = False
    xid: int | None = None


class Session:
    """NVML between one init and one shutdown. Not for several threads at once.

    watch_xids  listen for critical errors from now on
    Raises      pynvml.NVMLError where NVML does not start
    """

    def __init__(self, pynvml: Any, *, watch_xids: bool = False) -> None:
        self._nvml = pynvml
        self._pid = os.getpid()
        self._events: Any = None
        pynvml.nvmlInit()
        try:
            self.driver: str | None = self._ask("nvmlSystemGetDriverVersion")
            self.cards = [self._card(index) for index in range(pynvml.nvmlDeviceGetCount())]
            if watch_xids:
                self._watch()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give NVML back, once; in a forked child it is the parent's."""
        pynvml, self._nvml = self._nvml, None
        if pynvml is None or os.getpid() != self._pid:
            return
        for function, arguments in (("nvmlEventSetFree", (self._events,)), ("nvmlShutdown", ())):
            if function == "nvmlEventSetFree" and self._events is None:
                continue
            try:
                getattr(pynvml, function)(*arguments)
            except pynvml.NVMLError:  # over already
                pass

    def find(self, uuid: str) -> Card | None:
        """The card of that UUID."""
        return next((card for card in self.cards if card.uuid == uuid), None)

    @property
    def sees_all(self) -> bool:
        """Whether a card that is not found is not there, and not merely hidden from this user."""
        return all(card.lost or card.uuid is not None for card in self.cards)

    def read(self, card: Card) -> GpuFigures:
        """All figures of one card. NVML measures PCIe over 20 ms in each direction, and returns only then."""
        who: dict[str, Any] = {
            "index": card.index,
            "name": card.name,
            "uuid": card.uuid,
            "driver": self.driver,
            "compute_capability": card.compute_capability,
            "xid": card.xid,
        }
        if card.xid == XID_OFF_THE_BUS:
            card.lost = True
        if card.lost or card.handle is None:
            return GpuFigures(**who, lost=card.lost)
        try:
            self._check_handle(card)
            return GpuFigures(**who, **self._counters(card.handle), **self._links(card.handle))
        except CardLost:
            card.lost = True
            return GpuFigures(**who, lost=True)

    def look_for_xids(self) -> None:
        """Note the last critical error of each card."""
        if self._events is None:
            return
        for _ in range(_N_EVENTS_MAX):
            try:
                event = self._ask("nvmlEventSetWait_v2", self._events, 0)
            except CardLost:  # its own figures will tell which
                return
            if event is None:  # none is left
                return
            if event.eventType != self._nvml.nvmlEventTypeXidCriticalError:
                continue
            for card in self.cards:
                if card.handle is not None and _address(card.handle) == _address(event.device):
                    card.xid = int(event.eventData)

    def _ask(self, function: str, *arguments: Any) -> Any:
        """What one function of NVML answers; None where it does not know, does not tell us, or isn't there."""
        call = getattr(self._nvml, function, None)
        if call is None:
            return None
        try:
            answer = call(*arguments)
        except self._nvml.NVMLError as e:
            if e.value in (self._nvml.NVML_ERROR_GPU_IS_LOST, self._nvml.NVML_ERROR_RESET_REQUIRED):
                raise CardLost from e
            if e.value == self._nvml.NVML_ERROR_UNINITIALIZED:
                raise SessionOver(f"{function}: {e}") from e
            return None
        return None if isinstance(answer, int) and answer in _NOT_AVAILABLE else answer

    def _card(self, index: int) -> Card:
        card = Card(index)
        try:
            card.handle = self._ask("nvmlDeviceGetHandleByIndex", index)
            if card.handle is not None:
                card.uuid = self._ask("nvmlDeviceGetUUID", card.handle)
                card.name = self._ask("nvmlDeviceGetName", card.handle)
                card.compute_capability = self._ask("nvmlDeviceGetCudaComputeCapability", card.handle)
        except CardLost:
            card.lost = True
        return card

    def _check_handle(self, card: Card) -> None:
        """A handle that NVML gave us and does not know any more is of a card that was taken off the bus."""
        if card.uuid is None:
            return
        try:
            self._nvml.nvmlDeviceGetUUID(card.handle)
        except self._nvml.NVMLError as e:
            if e.value in (self._nvml.NVML_ERROR_INVALID_ARGUMENT, self._nvml.NVML_ERROR_NOT_FOUND):
                raise CardLost from e
            # Whatever else is wrong is wrong with the next question, too, and answered there.

    def _watch(self) -> None:
        self._events = self._ask("nvmlEventSetCreate")
        for card in self.cards:
            if self._events is None or card.handle is None:
                continue
            try:
                self._ask(
                    "nvmlDeviceRegisterEvents", card.handle, self._nvml.nvmlEventTypeXidCriticalError, self._events
                )
            except CardLost:
                card.lost = True

    def _counters(self, handle: Any) -> dict[str, Any]:
        nvml, ask = self._nvml, self._ask
        rates = ask("nvmlDeviceGetUtilizationRates", handle)
        memory = ask("nvmlDeviceGetMemoryInfo", handle)
        reasons = ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if reasons is None:  # its name in drivers before 535
            reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        mig = ask("nvmlDeviceGetMigMode", handle)
        since_loaded = nvml.NVML_VOLATILE_ECC
        return {
            "mig": None if mig is None else bool(mig[0]),
            "utilization": None if rates is None else _percent(rates.gpu),
            "memory_utilization": None if rates is None else _percent(rates.memory),
            "memory_used_bytes": None if memory is None else int(memory.used),
            "memory_total_bytes": None if memory is None else int(memory.total),
            "power_w": _scaled(ask("nvmlDeviceGetPowerUsage", handle), 1e-3),
            "power_limit_w": _scaled(ask("nvmlDeviceGetEnforcedPowerLimit", handle), 1e-3),
            "energy_j": _scaled(ask("nvmlDeviceGetTotalEnergyConsumption", handle), 1e-3),
            "temperature_c": ask("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
            "sm_clock_mhz": ask("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
            "memory_clock_mhz": ask("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_MEM),
            "throttle_reasons": None if reasons is None else tuple(_reason_names(reasons)),
            "pcie_sent_bytes_per_s": _scaled(
                ask("nvmlDeviceGetPcieThroughput", handle, nvml.NVML_PCIE_UTIL_TX_BYTES), 1e3
            ),
            "pcie_received_bytes_per_s": _scaled(
                ask("nvmlDeviceGetPcieThroughput", handle, nvml.NVML_PCIE_UTIL_RX_BYTES), 1e3
            ),
            "pcie_generation": ask("nvmlDeviceGetCurrPcieLinkGeneration", handle),
            "pcie_width": ask("nvmlDeviceGetCurrPcieLinkWidth", handle),
            "ecc_corrected": ask(
                "nvmlDeviceGetTotalEccErrors", handle, nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, since_loaded
            ),
            "ecc_uncorrected": ask(
                "nvmlDeviceGetTotalEccErrors", handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, since_loaded
            ),
        }

    def _links(self, handle: Any) -> dict[str, Any]:
        """NVLink; {} for a card that has none. Counters are summed link by link, which every driver gives."""
        states = []
        for link in range(_N_LINKS_MAX):
            state = self._ask("nvmlDeviceGetNvLinkState", handle, link)
            if state is None:
                break
            states.append(bool(state))
        if not states:
            return {}
        nvml, up = self._nvml, [link for link, active in enumerate(states) if active]
        sent = self._fields(handle, [(nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, link) for link in up])
        received = self._fields(handle, [(nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, link) for link in up])
        speed = self._fields(handle, [nvml.NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON])
        return {
            "nvlink_links": len(up),
            "nvlink_sent_bytes": None if sent is None else 1024 * int(sum(sent)),
            "nvlink_received_bytes": None if received is None else 1024 * int(sum(received)),
            "nvlink_bytes_per_s_max": None if speed is None else 1e6 * speed[0] * len(up),
        }

    def _fields(self, handle: Any, ids: list[Any]) -> list[float] | None:
        """Field values; None unless all of them are given."""
        rows = self._ask("nvmlDeviceGetFieldValues", handle, ids) if ids else None
        if rows is None or any(row.nvmlReturn != self._nvml.NVML_SUCCESS for row in rows):
            return None
        if any(not 0 <= row.valueType < len(_VALUE_FIELDS) for row in rows):
            return None
        return [getattr(row.value, _VALUE_FIELDS[row.valueType]) for row in rows]


def _address(handle: Any) -> int | None:
    """Of what a handle points to: pynvml's handles are pointers, and two of one card do not compare equal."""
    return ctypes.cast(handle, ctypes.c_void_p).value


def _percent(value: int) -> float | None:
    return None if value in _NOT_AVAILABLE else min(1.0, value / 100.0)


def _scaled(value: int | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _reason_names(bits: int) -> Iterator[str]:
    for place in range(bits.bit_length()):
        if bits >> place & 1:
            yield _THROTTLE_REASONS[place] if place < len(_THROTTLE_REASONS) else f"bit_{place}"
