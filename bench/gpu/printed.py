"""The rows as tables."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Row = dict[str, Any]
MIB = 1 << 20


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need; the first is text, numbers are on the right."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    is_text = [any(not _is_number(cell) for cell in column) for column in zip(*rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(cells, widths, is_text, strict=True)
        ]
        return "  ".join(aligned).rstrip()

    return "\n".join([line(titles), line(["-" * width for width in widths]), *map(line, rows)])


def _is_number(cell: str) -> bool:
    return cell.removesuffix("x").removesuffix("%").strip().replace(".", "", 1).lstrip("-").isdigit() or cell in (
        "",
        "-",
    )


def number(value: float | None, digits: int = 3) -> str:
    """A few digits that count; "-" where there is none."""
    if value is None:
        return "-"
    whole = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in whole else whole


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _correctness(rows: Sequence[Row]) -> str:
    cells = [
        [row["op"], row["backend"], row["where"], str(row["n_cases"]), str(row["ulps_max"]), str(row["n_wrong"])]
        for row in rows
    ]
    text = table(["operation", "back-end", "where", "cases", "ulps", "wrong"], cells)
    wrong = [f"  {row['op']}, {row['backend']}: {what}" for row in rows for what in row["wrong"]]
    return "\n".join([text, *wrong])


def _bandwidth_cells(row: Row) -> Iterator[list[str]]:
    if row["left_out"] and "wall_us" not in row:
        yield [row["op"], row["case"], row["backend"], number(row["size_bytes"] / MIB), *[""] * 5, row["left_out"]]
        return
    own_us = row["device_us"] and row["device_us"]["p50"]
    yield [
        *(row["op"], row["case"], row["backend"], number(row["size_bytes"] / MIB)),
        *(number(own_us), number(row["gb_per_s"], 4), percent(row["share_of_copy"]), number(row["wall_us"])),
        *("", row["left_out"] or ""),
    ]
    for way in row["ways"]:
        ratios = f"{number(way['device_ratio'])}x / {number(way['wall_ratio'])}x"
        note = way.get("error") or ("" if way["same"] else "ANOTHER ANSWER")
        yield [
            "",
            f"   {way['name']}",
            "torch",
            "",
            number(way["device_us"]),
            "",
            "",
            number(way["wall_us"]),
            ratios,
            note,
        ]


def _bandwidth(rows: Sequence[Row]) -> str:
    titles = ["operation", "shape", "by", "MiB", "us", "GB/s", "of copy", "wall us", "slower, us / wall", ""]
    return table(titles, [cells for row in rows for cells in _bandwidth_cells(row)])


def _overhead(rows: Sequence[Row]) -> str:
    titles = [
        "operation",
        "back-end",
        "where",
        "own us, least",
        "p50",
        "host us, least",
        "p50",
        "wall us",
        "target 20 us",
    ]
    cells = [
        [
            *(row["op"], row["backend"], row["where"]),
            *(
                number(row[part][name]) if part in row else "-"
                for part in ("own_us", "host_us")
                for name in ("least", "p50")
            ),
            number(row.get("wall_us")),
            {True: "met", False: "MISSED", None: ""}[row.get("target_met")],
        ]
        for row in rows
    ]
    return table(titles, cells)


def _compile_time(rows: Sequence[Row]) -> str:
    titles = ["operation", "kernel", "by", "GPU", "registers", "shared", "stack", "local", "spills", "load", "store"]
    names = ("registers", "shared_bytes", "stack_bytes", "local_bytes", "spills", "load_bits", "store_bits")
    cells = [
        [
            row["op"],
            row["case"],
            row["backend"],
            row["capability"],
            *("-" if row[name] is None else str(row[name]) for name in names),
        ]
        for row in rows
    ]
    return table(titles, cells)


def _bytes(rows: Sequence[Row]) -> str:
    titles = ["operation", "shape", "back-end", "where", "floor", "read", "written", "moved / floor"]
    cells = [
        [
            *(row["op"], row["case"], row["backend"], row["where"]),
            *(str(row[name]) for name in ("floor_bytes", "read_bytes", "written_bytes")),
            f"{row['of_floor']:.4f}",
        ]
        for row in rows
    ]
    return table(titles, cells)


PARTS: dict[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "correctness": ("Answers against NumPy's; outputs poisoned before, bytes beside them watched", _correctness),
    "compile_time": ("Compiled ahead of time: registers of a thread, bytes, widest access in bits", _compile_time),
    "bytes": ("Bytes moved, counted; the floor reads and writes everything once", _bytes),
    "bandwidth": ("Bandwidth; GB/s of bytes read and written, medians", _bandwidth),
    "overhead": ("A call on a tiny batch; own: without the back-end's part", _overhead),
}


def part(kind: str, rows: Sequence[Row]) -> str:
    """The rows of one kind under their title; empty without any."""
    title, tabled = PARTS[kind]
    mine = [row for row in rows if row["kind"] == kind]
    return f"\n{title}\n\n{tabled(mine)}" if mine else ""


def driver(clocks: Row) -> str:
    """Version, clocks and temperature, as far as they are known."""
    known = [f"{name} {value}" for name, value in clocks.items() if value is not None]
    return ", ".join(known) or "nothing is known: no answer from nvidia-smi"


def environment(env: Row) -> str:
    """The machine, a few lines."""
    gpu = env["gpu"]
    lines = []
    if gpu:
        lines.append(
            f"GPU       {gpu['name']}, sm_{gpu['capability'].replace('.', '')}, {gpu['multiprocessors']} SMs, "
            f"{gpu['memory_bytes'] / 2**30:.1f} GiB, L2 {gpu['l2_bytes'] / MIB:.0f} MiB"
        )
        lines.append(f"driver    {driver(env['driver'])}")
    else:
        lines.append("GPU       none: nothing below was run on a GPU")
    lines += [f"{name:<9} {why}" for name, why in env["backends"].items()]
    if env["left_out"]:
        lines.append(f"left out  {env['left_out']}")
    versions = ", ".join(f"{name} {version}" for name, version in env["packages"].items())
    return "\n".join([*lines, f"commit    {env['commit']}", f"packages  Python {env['python']}, {versions}"])
