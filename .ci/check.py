"""The slow part of `make check`: portability, model checks, sanitizers, fuzzing. Ends at a failure.

python .ci/check.py [STEP ...]      only these steps; `list` names them

Two steps at a time: each has stretches in which one core, or both, would wait (a link, a fuzzer, a test of a clock).
"""

import functools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import cpp_build  # the flags and the job count of all C++ that is built outside CMake

ROOT = Path(__file__).parents[1]
STEP_SECONDS_MAX = 1500


CORES: dict[str, Path] = {}  # by sanitizer: folder of the libinfcore.so that this run has built with it


class NotRun(Exception):
    """A step that cannot run here; says what it lacks."""


class Failed(Exception):
    """What the failing command printed."""


def shell(command: list[str], **settings: str) -> str:
    """Run it: its last line. Raises Failed, or NotRun where it asks for a Debian package."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=STEP_SECONDS_MAX,
    )
    closing = "".join(done.stdout.strip().splitlines()[-1:])
    if done.returncode == 2 and "install the Debian package" in done.stdout:
        raise NotRun(closing)
    if done.returncode != 0:
        raise Failed(f"{done.stdout}\n{' '.join(command)}\nexit status {done.returncode}")
    return closing


def included(path: Path) -> list[str]:
    head = path.read_text().partition("\nnamespace ")[0]
    return re.findall(r'^#include [<"]([^>"]+)', head, re.MULTILINE)


def headers_to_compile() -> list[str]:
    """Few headers, by which with the sources of `make build` each has been compiled with nothing of use before it.

    That is: nothing but what it includes anyway, itself or through others, which are looked at in the same way.
    """
    direct = {str(path.relative_to(ROOT / "csrc")): included(path) for path in ROOT.glob("csrc/**/*.hpp")}

    @functools.cache
    def needed(name: str) -> set[str]:
        return {inner for one in direct.get(name, []) for inner in {one, *needed(one)}}

    def read(names: list[str], before: set[str]) -> None:
        for name in names:
            if name in before:
                continue
            if name in direct:
                if before <= needed(name):
                    proven.add(name)
                read(direct[name], before)
            before.add(name)

    proven: set[str] = set()
    for source in ROOT.glob("csrc/**/*.cpp"):
        read(included(source), set())
    chosen = []
    for header in sorted(direct, key=lambda name: (-len(needed(name)), name)):
        if header not in proven:
            chosen.append(header)
            read([header], set())
    return chosen


def headers_stand_alone() -> str:
    check = [cpp_build.CXX, *cpp_build.BASE_FLAGS, *cpp_build.WARNINGS, "-fsyntax-only", "-Icsrc", "-x", "c++"]
    headers = headers_to_compile()
    cpp_build.in_parallel(lambda one: shell([*check, "-include", f"csrc/{one}", "/dev/null"]), headers)
    return f"{len(headers)} headers compiled, the others with them and with the sources"


def script(path: str, *arguments: str) -> str:
    return shell([*fixed_addresses(), sys.executable, path, *arguments])


def fixed_addresses() -> list[str]:
    """TSAN wants its shadow where a randomised layout may have put something else."""
    return ["setarch", os.uname().machine, "-R"] if shutil.which("setarch") else []


def library(name: str) -> str:
    found = subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_absolute():
        raise NotRun(f"g++ has no {name}")
    return str(Path(found).resolve())


def native(sanitizer: str) -> str:
    """The C++ tests, against the core that the Python tests under this sanitizer were built with, if they were."""
    core = CORES.get(sanitizer)
    tests = sorted(ROOT.glob("tests/native/test_*.cpp"))
    if sanitizer == "thread":  # it has nothing to say of one thread alone
        tests = [test for test in tests if "#include <thread>" in test.read_text()]
    chosen = [test.stem for test in tests]
    return script("tests/native/run.py", "--sanitize", sanitizer, *(["--core", str(core)] if core else []), *chosen)


def sanitized_python(sanitizer: str, name: str) -> list[str]:
    """Build the package with a sanitizer into build/NAME; the Python that sees it instead of the editable one."""
    here = ROOT / "build" / name
    settings = [f"build-dir=build/{name}/cmake", f"cmake.define.INFCORE_SANITIZE={sanitizer}"]
    settings.append(f"cmake.define.INFCORE_GENERATED={ROOT / 'build/editable'}")  # where `make build` has put them
    if sanitizer == "thread":
        settings.append(f"cmake.define.INFCORE_LEFT_OUT={';'.join(OF_ONE_THREAD)}")
    pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "install"]
    pip += ["--no-deps", "--no-build-isolation", "--upgrade", "--target", str(here / "site"), "."]
    shell([*pip, *(f"--config-settings={setting}" for setting in settings)], CXX="g++")
    CORES[sanitizer] = here / "site/infcore/_core"
    shell([sys.executable, "-m", "venv", "--without-pip", str(here / "venv")])
    # Paths that a .pth file adds are not searched for further .pth files: that keeps the editable install out.
    (packages,) = (here / "venv").glob("lib/python*/site-packages")
    everything_else = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "sanitized.pth").write_text(f"{here / 'site'}\n{everything_else}\n")
    return [str(here / "venv/bin/python")]


def extensions(sanitizer: str, folders: list[str]) -> str:
    """The Python tests over extensions and core built with a sanitizer."""
    present = [folder for folder in folders if list((ROOT / folder).glob("test_*.py"))]
    if not present:
        raise NotRun(f"no tests in {', '.join(folders)}")
    name = "tsan" if sanitizer == "thread" else "asan"
    preload = [library("libtsan.so")] if name == "tsan" else [library("libasan.so"), library("libstdc++.so")]
    python = sanitized_python(sanitizer, name)
    # The interpreter is not instrumented: its own leaks and its lock-free reads are not ours to judge.
    left_out = [f"--ignore-glob={pattern}" for pattern in PYTHON_ONLY + KERNELS + LONG_RUNS]
    pytest = [*python, "-m", "pytest", "-q", "--capture=sys", "-p", "no:cacheprovider", *left_out, *present]
    # A crash ends the run: xdist would wait forever for the rest of the dead worker's file.
    pytest += ["--numprocesses", "logical", "--dist", "loadfile", "--max-worker-restart=0"]
    return shell(
        [*fixed_addresses(), *pytest],
        LD_PRELOAD=" ".join(preload),
        PYTHONMALLOC="malloc",
        ASAN_OPTIONS="detect_leaks=0:abort_on_error=0:halt_on_error=1",
        UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1",
        TSAN_OPTIONS="halt_on_error=1:report_bugs=1:ignore_noninstrumented_modules=1",
        INFCORE_SANITIZED=name,
    )


def together(sources: list[Path], folder: Path, n_files: int) -> list[Path]:
    """The sources' text in a few files, so that what they include is read once: half the work of a build from scratch.

    Text and not #include: of what is included, clang does not say that it is unused. Each alone: `make build`, by g++.
    """
    files = []
    for index in reversed(range(n_files)):  # the router and the simulator, which take longest, first
        parts = sources[index * len(sources) // n_files : (index + 1) * len(sources) // n_files]
        text = "".join(f'#line 1 "{path.relative_to(ROOT)}"\n{path.read_text()}\n' for path in parts)
        files.append(folder / f"core-{index}.cpp")
        files[-1].write_text(text)
    return files


def fuzz() -> str:
    """The core by another compiler, without a warning; then ten seconds of each libFuzzer target, from its corpus."""
    targets = sorted(ROOT.glob("tests/fuzz/*.cpp"))
    if not targets:
        raise NotRun("no targets in tests/fuzz")
    if shutil.which("clang++") is None:
        raise NotRun("clang++ is not installed")
    out = ROOT / "build" / "fuzz"
    out.mkdir(parents=True, exist_ok=True)
    # A loop that stays scalar among a sanitizer's checks is no fault of the source's, so no error.
    flags = [*cpp_build.BASE_FLAGS, "-g1", "-O1", "-Wno-pass-failed", "-Icsrc"]
    flags += ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    core = together(cpp_build.core_sources(), out, FUZZ_CORE_FILES)
    objects = {source: str(out / f"{source.stem}.o") for source in [*core, *targets]}

    def compile_one(source: Path) -> None:
        warnings = [] if source in targets else cpp_build.WARNINGS
        shell(["clang++", *flags, *warnings, "-c", str(source), "-o", objects[source]])

    cpp_build.in_parallel(compile_one, objects)
    closing = []
    for target in targets:
        program, corpus = out / target.stem, target.parent / "corpus" / target.stem
        shell(["clang++", *flags, objects[target], *(objects[one] for one in core), "-o", str(program)])
        found = out / f"{target.stem}-found"
        found.mkdir(exist_ok=True)
        seeds = [str(corpus)] if corpus.is_dir() else []
        closing += [shell([str(program), "-max_total_time=10", "-seed=1", "-print_final_stats=0", str(found), *seeds])]
    return "; ".join(closing)


# Left to the plain run. Readers, writers and the harness, Python through and through: a sanitizer sees nothing of them
# but slowness; real models are ONNX Runtime's code. What PyTorch runs: tests/conftest.py hides it. The simulator from
# its command line and over long runs: test_sim_faults.py and test_simulation.py go through the same C++ with a tenth of
# the requests.
PYTHON_ONLY = ["*/test_traces*", "*/test_scenario*", "*/test_suite*", "*/test_report*", "*/test_cli*"]
PYTHON_ONLY += ["*/test_real_models*"]
# What is built on the cache in Python: test_cache.py and its like go through the same C++.
PYTHON_ONLY += [
    "*/test_cache_compute*",
    "*/test_cache_loops*",
    "*/test_coherent*",
    "*/test_warming*",
    "*/*snapshot*",
    "*/test_cache_loaders*",
    "*/test_cache_bench*",
]
KERNELS = ["*/test_torch_device*", "*/test_kernels_*"]
LONG_RUNS = ["*/test_simulate_cli*", "*/test_sim_arrivals*", "*/test_live_scenario*"]
# Figures of decisions over long simulations: the decisions themselves are in the differential tests.
LONG_RUNS += ["*/test_overload*", "*/test_admission_overload*", "*/test_queueing_theory*", "*/test_peers*"]
LONG_RUNS += ["*/test_sim_tokens*", "*/test_batching*", "*/differential/test_continuous*", "*/test_sim_determinism*"]
# Extensions that no test of tests/concurrency imports.
OF_ONE_THREAD = ["batching", "blocks", "images", "machine", "prefix", "prefix_events"]
FUZZ_CORE_FILES = 8
# Not tests/differential: the same calls as in the others, to compare what is decided.
ASAN_FOLDERS = ["tests/unit", "tests/property", "tests/concurrency"]
STEPS: dict[str, tuple[str, Callable[[], str]]] = {
    "asan": ("Python tests, ASAN and UBSAN", functools.partial(extensions, "address,undefined", ASAN_FOLDERS)),
    "native-asan": ("C++ tests, ASAN and UBSAN", functools.partial(native, "address,undefined")),
    "models": ("model checks and their negative controls", functools.partial(script, "tests/concurrency/run.py")),
    "tsan": ("Python concurrency tests, TSAN", functools.partial(extensions, "thread", ["tests/concurrency"])),
    "native-tsan": ("C++ tests, TSAN", functools.partial(native, "thread")),
    "fuzz": ("sources, no warning: clang++; fuzzing, 10 s a target", fuzz),
    # g++ has compiled every source in `make build`, clang++ does for the fuzz targets and sees every header there.
    "headers": ("headers stand alone, no warning: g++", headers_stand_alone),
}
# In order, the longest first; one that has a core built before one that uses it.
CHAINS = [("asan", "native-asan"), ("models",), ("tsan", "native-tsan"), ("fuzz",), ("headers",)]
CHAINS_AT_A_TIME = 2


def main(wanted: list[str]) -> int:
    unknown = [name for name in wanted if name not in STEPS]
    if unknown:
        print(f"steps: {' '.join(STEPS)}")
        return 0 if unknown == ["list"] else 2
    not_run: list[str] = []
    failed: list[str] = []

    def run(chain: tuple[str, ...]) -> None:
        for name in chain:
            if failed or (wanted and name not in wanted):
                continue
            title, step = STEPS[name]
            start_s = time.monotonic()
            try:
                closing = step()
            except NotRun as why:
                not_run.append(f"{title}: {why}")
                closing = f"not run: {why}"
            except Failed as what:
                failed.append(title)
                print(f"== {title}\n{what}", file=sys.stderr, flush=True)
                return
            print(f"== {title}\n   {closing}\n   {time.monotonic() - start_s:.0f} s", flush=True)

    with ThreadPoolExecutor(CHAINS_AT_A_TIME) as pool:
        list(pool.map(run, CHAINS))  # what it raises, if anything
    if failed:
        print(f"== make check: FAILED: {', '.join(failed)}", file=sys.stderr)
        return 1
    print(f"== make check: passed, {len(not_run)} not run", *(f"   not run: {line}" for line in not_run), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
