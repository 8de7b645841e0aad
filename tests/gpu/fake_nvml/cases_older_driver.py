"""A driver that lacks the later functions: their figures are None, the rest is there."""

import dataclasses

import pytest
from nvml_rig import Machine, held

from infcore import Fleet, ManualClock, telemetry

LATER = {
    "energy_j",
    "mig",
    "nvlink_links",
    "nvlink_sent_bytes",
    "nvlink_received_bytes",
    "nvlink_bytes_per_s_max",
    "xid",
}


@pytest.fixture
def machine():
    yield Machine(n_cards=1)
    assert held() == (0, 0)


def test_what_came_later_is_none(machine):
    card = telemetry.devices()[1]
    missing = {field.name for field in dataclasses.fields(card) if getattr(card, field.name) is None}
    assert missing == LATER
    assert card.throttle_reasons == ("sw_power_cap", "hw_thermal_slowdown")  # by the function's former name


def test_a_sampler_works_without_them(machine):
    clock = ManualClock(1.0)
    fleet = Fleet(clock=clock)
    fleet.add("a")
    sampler = telemetry.Sampler(fleet, {"a": 0}, clock=clock)
    sampler.sample_once()
    machine.xid(0, 79)
    sampler.sample_once()
    assert fleet.nodes()["gpu"][0] == 0.37
    assert sampler.energy_j() == {"a": None}
    assert (sampler.stats().n_errors, sampler.stats().lost) == (0, ())
    sampler.close()
