"""The simulator decides the same again: in another process, on another instruction set, and as it did when it was
recorded (tests/golden); under another seed, load or policy it does not."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sim_rig import logged

from infcore.sim import Scenario, load, policies, simulate

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = GOLDEN / "small.toml"
DIGESTS = GOLDEN / "simulation_digests.json"
SEED = 7
POLICIES = policies()

# What another process says of each policy, as JSON: the digest and what is not in it, the figures.
CHILD = """
import json, sys
from infcore.sim import load, simulate
world = load(sys.argv[1])
rows = {policy: simulate(world, policy=policy, seed=int(sys.argv[2])) for policy in sys.argv[3:]}
for row in rows.values():
    del row["wall_s"]
print(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def small() -> Scenario:
    return load(str(SMALL))


@pytest.fixture(scope="module")
def rows(small: Scenario) -> dict[str, dict[str, Any]]:
    """The figures of each policy, in this process."""
    made = {policy: simulate(small, policy=policy, seed=SEED) for policy in POLICIES}
    for row in made.values():
        del row["wall_s"]
    return made


def in_another_process(**environ: str) -> dict[str, Any]:
    command = [sys.executable, "-c", CHILD, str(SMALL), str(SEED), *POLICIES]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environ)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split(":", 1)[1].split()}


@pytest.mark.parametrize("policy", POLICIES)
def test_same_digest_again(policy: str, small: Scenario, rows: dict[str, dict[str, Any]]) -> None:
    again, lines = logged(small, policy, seed=SEED)  # that a log is written must not matter either
    wall_s = again.pop("wall_s")
    assert wall_s > 0.0
    assert again == rows[policy]
    assert lines == logged(small, policy, seed=SEED)[1]


@pytest.mark.parametrize(
    ("isa", "needs"),
    [("baseline", set()), ("avx2", {"avx2", "fma"}), ("avx512", {"avx512f", "avx512bw", "avx512dq", "avx512vl"})],
)
def test_same_figures_on_each_instruction_set(isa: str, needs: set[str], rows: dict[str, dict[str, Any]]) -> None:
    if isa != "baseline" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"INFCORE_ISA={isa} is for x86-64, this machine is {platform.machine()}")
    if missing := needs - cpu_flags():
        pytest.skip(f"the CPU lacks {', '.join(sorted(missing))}")
    # Through JSON, so that a tuple is a list here, too.
    assert in_another_process(INFCORE_ISA=isa) == json.loads(json.dumps(rows))


def test_same_figures_whatever_the_hash_seed(rows: dict[str, dict[str, Any]]) -> None:
    assert in_another_process(PYTHONHASHSEED="12345") == json.loads(json.dumps(rows))


@pytest.mark.parametrize("policy", POLICIES)
def test_another_digest_for_another_seed_or_load(policy: str, small: Scenario, rows: dict[str, dict[str, Any]]) -> None:
    assert simulate(small, policy=policy, seed=SEED + 1)["digest"] != rows[policy]["digest"]
    assert simulate(small, policy=policy, seed=SEED, load=1.01)["digest"] != rows[policy]["digest"]


def test_another_digest_for_another_policy(rows: dict[str, dict[str, Any]]) -> None:
    assert len({row["digest"] for row in rows.values()}) == len(POLICIES)


def test_another_digest_for_another_seed_where_nothing_is_random() -> None:
    """Evenly spaced, alike, without spread: the seed changes no decision, yet is part of the digest."""
    tables = {
        "run": {"seconds": 1.0},
        "node": [{"name": "n"}],
        "model": [{"name": "m"}],
        "latency": [{"model": "m", "node": "n", "base_s": 0.001}],
        "workload": [{"model": "m", "rate_rps": 100.0, "arrivals": "regular"}],
    }
    (one, lines), (other, same) = logged(tables, seed=1), logged(tables, seed=2)
    assert lines == same
    assert one["digest"] != other["digest"]


def test_every_policy_meets_the_same_world(small: Scenario) -> None:
    """Arrivals, works and what the seed draws of faults do not depend on what is decided."""
    asked = ("id", "model", "tier", "work", "arrival_s", "deadline_s")
    worlds = []
    for policy in POLICIES:
        row, lines = logged(small, policy, seed=SEED)
        scripted = [event for event in row["faults"]["events"] if event["kind"] != "hang"]
        worlds.append(([[line[key] for key in asked] for line in lines], policy == "clairvoyant" or scripted))
    arrivals = [arrived for arrived, _ in worlds]
    assert all(arrived == arrivals[0] for arrived in arrivals)
    faults = [happened for _, happened in worlds if happened is not True]
    assert all(happened == faults[0] for happened in faults)


def test_digests_are_those_recorded(rows: dict[str, dict[str, Any]], request: pytest.FixtureRequest) -> None:
    """Another machine or Python decides the same. A change that is meant: --update-golden, and a look at the diff."""
    made = {
        policy: {"digest": row["digest"], "requests": row["requests"], "outcomes": row["outcomes"]}
        for policy, row in rows.items()
    }
    if request.config.getoption("--update-golden"):
        DIGESTS.write_text(json.dumps(made, indent=1) + "\n")
    recorded = json.loads(DIGESTS.read_text())
    assert list(recorded) == POLICIES, "a policy came or went: --update-golden"
    assert made == recorded
