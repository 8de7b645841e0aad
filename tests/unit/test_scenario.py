"""Scenario files: the shipped ones read, wrong ones are refused with file, line, field, value and what is allowed."""

import dataclasses
import importlib.resources
import pickle
import re
from pathlib import Path

import pytest

from infcore import sim
from infcore._toml_lines import lines_of
from infcore.errors import InvalidArgument, UnknownName

SHIPPED = [
    "antagonists",
    "azure-llm",
    "edge-cloud",
    "flash-sale",
    "grey-failure",
    "llm-prefix",
    "mixed-heterogeneous",
    "overload-mixed",
    "overload-uniform",
    "zone-loss",
]
GOOD = """
[run]
seconds = 600.0
warmup_s = 30
[[node]]
name = "a100"
count = 2
zone = "z1"
memory_bytes = 85899345920
price_per_hour = 3.0
labels = { region = "eu" }
[[node]]
name = "cpu"
kind = "cpu"
memory_bytes = 1e9
models = ["bert"]
[[model]]
name = "bert"
slo_s = 0.1
weights_bytes = 440000000
[[model]]
name = "big"
weights_bytes = 800000000
load_s = 2.0
[[latency]]
model = "bert"
node = "a100"
base_s = 0.002
[[latency]]
model = "bert"
node = "a100-1"
base_s = 0.004
[[latency]]
model = "bert"
node = "cpu"
per_work_s = 0.0001
[[latency]]
model = "big"
node = "a100"
per_request_s = 0.01
[[workload]]
model = "bert"
rate_rps = 800
arrivals = "gamma"
arrival_cv = 3.0
work = { dist = "lognormal", mean = 64.0, cv = 1.2 }
require = { region = "eu" }
[[workload]]
model = "big"
rate_rps = 2
session = { turns_mean = 4.0, think_s_mean = 5.0 }
[[fault]]
at_s = 120.0
kind = "crash"
node = "a100-0"
for_s = 60.0
[[random_fault]]
kind = "slow"
factor = 3.0
rate_per_node_hour = 2.0
for_s = 5.0
[[antagonist]]
node = "cpu"
factor = 2.0
on_s = 1.0
off_s = 3.0
"""


def test_what_is_left_out_is_0_and_work_1() -> None:
    text = GOOD.replace("arrival_cv = 3.0", "").replace(", mean = 64.0, cv = 1.2", "")
    workload = sim.parse(text, "t.toml").workloads[0]
    assert (workload.arrival_cv, workload.work.mean, workload.work.cv) == (0.0, 1.0, 0.0)


def test_the_shipped_scenarios_read() -> None:
    # For faults at random, another simulator's day, and what has to be loaded first.
    assert sim.shipped() == sorted([*SHIPPED, "swarm", "dynamo-mocker", "thousand-models"])
    for name in SHIPPED:
        scenario = sim.load(name)
        assert scenario.name == name
        assert scenario.run.warmup_s < scenario.run.seconds
        assert all(workload.deadline_s for workload in scenario.workloads)
        for node in scenario.nodes:  # nothing has to be loaded before a first answer
            runs = {m.name for m in scenario.models if scenario.latency(m.name, node)}
            runs |= {m.name for m in scenario.models if scenario.token_latency(m.name, node)}
            assert set(node.initial_models) == runs
        assert not scenario.random_faults


def test_the_shipped_scenarios_are_what_their_names_say() -> None:
    mixed, flash, edge = sim.load("mixed-heterogeneous"), sim.load("flash-sale"), sim.load("edge-cloud")
    assert len(mixed.models) >= 8
    assert len({node.price_per_hour for node in mixed.nodes}) >= 4
    assert {"gamma", "onoff", "diurnal"} <= {workload.arrivals for workload in mixed.workloads}
    assert any(workload.session for workload in mixed.workloads)
    assert {workload.peak_factor for workload in flash.workloads} == {20.0}
    assert [fault.kind for fault in flash.faults] == ["crash"]
    assert [(fault.kind, fault.zone) for fault in edge.faults] == [("partition", "site-us")]
    assert {workload.phase_s for workload in edge.workloads} == {0.0, 40.0, 80.0}
    zones, grey = sim.load("zone-loss"), sim.load("grey-failure")
    assert [(fault.kind, fault.zone) for fault in zones.faults] == [("partition", "b"), ("crash", "c")]
    assert {fault.kind for fault in grey.faults} == {"slow", "errors", "freeze_signals", "lost_completions"}
    assert len(sim.load("antagonists").nodes) == 100
    assert {node.group for node in sim.load("azure-llm").nodes} >= {"h100", "a100", "l40s"}
    tokens = sim.load("llm-prefix")
    assert all(model.tokens for model in tokens.models) and len(tokens.token_latencies) >= 3
    assert any(workload.session for workload in tokens.workloads)
    assert all(workload.prefix for workload in tokens.workloads)
    mocker = sim.load("dynamo-mocker")
    row = mocker.token_latencies[0]
    assert (len(mocker.nodes), row.n_blocks, row.block_size, row.token_budget) == (8, 16384, 64, 8192)


