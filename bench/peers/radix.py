"""Who holds which prefix: infcore's index and Dynamo's RadixTree on the same random events, and what a match costs.

    make peers && python bench/peers/radix.py [--seeds 200] [--smoke]

Every event sequence's matches must be the same, node by node; exit status 1 where they are not. Then one match of 64
blocks that 64 and 1,024 nodes hold, and of 2,048 blocks, from Python: Dynamo's as a dict of scores, infcore's as two
arrays; medians of rounds in which both take turns.
"""

import argparse
import sys

from sides import OWN, PEERS, middle, ratio, say_missing, say_not_installed, start, table, take_turns

DYNAMO, INFCORE = "Dynamo's radix", "infcore radix"


def agree(sides: list, n_seeds: int, n: int) -> bool:
    n_matches = n_other = 0
    for seed in range(n_seeds):
        theirs, ours = (side.ask(what="scores", seed=seed, n=n)["scores"] for side in sides)
        n_matches += len(ours)
        wrong = [at for at, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b]
        n_other += len(wrong)
        if wrong:
            print(f"seed {seed}, match {wrong[0]}: Dynamo {theirs[wrong[0]]}, infcore {ours[wrong[0]]}")
    print(f"{n_seeds} event sequences, {n_matches} matches: {n_matches - n_other} the same, {n_other} not", end="\n\n")
    return n_other == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help="event sequences, each of 300 events")
    parser.add_argument("--smoke", action="store_true", help="few of everything: shows that it runs")
    wanted = parser.parse_args()
    sides, missing = start({DYNAMO: PEERS, INFCORE: OWN})
    same = True
    if len(sides) == 2:
        same = agree(sides, 3 if wanted.smoke else wanted.seeds, 300)
        rows = []
        for n_nodes, n_blocks in ((64, 64), (1024, 64), (64, 2048)):
            task = {"what": "speed", "nodes": n_nodes, "blocks": n_blocks, "loops": 20 if wanted.smoke else 300}
            found = take_turns(sides, 1 if wanted.smoke else 5, missing, **task)
            if len(found) < 2:
                break
            us = [middle(found[name], "ns") / 1000 for name in (DYNAMO, INFCORE)]
            faster = ratio(found[DYNAMO], found[INFCORE], "ns")
            rows.append([f"{n_blocks} blocks, {n_nodes} nodes", *(f"{each:.3g}" for each in us), f"{faster:.3g}"])
        print(table(["one match, us", "Dynamo", "infcore", "Dynamo / infcore"], rows), end="\n\n")
    for side in sides:
        side.close()
    say_missing(missing)
    say_not_installed()
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
