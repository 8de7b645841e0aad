"""A simulation's report: every chart is there, odd but legal documents give a page, others a clear error."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from unit.test_report import Reader

from infcore.cli import main
from infcore.errors import InvalidArgument
from infcore.profiling import simulation_charts, svg, svg_time
from infcore.profiling.documents import check
from infcore.profiling.fault_spans import BANDS_MAX, LANES_MAX, bands_of, faults_of, lanes_of
from infcore.profiling.report_simulation import page
from infcore.profiling.simulations import REQUIRED, REQUIRED_RUN
from infcore.sim.simulate import BOUND

SCENARIO = """
name = "pair"
description = "Two unlike nodes."
[run]
seconds = 12.0
warmup_s = 1.0
[[node]]
name = "fast"
price_per_hour = 3.0
[[node]]
name = "slow"
count = 2
kind = "cpu"
price_per_hour = 0.3
[[model]]
name = "m"
slo_s = 0.05
[[model]]
name = "n"
[[latency]]
model = "m"
node = "fast"
base_s = 0.002
per_request_s = 0.0005
cv = 0.1
[[latency]]
model = "m"
node = "slow"
base_s = 0.01
per_request_s = 0.004
[[latency]]
model = "n"
node = "fast"
base_s = 0.004
[[workload]]
model = "m"
rate_rps = 60.0
[[workload]]
model = "n"
rate_rps = 20.0
arrivals = "gamma"
arrival_cv = 3.0
[[fault]]
at_s = 3.0
kind = "crash"
node = "slow-0"
for_s = 2.0
[[fault]]
at_s = 6.0
kind = "slow"
factor = 4.0
node = "fast"
for_s = 3.0
"""
POLICIES = ["round_robin", "fastest_finish", BOUND]
CAPTIONS = (
    "Answers within a latency",
    "Cost against p99",
    "Inside the SLO over load",
    "Goodput over load",
    "By time of arrival",
    "load of the nodes over time, round_robin",
    "load of the nodes over time, fastest_finish",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command itself writes."""
    folder = tmp_path_factory.mktemp("simulation")
    (folder / "pair.toml").write_text(SCENARIO)
    asked = ["simulate", str(folder / "pair.toml"), "--capacity", "--json", str(folder / "pair.json")]
    assert main([*asked, "--policy", *POLICIES]) == 0
    return folder / "pair.json"