def test_groups_of_models() -> None:
    text = GOOD.replace('name = "big"', 'name = "big"\ncount = 3').replace('model = "big"\nrate_rps = 2', 'model = "big"\nrate_rps = 2.2\nzipf = 1.0')
    scenario = sim.parse(text, "t.toml")
    assert [model.name for model in scenario.models if model.group == "big"] == ["big-0", "big-1", "big-2"]
    rates = {workload.model: workload.rate_rps for workload in scenario.workloads if workload.model.startswith("big")}
    assert rates == pytest.approx({"big-0": 1.2, "big-1": 0.6, "big-2": 0.4})
    plain = sim.parse(GOOD, "t.toml")
    for node, same in zip(scenario.nodes, plain.nodes, strict=True):
        for name in rates:
            row, of_one = scenario.latency(name, node), plain.latency("big", same)
            assert (row is None) == (of_one is None)
            assert row is None or of_one is None or (row.base_s, row.per_work_s) == (of_one.base_s, of_one.per_work_s)
    assert sim.parse(text.replace("zipf = 1.0", "zipf = 0.0"), "t.toml").workloads[-1].rate_rps == pytest.approx(2.2 / 3)


@pytest.mark.parametrize("name", [*SHIPPED, "thousand-models"])
def test_every_figure_names_its_source(name: str) -> None:
    text = (importlib.resources.files("infcore") / "suites" / f"{name}.toml").read_text()
    legend = set(re.findall(r"^# (S\d+):", text, re.MULTILINE))
    own = re.compile(
        r"^(price_per_hour|rtt_s|memory_bytes|weights_bytes|load_s|cv|slots) ="
        r"|^\[\[(latency|token_latency|antagonist)\]\]"
    )
    n_figures = 0
    for line in text.splitlines():
        if own.match(line):
            n_figures += 1
            assert "# source: " in line, line
        for source in re.findall(r"\bS\d+\b", line.partition("#")[2]):
            assert source in legend, line
    assert n_figures > (1 if name.startswith("overload") else 6 if name == "thousand-models" else 10)
    for used in legend:
        assert len(re.findall(rf"\b{used}\b", text)) > 1, f"{used} is in the list of sources, and nothing uses it"


def test_good_text() -> None:
    scenario = sim.parse(GOOD, "dir/t.toml")
    assert scenario.name == "t"
    assert [node.name for node in scenario.nodes] == ["a100-0", "a100-1", "cpu"]
    assert [node.group for node in scenario.nodes] == ["a100", "a100", "cpu"]
    assert scenario.nodes[2].memory_bytes == 1_000_000_000
    assert scenario.nodes[0].initial_models == ("bert", "big")
    assert scenario.nodes[2].initial_models == ("bert",)
    assert scenario.run == sim.Run(seconds=600.0, warmup_s=30.0)
    assert scenario.workloads[0].work == sim.WorkDist("lognormal", 64.0, 1.2)
    assert scenario.workloads[1].work == sim.WorkDist()
    assert scenario.workloads[1].session == sim.Session(4.0, 5.0)
    assert scenario.faults == (sim.Fault(120.0, "crash", node="a100-0", for_s=60.0),)
    assert pickle.loads(pickle.dumps(scenario)) == scenario
    assert dataclasses.asdict(scenario)["nodes"][0]["labels"] == {"region": "eu"}


def test_the_more_exact_latency_row_wins() -> None:
    scenario = sim.parse(GOOD, "t.toml")
    rows = [scenario.latency("bert", node) for node in scenario.nodes]
    assert [row and (row.node, row.base_s) for row in rows] == [("a100", 0.002), ("a100-1", 0.004), ("cpu", 0.0)]
    assert scenario.latency("big", scenario.nodes[2]) is None


def test_a_model_without_a_row_or_not_named_does_not_run_there() -> None:
    more = GOOD + '[[latency]]\nmodel = "big"\nnode = "cpu"\nbase_s = 1.0\n'
    scenario = sim.parse(more, "t.toml")
    assert scenario.latency("big", scenario.nodes[2]) is None  # `models` of cpu does not name it
    assert scenario.nodes[2].initial_models == ("bert",)


