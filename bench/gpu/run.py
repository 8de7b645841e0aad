"""GPU kernels on this machine: right answers, bandwidth beside the device's own copy and PyTorch's ways, overhead.

    python bench/gpu/run.py [--json FILE] [--seed N] [--smoke] [--op OP ...] [--size SIZE ...] [--backend BACKEND ...]

Without a GPU it says what is missing, and shows what can be shown: the same answers from Triton's interpreter and from
the CUDA sources under the host shim, what compilers make of the kernels for sm_80, sm_90 and sm_100, and bytes counted.
Exit status: 0 right answers, 1 wrong ones, 2 arguments that are not allowed or nothing that could be run.
"""

import argparse
import importlib.util
import json
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SCHEMA_VERSION = 1
BACKENDS = ("triton", "cupy")
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
SIZES = ("1MiB", "4MiB", "16MiB", "64MiB", "256MiB", "1GiB")
SIZES_SMOKE = ("1MiB", "64MiB")
Row = dict[str, Any]


def find_kernels() -> None:
    """infcore.kernels can be imported: the installed one, else this checkout's, which needs nothing of the rest."""
    if importlib.util.find_spec("infcore") is None:
        package = types.ModuleType("infcore")
        package.__path__ = [str(ROOT)]
        sys.modules["infcore"] = package
    sys.path.insert(0, str(ROOT / "tests"))


