"""infcore.Cache beside the peers' caches in one run: make peers && python bench/peers/caches.py [--smoke] [--json FILE]

Nanoseconds a request from Python: CPU time of the process, and its ratio to that of cachebox LRUCache in the same
round. Each way has a process of its own, they take turns, figures and ratios are medians over the rounds of the best
of five chunks. hit: get of a key that is there. zipf: get, and put on a miss, of 100,000 keys by Zipf's law with
exponent 1 at room for 10,000; infcore is told a size and a cost with each put. Two threads: wall time of the same work
over that of one thread.
"""

import argparse
import json
from pathlib import Path

import cache_sides
from sides import OWN, PEERS, middle, ratio, say_missing, say_not_installed, start, table, take_turns

REFERENCE = "cachebox LRUCache"
SUFFIX = " caching"  # tells worker.py whose side it is
TASKS = [("hit", "int"), ("hit", "str"), ("zipf", "int"), ("zipf", "str")]


def wanted() -> dict[str, Path]:
    return {name + SUFFIX: OWN for name in cache_sides.OWN} | {name + SUFFIX: PEERS for name in cache_sides.THEIRS}


def compare(rounds: int, n: int) -> tuple[list[dict], dict[str, str]]:
    """Prints a table. What was found, one dict a cell, and why others are missing."""
    sides, missing = start(wanted())
    found: dict[tuple, dict[str, list[dict]]] = {}
    for what, kind in TASKS:
        found[what, kind] = take_turns(sides, rounds, missing, what=what, kind=kind, n=n, threads=1)
    two = take_turns(sides, rounds, missing, what="zipf", kind="int", n=n, threads=2)
    rows, cells = [], []
    for side in sides:
        if side.name in missing:
            continue
        name = side.name.removesuffix(SUFFIX)
        row = [f"{name} ({side.release})"]
        for what, kind in TASKS:
            answers = found[what, kind][side.name]
            first = found[what, kind].get(REFERENCE + SUFFIX)
            cell = {"way": name, "release": side.release, "what": what, "kind": kind}
            cell |= {key: middle(answers, key) for key in ("cpu_ns", "wall_ns", "hit_ratio")}
            cell["ratio"] = ratio(answers, first, "cpu_ns") if first else None
            cells.append(cell)
            row.append(f"{cell['cpu_ns']:.1f}" + ("" if cell["ratio"] is None else f" ({cell['ratio']:.2f})"))
        row.append(f"{middle(found['zipf', 'int'][side.name], 'hit_ratio'):.3f}")
        over_one = ratio(two[side.name], found["zipf", "int"][side.name], "wall_ns")
        row.append(f"{over_one:.2f}")
        cells.append({"way": name, "release": side.release, "what": "two threads", "over_one": over_one})
        rows.append(row)
    head = [f"ns (x {REFERENCE})", *(f"{what} {kind}" for what, kind in TASKS), "hit ratio", "2 threads / 1"]
    print(table(head, rows), end="\n\n", flush=True)
    for side in sides:
        side.close()
    return cells, {name.removesuffix(SUFFIX): why for name, why in missing.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one short round: shows that it runs, measures nothing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cells, missing = compare(1 if args.smoke else args.rounds, 5_000 if args.smoke else 100_000)
    say_missing(missing)
    say_not_installed()
    if args.json:
        args.json.write_text(json.dumps({"schema_version": 1, "cells": cells, "missing": missing}, indent=1))


if __name__ == "__main__":
    main()
