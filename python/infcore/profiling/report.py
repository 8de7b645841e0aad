"""A bench's document as one HTML page."""

from collections.abc import Mapping
from html import escape
from typing import Any

from infcore.profiling import report_html as html
from infcore.profiling import tables
from infcore.profiling.report_charts import (
    capacity_chart,
    cost_chart,
    curve_chart,
    device_throughput_chart,
    device_utilization_chart,
    quantile_chart,
)

Row = Mapping[str, Any]


def page(document: Mapping[str, Any]) -> str:
    """The whole page as text."""
    title = f"infcore bench: suite {document['suite']}"
    parts = [
        _header(document, title),
        _banner(document),
        _tiles(document),
        html.section("Policies side by side", _policy_table(document) + _emulated_note(document)),
        _charts(document),
        *(_policy_section(row) for row in document["policies"]),
        _method(document),
        html.environment(document["env"]),
    ]
    return html.whole(title, parts)


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
    return html.header(title, document["suite_detail"].get("description", ""), facts)


def _banner(document: Mapping[str, Any]) -> str:
    late = document["lateness_detail_s"]
    p99, limit = tables.milliseconds(late["p99"]), tables.milliseconds(late["limit"])
    good = f"every request accounted for, answers right; load generator late by p99 {p99} ms, limit {limit} ms"
    return html.banner([] if document["valid"] else document["invalid_reasons"] or ["no reason is given"], good)


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
    return html.tiles(tiles)


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
        cells += [*tables.quantiles(row["latency_s"], row["outcomes"]["ok"]), tables.percent(row["within_slo"], 2)]
        cells += [tables.dollars(row["cost_usd_per_1k"]), tables.times(ratios.get("p99"))]
        cells.append(tables.times(ratios.get("cost_usd_per_1k")))
        if capacity:
            cells += [tables.number(row["capacity_rps"], 0), tables.times(ratios.get("capacity_rps"))]
        rows.append(cells)
    return html.table([*head, "capacity", "cap. ratio"] if capacity else head, rows)


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
    return html.section("Plots", html.figures(charts))


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
            *tables.quantiles(device["latency_s"], device["requests"]),
            tables.percent(device["utilization"]),
            tables.number(device["batch_mean"]),
            tables.dollars(device["cost_usd_per_1k"]),
            tables.number(device["energy_j_per_request"], 2)
            + (" (measured)" if device.get("energy_source") == "measured" else ""),
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
            *tables.quantiles(model["latency_s"], model["requests"]),
            str(model["checked"]),
            str(model["wrong"]),
        ]
        for model in row["models"]
    ]
    ended = ", ".join(f"{count:,} {name}" for name, count in row["outcomes"].items() if count)
    line = f"<p>{row['requests']:,} requests in {row['seconds']:.1f} s: {escape(ended)}.</p>"
    return html.section(row["policy"], line + html.table(head, devices) + html.table(model_head, models))


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
        "Energy: by the card's own counter, idle times included, where it says measured; else power while busy times "
        "busy time, where the suite states a power.",
        *document["suite_detail"]["notes"],
    ]
    return html.section("How to read this", html.points(points))
