"""The tables of `infcore bench` and `infcore simulate` as plain text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# Below this many samples p99.9 rests on fewer than one of them, and is marked.
P999_SAMPLES = 1000


def milliseconds(seconds: float | None) -> str:
    """Milliseconds with three digits; a dash for None."""
    if seconds is None:
        return "-"
    value = seconds * 1e3
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def number(value: float | None, digits: int = 1) -> str:
    """A number with that many digits behind the point; a dash for None."""
    return "-" if value is None else f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 0) -> str:
    """A part of 1 as per cent."""
    return "-" if value is None else f"{value * 100:.{digits}f} %"


def dollars(value: float | None) -> str:
    """US dollars with three significant digits, never in powers of ten."""
    if value is None:
        return "-"
    if value <= 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def times(value: float | None) -> str:
    """A ratio."""
    return "-" if value is None else f"{value:.2f}x"


def counted(count: int, name: str) -> str:
    """So many of something: "1 node", "4 nodes"."""
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def render(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with the first column left, the others right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        return "  ".join([first, *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))])

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(head), rule, *(line(row) for row in rows)])


def quantiles(latency_s: Mapping[str, Any], samples: int) -> list[str]:
    """p50, p90, p99 and p99.9 in milliseconds, the last marked where it rests on too few samples."""
    mark = "~" if samples < P999_SAMPLES and latency_s["p999"] is not None else ""
    return [*(milliseconds(latency_s[q]) for q in ("p50", "p90", "p99")), mark + milliseconds(latency_s["p999"])]


def device_table(row: Mapping[str, Any]) -> str:
    """One policy's devices, and their sum."""
    head = ["device", "requests", "req/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "busy", "batch", "$/1k"]
    rows = [
        [
            device["name"] + (" (emulated)" if device["emulated"] else ""),
            f"{device['requests']:,}",
            number(device["throughput_rps"]),
            *quantiles(device["latency_s"], device["requests"]),
            percent(device["utilization"]),
            number(device["batch_mean"]),
            dollars(device["cost_usd_per_1k"]),
        ]
        for device in row["devices"]
    ]
    answered = row["outcomes"]["ok"]
    total = ["all", f"{answered:,}", number(row["throughput_rps"]), *quantiles(row["latency_s"], answered)]
    return render(head, [*rows, [*total, "", "", dollars(row["cost_usd_per_1k"])]])


def answers_line(row: Mapping[str, Any]) -> str:
    """What was checked, and what became of requests that were not answered."""
    parts = [f"{model['name']} {model['checked'] - model['wrong']}/{model['checked']}" for model in row["models"]]
    ended = [f"{count} {name}" for name, count in row["outcomes"].items() if count and name != "ok"]
    return f"answers right / checked: {', '.join(parts)}" + (f"; not answered: {', '.join(ended)}" if ended else "")


POLICY_HEAD = (
    "policy",
    "req/s",
    "goodput",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "p99.9 ms",
    "in SLO",
    "$/1k",
    "p99 ratio",
    "$ ratio",
)


def policy_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The policies side by side, each with its ratio to the baseline."""
    capacity = any(row["capacity_rps"] is not None for row in rows)
    head = list(POLICY_HEAD)
    body = []
    for row in rows:
        ratios = row.get("ratio_to_baseline", {})
        cells = [row["policy"], number(row["throughput_rps"]), number(row["goodput_rps"])]
        cells += [*quantiles(row["latency_s"], row["outcomes"]["ok"]), percent(row["within_slo"], 2)]
        cells += [dollars(row["cost_usd_per_1k"]), times(ratios.get("p99")), times(ratios.get("cost_usd_per_1k"))]
        if capacity:
            cells += [number(row["capacity_rps"], 0), times(ratios.get("capacity_rps"))]
        body.append(cells)
    return render([*head, "capacity", "cap. ratio"] if capacity else head, body)


def notes(document: Mapping[str, Any]) -> list[str]:
    """Lines under the tables: how to read them, and whether to believe them."""
    emulated = [device["name"] for device in document["suite_detail"]["devices"] if device["emulated"]]
    late = document["lateness_detail_s"]
    lines = [
        "Latency from the intended arrival; req/s counts answers, goodput those inside their SLO; $/1k: price of busy "
        f"time per 1,000 answers; ratios to {document['baseline']}.",
        f"Load generator late by p99 {milliseconds(late['p99'])} ms (limit {milliseconds(late['limit'])} ms).",
    ]
    if emulated:
        lines.append(
            f"Emulated, not measured on such hardware: {', '.join(emulated)} (curves and sources in the suite's file)."
        )
    if any(row["outcomes"]["ok"] < P999_SAMPLES for row in document["policies"]):
        lines.append(f"~ p99.9 from fewer than {P999_SAMPLES:,} answers.")
    lines += list(document["suite_detail"]["notes"])
    return lines


SIMULATION_HEAD = (
    "policy",
    "requests",
    "req/s",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "p99.9 ms",
    "in SLO",
    "avail.",
    "$/1k",
    "p99 ratio",
    "$ ratio",
)


BOUND_NOTE = (
    "clairvoyant is no policy but a bound: each request alone, at once, on its fastest node; its capacity is what the "
    "fleet could carry in full batches, goals aside."
)


TOKEN_NOTE = (
    "first: from arrival to the first token; next: from each token to the next; tokens/s counts those of answers; "
    "prefix reuse: the part of the prompts' tokens that was found in a cache."
)


def simulation_rows(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """A scenario's policies side by side, each with its ratio to the baseline: the head, and a row for each."""
    capacity = document["capacity"] is not None
    body = []
    for row in document["runs"]:
        ratios = row["ratio_to_baseline"]
        cells = [row["policy"], f"{row['requests']:,}", number(row["throughput_rps"], 0)]
        cells += [*quantiles(row["latency_s"], row["outcomes"]["ok"]), percent(row["within_slo"], 2)]
        cells += [percent(row["availability"], 2), dollars(row["cost_usd_per_1k"])]
        cells += [times(ratios["p99"]), times(ratios["cost_usd_per_1k"])]
        if capacity:
            cells += [number(row["capacity_load"], 2), times(ratios["capacity_load"])]
        body.append(cells)
    return [*SIMULATION_HEAD, *(("capacity", "cap. ratio") if capacity else ())], body


TOKEN_HEAD = (
    "policy",
    "tokens/s",
    "first p50 ms",
    "p99 ms",
    "mean ms",
    "next p50 ms",
    "p99 ms",
    "mean ms",
    "prefix reuse",
    "preempted",
)


def token_rows(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Of the policies whose runs made tokens: how soon the first came, how soon each other one after the one before."""
    body = []
    for row in document["runs"]:
        ttft_s, itl_s = row.get("ttft_s"), row.get("itl_s")
        if ttft_s is None or itl_s is None or ttft_s["p50"] is None:
            continue
        cells = [row["policy"], number(row["output_tokens_per_s"], 0)]
        cells += [milliseconds(times_s[name]) for times_s in (ttft_s, itl_s) for name in ("p50", "p99", "mean")]
        preempted = (row.get("tokens") or {}).get("preempted")
        body.append([*cells, percent(row["prefix_reuse"], 1), number(preempted, 0)])
    return list(TOKEN_HEAD), body


def simulation_table(document: Mapping[str, Any]) -> str:
    """simulation_rows() as plain text, and token_rows() where there are any."""
    head, body = token_rows(document)
    tables = [render(*simulation_rows(document)), *([render(head, body)] if body else [])]
    return "\n\n".join(tables)


def simulation_notes(document: Mapping[str, Any]) -> list[str]:
    """Lines under the table: how to read it."""
    detail, runs = document["scenario_detail"], document["runs"]
    faults = max((row["faults"]["count"] for row in runs), default=0)
    speed = sum(row["requests_total"] for row in runs) / max(1e-9, sum(row["wall_s"] for row in runs))
    lines = [
        f"{document['scenario']}: {detail['nodes']} nodes, {len(detail['models'])} models, load {document['load']:g}, "
        f"seed {document['seed']}, {faults} faults; {speed / 1e6:.2f} M requests a second of wall time.",
        f"$/1k: price of busy time per 1,000 answers; ratios to {document['baseline']}; req/s counts answers.",
    ]
    if token_rows(document)[1]:
        lines.append(TOKEN_NOTE)
    if any(row["policy"] == "clairvoyant" for row in runs):
        lines.append(BOUND_NOTE)
    return lines
