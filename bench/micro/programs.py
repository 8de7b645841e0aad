"""What rows share that are timed elsewhere than by pytest-benchmark: its clock, and compiled programs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class SaidTimer:
    """pytest-benchmark's clock for rows that measure themselves: it moves only by what they say."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def read_s(self) -> float:
        return self.now_s

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds


def compiled(name: str, *options: str | Path) -> Path:
    """bench/micro/NAME.cpp compiled with -O3 into build/bench; options: further sources, flags, libraries."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler on PATH (g++, or what CXX names), so the C++ rows cannot be built")
    built = ROOT / "build" / "bench" / name
    built.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-std=c++20", "-O3", "-ffp-contract=off", "-pthread", f"-I{ROOT / 'csrc'}"]
    source = Path(__file__).with_name(f"{name}.cpp")
    subprocess.run([compiler, *flags, source, *options, "-o", built], check=True)
    return built
