"""A simulation's document as one HTML page."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from infcore.profiling import report_html as html
from infcore.profiling import simulation_charts as charts
from infcore.profiling import tables
from infcore.profiling.fault_spans import faults_of, kinds_of
from infcore.profiling.svg_time import heat_legend
from infcore.sim.simulate import BOUND

Run = Mapping[str, Any]
Document = Mapping[str, Any]


def page(document: Document) -> str:
    """The whole page as text, from what documents.check() gave."""
    title = f"infcore simulate: scenario {document['scenario']}"
    parts = [
        _header(document, title),
        _banner(document),
        _tiles(document),
        html.section("Policies side by side", _policies(document)),
        _tokens(document),
        _plots(document),
        _over_time(document),
        _node_load(document),
        _groups(document),
        _models(document),
        _ends(document),
        _faults(document),
        _method(document),
        html.environment(document["env"]),
    ]
    return html.whole(title, parts)


def _policies_of(document: Document) -> list[Run]:
    """All but the bound."""
    return [run for run in document["runs"] if run["policy"] != BOUND]


def _header(document: Document, title: str) -> str:
    detail, rate = document["scenario_detail"], charts.arrivals_rps(document)
    facts = [f"load {document['load']:g}"]
    if rate:
        facts.append(f"{rate * document['load']:,.4g} req/s on average")
    facts += [f"{tables.counted(detail['nodes'], 'node')}", f"{tables.counted(len(detail['models']), 'model')}"]
    if detail["seconds"] is not None:
        facts.append(f"{detail['seconds']:,g} s simulated, the first {detail['warmup_s']:g} s warm-up")
    if detail["batching"]:
        facts.append(f"batching {detail['batching']}")
    if document["trace"]:
        facts.append(f"arrivals of {document['trace']}")
    facts += [f"seed {document['seed']}", f"infcore {document['env'].get('infcore', '?')}"]
    return html.header(title, detail["description"], facts)


def _banner(document: Document) -> str:
    total = sum(run["requests_total"] for run in document["runs"])
    good = f"each of {total:,} accepted or refused requests ended once, no invariant was broken"
    return html.banner([] if document["valid"] else document["invalid_reasons"] or ["no reason is given"], good)


def _tiles(document: Document) -> str:
    rows = [run for run in _policies_of(document) if run["latency_s"]["p99"] is not None]
    if not rows:
        return ""
    best = min(rows, key=lambda run: run["latency_s"]["p99"])
    tiles = [("lowest p99", f"{tables.milliseconds(best['latency_s']['p99'])} ms", best["policy"])]
    ratio = best["ratio_to_baseline"]["p99"]
    if ratio is not None and document["baseline"] not in (None, best["policy"]):
        tiles.append((f"its p99 against {document['baseline']}", f"{(ratio - 1) * 100:+.0f} %", "lower is better"))
    served = max(rows, key=lambda run: run["within_slo"] or 0.0)
    tiles.append(("most inside the SLO", tables.percent(served["within_slo"], 2), served["policy"]))
    priced = [run for run in rows if run["cost_usd_per_1k"]]
    if priced:
        cheap = min(priced, key=lambda run: run["cost_usd_per_1k"])
        tiles.append(("lowest cost per 1,000", f"${tables.dollars(cheap['cost_usd_per_1k'])}", cheap["policy"]))
    carried = [run for run in rows if run["capacity_load"]]
    if carried:
        most = max(carried, key=lambda run: run["capacity_load"])
        tiles.append(("highest capacity, load", f"{most['capacity_load']:.2f}", most["policy"]))
    return html.tiles(tiles)


def _policies(document: Document) -> str:
    if not document["runs"]:
        return "<p>No policy was run.</p>"
    head, rows = tables.simulation_rows(document)
    cells = [[f"<b>{escape(row[0])}</b>", *(escape(cell) for cell in row[1:])] for row in rows]
    note = (
        "Devices are modelled: no such hardware was used. A batch takes as long as the scenario's latency curve of its "
        "model and node says, with the scenario's spread; the decisions are the engine's own."
    )
    if document["baseline"]:
        note += f" Ratios to {document['baseline']}."
    if any(run["policy"] == BOUND for run in document["runs"]):
        note += f" {tables.BOUND_NOTE}"
    return html.table(head, cells) + f'<p class="note">{escape(note)}</p>'


def _tokens(document: Document) -> str:
    """How soon tokens came; nothing where no model makes any."""
    head, rows = tables.token_rows(document)
    if not rows:
        return ""
    cells = [[f"<b>{escape(row[0])}</b>", *(escape(cell) for cell in row[1:])] for row in rows]
    note = f'<p class="note">{escape(tables.TOKEN_NOTE)}</p>'
    return html.section("Tokens", html.table(head, cells) + note)


def _plots(document: Document) -> str:
    made = [charts.latency_chart(document), charts.ttft_chart(document), charts.cost_chart(document)]
    made += [charts.slo_chart(document), charts.goodput_chart(document)]
    body = html.figures(made)
    return html.section("Plots", body) if body else ""


def _over_time(document: Document) -> str:
    chart = charts.time_chart(document)
    if chart is None:
        return html.section("Over time", "<p>No request arrived.</p>")
    caption, picture = chart
    figure = f'<figure class="wide"><figcaption>{escape(caption)}</figcaption>{picture}</figure>'
    return html.section("Over time", figure)


def _node_load(document: Document) -> str:
    body = html.figures(charts.load_charts(document))
    if not body:
        return ""
    run = _policies_of(document)[0]
    _, grouped = charts.load_rows(run)
    end_s = len(run["parts"]["arrivals"]) * run["parts"]["part_s"]
    what = "groups of nodes, in brackets how many" if grouped else "nodes; lines below a row: its faults"
    legend = heat_legend() + ("" if grouped else charts.fault_legend(faults_of(document["runs"], end_s)))
    note = f"<p>How busy the slots were in each part of the run. Rows: {what}.</p>"
    return html.section("Load of the nodes over time", note + legend + body)


def _groups(document: Document) -> str:
    """Nodes by group: how busy under each policy, and what part of the answers came from there."""
    runs = [run for run in _policies_of(document) if run["nodes"]]
    if not runs:
        return ""
    groups: dict[str, list[int]] = {}
    for i, node in enumerate(runs[0]["nodes"]):
        groups.setdefault(node["group"] or node["name"], []).append(i)
    if any(len(run["nodes"]) != len(runs[0]["nodes"]) for run in runs):
        return ""
    head = ["group", "kind", "nodes", "slots", "$/h", *(escape(run["policy"]) for run in runs)]
    busy, share = [], []
    for name, members in groups.items():
        first = [runs[0]["nodes"][i] for i in members]
        kinds = ", ".join(dict.fromkeys(node["kind"] or "-" for node in first))
        slots = sum(node["slots"] for node in first)
        price = sum(node["price_per_hour"] or 0.0 for node in first)
        own = [escape(name), escape(kinds), f"{len(members):,}", f"{slots:,}", tables.number(price, 2)]
        busy.append([*own, *(tables.percent(_utilization(run, members), 1) for run in runs)])
        share.append([*own, *(tables.percent(_share(run, members), 1) for run in runs)])
    return html.section(
        "Nodes by group",
        f"<h3>Busy part of the time</h3>{html.table(head, busy)}<h3>Part of the answers</h3>{html.table(head, share)}",
    )


def _utilization(run: Run, members: Sequence[int]) -> float | None:
    nodes = [run["nodes"][i] for i in members if run["nodes"][i]["utilization"] is not None]
    slots = sum(node["slots"] for node in nodes)
    return sum(node["utilization"] * node["slots"] for node in nodes) / slots if slots else None


def _share(run: Run, members: Sequence[int]) -> float | None:
    total = sum(node["requests"] for node in run["nodes"])
    return sum(run["nodes"][i]["requests"] for i in members) / total if total else None


def _models(document: Document) -> str:
    names = list(dict.fromkeys(model["name"] for run in document["runs"] for model in run["models"]))
    if not names:
        return ""
    head = ["model", "policy", "SLO ms", "requests", "goodput", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "in SLO"]
    rows = []
    for name in names:
        first = True
        for run in document["runs"]:
            for model in run["models"]:
                if model["name"] != name:
                    continue
                cells = [f"<b>{escape(name)}</b>" if first else "", escape(run["policy"])]
                cells += [tables.milliseconds(model["slo_s"]), f"{model['requests']:,}"]
                cells.append(tables.number(model["goodput_rps"]))
                cells += tables.quantiles(model["latency_s"], model["outcomes"]["ok"])
                rows.append([*cells, tables.percent(model["within_slo"], 2)])
                first = False
    return html.section("Models", html.table(head, rows))


def _ends(document: Document) -> str:
    """What became of the requests, what each cost beyond its least, and what the fleet cost."""
    runs = document["runs"]
    if not runs:
        return ""
    names = list(dict.fromkeys(name for run in runs for name in run["outcomes"]))
    head = ["policy", *(escape(name) for name in names), "lost", "duplicated", "invariants broken"]
    head += ["busy $", "all nodes up $", "digest"]
    rows = []
    for run in runs:
        ended = [f"{run['outcomes'].get(name) or 0:,}" for name in names]
        broken = [f"{run[name]:,}" for name in ("lost", "duplicated", "violations")]
        money = [tables.dollars(run["cost_usd"]), tables.dollars(run["cost_usd_up"])]
        rows.append([escape(run["policy"]), *ended, *broken, *money, f"<code>{escape(run['digest'] or '-')}</code>"])
    body = html.table(head, rows)
    regrets = [run for run in runs if run["regret_s"]["p50"] is not None]
    if regrets:
        head = ["policy", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms"]
        rows = [[escape(run["policy"]), *tables.quantiles(run["regret_s"], run["outcomes"]["ok"])] for run in regrets]
        body += "<h3>Regret: latency beyond the least possible, which is alone, at once, on the fastest node</h3>"
        body += html.table(head, rows)
    return html.section("Outcomes, money and regret", body)


def _faults(document: Document) -> str:
    count = max((run["faults"]["count"] for run in document["runs"]), default=0)
    if not count:
        return ""
    ends_s = [len(run["parts"]["arrivals"]) * run["parts"]["part_s"] for run in document["runs"]]
    faults = faults_of(document["runs"], max(ends_s))
    rows = []
    for kind in kinds_of(faults):
        own = [fault for fault in faults if fault[1] == kind]
        lasted_s = sum(until_s - from_s for _, _, from_s, until_s in own)
        nodes = len({fault[0] for fault in own})
        rows.append([escape(kind), f"{len(own):,}", f"{nodes:,}", f"{lasted_s:,.1f}", f"{own[0][2]:,.4g}"])
    text = f"{tables.counted(count, 'fault')}, the same under every policy."
    if len(faults) < count:
        text += f" The first {len(faults):,} of them are listed and drawn."
    head = ["kind", "faults", "nodes", "seconds in all", "the first at, s"]
    return html.section("Faults", f"<p>{escape(text)}</p>" + html.table(head, rows))


def _method(document: Document) -> str:
    points = [
        "Open loop: requests arrive when they do, whatever became of others; the same for every policy, as are works, "
        "service times and faults.",
        "Latency is of the answers, from arrival. The part inside the SLO and availability are of all arrivals; what "
        "has no goal is inside with any answer. Arrivals in the warm-up are in the plots over time alone.",
        f"Cost: {document['cost_basis'] or 'not stated'}. Unused time costs nothing here; “all nodes up” is what the "
        "fleet costs whether used or not.",
        "Plots over time: a point for each part of the run, of the requests that arrived in it.",
        f"~ marks a p99.9 from fewer than {tables.P999_SAMPLES:,} answers.",
    ]
    if document["capacity"]:
        points.append(
            "Capacity: the highest load with 99 % inside the SLO. Goodput over load takes the mean rate of arrivals of "
            "this run for each load that was tried."
        )
    return html.section("How to read this", html.points(points))
