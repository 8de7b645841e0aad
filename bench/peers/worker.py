"""One side of a comparison in a process of its own: python worker.py NAME VENV

Reads a line of JSON, what to measure, and answers with a line of JSON, until its input ends. So both environments take
part in one run, take turns, and import what they need once. What anything else prints goes to standard error.
"""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[1] / "micro"))


def batcher(name: str):
    import closed_loop
    import ways

    way, package = ways.WAYS[name]
    runs = {"cpu": closed_loop.double, "sleep": closed_loop.sleep_then_double}

    def measure(task):
        return closed_loop.measure(way, runs[task["run"]], closed_loop.CALLERS, task["each"])

    return measure, version(package) if package else ""


def blocks(name: str, venv: Path):
    import block_managers
    import vllm_pool

    vllm = name.startswith("vLLM")
    side = block_managers.Vllm(vllm_pool.folder(venv)) if vllm else block_managers.Infcore()
    return lambda task: side.figures(task["loops"]), vllm_pool.RELEASE if vllm else version("infcore")


def mocker(name: str):
    import mocker_sides

    if name.startswith("Dynamo"):
        return mocker_sides.dynamo, version("ai-dynamo-runtime")
    return mocker_sides.infcore, version("infcore")


def radix(name: str):
    import radix_sides

    package = "ai-dynamo-runtime" if name.startswith("Dynamo") else "infcore"
    return lambda task: radix_sides.measure(name, task), version(package)


def routing(name: str):
    import router_sides

    return router_sides.side(name.removesuffix(" routing"))


def caching(name: str):
    import cache_sides

    return cache_sides.side(name.removesuffix(" caching"))


def main(name: str, venv: Path) -> None:
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        if name.endswith("blocks"):
            measure, release = blocks(name, venv)
        elif name.endswith("mocker"):
            measure, release = mocker(name)
        elif name.endswith("radix"):
            measure, release = radix(name)
        elif name.endswith("routing"):
            measure, release = routing(name)
        elif name.endswith("caching"):
            measure, release = caching(name)
        else:
            measure, release = batcher(name)
        print(json.dumps({"release": release}), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(measure(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