def size_of(text: str) -> int:
    """ "64MiB" in bytes."""
    found = re.fullmatch(r"([1-9]\d*)(KiB|MiB|GiB)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"size is {text!r}, allowed are whole numbers with a unit: 64MiB, 1GiB")
    return int(found[1]) * UNITS[found[2]]


def arguments(given: list[str] | None, operations: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write everything as one JSON document")
    parser.add_argument("--seed", type=int, default=None, help="of the random inputs; drawn and said if not given")
    parser.add_argument("--smoke", action="store_true", help="few cases, few sizes, few calls")
    parser.add_argument("--op", nargs="+", choices=operations, default=operations, help="operations; all of them")
    parser.add_argument("--size", nargs="+", type=size_of, help=f"of what is written; {', '.join(SIZES)}")
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    options = parser.parse_args(given)
    if options.seed is None:
        options.seed = int(np.random.SeedSequence().generate_state(1)[0])
    if options.seed < 0:
        parser.error(f"argument --seed: is {options.seed}, allowed is 0 or more")
    if options.size is None:
        options.size = [size_of(size) for size in (SIZES_SMOKE if options.smoke else SIZES)]
    return options


def checked(options: argparse.Namespace, places: Any) -> Iterator[Row]:
    """Correctness of each operation in each place. places: (back-end, operation) -> place."""
    import checking
    from operations import OPERATIONS

    for op in options.op:
        for backend in options.backend:
            # The same inputs for every back-end.
            cases = OPERATIONS[op].cases(np.random.default_rng([options.seed, sum(op.encode())]), smoke=options.smoke)
            yield checking.run(op, cases, places(backend, op)).row()


def benches_of(options: argparse.Namespace, gpu: Row) -> list[Any]:
    """For each back-end its memory, its clock and how often is measured."""
    import clocks
    import places
    from bandwidth import Bench

    n_calls, n_warm_up = (32, 8) if options.smoke else (128, 16)
    parts: dict[str, Callable[[], tuple[Any, Any]]] = {
        "triton": lambda: (places.TorchDevice("cuda"), clocks.TorchClock()),
        "cupy": lambda: (places.CupyDevice(), clocks.CupyClock()),
    }
    return [
        Bench(*parts[backend](), gpu["l2_bytes"], gpu["free_bytes"], n_calls, n_warm_up) for backend in options.backend
    ]


def on_gpu(options: argparse.Namespace, benches: list[Any]) -> Iterator[Row]:
    """Everything, where there is a GPU; what gives wrong answers is not measured."""
    import bandwidth
    import overhead
    from operations import OPERATIONS

    devices = {bench.device.backend: bench.device for bench in benches}
    right = set()
    for row in checked(options, lambda backend, op: devices[backend]):
        yield row
        if not row["n_wrong"]:
            right.add((row["op"], row["backend"]))
    for op in options.op:
        measured = [bench for bench in benches if (op, bench.device.backend) in right]
        for size_bytes in options.size if measured else []:
            for workload in OPERATIONS[op].workloads(np.random.default_rng(options.seed), size_bytes):
                for bench in measured:
                    yield bandwidth.measured(bench, workload)
                    bench.device.release()
    for op in options.op:
        for bench in benches:
            if (op, bench.device.backend) in right:
                yield overhead.measured(bench, op)


def without_gpu(options: argparse.Namespace) -> Iterator[Row]:
    """What there is without one. Raises ImportError where the tests' tools cannot be imported."""
    import overhead
    import without_gpu as tools
    from operations import OPERATIONS

    here = [backend for backend in options.backend if not tools.why_not(backend)]
    yield from checked(argparse.Namespace(**vars(options) | {"backend": here, "smoke": True}), tools.place_of)
    for backend in options.backend:
        if not tools.code_unavailable(backend):
            for op in {OPERATIONS[op].package: op for op in options.op}.values():
                yield from tools.code_rows(backend, op, smoke=options.smoke)
    for op in options.op:
        for backend in here:
            yield from tools.counted_rows(tools.place_of(backend, op), op, smoke=options.smoke)
    if "triton" in here:
        yield from overhead.without_gpu(options.op)


def progress(row: Row) -> str:
    """A few words on a row, while the tables are not there yet."""
    what = f"{row['op']}, {row['case'] if 'case' in row else row['where']}, {row['backend']}"
    if "capability" in row:
        what += f", {row['capability']}"
    if row["kind"] == "bandwidth":
        share = row.get("share_of_copy")
        found = f"{share:.3f} of copy" if share else row["left_out"] or "no copy to compare with"
        what += f", {row['size_bytes'] / UNITS['MiB']:.0f} MiB: {found}"
    return what


def gather(options: argparse.Namespace, document: Row) -> None:
    """Fills in env and rows. Tables are printed when a kind of rows is complete, the file is written after each row."""
    import machine
    import printed

    missing = {backend: machine.NO_GPU[backend]() for backend in options.backend}
    ready = [backend for backend, why in missing.items() if not why]
    gpu = None
    if ready:
        import clocks

        gpu = clocks.torch_facts() if "triton" in ready else clocks.cupy_facts()
        options.backend = ready
    env = document["env"] = machine.environment(gpu, missing)
    print(printed.environment(env), f"\nseed      {options.seed}", flush=True)
    save(options, document)
    rows: list[Row] = document["rows"]
    for row in on_gpu(options, benches_of(options, gpu)) if gpu else without_gpu(options):
        if rows and row["kind"] != rows[-1]["kind"]:
            print(printed.part(rows[-1]["kind"], rows), flush=True)
        rows.append(row)
        save(options, document)
        print(f"   {progress(row)}", file=sys.stderr, flush=True)
    if rows:
        print(printed.part(rows[-1]["kind"], rows), flush=True)
    if gpu:
        env["driver_after"] = machine.clocks(gpu["id"])
        print(f"\nafter     {printed.driver(env['driver_after'])}")
        save(options, document)


def save(options: argparse.Namespace, document: Row) -> None:
    """Writes what there is so far: a run that is cut off has not been for nothing."""
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def main(given: list[str] | None = None) -> int:
    """The exit status."""
    find_kernels()
    from operations import OPERATIONS

    options = arguments(given, list(OPERATIONS))
    command = ["bench/gpu/run.py", *(sys.argv[1:] if given is None else given)]
    document: Row = {"schema_version": SCHEMA_VERSION, "command": command, "seed": options.seed, "env": {}, "rows": []}
    try:
        save(options, document)
    except OSError as e:
        print(f"run.py: argument --json: {e}", file=sys.stderr)
        return 2
    try:
        gather(options, document)
    except ImportError as e:
        words = "without a GPU it uses the tests' tools, see the extras [test] and [gpu_test]"
        print(f"run.py: {e}: {words}", file=sys.stderr)
        return 2
    rows = document["rows"]
    answers = [row for row in rows if row["kind"] == "correctness"]
    if not answers:
        print("run.py: nothing could be run: neither a GPU nor what the kernels need without one", file=sys.stderr)
        return 2
    wrong = sum(row["n_wrong"] for row in answers)
    wrong += sum(way["same"] is False for row in rows for way in row.get("ways", []))
    print(f"\n{wrong} wrong answers" if wrong else "\nno wrong answer")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
