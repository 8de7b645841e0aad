"""Compiles and runs the C++ tests: what makefiles of tests/native and tests/concurrency would be. No dependencies."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
CXX = os.environ.get("CXX", "g++")
N_JOBS = 2
# As in CMakeLists.txt: decisions must not depend on who compiled them.
BASE_FLAGS = ["-std=c++20", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-pthread"]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wno-sign-conversion", "-Wold-style-cast"]
WARNINGS += ["-Werror", "-Wno-missing-field-initializers"]  # designated initialisers leave fields out on purpose


_T = TypeVar("_T")
_R = TypeVar("_R")


class BuildError(Exception):
    """A compiler or linker said no; its words are the message."""


def require_header(name: str, debian_package: str) -> None:
    """Ends the program with a clear line if the compiler does not find <name>."""
    done = subprocess.run(
        [CXX, "-std=c++20", "-x", "c++", "-E", "-w", "-", "-o", os.devnull],
        input=f"#include <{name}>\n#if !__has_include(<{name}>)\n#error missing\n#endif\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(f"<{name}> is missing: install the Debian package {debian_package}", file=sys.stderr)
        sys.exit(2)


def _is_fresh(target: Path, depfile: Path, command: list[str]) -> bool:
    stamp = target.with_suffix(target.suffix + ".cmd")
    if not (target.exists() and depfile.exists() and stamp.exists()) or stamp.read_text() != " ".join(command):
        return False
    made = target.stat().st_mtime
    inputs = re.sub(r"\\\n", " ", depfile.read_text()).split(":", 1)[1].split()
    return all((ROOT / name).exists() and (ROOT / name).stat().st_mtime <= made for name in inputs)


def _call(command: list[str], target: Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stderr}")
    target.with_suffix(target.suffix + ".cmd").write_text(" ".join(command))


def compile_object(source: Path, build_dir: Path, flags: list[str]) -> Path:
    """source -> object file under build_dir; nothing is done if its inputs and command have not changed."""
    name = source.relative_to(ROOT)
    target = build_dir / name.with_suffix(".o")
    depfile = target.with_suffix(".d")
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [CXX, *BASE_FLAGS, *flags, "-Icsrc", "-MMD", "-MF", str(depfile), "-c", str(name), "-o", str(target)]
    if not _is_fresh(target, depfile, command):
        _call(command, target)
    return target


def link(objects: list[Path], target: Path, flags: list[str]) -> Path:
    """Objects -> program."""
    command = [CXX, *map(str, objects), "-o", str(target), "-pthread", *flags]
    stamp = target.with_suffix(target.suffix + ".cmd")
    if (
        not target.exists()
        or not stamp.exists()
        or stamp.read_text() != " ".join(command)
        or any(o.stat().st_mtime > target.stat().st_mtime for o in objects)
    ):
        _call(command, target)
    return target


def core_sources() -> list[Path]:
    """Every C++ source of the product; none of them needs Python."""
    return sorted((ROOT / "csrc").rglob("*.cpp"))


def in_parallel(work: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
    """work(item) for each, N_JOBS at a time, in order; the first error is raised."""
    with ThreadPoolExecutor(N_JOBS) as pool:
        return list(pool.map(work, items))
