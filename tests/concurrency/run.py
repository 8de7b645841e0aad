"""Searches every tests/concurrency/*.cpp with the Relacy model checker, then weakens each memory order, one by one.

A model passes when its search is exhausted without a failure. A negative control passes when the search of the weakened
code fails. Controls are found by themselves: a model reports each operation of csrc/ that it met with an order stronger
than relaxed; the model named as the header checks that header's operations. Each must carry a tag like [R1] beside it.

python tests/concurrency/run.py [NAME...]
Exit status: 0 all passed, 1 a model, a control or the build failed, 2 Relacy is missing.
"""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import cpp_build  # noqa: E402  (its folder is known only now)

# -fpermissive and -w: Relacy predates C++20. Sized deallocation would pass by the allocator that Relacy replaces.
FLAGS = ["-O2", "-w", "-fpermissive", "-fno-sized-deallocation"]
BUILD_DIR = cpp_build.ROOT / "build" / "models"
FOUND_A_FAILURE = 3  # exit status of a model, see model.hpp
TIMEOUT_S = 180


class Site(NamedTuple):
    file: str
    line: int
    order: str


def build(source: Path) -> Path:
    return cpp_build.link([cpp_build.compile_object(source, BUILD_DIR, FLAGS)], BUILD_DIR / source.stem, [])


def run(program: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [str(program), *args]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, -1, "", f"no end within {TIMEOUT_S} s; make the model smaller")


def search(program: Path) -> tuple[bool, str, list[Site]]:
    """Without weakening: passed?, report, the operations met."""
    begin_s = time.monotonic()
    done = run(program)
    lines = done.stdout.splitlines()
    sites = [Site(m[1], int(m[2]), m[3]) for line in lines if (m := re.fullmatch(r"site (.+):(\d+) (\w+)", line))]
    report = [line for line in lines if not line.startswith("site ")]
    verdict = "passed" if done.returncode == 0 else f"FAILED (exit status {done.returncode}) {done.stderr}"
    report.append(f"{program.stem}: {verdict} in {time.monotonic() - begin_s:.1f} s")
    return done.returncode == 0, "\n".join(report), sites


def tag_of(site: Site) -> str | None:
    """The nearest [X1] on the operation's line or the three above."""
    lines = (cpp_build.ROOT / site.file).read_text().splitlines()
    for line in reversed(lines[max(0, site.line - 4) : site.line]):
        if tags := re.findall(r"\[[A-Z]\d+\]", line):
            return "".join(dict.fromkeys(tags))
    return None


def control(program: Path, site: Site) -> tuple[bool, str]:
    name = f"{program.stem}: control {Path(site.file).name}:{site.line} {tag_of(site) or ''} without its {site.order}"
    if tag_of(site) is None:
        return False, f"{name}: FAILED, the operation carries no tag"
    done = run(program, "--weaken", f"{site.file}:{site.line}")
    if done.returncode != FOUND_A_FAILURE:
        return False, f"{name}: FAILED, the search did not notice (exit status {done.returncode})\n{done.stdout}"
    found = re.search(r": ([A-Z ]+), (\d+) interleavings", done.stdout)
    return True, f"{name}: found, {found[1].lower()} after {found[2]} interleavings" if found else name


def main() -> int:
    cpp_build.require_header("relacy/relacy.hpp", "relacy-dev")
    sources = [s for s in sorted(HERE.glob("*.cpp")) if s.stem in sys.argv[1:] or not sys.argv[1:]]
    if not sources:
        print(f"no model named {sys.argv[1:]}; known: {[s.stem for s in sorted(HERE.glob('*.cpp'))]}")
        return 1
    try:
        programs = cpp_build.in_parallel(build, sources)
    except cpp_build.BuildError as error:
        print(error)
        return 1
    models = {source.stem for source in HERE.glob("*.cpp")}
    controls: list[tuple[Path, Site]] = []
    all_ok = True
    for program, (ok, report, sites) in zip(programs, cpp_build.in_parallel(search, programs), strict=True):
        print(report)
        all_ok &= ok
        own = [s for s in sites if Path(s.file).stem == program.stem or Path(s.file).stem not in models]
        if ok and not own:
            print(f"{program.stem}: FAILED, it met no operation that a control could weaken")
            all_ok = False
        controls += [(program, site) for site in own] if ok else []
    for ok, report in cpp_build.in_parallel(lambda c: control(*c), controls):
        print(report)
        all_ok &= ok
    print(f"{len(programs)} models, {len(controls)} controls: {'passed' if all_ok else 'FAILED'}")
    return 0 if all_ok else 1


if __name__ == "__main__":
    sys.exit(main())
