"""A bench's document as one HTML page: no script, no font, no picture from elsewhere, so it can be mailed or kept."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from infcore.profiling import tables
from infcore.profiling.report_charts import (
    capacity_chart,
    cost_chart,
    curve_chart,
    device_throughput_chart,
    device_utilization_chart,
    quantile_chart,
)
from infcore.profiling.report_style import STYLE

Row = Mapping[str, Any]


def page(document: Mapping[str, Any]) -> str:
    """The whole page as text."""
    title = f"infcore bench: suite {document['suite']}"
    parts = [
        _header(document, title),
        _banner(document),
        _tiles(document),
        _section("Policies side by side", _policy_table(document) + _emulated_note(document)),
        _charts(document),
        *(_policy_section(row) for row in document["policies"]),
        _method(document),
        _environment(document),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _header(document: Mapping[str, Any], title: str) -> str:
    env, load = document["env"], document["load_detail"]
    rate = load["rate_rps"]
    asked = "rate not reached" if rate is None else f"{rate:.0f} req/s"
    if load["load"] is not None and rate is not None:
        asked += f" ({load['load']:g} of {load['calibration']['policy']}'s capacity)"
    facts = [
        asked,
        f"{document['seconds']:g} s per policy",
        f"seed {document['seed']}",
        f"infcore {env.get('infcore', '?')}",
    ]
    about = document["suite_detail"].get("description", "")
    lines = f"<p>{escape(about)}</p><p class='facts'>{escape(' · '.join(facts))}</p>"
    return f"<header><h1>{escape(title)}</h1>{lines}</header>"


def _banner(document: Mapping[str, Any]) -> str:
    if document["valid"]:
        late = document["lateness_detail_s"]
        p99, limit = tables.milliseconds(late["p99"]), tables.milliseconds(late["limit"])
        text = f"load generator late by p99 {p99} ms, limit {limit} ms"
        return f'<div class="banner good"><b>Valid run</b>: every request accounted for, answers right; {text}.</div>'
    items = "".join(f"<li>{escape(reason)}</li>" for reason in document["invalid_reasons"])
    return f'<div class="banner bad"><b>Not a valid run</b><ul>{items}</ul></div>'


def _tiles(document: Mapping[str, Any]) -> str:
    rows = [row for row in document["policies"] if row["latency_s"]["p99"] is not None]
    if not rows:
        return ""
    best = min(rows, key=lambda row: row["latency_s"]["p99"])
    tiles = [("lowest p99", f"{tables.milliseconds(best['latency_s']['p99'])} ms", best["policy"])]
    ratio = best.get("ratio_to_baseline", {}).get("p99")
    if ratio is not None and best["policy"] != document["baseline"]:
        tiles.append((f"its p99 against {document['baseline']}", f"{(ratio - 1) * 100:+.0f} %", "lower is better"))
    tiles.append(
        ("its answers inside the SLO", tables.percent(best["within_slo"], 2), f"{best['goodput_rps']:.0f} req/s")
    )
    priced = [row for row in rows if row["cost_usd_per_1k"] is not None]
    if priced:
        cheap = min(priced, key=lambda row: row["cost_usd_per_1k"])
        tiles.append(("lowest cost per 1,000", f"${tables.dollars(cheap['cost_usd_per_1k'])}", cheap["policy"]))
    carried = [row for row in rows if row["capacity_rps"] is not None]
    if carried:
        most = max(carried, key=lambda row: row["capacity_rps"])
        tiles.append(("highest capacity", f"{most['capacity_rps']:.0f} req/s", most["policy"]))
    cells = (
        f"<div><small>{escape(a)}</small><strong>{escape(b)}</strong><small>{escape(c)}</small></div>"
        for a, b, c in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already; the first column is text, the others figures."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _quantiles(latency_s: Mapping[str, Any], samples: int) -> list[str]:
    mark = "~" if samples < tables.P999_SAMPLES and latency_s["p999"] is not None else ""
    return [
        *(tables.milliseconds(latency_s[q]) for q in ("p50", "p90", "p99")),
        mark + tables.milliseconds(latency_s["p999"]),
    ]


def _policy_table(document: Mapping[str, Any]) -> str:
    if not document["policies"]:
        return "<p>No policy finished.</p>"
    head = list(tables.POLICY_HEAD)
    capacity = any(row["capacity_rps"] is not None for row in document["policies"])
    rows = []
    for row in document["policies"]:
        ratios = row.get("ratio_to_baseline", {})
        cells = [
            f"<b>{escape(row['policy'])}</b>",
            tables.number(row["throughput_rps"]),
            tables.number(row["goodput_rps"]),
        ]
        cells += [*_quantiles(row["latency_s"], row["outcomes"]["ok"]), tables.percent(row["within_slo"], 2)]
        cells += [tables.dollars(row["cost_usd_per_1k"]), tables.times(ratios.get("p99"))]
        cells.append(tables.times(ratios.get("cost_usd_per_1k")))
        if capacity:
            cells += [tables.number(row["capacity_rps"], 0), tables.times(ratios.get("capacity_rps"))]
        rows.append(cells)
    return _table([*head, "capacity", "cap. ratio"] if capacity else head, rows)


def _emulated_note(document: Mapping[str, Any]) -> str:
    names = [device["name"] for device in document["suite_detail"]["devices"] if device["emulated"]]
    if not names:
        return ""
    return (
        f'<p class="note">{_badge()} {escape(", ".join(names))}: no such hardware was used. Each takes as long '
        "as a latency curve says; curves and where they come from are in the suite's file. "
        "Their answers are not computed, so not checked.</p>"
    )


def _badge() -> str:
    return '<span class="badge">emulated</span>'


def _charts(document: Mapping[str, Any]) -> str:
    rows = [row for row in document["policies"] if row["latency_s"]["p50"] is not None]
    if not rows:
        return ""
    charts = [quantile_chart(rows), curve_chart(rows), cost_chart(rows), capacity_chart(rows)]
    charts += [device_throughput_chart(rows), device_utilization_chart(rows)]
    figures = "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{body}</figure>" for title, body in filter(None, charts)
    )
    return f'<section><h2>Plots</h2><div class="grid2">{figures}</div></section>'


def _policy_section(row: Row) -> str:
    head = [
        "device",
        "requests",
        "req/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "busy",
        "mean batch",
        "$/1k",
        "J/request",
    ]
    devices = [
        [
            escape(device["name"]) + (f" {_badge()}" if device["emulated"] else ""),
            f"{device['requests']:,}",
            tables.number(device["throughput_rps"]),
            *_quantiles(device["latency_s"], device["requests"]),
            tables.percent(device["utilization"]),
            tables.number(device["batch_mean"]),
            tables.dollars(device["cost_usd_per_1k"]),
            tables.number(device["energy_j_per_request"], 2),
        ]
        for device in row["devices"]
    ]
    model_head = [
        "model",
        "tier",
        "SLO ms",
        "requests",
        "in SLO",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "answers checked",
        "wrong",
    ]
    models = [
        [
            escape(model["name"]),
            str(model["tier"]),
            tables.milliseconds(model["slo_s"]),
            f"{model['requests']:,}",
            tables.percent(model["within_slo"], 2),
            *_quantiles(model["latency_s"], model["requests"]),
            str(model["checked"]),
            str(model["wrong"]),
        ]
        for model in row["models"]
    ]
    ended = ", ".join(f"{count:,} {name}" for name, count in row["outcomes"].items() if count)
    line = f"<p>{row['requests']:,} requests in {row['seconds']:.1f} s: {escape(ended)}.</p>"
    return _section(row["policy"], line + _table(head, devices) + _table(model_head, models))


def _method(document: Mapping[str, Any]) -> str:
    arrivals = document["suite_detail"]["arrivals"]
    shape = "Poisson arrivals"
    if arrivals["process"] == "onoff":
        shape = f"bursts of {arrivals['on_s'] * 1e3:g} ms at {arrivals['peak_to_mean']:g} times the mean rate"
    points = [
        f"Open loop: requests go out when planned ({shape}), whatever became of others; the same for every policy.",
        "Latency counts from the intended arrival, so a late load generator or a full queue cannot hide. "
        "It covers answers; "
        "goodput and “in SLO” count every request.",
        f"Cost: {document['cost_basis']}. Unused time costs nothing here; compare policies with it, not clouds.",
        "~ marks a p99.9 from fewer than 1,000 answers.",
        "Energy: power while busy times busy time, where the suite states a power.",
        *document["suite_detail"]["notes"],
    ]
    return _section("How to read this", f"<ul>{''.join(f'<li>{escape(point)}</li>' for point in points)}</ul>")


def _environment(document: Mapping[str, Any]) -> str:
    env = document["env"]
    memory = env.get("memory_bytes")
    packages = ", ".join(f"{name} {version}" for name, version in env.get("packages", {}).items() if version)
    rows = [
        ("command", " ".join(env.get("command_line", []))),
        ("infcore", f"{env.get('infcore')}" + (f" at commit {env['commit']}" if env.get("commit") else "")),
        (
            "processor",
            f"{env.get('cpu')}, {env.get('cores')} cores ({', '.join(env.get('cpu_features', []))})",
        ),
        ("memory", "unknown" if memory is None else f"{memory / 2**30:.1f} GiB"),
        ("system", f"{env.get('platform')}, {env.get('implementation')} {env.get('python')}"),
        ("packages", packages),
        ("load average at start", f"{env.get('load_average_1min', 0.0):.2f}"),
    ]
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return _section("Environment", f'<table class="facts-table">{body}</table>')
