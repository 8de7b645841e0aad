"""Builds and runs every tests/native/test_*.cpp (GoogleTest) with the core's C++ sources, under a chosen sanitizer.

python tests/native/run.py [--sanitize none|address,undefined|thread] [--core FOLDER] [--filter FILTER] [NAME...]
Exit status: 0 all passed, 1 a test or the build failed, 2 bad arguments or GoogleTest is missing.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import cpp_build  # noqa: E402  (its folder is known only now)

WATCHED = ["-O1", "-g1", "-fno-omit-frame-pointer"]
SANITIZER_FLAGS = {
    "none": ["-O2", "-g1"],
    "address,undefined": [*WATCHED, "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    # GCC's thread sanitizer warns of every fence because it does not see them; futex.hpp says why that is all right.
    "thread": [*WATCHED, "-fsanitize=thread", "-Wno-tsan"],
}
TIMEOUT_S = 600


def build(names: list[str], sanitize: str, core_folder: Path | None) -> list[Path]:
    build_dir = cpp_build.ROOT / "build" / f"native-{sanitize.replace(',', '-')}"
    flags = [*SANITIZER_FLAGS[sanitize], *cpp_build.WARNINGS]
    tests = sorted(t for t in HERE.glob("test_*.cpp") if not names or t.stem in names)
    if not tests:
        sys.exit(f"no test named {names}; known: {[t.stem for t in sorted(HERE.glob('test_*.cpp'))]}")
    core = [] if core_folder else cpp_build.core_sources()
    # A test is compiled to be run once: no optimiser, which takes most of a sanitized build and hides some accesses.
    of_tests = flags if sanitize == "none" else [*flags, "-O0"]
    objects = cpp_build.in_parallel(
        lambda s: cpp_build.compile_object(s, build_dir, of_tests if s in tests else flags), core + tests
    )
    link_flags = [f for f in flags if f.startswith("-fsanitize")] + ["-lgtest_main", "-lgtest", "-ldl"]
    if core_folder:
        link_flags += [f"-L{core_folder.resolve()}", f"-Wl,-rpath,{core_folder.resolve()}", "-linfcore"]
    n_core = len(core)
    return cpp_build.in_parallel(
        lambda pair: cpp_build.link([pair[1], *objects[:n_core]], build_dir / pair[0].stem, link_flags),
        list(zip(tests, objects[n_core:], strict=True)),
    )


def run(program: Path, sanitize: str, gtest_filter: str) -> bool:
    # The thread sanitizer's shadow memory does not bear address space randomisation of every kernel.
    command = ["setarch", "-R", str(program)] if sanitize == "thread" else [str(program)]
    env = os.environ | {
        "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
        "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    begin_s = time.monotonic()
    done = subprocess.run(
        [*command, f"--gtest_filter={gtest_filter}", "--gtest_brief=1"],
        env=env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    ok = done.returncode == 0
    report = f"{program.stem} [{sanitize}]: {'passed' if ok else 'FAILED'} in {time.monotonic() - begin_s:.1f} s\n"
    print(report if ok else report + done.stdout + done.stderr, end="" if ok else "\n", flush=True)
    return ok


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sanitize", choices=sorted(SANITIZER_FLAGS), default="none")
    parser.add_argument("--core", type=Path, help="folder of a libinfcore.so built with this sanitizer; none: build it")
    parser.add_argument("--filter", default="*", help="passed on as --gtest_filter")
    parser.add_argument("names", nargs="*", help="test_queue and so on; none: all")
    args = parser.parse_args()
    cpp_build.require_header("gtest/gtest.h", "libgtest-dev")
    try:
        programs = build(args.names, args.sanitize, args.core)
    except cpp_build.BuildError as error:
        print(error)
        return 1
    passed = cpp_build.in_parallel(lambda program: run(program, args.sanitize, args.filter), programs)
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
