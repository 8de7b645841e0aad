"""Prints what pyproject.toml asks for, a requirement a line: `requirements.py build test`: the build itself, an extra.

One list for one pip call, without building the project first (an extra can only be asked of a project that is built).
"""

import sys
import tomllib
from pathlib import Path


def requirements(wanted: list[str]) -> list[str]:
    """The requirements of "build", "run" and any extras, in order, each once."""
    declared = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    extras = declared["project"]["optional-dependencies"]
    groups = {
        "build": [*declared["build-system"]["requires"], "cmake>=3.20", "ninja"],
        "run": declared["project"]["dependencies"],
    }
    found: list[str] = []
    for name in wanted:
        for requirement in groups[name] if name in groups else extras[name]:
            inner = requirement.removeprefix("infcore[").removesuffix("]")
            found += [requirement] if inner == requirement else requirements([inner])
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
