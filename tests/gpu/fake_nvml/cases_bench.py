"""`infcore bench` on devices that name their cards: their energy is what the cards say."""

import json

import pytest
from nvml_rig import Machine, held, uuid_of

from infcore.cli import main
from infcore.profiling import run as profiling_run

SUITE = f"""
name = "cards"
[run]
seconds = 0.3
warmup_s = 0.05
probe_s = 0.1
min_samples = 1
lateness_slo_part = 1.0
[arrivals]
process = "poisson"
[[model]]
name = "small"
kind = "synthetic"
slo_s = 30.0
share = 1.0
[[device]]
name = "counted"
kind = "callable"
price_per_hour = 0.05
busy_w = 1000.0
card = "{uuid_of(1)}"
[[device]]
name = "uncounted"
kind = "callable"
price_per_hour = 0.05
busy_w = 1000.0
card = "0"
[[device]]
name = "unknown"
kind = "callable"
price_per_hour = 0.05
"""


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    machine.card(0, energy=None)
    drive = profiling_run.drive

    def drive_and_use_power(*arguments, **options):
        machine.card(1, energy=7_000_000)
        return drive(*arguments, **options)

    monkeypatch.setattr(profiling_run, "drive", drive_and_use_power)
    yield machine
    assert held() == (0, 0)


def test_energy_is_the_cards_where_it_has_a_counter(machine, tmp_path, capsys):
    path, out, page = tmp_path / "cards.toml", tmp_path / "out.json", tmp_path / "out.html"
    path.write_text(SUITE)
    asked = ["bench", "--suite", str(path), "--rate", "200", "--policy", "round_robin", "--json", str(out)]
    assert main(asked) == 0, capsys.readouterr().err
    document = json.loads(out.read_text())
    counted, uncounted, unknown = document["policies"][0]["devices"]
    assert counted["requests"] > 0
    assert counted["energy_j_per_request"] == pytest.approx(2000.0 / counted["requests"])
    estimate = 1000.0 * uncounted["busy_s"] / uncounted["requests"]
    assert uncounted["energy_j_per_request"] == pytest.approx(estimate)
    assert [device["energy_source"] for device in (counted, uncounted, unknown)] == ["measured", "estimated", None]
    assert document["suite_detail"]["notes"] == [
        "Energy of uncounted is not measured: card '0' is not there or has no such counter."
    ]
    assert main(["report", str(out), "-o", str(page)]) == 0
    assert page.read_text().count("(measured)</td>") == 1


def test_a_counter_that_began_anew_is_not_used():
    from infcore.profiling.energy import between

    assert between({"a": 5.0, "b": 5.0, "c": 5.0}, {"a": 7.5, "b": 1.0}) == {"a": 2.5}