def test_what_is_resident_at_the_start() -> None:
    def held(old: str, new: str) -> tuple[str, ...]:
        assert old in GOOD
        return sim.parse(GOOD.replace(old, new, 1), "t.toml").nodes[0].initial_models

    assert held("count = 2", "count = 2\nresident = false") == ()
    assert held("count = 2", 'count = 2\nresident = ["big"]') == ("big",)
    assert held("memory_bytes = 85899345920", "memory_bytes = 1000000000") == (
        "bert",
    )  # what fits, in the file's order
    assert held("memory_bytes = 85899345920", "memory_bytes = 0") == ("bert", "big")
    with pytest.raises(InvalidArgument, match=r"node\[0\]\.resident must be names of models that fit .* got 'big'"):
        held("memory_bytes = 85899345920", 'memory_bytes = 1000000000\nresident = ["bert", "big"]')


def test_each_kind_of_arrivals_has_its_own_keys() -> None:
    def arrivals(keys: str) -> sim.Workload:
        return sim.parse(GOOD.replace('arrivals = "gamma"\narrival_cv = 3.0', keys, 1), "x/t.toml").workloads[0]

    assert arrivals('arrivals = "regular"').arrivals == "regular"
    assert arrivals('arrivals = "onoff"\non_s = 1\noff_s = 3\non_factor = 9').on_factor == 9.0
    assert arrivals('arrivals = "diurnal"\npeak_to_mean = 1.5').period_s == 86400.0
    weekly = arrivals('arrivals = "weekly"\npeak_to_mean = 1.5')
    assert (weekly.weekend_factor, weekly.period_s) == (0.6, 86400.0)
    sale = arrivals('arrivals = "flash_sale"\nat_s = 10\nfor_s = 5')
    assert (sale.peak_factor, sale.ramp_s) == (20.0, 0.0)
    with pytest.raises(InvalidArgument, match=r"workload\[0\]\.arrival_cv is not known; allowed: .*period_s"):
        arrivals('arrivals = "diurnal"\npeak_to_mean = 1.5\narrival_cv = 2')


