"""`infcore simulate`: its JSON counted again from its log, capacity, traces, exit status, one-line errors."""

import json
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sim_rig import NS, Line, Tables, by_arrival, check_figures, check_log, toml

from infcore.cli import main
from infcore.sim import load, policies

# Two kinds of nodes, two models, deadlines, a bounded queue, a crash: every figure has something to count.
WORLD: Tables = {
    "run": {"seconds": 20.0, "warmup_s": 4.0, "max_requests": 300},
    "node": [
        {"name": "gpu", "count": 2, "slots": 2, "price_per_hour": 3.0, "rtt_s": 0.002},
        {"name": "cpu", "count": 3, "kind": "cpu", "price_per_hour": 0.3},
    ],
    "model": [
        {"name": "text", "slo_s": 0.05, "max_batch_size": 8, "load_s": 0.5},
        {"name": "image", "slo_s": 0.2, "max_batch_size": 4},
    ],
    "latency": [
        {"model": "text", "node": "gpu", "base_s": 0.004, "per_work_s": 0.0001, "cv": 0.1},
        {"model": "text", "node": "cpu", "base_s": 0.01, "per_work_s": 0.001, "cv": 0.3},
        {"model": "image", "node": "gpu", "per_request_s": 0.008},
    ],
    "workload": [
        {"model": "text", "rate_rps": 400.0, "work": {"dist": "lognormal", "mean": 10.0, "cv": 1.0}, "deadline_s": 0.5},
        {"model": "image", "rate_rps": 60.0, "arrivals": "gamma", "arrival_cv": 2.0, "tier": 1},
    ],
    "fault": [{"at_s": 9.0, "kind": "crash", "node": "gpu-0", "for_s": 2.0}],
}
# Nothing happens in it by chance but the times of arrivals: 100 rps carried with ease, 10 ms each.
PLAIN: Tables = {
    "run": {"seconds": 30.0, "warmup_s": 2.0},
    "node": [{"name": "n", "count": 2, "price_per_hour": 3.6}],
    "model": [{"name": "m", "slo_s": 0.1, "max_batch_size": 1}],
    "latency": [{"model": "m", "node": "n", "per_work_s": 0.01}],
    "workload": [{"model": "m", "rate_rps": 100.0}],
}


@pytest.fixture
def world(tmp_path: Path) -> str:
    return written(tmp_path / "world.toml", WORLD)


@pytest.fixture
def plain(tmp_path: Path) -> str:
    return written(tmp_path / "plain.toml", PLAIN)


def written(path: Path, tables: Tables) -> str:
    path.write_text(toml(tables))
    return str(path)


