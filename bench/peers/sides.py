"""Sides of a comparison, each a worker.py in its own environment; what they said, medians, ratios, tables."""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = ROOT / os.environ.get("PEERS_VENV", ".venv-peers")
OWN = ROOT / os.environ.get("VENV", ".venv")


class NotMeasured(Exception):
    """A side that cannot be measured here; says why."""


def answer(line: str, printed: str) -> dict:
    """A worker's line; NotMeasured with the last thing it printed where there is none."""
    if not line.strip():
        said = [text.strip() for text in printed.splitlines() if text.strip()]
        raise NotMeasured(said[-1] if said else "its process ended and said nothing")
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError(f"answer of a worker: got {line.strip()!r}, allowed is an object")
    return found


class Side:
    def __init__(self, name: str, venv: Path):
        self.name = name
        python = venv / "bin" / "python"
        if not python.exists():
            raise NotMeasured(f"{venv.name} is not there: make {'peers' if venv == PEERS else 'build'}")
        self.printed = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [str(python), str(HERE / "worker.py"), name, str(venv)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.printed,
            text=True,
            env=os.environ | {"DYN_LOG": "error"},  # Dynamo tells each of its choices otherwise
        )
        try:
            self.release = self._read()["release"]
        except NotMeasured:
            self.close()
            raise

    def ask(self, **task) -> dict:
        try:
            print(json.dumps(task), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass  # its end is told below, with the reason
        return self._read()

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        if line:
            return answer(line, "")
        self.process.wait(60)  # what it says as it ends is complete only then
        self.printed.seek(0)
        return answer(line, self.printed.read())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()
        self.printed.close()


def start(wanted: Mapping[str, Path]) -> tuple[list[Side], dict[str, str]]:
    """The sides that run, and why others do not."""
    sides, missing = [], {}
    for name, venv in wanted.items():
        try:
            sides.append(Side(name, venv))
        except NotMeasured as e:
            missing[name] = str(e)
    return sides, missing


def take_turns(sides: Sequence[Side], rounds: int, missing: dict[str, str], **task) -> dict[str, list[dict]]:
    """Each side asked once a round, in an order that turns; one that fails is out, and said to be."""
    found: dict[str, list[dict]] = {side.name: [] for side in sides}
    for turn in range(rounds):
        for at in range(len(sides)):
            side = sides[(at + turn) % len(sides)]
            if side.name in missing:
                continue
            try:
                found[side.name].append(side.ask(**task))
            except NotMeasured as e:
                missing[side.name] = str(e)
    return {name: answers for name, answers in found.items() if name not in missing}


def middle(answers: Sequence[Mapping[str, float]], figure: str) -> float:
    return median(one[figure] for one in answers)


def ratio(answers: Sequence[Mapping[str, float]], reference: Sequence[Mapping[str, float]], figure: str) -> float:
    """Median over the rounds of one side's figure over the other's in the same round."""
    if len(answers) != len(reference) or not answers:
        raise ValueError(f"ratio: got {len(answers)} and {len(reference)} rounds, allowed are equally many, at least 1")
    return median(a[figure] / b[figure] for a, b in zip(answers, reference, strict=True))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def say_missing(missing: Mapping[str, str]) -> None:
    for why in dict.fromkeys(missing.values()):
        print(f"not measured: {'; '.join(name for name in missing if missing[name] == why)}: {why}")


def say_not_installed(venv: Path = PEERS) -> None:
    """What bench/peers/install.py could not install, and why."""
    noted = venv / "missing.json"
    for requirement, why in (json.loads(noted.read_text()) if noted.exists() else {}).items():
        print(f"not installed: {requirement}: {why}")
