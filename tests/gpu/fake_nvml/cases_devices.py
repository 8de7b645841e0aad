"""What devices() makes of NVML's answers."""

import dataclasses

import pynvml
import pytest
from nvml_rig import FULL, RX, SPEED, TX, Machine, held, uuid_of

from infcore import telemetry
from infcore.telemetry.reading import gpus

WHO = {"kind", "index", "name", "uuid", "driver", "lost", "compute_capability", "xid"}
COUNTERS = {field.name for field in dataclasses.fields(telemetry.GpuFigures)} - WHO
# A key of the library's file, and the figures that come from it.
FROM = {
    "mig": ["mig"],
    "utilization": ["utilization", "memory_utilization"],
    "memory": ["memory_used_bytes", "memory_total_bytes"],
    "power": ["power_w"],
    "power_limit": ["power_limit_w"],
    "energy": ["energy_j"],
    "temperature": ["temperature_c"],
    "clock_sm": ["sm_clock_mhz"],
    "clock_memory": ["memory_clock_mhz"],
    "throttle_reasons": ["throttle_reasons"],
    "pcie_sent": ["pcie_sent_bytes_per_s"],
    "pcie_received": ["pcie_received_bytes_per_s"],
    "pcie_generation": ["pcie_generation"],
    "pcie_width": ["pcie_width"],
    "link.0": ["nvlink_links", "nvlink_sent_bytes", "nvlink_received_bytes", "nvlink_bytes_per_s_max"],
    f"field.{TX}.1": ["nvlink_sent_bytes"],
    f"field.{RX}.0": ["nvlink_received_bytes"],
    f"field.{SPEED}.0": ["nvlink_bytes_per_s_max"],
    "ecc_corrected": ["ecc_corrected"],
    "ecc_uncorrected": ["ecc_uncorrected"],
}


@pytest.fixture
def machine():
    yield Machine()
    assert held() == (0, 0), "NVML was not given back"


def cards():
    return telemetry.devices()[1:]


def test_a_card_that_tells_everything(machine):
    host, first, second = telemetry.devices()
    assert isinstance(host, telemetry.HostFigures)
    assert first == telemetry.GpuFigures(
        index=0,
        name="Made-up H100",
        uuid=uuid_of(0),
        driver="580.42",
        compute_capability=(9, 0),
        mig=False,
        utilization=0.37,
        memory_utilization=0.12,
        memory_used_bytes=20 * 2**30,
        memory_total_bytes=80 * 2**30,
        power_w=350.5,
        power_limit_w=700.0,
        energy_j=5000.0,
        temperature_c=61,
        sm_clock_mhz=1755,
        memory_clock_mhz=2619,
        throttle_reasons=("sw_power_cap", "hw_thermal_slowdown"),
        pcie_sent_bytes_per_s=1.2e6,
        pcie_received_bytes_per_s=3.4e6,
        pcie_generation=5,
        pcie_width=16,
        nvlink_links=2,
        nvlink_sent_bytes=30 * 1024,
        nvlink_received_bytes=3 * 1024,
        nvlink_bytes_per_s_max=2 * 26_562e6,
        ecc_corrected=3,
        ecc_uncorrected=0,
    )
    assert first.memory_fraction == 0.25
    assert second == dataclasses.replace(first, index=1, uuid=uuid_of(1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.power_w = 1.0


def test_every_counter_is_among_those_that_go_missing():
    assert {name for names in FROM.values() for name in names} == COUNTERS
    assert set(FROM) | {"name", "compute_capability", "events"} >= set(FULL) - {
        "link.1",
        "link.2",
        f"field.{TX}.0",
        f"field.{RX}.1",
    }


@pytest.mark.parametrize("code", [3, 4, 13, 999])
def test_one_that_is_missing_is_none_and_the_others_stay(machine, code):
    whole = cards()[0]
    for key, names in FROM.items():
        machine.card(0, **{key: f"!{code}"})
        assert cards()[0] == dataclasses.replace(whole, **dict.fromkeys(names)), key
        machine.card(0, **{key: FULL[key]})
    assert cards()[0] == whole


def test_a_card_that_tells_nothing(machine):
    machine.card(0, **dict.fromkeys(FULL), uuid=None)
    assert cards()[0] == telemetry.GpuFigures(index=0, driver="580.42")


def test_a_value_that_nvml_calls_not_available(machine):
    machine.card(0, power=0xFFFFFFFF, ecc_corrected=0xFFFFFFFFFFFFFFFF, utilization="4294967295 7")
    card = cards()[0]
    assert (card.power_w, card.ecc_corrected, card.utilization, card.memory_utilization) == (None, None, None, 0.07)


def test_more_than_all_is_all(machine):
    machine.card(0, utilization="250 101", memory="90 80")
    card = cards()[0]
    assert (card.utilization, card.memory_utilization, card.memory_fraction) == (1.0, 1.0, 1.0)


def test_a_zero_is_zero(machine):
    machine.card(0, utilization="0 0", power=0, throttle_reasons=0, pcie_sent=0, temperature=0)
    card = cards()[0]
    assert (card.utilization, card.power_w, card.throttle_reasons, card.pcie_sent_bytes_per_s) == (0.0, 0.0, (), 0.0)
    assert card.temperature_c == 0


def test_a_reason_that_has_no_name_yet(machine):
    machine.card(0, throttle_reasons=1 << 20 | 1)
    assert cards()[0].throttle_reasons == ("gpu_idle", "bit_20")


def test_a_divided_card(machine):
    machine.card(0, mig="1 1", utilization="!3")
    assert (cards()[0].mig, cards()[0].utilization) == (True, None)


def test_no_link_up(machine):
    machine.card(0, **{"link.0": 0, "link.1": 0})
    card = cards()[0]
    assert (card.nvlink_links, card.nvlink_sent_bytes) == (0, None)


@pytest.mark.parametrize("code", [15, 16])
def test_a_card_that_is_lost(machine, code):
    machine.card(0, lost=code)
    first, second = cards()
    assert first == telemetry.GpuFigures(index=0, driver="580.42", lost=True)
    assert second.utilization == 0.37


def test_a_card_that_is_lost_while_it_is_read(machine):
    machine.card(0, temperature="!15")
    first, second = cards()
    assert first.lost
    assert (first.uuid, first.utilization) == (uuid_of(0), None)
    assert not second.lost


def test_a_card_that_is_not_ours_to_see(machine):
    machine.card(0, handle="!4")
    first, second = cards()
    assert first == telemetry.GpuFigures(index=0, driver="580.42")
    assert second.utilization == 0.37


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (9, "the NVIDIA driver is not loaded"),
        (4, "this user may not use the NVIDIA driver"),
        (18, "of different versions"),
        (999, "NVML does not start: Unknown Error"),
        (15, "NVML does not start: GPU is lost"),
    ],
)
def test_nvml_that_does_not_start(machine, code, why):
    machine.put({"init": code})
    assert cards() == []
    assert why in gpus()[1]


def test_no_card(machine):
    machine.put({"slots": ""})
    assert cards() == []
    assert gpus() == ([], "NVML lists no GPU")


def test_an_older_pynvml_lacks_functions(machine, monkeypatch):
    monkeypatch.delattr(pynvml, "nvmlDeviceGetMigMode")
    assert cards()[0].mig is None


def test_whoever_else_uses_nvml_keeps_it(machine):
    pynvml.nvmlInit()
    assert len(cards()) == 2
    assert held() == (1, 0)
    pynvml.nvmlShutdown()