def simulated(tmp_path: Path, *arguments: str, status: int = 0) -> tuple[dict[str, Any], dict[str, list[Line]]]:
    """The JSON document, and the log's lines of each policy."""
    out, log = tmp_path / "out.json", tmp_path / "out.jsonl"
    assert main(["simulate", *arguments, "--json", str(out), "--log", str(log)]) == status
    lines = log.read_text().splitlines()
    document = json.loads(out.read_text())
    by_policy = {
        row["policy"]: by_arrival(line for line in lines if f'"policy": "{row["policy"]}"' in line)
        for row in document["runs"]
    }
    assert sum(map(len, by_policy.values())) == len(lines)
    return document, by_policy


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Expect status 2 and exactly one line on standard error; return it."""
    assert main(["simulate", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err
    return told.err


# ---- the figures


@pytest.mark.parametrize("load_of_run", ["1", "2.5"])
def test_figures_are_those_of_the_log(tmp_path: Path, world: str, load_of_run: str) -> None:
    arguments = ("--policy", "round_robin", "--policy", "fastest_finish", "--load", load_of_run)
    document, logs = simulated(tmp_path, world, *arguments)
    assert document["schema_version"] >= 1 and document["valid"]
    assert [row["policy"] for row in document["runs"]] == ["round_robin", "fastest_finish"]
    scenario = load(world)
    for row in document["runs"]:
        lines = logs[row["policy"]]
        check_log(scenario, lines, policy=row["policy"])
        check_figures(scenario, row, lines)
        assert (row["lost"], row["duplicated"]) == (0, 0)
        assert row["latency_s"].keys() >= {"p50", "p90", "p99", "p999", "mean"}
        # Requests before the warm-up's end are in the log and not in the figures.
        assert len([line for line in lines if line["arrival_s"] < 4.0]) > 1000
        assert row["simulated_s"] >= max(line["end_s"] for line in lines) - NS
        assert row["wall_s"] > 0.0
        for name in ("ttft_s", "capacity_load", "prefix_reuse"):
            assert name in row
    # What went wrong at this load did so: deadlines and the bound of 300 were met.
    outcomes = {line["outcome"] for lines in logs.values() for line in lines}
    assert ({"ok", "expired"} if load_of_run == "2.5" else {"ok"}) <= outcomes


def test_log_has_every_field(tmp_path: Path, world: str) -> None:
    _, logs = simulated(tmp_path, world, "--policy", "fastest_finish", "--load", "3")
    fields = {"id", "policy", "model", "tier", "arrival_s", "deadline_s", "node", "start_s", "end_s", "outcome"}
    for line in logs["fastest_finish"]:
        assert line.keys() >= fields
        text = line["model"] == "text"
        assert (line["tier"], line["deadline_s"]) == ((0, 0.5) if text else (1, None))
        assert 0.0 <= line["arrival_s"] < 20.0
    arrivals = [line["arrival_s"] for line in logs["fastest_finish"]]
    assert arrivals == sorted(arrivals)


def test_expired_requests_are_those_beyond_their_deadline(tmp_path: Path) -> None:
    """Overloaded: who waits for too long is given up once no node could be done by the deadline, 10 ms before it."""
    tables = {
        **PLAIN,
        "run": {"seconds": 10.0},
        "workload": [{"model": "m", "rate_rps": 400.0, "deadline_s": 0.3}],
    }
    path = written(tmp_path / "late.toml", tables)
    _, logs = simulated(tmp_path, path, "--policy", *(policy for policy in policies() if policy != "clairvoyant"))
    for policy, lines in logs.items():
        check_log(load(path), lines, policy=policy)
        expired = [line for line in lines if line["outcome"] == "expired"]
        assert len(expired) > 0.4 * len(lines), policy
        for line in expired:
            assert 0.29 - 1e-6 < line["end_s"] - line["arrival_s"] < 0.3 + 1e-6, policy
        shed = [line for line in lines if line["outcome"] == "shed"]  # so that others are in time
        assert all(line["end_s"] - line["arrival_s"] < 0.3 + 1e-6 for line in shed), policy
        assert {line["outcome"] for line in lines} <= {"ok", "expired", "shed"}


def test_cost_is_the_price_of_busy_time(tmp_path: Path, plain: str) -> None:
    document, logs = simulated(tmp_path, plain, "--policy", "fastest_finish")
    busy_s = sum(line["end_s"] - max(line["start_s"], 2.0) for line in logs["fastest_finish"] if line["end_s"] > 2.0)
    assert document["runs"][0]["cost_usd"] == pytest.approx(3.6 / 3600 * busy_s, rel=1e-6)


def test_load_scales_the_arrivals(tmp_path: Path, plain: str) -> None:
    counts = []
    for times in ("0.5", "1", "1.5"):
        document, logs = simulated(tmp_path, plain, "--policy", "round_robin", "--load", times)
        assert document["load"] == float(times)
        counts.append(len(logs["round_robin"]))
    for count, times in zip(counts, (0.5, 1.0, 1.5), strict=True):
        assert count == pytest.approx(3000 * times, abs=4.5 * (3000 * times) ** 0.5)


def test_capacity_carries_and_a_tenth_more_does_not(tmp_path: Path) -> None:
    works = {"dist": "exponential", "mean": 1.0}
    plain = written(tmp_path / "spread.toml", {**PLAIN, "workload": [{**PLAIN["workload"][0], "work": works}]})
    document, _ = simulated(tmp_path, plain, "--policy", "round_robin", "--policy", "fastest_finish", "--capacity")
    for row in document["runs"]:
        found = row["capacity_load"]
        assert 0.5 < found < 2.0  # two nodes of 100 rps at 100 rps
        for times, carried in ((found, True), (1.1 * found, False)):
            at, _ = simulated(tmp_path, plain, "--policy", row["policy"], "--load", repr(times))
            assert (at["runs"][0]["within_slo"] >= 0.99) == carried, (row["policy"], times)
    turn, fastest = (row["capacity_load"] for row in document["runs"])
    assert fastest > turn


@pytest.mark.parametrize(("load", "rate_rps"), [("1e-6", 10.0), ("0.01", 10.0), ("1e3", 10.0), ("1", 1e-3)])
def test_capacity_is_the_scenarios_whatever_the_load_of_the_run(tmp_path: Path, load: str, rate_rps: float) -> None:
    """Even where that is far outside of what is searched, or nothing comes at the first loads tried."""
    tables = {**PLAIN, "run": {"seconds": 5.0}, "workload": [{"model": "m", "rate_rps": rate_rps}]}
    path = written(tmp_path / "world.toml", tables)
    document, _ = simulated(tmp_path, path, "--policy", "round_robin", "--capacity", "--load", load)
    assert document["runs"][0]["capacity_load"] > 10.0
    assert document["capacity"]["round_robin"]


def test_seed_changes_arrivals_and_is_repeatable(tmp_path: Path, plain: str) -> None:
    runs = [simulated(tmp_path, plain, "--policy", "round_robin", "--seed", seed) for seed in ("1", "1", "2")]
    digests = [document["runs"][0]["digest"] for document, _ in runs]
    assert digests[0] == digests[1] != digests[2]
    assert runs[0][1] == runs[1][1] != runs[2][1]


def test_json_to_standard_output(plain: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", plain, "--policy", "round_robin", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["runs"][0]["requests"] > 2000


def test_a_table_is_printed(plain: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", plain, "--policy", "round_robin", "fastest_finish"]) == 0
    shown = capsys.readouterr().out
    assert "round_robin" in shown and "fastest_finish" in shown


# ---- recorded arrivals


def azure(path: Path, times_s: list[float], tokens: list[int]) -> str:
    begin = datetime(2023, 11, 16, 18, 17, 3, 979960)
    rows = [
        f"{(begin + timedelta(seconds=at)).strftime('%Y-%m-%d %H:%M:%S.%f')}0,{n},{n // 4}"
        for at, n in zip(times_s, tokens, strict=True)
    ]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")
    return str(path)


def mooncake(path: Path, times_s: list[float], tokens: list[int]) -> str:
    rows = [
        {"timestamp": round(at * 1e3), "input_length": n, "output_length": n // 4, "hash_ids": [1, 2]}
        for at, n in zip(times_s, tokens, strict=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("write", [azure, mooncake])
@pytest.mark.parametrize("speed", ["1", "4"])
def test_arrivals_of_a_trace(tmp_path: Path, plain: str, write: Any, speed: str) -> None:
    times_s = [round(0.013 * i + (0.5 if i > 400 else 0.0), 3) for i in range(800)]
    tokens = [1 + i % 7 for i in range(800)]
    scenario = written(tmp_path / "short.toml", {**PLAIN, "run": {"seconds": 3.0, "warmup_s": 1.0}})
    trace = write(tmp_path / "trace", times_s, tokens)
    document, logs = simulated(tmp_path, scenario, "--policy", "fastest_finish", "--trace", trace, "--load", speed)
    lines = logs["fastest_finish"]
    assert len(lines) == 800  # all of the trace, whatever the scenario's seconds
    assert [line["arrival_s"] for line in lines] == pytest.approx([at / float(speed) for at in times_s], abs=1e-6)
    assert [line["work"] for line in lines] == tokens
    assert document["runs"][0]["requests"] == len([line for line in lines if line["arrival_s"] >= 1.0])
    # Alone on an idle node a request takes what its work says.
    first = lines[0]
    assert first["end_s"] - first["start_s"] == pytest.approx(0.01 * tokens[0], abs=NS)


def test_arrivals_of_an_earlier_log(tmp_path: Path, world: str) -> None:
    """The same requests, and so the same figures under the same policy and seed; another policy decides otherwise."""
    _, before = simulated(tmp_path, world, "--policy", "round_robin", "--policy", "fastest_finish", "--seed", "3")
    log = tmp_path / "earlier.jsonl"
    (tmp_path / "out.jsonl").rename(log)
    _, after = simulated(tmp_path, world, "--policy", "fastest_finish", "--seed", "3", "--trace", str(log))
    asked = ("model", "tier", "work", "deadline_s")
    then, now = before["fastest_finish"], after["fastest_finish"]
    assert [[line[key] for key in asked] for line in now] == [[line[key] for key in asked] for line in then]
    begin_s = then[0]["arrival_s"]
    assert [line["arrival_s"] + begin_s for line in now] == pytest.approx(
        [line["arrival_s"] for line in then], abs=1e-8
    )


def requests(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps({"model": "m", **row}) + "\n" for row in rows))
    return str(path)


def traced(tmp_path: Path, rows: str, **workload: Any) -> str:
    """The plain scenario, its requests those of a file."""
    path = Path(rows)
    tables = {**PLAIN, "workload": [{"model": "m", "arrivals": "trace", "file": path.name, **workload}]}
    return written(tmp_path / "traced.toml", {**tables, "run": {"seconds": 10.0}})


def test_a_traces_workload_has_a_start_and_an_end(tmp_path: Path) -> None:
    rows = requests(tmp_path / "rows.jsonl", *({"arrival_s": float(at)} for at in range(10)))
    _, logs = simulated(tmp_path, traced(tmp_path, rows, start_s=2.0, end_s=5.0), "--policy", "round_robin")
    assert [line["arrival_s"] for line in logs["round_robin"]] == [2.0, 3.0, 4.0]


def test_a_traces_workload_is_for_one_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = requests(tmp_path / "rows.jsonl", {"arrival_s": 0.0, "model": "other"})
    message = refused(capsys, traced(tmp_path, rows), "--policy", "round_robin")
    assert "rows.jsonl has requests for model 'other'; the workload is for: m" in message


def test_rows_of_a_trace_that_lie_centuries_ahead(
    tmp_path: Path, plain: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beyond the end they are left out; as a whole run they are refused. A deadline of centuries is kept at least."""
    rows = requests(
        tmp_path / "rows.jsonl",
        {"arrival_s": 0.0, "deadline_s": 9.9e9},
        {"arrival_s": 1.0, "deadline_s": 0.29},
        {"arrival_s": 9.9e9},
    )
    _, logs = simulated(tmp_path, traced(tmp_path, rows), "--policy", "round_robin")
    capsys.readouterr()
    lines = logs["round_robin"]
    assert [line["arrival_s"] for line in lines] == [0.0, 1.0]
    assert lines[0]["deadline_s"] > 4e9 and abs(lines[1]["deadline_s"] - 0.29) < 0.5e-9
    assert "rows.jsonl lasts 9.9e+09 s at load 1; allowed: at most 1e+08 s" in refused(capsys, plain, "--trace", rows)


