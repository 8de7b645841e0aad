"""Dynamo's mocker: its timing recovered by running it, and infcore's scenario `dynamo-mocker` beside it, in one run.

    make peers && python bench/peers/mocker.py [--smoke] [--trace mooncake.jsonl.gz [--requests 1000]]

Prints its settings; polynomials through what single requests take; how a plain model of it (mocker_model.py) does on
every request of the scenario; what it says under other arrivals of the same rate; and infcore's figures over its own.
"""

import argparse
import gzip
import json
import tempfile
from pathlib import Path
from statistics import mean

import mocker_model
from sides import OWN, PEERS, ROOT, NotMeasured, Side, say_missing, say_not_installed, start, table

OURS = ROOT / "bench" / "suites" / "dynamo-mocker.jsonl.gz"
NAME_TOKENS = 512  # of a block that a trace names
FIGURES = ["mean_ttft_ms", "p50_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "reuse"]


def recover(dynamo: Side, n_points: int) -> None:
    engine = dynamo.ask(what="settings")
    wanted = [
        "block_size",
        "num_gpu_blocks",
        "max_num_batched_tokens",
        "max_num_seqs",
        "preemption_mode",
        "timing_model",
    ]
    print("Its settings:", ", ".join(f"{key} {engine[key]}" for key in wanted))
    prefill, off = dynamo.ask(
        what="fit", step="prefill", points=n_points, high=engine["max_num_batched_tokens"]
    ).values()
    print(
        f"Step with P prompt tokens: {prefill[0]:.5f} + {prefill[1]:.8f} P + {prefill[2]:.6e} P^2 ms, off by {off:.1e}"
    )
    n_tokens = engine["block_size"] * engine["num_gpu_blocks"]
    decode, off = dynamo.ask(what="fit", step="decode", points=n_points, high=n_tokens).values()
    print(
        f"Step with a part p of all tokens as context: {decode[0]:.4f} + {decode[1]:.4f} p + {decode[2]:.4f} p^2 ms,",
        end=" ",
    )
    print(f"off by {off:.1e}", end="\n\n")


def requests_of(lines: list[str]) -> list[mocker_model.Request]:
    """A trace in Mooncake's format, its blocks of 512 tokens cut into the mocker's."""
    parts = NAME_TOKENS // mocker_model.BLOCK_SIZE
    found = []
    for row in map(json.loads, lines):
        blocks = tuple(name * parts + part for name in row["hash_ids"] for part in range(parts))
        n_full = row["input_length"] // mocker_model.BLOCK_SIZE
        found.append(mocker_model.Request(row["timestamp"], row["input_length"], row["output_length"], blocks[:n_full]))
    return found


def show(rows: dict[str, dict | None]) -> None:
    there = {name: one for name, one in rows.items() if one is not None}
    lines = [[name, *(f"{one[key]:.4g}" for key in FIGURES), str(one["requests"])] for name, one in there.items()]
    print(table(["", *(name.replace("_", " ") for name in FIGURES), "requests"], lines), end="\n\n")


def same_policy(dynamo: Side, own: Side | None, missing: dict[str, str], path: Path, task: dict) -> dict:
    """Both under round robin, and infcore's figures over Dynamo's."""
    theirs = dynamo.ask(what="trace", path=str(path), router="round_robin", each=True)
    ours = asked(own, missing, **task, router="round_robin")
    rows = {"Dynamo, round_robin": theirs, "infcore, round_robin": ours}
    if ours is not None:
        rows["infcore / Dynamo"] = {key: ours[key] / theirs[key] for key in FIGURES} | {"requests": ""}
    show(rows)
    return theirs


def other_policies(dynamo: Side, own: Side | None, missing: dict[str, str], path: Path, task: dict) -> None:
    rows = {"Dynamo, kv_router": dynamo.ask(what="trace", path=str(path), router="kv_router")}
    for policy in (asked(own, missing, what="policies") or {"names": []})["names"]:
        if policy != "round_robin":
            rows[f"infcore, {policy}"] = asked(own, missing, **task, router=policy)
    show(rows)


def asked(side: Side | None, missing: dict[str, str], **task) -> dict | None:
    """What the side says; None, and why, where it cannot."""
    if side is None or side.name in missing:
        return None
    try:
        return side.ask(**task)
    except NotMeasured as e:
        missing[side.name] = str(e)
        return None


def compare(dynamo: Side, own: Side | None, missing: dict[str, str], folder: Path, seeds: int) -> None:
    lines = gzip.decompress(OURS.read_bytes()).decode().splitlines()
    path = folder / "dynamo-mocker.jsonl"
    path.write_text("\n".join(lines) + "\n")
    theirs = same_policy(dynamo, own, missing, path, task={"what": "scenario"})
    model = mocker_model.replay(requests_of(lines), 8)
    told = [(one.ttft_ms, one.e2e_ms, one.reused_tokens) for one in model]
    gaps = [
        [abs(a - b) for a, b in zip(ours, one, strict=True)] for ours, one in zip(told, theirs["each"], strict=True)
    ]
    off = [max(column) for column in zip(*gaps, strict=True)]
    print(
        f"The plain model beside it, {len(told)} requests, largest differences: first token {off[0]:.1e} ms,",
        f"end {off[1]:.1e} ms, reused tokens {off[2]:.0f}",
        end="\n\n",
    )
    other_policies(dynamo, own, missing, path, task={"what": "scenario"})
    said = [dynamo.ask(what="synthetic", router="round_robin", seed=seed) for seed in [42, *range(seeds)]]
    means = [one["mean_ttft_ms"] for one in said]
    print(
        f"Its own arrivals at this rate, seed 42: {means[0]:.1f} ms to the first token, reuse {said[0]['reuse']:.3f};"
    )
    if seeds:
        print(
            f"seeds 0 to {seeds - 1}: {min(means[1:]):.0f} to {max(means[1:]):.0f}, mean {mean(means[1:]):.0f}.",
            end="\n\n",
        )


def replay_trace(dynamo: Side, own: Side | None, missing: dict[str, str], folder: Path, trace: Path, n: int) -> None:
    text = gzip.decompress(trace.read_bytes()) if trace.suffix == ".gz" else trace.read_bytes()
    lines = text.decode().splitlines()[:n]
    path = folder / "trace.jsonl"
    path.write_text("\n".join(lines) + "\n")
    print(f"{trace.name}, its first {len(lines)} requests")
    same_policy(dynamo, own, missing, path, task={"what": "trace", "path": str(path)})
    other_policies(dynamo, own, missing, path, task={"what": "trace", "path": str(path)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="few points, no other seeds: shows that it runs")
    parser.add_argument("--trace", type=Path, help="a trace in Mooncake's format to replay as well, .gz or not")
    parser.add_argument("--requests", type=int, default=None, help="of the trace; all without")
    wanted = parser.parse_args()
    sides, missing = start({"Dynamo's mocker": PEERS, "infcore mocker": OWN})
    by_name = {side.name: side for side in sides}
    dynamo, own = by_name.get("Dynamo's mocker"), by_name.get("infcore mocker")
    if dynamo is not None:
        with tempfile.TemporaryDirectory() as folder:
            recover(dynamo, n_points=5 if wanted.smoke else 33)
            compare(dynamo, own, missing, Path(folder), seeds=0 if wanted.smoke else 12)
            if wanted.trace is not None:
                replay_trace(dynamo, own, missing, Path(folder), wanted.trace, wanted.requests)
    for side in sides:
        side.close()
    say_missing(missing)
    say_not_installed()


if __name__ == "__main__":
    main()
