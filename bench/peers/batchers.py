"""infcore beside what others batch with, in one run: make peers && python bench/peers/batchers.py [--smoke]

Two models behind 64 asyncio callers in a closed loop: one that costs nothing (CPU time of the process a request) and
one that sleeps 1 ms + 0.1 ms x n (requests a second). And two managers of KV blocks. Each side has its own process, all
take turns, the figures are medians, ratios are taken round by round. Every answer is checked.
"""

import argparse

from sides import OWN, PEERS, middle, ratio, say_missing, say_not_installed, start, table, take_turns

BATCHERS = {"by hand": OWN, "infcore": OWN, "BentoML": PEERS, "Ray Serve": PEERS, "batched": PEERS}
BLOCKS = {"infcore blocks": OWN, "vLLM blocks": PEERS}
IDEAL_PER_S = 64 / (0.001 + 0.0001 * 64)  # full batches of 64, nothing between them


def named(side) -> str:
    return f"{side.name} {side.release}".strip()


def batchers(rounds: int, cpu_each: int, sleep_each: int) -> None:
    sides, missing = start(BATCHERS)
    cpu = take_turns(sides, rounds, missing, run="cpu", each=cpu_each)
    sleep = take_turns(sides, rounds, missing, run="sleep", each=sleep_each)
    rows = []
    for side in sides:
        if side.name in missing:
            continue
        used, served = cpu[side.name], sleep[side.name]
        times = [
            f"{ratio(used, cpu[name], 'cpu_us_per_request'):.2f}" for name in ("by hand", "infcore") if name in cpu
        ]
        per_s = middle(served, "requests_per_s")
        cells = [f"{middle(used, 'cpu_us_per_request'):.2f}", *times, f"{per_s:,.0f}", f"{per_s / IDEAL_PER_S:.3f}"]
        rows.append([named(side), *cells])
    head = ["64 asyncio callers", "CPU us/request"]
    head += [f"x {name}" for name in ("by hand", "infcore") if name in cpu]
    print(table([*head, "sleep model, req/s", f"of {IDEAL_PER_S:,.0f}"], rows), end="\n\n")
    for side in sides:
        side.close()
    say_missing(missing)


def blocks(rounds: int, loops: int) -> None:
    sides, missing = start(BLOCKS)
    found = take_turns(sides, rounds, missing, loops=loops)
    present = [side for side in sides if side.name in found]
    rows = []
    for figure in next(iter(found.values()), [{}])[0]:
        cells = [f"{middle(found[side.name], figure):,.1f}" for side in present]
        if len(present) == len(BLOCKS):
            cells.append(f"{ratio(found['vLLM blocks'], found['infcore blocks'], figure):,.0f}x")
        rows.append([figure, *cells])
    head = ["KV blocks, ns of CPU a block", *map(named, present)]
    print(table([*head, "vLLM's time over infcore's"][: len(rows[0])] if rows else head, rows), end="\n\n")
    for side in sides:
        side.close()
    say_missing(missing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one short round: shows that it runs, measures nothing")
    parser.add_argument("--rounds", type=int, default=7)
    wanted = parser.parse_args()
    if wanted.smoke:
        batchers(rounds=1, cpu_each=20, sleep_each=5)
        blocks(rounds=1, loops=8)
    else:
        batchers(rounds=wanted.rounds, cpu_each=300, sleep_each=40)
        blocks(rounds=wanted.rounds, loops=100)
    say_not_installed()


if __name__ == "__main__":
    main()