def test_a_trace_stands_beside_its_scenario(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    head, tail = GOOD.split('rate_rps = 800\narrivals = "gamma"\narrival_cv = 3.0\n')
    path.write_text(head + 'arrivals = "trace"\nfile = "rows.csv"\nrate_factor = 2.0\n' + tail)
    scenario = sim.load(str(path))
    assert scenario.workloads[0].file == str(tmp_path / "rows.csv")
    assert sim.scaled(scenario, 3.0).workloads[0].rate_factor == 6.0
    assert sim.scaled(scenario, 3.0).workloads[0].rate_rps == 0.0


def test_kind_zone_and_location_count_as_labels() -> None:
    for label in ('kind = "gpu"', 'zone = "z1"', 'location = "cloud"', 'region = "eu", zone = "z1"'):
        sim.parse(GOOD.replace('require = { region = "eu" }', f"require = {{ {label} }}"), "t.toml")
    with pytest.raises(InvalidArgument, match=r"workload\[0\]\.require must be labels"):
        sim.parse(GOOD.replace('require = { region = "eu" }', 'require = { region = "eu", kind = "cpu" }'), "t.toml")


def test_scaled() -> None:
    scenario = sim.parse(GOOD, "t.toml")
    twice = sim.scaled(scenario, 2)
    assert [workload.rate_rps for workload in twice.workloads] == [1600.0, 4.0]
    assert twice.nodes is scenario.nodes
    for load in (0, -1.0, float("nan"), float("inf"), True, "2", 2e6):
        with pytest.raises(InvalidArgument, match="load must be a number > 0 and <= 1e\\+06, got"):
            sim.scaled(scenario, load)  # type: ignore[arg-type]


WRONG = [
    ("seconds = 600.0", "seconds = 0", "run.seconds must be a number > 0 and <= 1e+08, got 0"),
    ("seconds = 600.0", "secs = 0", "run.seconds is missing"),
    ("seconds = 600.0", f"seconds = 0x{'f' * 5000}", "run.seconds must be a number > 0 and <= 1e+08, got <int>"),
    ("seconds = 600.0", f"seconds = 1{'0' * 5000}", "not valid TOML: Exceeds the limit"),
    ("seconds = 600.0", "seconds = 600.0\nbatching = 'x'", "run.batching must be one of dynamic, greedy, got 'x'"),
    ("warmup_s = 30", "warmup_s = 600", "run.warmup_s must be < seconds = 600, got 600"),
    ("warmup_s = 30", "signal_loss = 1.5", "run.signal_loss must be a number >= 0 and <= 1, got 1.5"),
    ("warmup_s = 30", "max_requests = 0", "run.max_requests must be an integer from 1 to 16777216, got 0"),
    ("warmup_s = 30", "probe_s = 1e-10", "run.probe_s must be a number >= 1e-06 and <= 1e+08, got 1e-10"),
    ("warmup_s = 30", "signal_period_s = 1e-10", "run.signal_period_s must be 0 (never) or >= 1e-06, got 1e-10"),
    ("off_s = 3.0", "off_s = 1e-12", "antagonist[0].off_s must be a number >= 1e-06 and <= 1e+08, got 1e-12"),
    ("[run]\n", "[runs]\n", "runs is not known; allowed: name, description, run, node"),
    ("count = 2", "count = 0", "node[0].count must be an integer from 1 to 65536, got 0"),
    ("count = 2", "count = 65536", "node[1].count: the scenario may have 65536 nodes, got 65537"),
    ("count = 2", "colour = 2", "node[0].colour is not known; allowed: name, count, kind"),
    ("price_per_hour = 3.0", "price_per_hour = -3.0", "node[0].price_per_hour must be a number >= 0 and <= 1e+09"),
    ("price_per_hour = 3.0", "price_per_hour = nan", "node[0].price_per_hour must be a number >= 0"),
    ("memory_bytes = 1e9", "memory_bytes = 1.5", "node[1].memory_bytes must be a whole number of bytes, got 1.5"),
    ("memory_bytes = 1e9", "memory_bytes = 1e8", "node[1].memory_bytes must be >= weights_bytes = 440000000 of model"),
    ('models = ["bert"]', 'models = ["bart"]', "node[1].models must be names of models with a latency row for 'cpu'"),
    ('models = ["bert"]', 'resident = ["big"]', "node[1].resident must be names of models that run there, got 'big'"),
    ('models = ["bert"]', "resident = 1", "node[1].resident must be true, false or an array of model names, got 1"),
    ('region = "eu" }\n[[node]]', 'region = 1 }\n[[node]]', "node[0].labels must be a table of texts"),
    ('name = "cpu"', 'name = "a100-1"', "node[1].name must be unique, got 'a100-1' for two nodes or groups"),
    ('name = "big"', 'name = "bert"', "model[1].name must be unique, got 'bert' for two models or groups"),
    ("slo_s = 0.1", "slo_s = true", "model[0].slo_s must be a number >= 0 and <= 1e+08, got True"),
    ("slo_s = 0.1", "idempotent = 1", "model[0].idempotent must be true or false, got 1"),
    ("base_s = 0.002", "base_s = 0", "latency[0].base_s, per_request_s, per_work_s or per_padded_work_s must be > 0"),
    ('node = "a100-1"', 'node = "a100"', "latency[1].model: one row for each model and node, got a second for 'bert'"),
    ('node = "a100-1"', 'node = "a100-2"', "latency[1].node must be one of a100, a100-0, a100-1, cpu, got 'a100-2'"),
    ('model = "big"\nnode', 'model = "bog"\nnode', "latency[3].model must be one of bert, big, got 'bog'"),
    ('model = "big"\nnode', 'model = "bert"\nnode', "latency[3].model: one row for each model and node"),
    ('model = "big"\nrate', 'model = "bog"\nrate', "workload[1].model must be one of bert, big, got 'bog'"),
    ("rate_rps = 800", "rate_rps = 0", "workload[0].rate_rps must be a number > 0 and <= 1e+09, got 0"),
    ('"gamma"', '"bursty"', "workload[0].arrivals must be one of poisson, gamma, onoff"),
    ("arrival_cv = 3.0", "arrival_cv = -1.0", "workload[0].arrival_cv must be a number >= 0"),
    ("mean = 64.0", "mean = 0", "workload[0].work.mean must be a number > 0 and <= 1e+12, got 0"),
    ('"lognormal"', '"normal"', "workload[0].work.dist must be one of constant, lognormal, exponential"),
    ("cv = 1.2", "high = 1.2", "workload[0].work.high is not known"),
    ("cv = 1.2", "cv = 1, min = 9, max = 8", "workload[0].work.max must be a number >= 9"),
    ('require = { region = "eu" }', 'require = { region = "us" }', "workload[0].require must be labels that some node"),
    ("turns_mean = 4.0", "turns_mean = 0.5", "workload[1].session.turns_mean must be a number >= 1"),
    ("rate_rps = 2\n", "rate_rps = 2\nstart_s = 9\nend_s = 9\n", "workload[1].end_s must be > start_s = 9, got 9"),
    ("rate_rps = 2\n", "rate_rps = 2\ntier = 8\n", "workload[1].tier must be an integer from 0 to 7, got 8"),
    ('kind = "crash"', 'kind = "slow"', "fault[0].factor is missing"),
    ('kind = "crash"', 'kind = "errors"\nrate = 1.1', "fault[0].rate must be a number > 0 and <= 1, got 1.1"),
    ('kind = "crash"', 'kind = "crash"\nzone = "z1"', "fault[0].node: exactly one of node and zone must be given"),
    ('node = "a100-0"', 'zone = "z2"', "fault[0].zone must be one of z1, got 'z2'"),
    ('node = "a100-0"', 'node = "b"', "fault[0].node must be one of a100, a100-0, a100-1, cpu, got 'b'"),
    ('kind = "slow"\n', 'kind = "slow"\nnode = "b"\n', "random_fault[0].node must be one of a100"),
    ('[[antagonist]]\nnode = "cpu"', '[[antagonist]]\nnode = "b"', "antagonist[0].node must be one of a100"),
    ("[[antagonist]]", "[antagonist]", "antagonist must be an array of tables ([[antagonist]])"),
    ("[[workload]]", "[workload]", "not valid TOML"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_wrong_text_is_refused(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(InvalidArgument) as error:
        sim.parse(GOOD.replace(old, new, 1), "t.toml")
    assert re.match(r"t\.toml:\d+: ", str(error.value))
    assert message in str(error.value)


def test_the_line_is_that_of_the_key() -> None:
    for old, new in (("base_s = 0.004", "base_s = -0.004"), ("off_s = 3.0", "off_s = -3.0"), ('"big"\nr', '"bog"\nr')):
        text = GOOD.replace(old, new, 1)
        line = text.splitlines().index(new.splitlines()[0] if "\n" not in new else 'model = "bog"') + 1
        with pytest.raises(InvalidArgument, match=rf"^t\.toml:{line}: "):
            sim.parse(text, "t.toml")


def test_missing_parts_are_named() -> None:
    with pytest.raises(InvalidArgument, match=r"^t\.toml:1: run is missing"):
        sim.parse("", "t.toml")
    for key in ("node", "model", "latency", "workload"):
        text = re.sub(rf"\[\[{key}\]\]\n(?:(?!\[\[).*\n)*", "", GOOD)
        with pytest.raises(InvalidArgument, match=rf"t\.toml:1: {key} must have at least one row \(\[\[{key}\]\]\)"):
            sim.parse(text, "t.toml")
    text = re.sub(r'\[\[latency\]\]\nmodel = "big"\n(?:(?!\[\[).*\n)*', "", GOOD)
    with pytest.raises(
        InvalidArgument, match=r"workload\[1\]\.model must have a \[\[latency\]\] row .* got none for 'big'"
    ):
        sim.parse(text, "t.toml")


def test_a_suite_is_no_scenario_and_unknown_names_list_the_shipped() -> None:
    with pytest.raises(InvalidArgument, match=r"mixed\.toml:\d+: device belongs to a suite of `infcore bench`"):
        sim.load("mixed")
    with pytest.raises(UnknownName, match=r"scenario must be one of antagonists, .* got 'nope'"):
        sim.load("nope")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for name in (str(tmp_path), str(tmp_path / "none.toml"), "a\0.toml"):
        with pytest.raises(InvalidArgument, match="scenario must be a readable TOML file, got"):
            sim.load(name)
    path = tmp_path / "latin.toml"
    path.write_bytes(b"[run]\nseconds = 1\nname = '\xff'\n")
    with pytest.raises(
        InvalidArgument, match=r"latin\.toml:3: scenario must be a readable TOML file in UTF-8, got byte 0xff"
    ):
        sim.load(str(path))


def test_lines_of_values() -> None:
    text = (
        'a = 1\n[b] # c\n"x y" = """\n[no]\n"""\n\'z\'.w = [\n 1, # ]\n { q = "]" },\n]\nlast = 2\n'
        "[[r.s]]\nk = 1\n[r.s.t]\n[[r.s]]\nk = 2\n"
    )
    lines = lines_of(text)
    assert lines["a",] == 1
    assert lines["b",] == 2
    assert lines["b", "x y"] == 3
    assert lines["b", "z", "w"] == 6
    assert lines["b", "last"] == 10
    assert lines["r", "s", 0, "k"] == 12
    assert lines["r", "s", 0, "t"] == 13
    assert lines["r", "s", 1, "k"] == 15
    assert ("no",) not in lines
