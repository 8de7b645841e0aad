"""Several models on one device that cannot have all of them in time: whose turn it is."""

import pytest

from infcore.sim import parse, simulate

WORLD = """
name = "one device"
[run]
seconds = 4.0
warmup_s = 0.5
[[node]]
name = "gpu"
[[model]]
name = "many"
slo_s = 0.1
max_batch_size = 64
[[model]]
name = "few"
slo_s = 0.01
max_batch_size = 64
[[latency]]
model = "many"
node = "gpu"
base_s = 0.001
per_request_s = 0.0001
[[latency]]
model = "few"
node = "gpu"
base_s = 0.004
per_request_s = 0.0004
[[workload]]
model = "many"
rate_rps = 4500.0
deadline_s = 0.1
[[workload]]
model = "few"
rate_rps = 1500.0
deadline_s = 0.01
"""


@pytest.mark.parametrize("policy", ["fastest_finish", "slo_cost", "round_robin"])
def test_the_tight_and_slow_do_not_cost_the_many_their_goal(policy: str) -> None:
    row = simulate(parse(WORLD, "one device.toml"), policy=policy)
    shares = {model["name"]: model["within_slo"] for model in row["models"]}
    assert shares["many"] > 0.95  # who has the earlier deadline always first: .56
    assert row["within_slo"] > 0.75  # the many alone are .75
