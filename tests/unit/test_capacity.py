"""The search for the highest load, on a load test that is a plain function."""

import pytest

from infcore.errors import InvalidArgument
from infcore.profiling.capacity import RATE_RPS_MAX, Probe, StoppedByUser, highest_load


def carries_up_to(limit_rps: float, tried: list[float] | None = None):
    def probe(rate_rps: float) -> Probe:
        if tried is not None:
            tried.append(rate_rps)
        return Probe(rate_rps, 1.0 if rate_rps <= limit_rps else 0.5, 0.0, rate_rps <= limit_rps)

    return probe


@pytest.mark.parametrize("limit_rps", [3.0, 49.9, 50.0, 51.0, 777.0, 12_345.0])
def test_finds_the_limit_from_either_side(limit_rps: float) -> None:
    found = highest_load(carries_up_to(limit_rps), 50.0, ratio=1.05)
    assert limit_rps / 1.05 <= found.capacity_rps <= limit_rps
    assert found.capacity_rps in [probe.rate_rps for probe in found.probes if probe.carried]


def test_number_of_probes_is_logarithmic() -> None:
    tried: list[float] = []
    highest_load(carries_up_to(6400.0, tried), 50.0, ratio=1.12)
    assert len(tried) <= 9 + 3  # doublings to the first that fails, then halvings of a factor of two


def test_nothing_is_carried() -> None:
    found = highest_load(carries_up_to(0.0), 50.0, ratio=1.1)
    assert found.capacity_rps == 0.0
    assert found.probes


def test_everything_is_carried() -> None:
    found = highest_load(carries_up_to(1e12), 50.0, ratio=1.1)
    assert RATE_RPS_MAX / 2 <= found.capacity_rps <= RATE_RPS_MAX


def test_ended_by_the_user_keeps_what_is_known() -> None:
    def probe(rate_rps: float) -> Probe:
        if rate_rps > 150:
            raise StoppedByUser
        return Probe(rate_rps, 1.0, 0.0, True)

    found = highest_load(probe, 50.0, ratio=1.1)
    assert (found.interrupted, found.capacity_rps) == (True, 100.0)


def test_ratio_must_be_above_one() -> None:
    with pytest.raises(InvalidArgument, match=r"ratio must be > 1, got 1\.0"):
        highest_load(carries_up_to(10.0), 50.0, ratio=1.0)
