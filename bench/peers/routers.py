"""infcore's Router beside the peers' in one run: make peers && python bench/peers/routers.py [--smoke] [--json FILE]

Microseconds a decision from Python: CPU time of the process, median wall time in brackets; then its CPU time over that
of infcore's way in the table's head. Each way has a process of its own, those of a table take turns, the figures are
medians of rounds, ratios are taken round by round. Where one endpoint is the best, each side must choose it.

infcore's and plain Python's ways take their decision back as well, as do those whose names say so; others only decide.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sides import OWN, PEERS, Side, middle, ratio, say_missing, say_not_installed, start, table, take_turns

ENDPOINTS = (4, 64, 256, 1024)
SUFFIX = " routing"  # tells worker.py whose side it is


@dataclass(frozen=True)
class Comparison:
    """Ways that answer the same; the first is infcore's and what the others are divided by."""

    title: str
    own: Sequence[str]
    peers: Sequence[str]
    blocks: Sequence[int] = (0,)


COMPARISONS = [
    Comparison(
        "power of two",
        ["infcore power_of_two"],
        ["Ray Serve, choose_replicas", "Ray Serve, whole path and back", "LiteLLM simple-shuffle"],
    ),
    Comparison(
        "least open",
        ["infcore least_outstanding", "plain Python, least open"],
        ["LiteLLM least-busy", "LiteLLM least-busy, strategy alone"],
    ),
    Comparison(
        "lowest cost",
        [
            "infcore slo_cost",
            "infcore slo_cost, signals and deadline",
            "infcore slo_cost, the same and learning",
            "infcore slo_cost, pick_many",
            "plain Python, lowest cost",
        ],
        ["LiteLLM latency-based", "LiteLLM latency-based, strategy alone"],
    ),
    Comparison(
        "prefix and load",
        ["infcore slo_cost, list of tokens", "infcore slo_cost, array of tokens"],
        ["Dynamo select", "Dynamo select_and_reserve, free"],
        blocks=(64, 2048),
    ),
    Comparison("the same, hashed before", ["infcore slo_cost, blocks"], ["Dynamo select, hashes"], blocks=(64, 2048)),
    Comparison(
        "who holds it",
        ["infcore match"],
        ["Dynamo find_matches and its scores", "Dynamo find_matches"],
        blocks=(64, 2048),
    ),
]


def measured(
    sides: Sequence[Side], endpoints: Sequence[int], blocks: int, rounds: int, chunk_s: float, missing: dict[str, str]
) -> dict[str, dict[int, list[dict]]]:
    """By side and number of endpoints, what it said in each round."""
    found: dict[str, dict[int, list[dict]]] = {side.name: {} for side in sides}
    for n in endpoints:
        answers = take_turns(sides, rounds, missing, endpoints=n, blocks=blocks, chunk_s=chunk_s)
        for name, each in answers.items():
            found[name][n] = each
    return found


def cells(answers: dict[int, list[dict]], first: dict[int, list[dict]], endpoints: Sequence[int]) -> list[str]:
    times = [
        f"{middle(answers[n], 'cpu_us'):.3g} ({middle(answers[n], 'wall_us'):.3g})" if n in answers else "-"
        for n in endpoints
    ]
    over = [f"{ratio(answers[n], first[n], 'cpu_us'):.3g}" if n in answers and n in first else "-" for n in endpoints]
    return times + over


def compare(wanted: Comparison, endpoints: Sequence[int], rounds: int, chunk_s: float) -> tuple[list[dict], dict]:
    """Prints a table for each length of prompt. What was found, one dict a cell, and why others are missing."""
    venvs = dict.fromkeys(wanted.own, OWN) | dict.fromkeys(wanted.peers, PEERS)
    sides, missing = start({name + SUFFIX: venv for name, venv in venvs.items()})
    cells_found = []
    for blocks in wanted.blocks:
        found = measured(sides, endpoints, blocks, rounds, chunk_s, missing)
        first = found.get(wanted.own[0] + SUFFIX, {})
        rows = []
        for side in sides:
            name, answers = side.name.removesuffix(SUFFIX), found[side.name]
            rows.append([f"{name} ({side.release})", *cells(answers, first, endpoints)])
            for n, each in answers.items():
                over = {f"{key}_ratio": ratio(each, first[n], f"{key}_us") for key in ("cpu", "wall") if n in first}
                said = {key: middle(each, key) for key in ("cpu_us", "wall_us")}
                cells_found.append(
                    {"way": name, "release": side.release, "endpoints": n, "blocks": blocks, **said, **over}
                )
        title = wanted.title + (f", a prompt of {blocks} blocks" if blocks else "")
        head = [f"{title}; x: over {wanted.own[0]}", *(f"{n:,}" for n in endpoints), *(f"x {n:,}" for n in endpoints)]
        print(table(head, rows), end="\n\n", flush=True)
    for side in sides:
        side.close()
    return cells_found, {name.removesuffix(SUFFIX): why for name, why in missing.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one short round: shows that it runs, measures nothing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go as well")
    wanted = parser.parse_args()
    endpoints, rounds, chunk_s = (ENDPOINTS[:2], 1, 0.0) if wanted.smoke else (ENDPOINTS, wanted.rounds, 0.01)
    found, missing = [], {}
    for comparison in COMPARISONS:
        more, gone = compare(comparison, endpoints, rounds, chunk_s)
        found += more
        missing |= gone
    say_missing(missing)
    say_not_installed()
    if wanted.json is not None:
        wanted.json.write_text(json.dumps({"rounds": rounds, "cells": found, "missing": missing}, indent=1) + "\n")


if __name__ == "__main__":
    main()