def test_a_rows_own_deadline_is_its_goal(tmp_path: Path) -> None:
    """Where the model has none: an answer that comes too late, its time not known before, is none inside the goal."""
    rows = requests(tmp_path / "rows.jsonl", *({"arrival_s": 0.0, "deadline_s": at} for at in (0.3, 9.0, 9.0, 9.0)))
    tables = {
        **PLAIN,
        "run": {"seconds": 10.0},
        "model": [{"name": "m", "max_batch_size": 1}],
        "latency": [{"model": "m", "node": "n", "base_s": 0.4}],
        "node": [{"name": "n"}],
        "workload": [{"model": "m", "rate_rps": 1.0}],
    }
    path = written(tmp_path / "late.toml", tables)
    document, logs = simulated(tmp_path, path, "--policy", "round_robin", "--trace", rows)
    late = [line for line in logs["round_robin"] if line["outcome"] == "ok" and line["end_s"] > line["deadline_s"]]
    n_ok = document["runs"][0]["outcomes"]["ok"]
    assert late and document["runs"][0]["within_slo"] == (n_ok - len(late)) / 4


# ---- many seeds


def test_swarm_counts_and_replays(tmp_path: Path, plain: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "swarm.json"

    def swarm(seed: int, n: int) -> dict[str, Any]:
        chosen = ("--policy", "round_robin", "--policy", "fastest_finish")
        assert main(["simulate", plain, *chosen, "--seed", str(seed), "--swarm", str(n), "--json", str(out)]) == 0
        document: dict[str, Any] = json.loads(out.read_text())
        assert (document["lost"], document["duplicated"], document["violations"]) == (0, 0, 0)
        assert document["valid"] and document["failed"] == []
        assert document["requests"] >= sum(document["outcomes"].values()) > 0  # but for the warm-up's
        return document

    together = swarm(10, 6)
    assert (together["runs"], together["seeds"], together["first_seed"]) == (6, 6, 10)
    each = [swarm(10 + i, 1) for i in range(6)]
    for name in ("runs", "requests", "faults"):
        assert together[name] == sum(document[name] for document in each), name
    assert together["faults"] > 6
    for name, n in together["outcomes"].items():
        assert n == sum(document["outcomes"].get(name, 0) for document in each), name
    assert swarm(12, 1) == each[2]
    assert len({document["requests"] for document in each}) > 1


# ---- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "nope"], "--policy must be one of "),
        (["--load", "0"], "argument --load: must be a number > 0"),
        (["--load", "nan"], "argument --load: must be a number > 0"),
        (["--load", "much"], "argument --load: must be a number > 0"),
        (["--seed", "-1"], "argument --seed: must be an integer from 0"),
        (["--seed", "1.5"], "argument --seed: must be an integer from 0"),
        (["--swarm", "0"], "argument --swarm: must be an integer from 1"),
        (["--swarm", "2", "--capacity"], "--capacity must not be given with --swarm"),
        (["--swarm", "2", "--policy", "clairvoyant"], "--policy must name one that decides"),
        (["--trace", "no/such.csv"], "trace must be a readable file, got 'no/such.csv'"),
        (["--json", "no/such/out.json"], "--json must be a path that can be written"),
        (["--log", "no/such/out.jsonl"], "--log must be a path that can be written"),
        (["--log", "."], "--log must be a file"),
        (["--jsn", "x"], "unrecognized arguments: --jsn x"),
    ],
)
def test_bad_arguments(plain: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, plain, *arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("seconds = 30.0\n", "run.seconds is missing"),
        ("rate_rps = 100.0", "workload[0].rate_rps is missing"),
        ('name = "n"', "node[0].name is missing"),
        ("[[latency]]", ""),
    ],
)
def test_bad_scenario(tmp_path: Path, change: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.toml"
    text = toml(PLAIN)
    assert change in text
    path.write_text(text.replace(change, ""))
    told = refused(capsys, str(path))
    assert f"{path}:" in told and message in told


def test_scenario_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'no/such.toml'" in refused(capsys, "no/such.toml")
    assert "'nope'" in refused(capsys, "nope")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: the first line must be that of "),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "at least one row"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,12\n", ":2: the row must be 3 values"),
        ('{"timestamp": 0, "input_length": 5, "output_length": 1}\n{"timestamp": 1, "inp', ":2: the row must be"),
        ('{"timestamp": 0, "input_length": -5, "output_length": 1}\n', ":1: input_length must be a number from 0"),
        ('{"model": "other", "arrival_s": 0.0}\n{"model": "other", "arrival_s": 9.0}\n', "for model 'other'"),
    ],
)
def test_bad_trace(tmp_path: Path, plain: str, text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.trace"
    path.write_text(text)
    told = refused(capsys, plain, "--trace", str(path), "--policy", "round_robin")
    assert str(path) in told and message in told


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C in a run of hours ends it soon, with status 1, one line, and no document that looks whole."""
    path = written(tmp_path / "long.toml", {**PLAIN, "run": {"seconds": 1e7}})
    out, log = tmp_path / "out.json", tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "infcore.cli", "simulate", path, "--json", str(out), "--log", str(log)]

    def interruptible() -> None:  # a test run in the background of a shell has its children ignore it
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=interruptible, **pipes) as run:
        try:
            while run.poll() is None and not (log.exists() and log.stat().st_size > 0):
                time.sleep(0.01)  # until it is under way
            run.send_signal(signal.SIGINT)
            shown, told = run.communicate(timeout=60)
        finally:
            run.kill()  # else its log fills the disk
    assert run.returncode == 1
    assert shown == ""
    assert told == "infcore: interrupted\n"
    assert not out.exists()
