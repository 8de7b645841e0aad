"""infcore.Queue decides as its plain Python model does, on random traces."""

import math
import random

import pytest
from queue_rig import Pair


@pytest.mark.parametrize("ageing", [math.inf, 12, 0])
@pytest.mark.parametrize("overflow", ["reject", "shed_lowest"])
@pytest.mark.parametrize("seed", range(6))
def test_same_decisions_as_the_model(overflow: str, ageing: float, seed: int) -> None:
    Pair(random.Random(f"{overflow} {ageing} {seed}"), overflow, ageing).run(1500)


def test_thousands_of_short_schedules() -> None:
    """Also with a clock that goes backwards, which makes nothing expire or age that is not due by what it says."""
    for seed in range(3000):
        rng = random.Random(seed)
        overflow, ageing = rng.choice(["reject", "shed_lowest"]), rng.choice([math.inf, 3, 0])
        try:
            Pair(rng, overflow, ageing, goes_back=seed % 2 == 0).run(20)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