@pytest.fixture
def document(written: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(written.read_text())
    return values


def drawn(values: dict[str, Any]) -> str:
    return page(check(values, where="f"))


def test_page_is_whole_and_loads_nothing(document: dict[str, Any]) -> None:
    text = drawn(document)
    reader = Reader(text)
    assert reader.open == []
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(reader.tags)
    assert not [pair for pair in reader.attributes if pair[0] in ("src", "href", "srcset", "data", "action")]
    assert not re.search(r"https?:|url\(|@import|\bnan\b|\binf\b", text)


def test_every_chart_and_table_is_there(document: dict[str, Any]) -> None:
    text = drawn(document)
    for caption in CAPTIONS:
        assert caption in text, caption
    assert f"load of the nodes over time, {BOUND}" not in text  # it uses no node
    for title in ("Policies side by side", "Nodes by group", "Models", "Outcomes, money and regret", "Faults"):
        assert f"<h2>{title}</h2>" in text
    assert "Devices are modelled" in text
    assert "Two unlike nodes." in text
    assert "Valid run" in text
    for run in document["runs"]:
        assert run["digest"] in text


def test_figures_are_the_documents(document: dict[str, Any]) -> None:
    text = drawn(document)
    base, best = document["runs"][:2]
    assert f"{best['latency_s']['p99'] / base['latency_s']['p99']:.2f}x" in text
    assert f"<td>{best['requests']:,}</td>" in text
    document["runs"][1]["latency_s"]["p99"] *= 2
    assert drawn(document) != text


def test_the_bound_is_told_apart(document: dict[str, Any]) -> None:
    styles = simulation_charts.styles_of(check(document, where="f")["runs"])
    assert [style.dashed for style in styles] == [False, False, True]
    assert len({style.color for style in styles}) == 3
    assert f'<i class="d{styles[-1].color} dashes"></i>{BOUND}' in drawn(document)


def test_more_policies_than_colours_stay_told_apart() -> None:
    styles = simulation_charts.styles_of([{"policy": f"p{i}"} for i in range(12)])
    assert len({(style.color, style.dashed) for style in styles}) == 12


def test_the_front_is_of_the_best() -> None:
    points = [(1.0, 9.0), (2.0, 4.0), (3.0, 5.0), (2.0, 6.0), (4.0, 4.0), (5.0, 1.0)]
    assert simulation_charts.pareto(points) == [(1.0, 9.0), (2.0, 4.0), (5.0, 1.0)]
    assert simulation_charts.pareto([]) == []


def test_goodput_is_of_the_arrivals_as_they_came(document: dict[str, Any]) -> None:
    arrived = sum(document["runs"][0]["parts"]["arrivals"])
    assert simulation_charts.arrivals_rps(document) == pytest.approx(arrived / 12.0)
    document["load"] = 2.0
    assert simulation_charts.arrivals_rps(document) == pytest.approx(arrived / 24.0)


def test_faults_are_drawn_where_they_were(document: dict[str, Any]) -> None:
    faults = faults_of(document["runs"], 12.0)
    assert [(node, kind, until - start) for node, kind, start, until in faults] == [
        ("slow-0", "crash", pytest.approx(2.0)),
        ("fast", "slow", pytest.approx(3.0)),
    ]
    text = drawn(document)
    # Behind three panels and in its lane, and below its node's row for each of two policies.
    assert text.count("<title>slow-0: crash, 3 s to 5 s</title>") == 3 + 1 + 2
    assert text.count("<title>fast: slow, 6 s to 9 s</title>") == 3 + 1 + 2


def test_faults_without_an_end_and_many_of_them() -> None:
    def events(*rows: tuple[float, str, str, bool]) -> list[dict[str, Any]]:
        rows_of = [dict(zip(("at_s", "node", "kind", "begins"), row, strict=True)) for row in rows]
        return [{"faults": {"count": len(rows), "events": rows_of}}]

    endless = events((2.0, "a", "crash", True), (1.0, "b", "slow", False), (99.0, "a", "slow", True))
    assert faults_of(endless, 10.0) == [("a", "crash", 2.0, 10.0)]
    nested = events(*((at_s, "a", "slow", begins) for at_s, begins in ((1, True), (2, True), (3, False), (5, False))))
    [lane] = lanes_of(faults_of(nested, 10.0), 10.0)
    assert [(span.from_s, span.until_s) for span in lane.spans] == [(1.0, 5.0)]
    many = [(f"n{i}", "crash" if i % 2 else "hang", i * 10.0, i * 10.0 + 1.0) for i in range(100)]
    assert [lane.name for lane in lanes_of(many, 1000.0)] == ["crash", "hang"]
    assert len(lanes_of(many[:LANES_MAX], 1000.0)) == LANES_MAX
    assert len(bands_of(many[:BANDS_MAX], 1000.0)) == BANDS_MAX
    assert bands_of(many, 1000.0) == []


def grown(document: dict[str, Any], n_nodes: int, n_groups: int) -> dict[str, Any]:
    """With as many nodes of as many groups, node i busy for (i mod 2) of the time."""
    for run in document["runs"]:
        n_parts, part_s = len(run["parts"]["arrivals"]), run["parts"]["part_s"]
        first = run["nodes"][0]
        run["nodes"] = [
            {**first, "name": f"n{i}", "group": f"g{i % n_groups}", "busy_part_s": [part_s * (i % 2)] * n_parts}
            for i in range(n_nodes)
        ]
    return document


def test_many_nodes_are_grouped(document: dict[str, Any]) -> None:
    run = check(grown(document, 1000, 4), where="f")["runs"][0]
    rows, grouped = simulation_charts.load_rows(run)
    assert grouped
    assert [name for name, _ in rows] == [f"g{i} (250)" for i in range(4)]
    assert [values[0] for _, values in rows] == pytest.approx([0.0, 1.0, 0.0, 1.0])
    text = drawn(document)
    assert "groups of nodes" in text
    assert len(text) < 300_000


def test_many_groups_share_a_row(document: dict[str, Any]) -> None:
    rows, _ = simulation_charts.load_rows(check(grown(document, 200, 100), where="f")["runs"][0])
    assert len(rows) == simulation_charts.HEAT_ROWS_MAX
    assert rows[-1][0] == "others (122)"
    assert rows[-1][1][0] == pytest.approx(0.5, abs=0.02)


def test_validity_is_shown(document: dict[str, Any]) -> None:
    text = drawn({**document, "valid": False, "invalid_reasons": ["round_robin, seed 0: 3 invariants broken"]})
    assert "Not a valid run" in text
    assert "<li>round_robin, seed 0: 3 invariants broken</li>" in text
    assert "Valid run" not in text


def test_what_it_is_given_is_escaped(document: dict[str, Any]) -> None:
    bad = "<script>&"
    text = json.dumps(document)
    for name in ("pair", "fastest_finish", '"m"', "slow-0", "crash", "Two unlike nodes.", '"fast"'):
        text = text.replace(name, f'"{bad}{name[1:]}' if name[0] == '"' else f"{bad}{name}")
    shown = drawn(json.loads(text))
    assert "<script" not in shown
    assert Reader(shown).open == []
    assert shown.count("&lt;script&gt;&amp;") > 20


def without(document: dict[str, Any], *paths: str) -> dict[str, Any]:
    """With null at each path, "*" being every element."""

    def blank(value: Any, keys: list[str]) -> None:
        for key in list(range(len(value))) if keys[0] == "*" else [keys[0]]:
            if len(keys) == 1:
                value[key] = None
            else:
                blank(value[key], keys[1:])

    for path in paths:
        blank(document, path.split("."))
    return document


NULLS = [
    "capacity", "trace", "baseline", "cost_basis", "scenario_detail", "runs.*.capacity_load", "runs.*.latency_s",
    "runs.*.regret_s", "runs.*.ratio_to_baseline", "runs.*.cost_usd", "runs.*.cost_usd_per_1k", "runs.*.models",
    "runs.*.latency_curve_s", "runs.*.within_slo", "runs.*.availability", "runs.*.throughput_rps", "runs.*.outcomes",
    "runs.*.parts.latency_mean_s.*", "runs.*.nodes.*.utilization", "runs.*.nodes.*.group", "runs.*.models.*.slo_s",
]  # fmt: skip


@pytest.mark.parametrize("path", [*NULLS, "all"])
def test_nulls_do_not_break_it(document: dict[str, Any], path: str) -> None:
    paths = [p for p in NULLS if p != "runs.*.models.*.slo_s"] if path == "all" else [path]
    reader = Reader(drawn(without(document, *paths)))
    assert reader.open == []
    assert reader.tags.count("h1") == 1


def test_the_least_that_is_asked_for_is_enough(document: dict[str, Any]) -> None:
    least = {key: document[key] for key in REQUIRED} | {"command": "simulate"}
    least["runs"] = [{key: run[key] for key in REQUIRED_RUN} for run in document["runs"]]
    assert Reader(drawn(least)).open == []


def test_a_single_policy_and_none(document: dict[str, Any]) -> None:
    for runs in (document["runs"][:1], document["runs"][2:], []):
        assert Reader(drawn({**document, "runs": copy.deepcopy(runs)})).open == []
    assert "No policy was run" in drawn({**document, "runs": []})


def test_free_nodes_have_no_cost_chart(document: dict[str, Any]) -> None:
    for run in document["runs"]:
        run["cost_usd_per_1k"] = 0.0
    text = drawn(document)
    assert "Cost against p99" not in text
    assert "lowest cost" not in text


def test_no_request_at_all(tmp_path: Path) -> None:
    path = tmp_path / "quiet.toml"
    path.write_text(
        re.sub("rate_rps = .*", "rate_rps = 1e-6", SCENARIO.replace('arrivals = "gamma"\narrival_cv = 3.0\n', ""))
    )
    assert main(["simulate", str(path), "--policy", "round_robin", BOUND, "--json", str(tmp_path / "q.json")]) == 0
    assert main(["report", str(tmp_path / "q.json")]) == 0
    text = (tmp_path / "q.html").read_text()
    assert Reader(text).open == []
    assert "No request arrived" in text


def test_the_command_writes_the_page(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(written)]) == 0
    assert "<h1>infcore simulate: scenario pair</h1>" in written.with_suffix(".html").read_text()
    capsys.readouterr()
    assert main(["report", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "`infcore bench --json` or `infcore simulate --json`" in told


def test_a_swarm_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.toml").write_text(SCENARIO)
    out = tmp_path / "s.json"
    assert main(["simulate", str(tmp_path / "p.toml"), "--swarm", "2", "--json", str(out)]) == 0
    capsys.readouterr()
    with pytest.raises(InvalidArgument, match=r"--swarm`, which counts seeds"):
        check(json.loads(out.read_text()), where="f")
    assert main(["report", str(out)]) == 2
    assert not out.with_suffix(".html").exists()


@pytest.mark.parametrize("key", REQUIRED)
def test_what_is_missing_is_named(document: dict[str, Any], key: str) -> None:
    del document[key]
    named = "schema_version must be 1, got None" if key == "schema_version" else f"f lacks {key}$"
    with pytest.raises(InvalidArgument, match=named):
        check(document, where="f")


@pytest.mark.parametrize("key", REQUIRED_RUN)
def test_what_a_run_lacks_is_named(document: dict[str, Any], key: str) -> None:
    del document["runs"][1][key]
    with pytest.raises(InvalidArgument, match=rf"f lacks runs\[1\]\.{key}$"):
        check(document, where="f")


def test_what_is_wrong_is_named(document: dict[str, Any]) -> None:
    def changed(change: str) -> dict[str, Any]:
        values = copy.deepcopy(document)
        exec(f"d{change}", {"d": values})
        return values

    for change, message in [
        ("['schema_version'] = 2", "f: schema_version must be 1, got 2"),
        ("['command'] = 'tune'", "f must be a JSON document written by"),
        ("['command'] = ['simulate']", "f must be a JSON document written by"),
        ("['runs'] = {}", r"f\.runs must be an array, got \{\}"),
        ("['runs'][0]['policy'] = 3", r"f\.runs\[0\]\.policy must be a string, got 3"),
        ("['runs'][0]['latency_s']['p99'] = float('nan')", r"f\.runs\[0\]\.latency_s\.p99 must be a finite number"),
        ("['runs'][0]['within_slo'] = -1", r"within_slo must be a finite number >= 0, got -1"),
        ("['valid'] = 1", r"f\.valid must be true or false, got 1"),
        ("['runs'][0]['parts']['ok'].pop()", r"f\.runs\[0\]\.parts must have arrays of one length"),
        ("['runs'][0]['parts']['part_s'] = 0", r"part_s > 0"),
        ("['runs'][0]['nodes'][2]['busy_part_s'].pop()", r"nodes\[2\]\.busy_part_s must have a value for each of"),
        ("['runs'][0]['latency_curve_s']['q'].pop()", r"latency_curve_s must have as many q as s"),
        ("['runs'][0]['faults']['events'][0]['begins'] = 'x'", r"events\[0\]\.begins must be true or false"),
        ("['capacity']['round_robin'][0]['load'] = None", r"f\.capacity\.round_robin\[0\]\.load must be a finite"),
        ("['runs'][0]['parts']['arrivals'][3] = 0.5", r"arrivals\[3\] must be an integer >= 0, got 0\.5"),
        ("['env'] = []", r"f\.env must be an object, got \[\]"),
    ]:
        with pytest.raises(InvalidArgument, match=message):
            check(changed(change), where="f")


def test_axes_of_time_and_shades() -> None:
    for end_s, title, last in ((120.0, "time, s", "120"), (3600.0, "time, min", "60"), (86400.0, "time, h", "20")):
        axis = svg_time.time_axis(end_s)
        assert (axis.title, axis.write(axis.ticks[-1])) == (title, last)
        assert (axis.place(0.0), axis.place(end_s), axis.place(2 * end_s)) == (0.0, 1.0, 1.0)
    assert [svg_time.shade(part) for part in (0.0, 1e-9, 0.9499, 0.95, 1.2)] == [0, 1, 9, 10, 10]
    assert len(svg.log_axis(1e-6, 1e3, "t", str).ticks) <= svg.TICKS_MAX


def test_long_names_keep_their_ends() -> None:
    names = [svg_time.shortened(f"rack-with-a-long-name-{i} (6)", 24) for i in (0, 11)]
    assert [len(name) for name in names] == [24, 24]
    assert names[0] != names[1]
    assert svg_time.shortened("short", 5) == "short"


def test_names_of_dots_do_not_overlap() -> None:
    crowd = [svg.Series(f"policy_{i}", i, points=[(0.5 + i * 0.004, 0.5 + i * 0.003)]) for i in range(5)]
    axis = svg.linear_axis(1.0, "t")
    text = svg.points("crowd", crowd, axis, axis, front=[(0.5, 0.5)])
    at = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="value" text-anchor="(\w+)">(policy_\d)', text)
    assert len(at) == 5
    boxes = []
    for x, y, anchor, name in at:
        width = len(name) * svg.CHARACTER_WIDTH
        left = float(x) - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        boxes.append((left, left + width, float(y) - 9, float(y) + 3))
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2], (a, b)
