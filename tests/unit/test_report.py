"""The report: one page that loads nothing, says what is emulated and whether to believe it, and escapes its input."""

import html.parser
import re
from typing import Any

import pytest

from infcore.errors import InvalidArgument
from infcore.profiling import svg
from infcore.profiling.documents import check
from infcore.profiling.report import page


def row(policy: str, p99: float | None, **changes: Any) -> dict[str, Any]:
    latency = {"p50": p99 and p99 / 10, "p90": p99 and p99 / 2, "p99": p99, "p999": p99 and p99 * 2}
    answered = 2000 if p99 else 0
    device = {
        "kind": "onnx",
        "emulated": False,
        "requests": answered,
        "throughput_rps": answered / 10,
        "latency_s": latency,
        "utilization": 0.4,
        "batch_mean": 1.5 if p99 else None,
        "cost_usd_per_1k": 0.001 if p99 else None,
        "energy_j_per_request": None,
    }
    return {
        "policy": policy,
        "requests": 2000,
        "outcomes": {"ok": answered, "rejected": 2000 - answered},
        "seconds": 10.0,
        "rate_rps": 200.0,
        "throughput_rps": answered / 10,
        "goodput_rps": answered / 10,
        "within_slo": 1.0 if p99 else 0.0,
        "latency_s": latency,
        "latency_curve_s": {"q": [0.0, 0.5, 0.99, 0.999, 1.0], "s": [0.001, p99 / 10, p99, p99 * 2, 1.0]}
        if p99
        else {"q": [], "s": []},
        "cost_usd_per_1k": 0.002 if p99 else None,
        "capacity_rps": None,
        "devices": [{**device, "name": "cpu"}, {**device, "name": "gpu", "kind": "emulated", "emulated": True}],
        "models": [
            {
                "name": "m",
                "tier": 0,
                "slo_s": 0.1,
                "requests": 2000,
                "within_slo": 1.0,
                "latency_s": latency,
                "checked": 8,
                "wrong": 0,
            }
        ],
        "ratio_to_baseline": {"p99": 0.5, "cost_usd_per_1k": 1.0, "capacity_rps": None},
        **changes,
    }


def document(rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    devices = [{"name": "cpu", "emulated": False}, {"name": "gpu", "emulated": True}]
    return {
        "schema_version": 1,
        "command": "bench",
        "suite": "t",
        "suite_detail": {
            "description": "a suite",
            "arrivals": {"process": "onoff", "peak_to_mean": 10.0, "on_s": 0.02, "off_s": 0.38},
            "devices": devices,
            "notes": ["Left out: x."],
        },
        "seed": 0,
        "seconds": 10.0,
        "load": 0.5,
        "load_detail": {"load": 0.5, "rate_rps": 200.0, "calibration": {"policy": "round_robin"}},
        "baseline": "round_robin",
        "policies": rows,
        "lateness_s": 0.001,
        "lateness_detail_s": {"p50": 0.0, "p99": 0.001, "max": 0.01, "limit": 0.008},
        "cost_basis": "busy time",
        "valid": True,
        "invalid_reasons": [],
        "env": {"infcore": "0.1.0", "packages": {"numpy": "2"}, "command_line": ["infcore", "bench"]},
        **changes,
    }


class Reader(html.parser.HTMLParser):
    """Notes every tag and attribute, and whether tags are closed in order."""

    VOID = {"meta", "link", "img", "br", "hr", "input", "line", "rect", "circle", "polyline"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


POLICIES = [row("round_robin", 0.08), row("fastest_finish", 0.02)]


def test_page_is_whole_and_loads_nothing() -> None:
    text = page(document(POLICIES))
    reader = Reader(text)
    assert reader.open == []
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(reader.tags)
    assert not [pair for pair in reader.attributes if pair[0] in ("src", "href", "srcset", "data", "action")]
    assert not re.search(r"https?:|url\(|@import", text)


def test_emulated_devices_are_labelled_everywhere() -> None:
    text = page(document(POLICIES))
    assert text.count('gpu <span class="badge">emulated</span>') == len(POLICIES)
    assert "no such hardware was used" in text
    assert "(emulated)</text>" in text


def test_validity_is_shown() -> None:
    assert "Valid run" in page(document(POLICIES))
    text = page(document(POLICIES, valid=False, invalid_reasons=["round_robin: wrong answers: 1 of 8"]))
    assert "Not a valid run" in text
    assert "<li>round_robin: wrong answers: 1 of 8</li>" in text


def test_what_it_is_given_is_escaped() -> None:
    text = page(document([row("<script>alert(1)</script>", 0.02)], suite="<b>&"))
    assert "<script" not in text
    assert "&lt;b&gt;&amp;" in text


def test_capacity_chart_only_where_it_was_searched() -> None:
    assert "Capacity: highest load" not in page(document(POLICIES))
    rows = [row("round_robin", 0.08, capacity_rps=300.0), row("fastest_finish", 0.02, capacity_rps=900.0)]
    assert "Capacity: highest load" in page(document(rows))


@pytest.mark.parametrize("rows", [[], [row("round_robin", None)]], ids=["no policy", "nothing answered"])
def test_a_run_without_answers_still_gives_a_page(rows: list[dict[str, Any]]) -> None:
    load = {"load": 0.5, "rate_rps": None, "calibration": {"policy": "round_robin"}}
    changes = {} if rows else {"load_detail": load, "baseline": None}
    assert Reader(page(document(rows, **changes))).open == []


def test_other_documents_are_refused() -> None:
    good = document(POLICIES)
    assert check(good, where="f") is good
    for bad, message in [
        ([], "must be a JSON document written by"),
        ({**good, "command": "info"}, "must be a JSON document written by"),
        ({**good, "schema_version": 99}, "schema_version must be 1, got 99"),
        ({k: v for k, v in good.items() if k != "env"}, "f lacks env"),
        ({**good, "policies": [{"policy": "x"}]}, r"f lacks policies\[0\]\.throughput_rps"),
    ]:
        with pytest.raises(InvalidArgument, match=message):
            check(bad, where="f")


def test_axes_reach_over_their_values() -> None:
    for top in (0.003, 0.7, 1.0, 9.99, 31_792.0):
        ticks = svg.steps(top)
        assert ticks[0] == 0.0
        assert ticks[-1] >= top
        assert 3 <= len(ticks) <= 8
    axis = svg.log_axis(0.0012, 0.93, "t", str)
    assert axis.place(axis.ticks[0]) == 0.0
    assert axis.place(axis.ticks[-1]) == pytest.approx(1.0)
    assert axis.ticks[0] <= 0.0012
    assert axis.ticks[-1] >= 0.93
    tail = svg.tail_axis(3.0, "t")
    assert [tail.place(part) for part in (0.0, 0.9, 0.99, 0.999)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
