"""Says what this machine lacks for a build, with the Debian package that has it, and makes the virtual environment.

    python3 .ci/machine.py VENV [CXX]

Kept to the syntax of Python 3.6, so that an older Python gets a sentence and not a syntax error.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile

OLDEST = (3, 11)
CXX20_PROGRAM = """
#include <atomic>
#include <concepts>
#include <span>
int main() { std::atomic<int> a{0}; a.notify_one(); }
"""


def lacking(cxx):
    """What is missing, a sentence each; none on a good machine."""
    have = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info[:2] < OLDEST:
        yield f"Python {have} is too old: needs {OLDEST[0]}.{OLDEST[1]} or later; name one: make PYTHON=python3.12 ..."
        return
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        yield f"Python {have} has no venv: install python3-venv (Debian: python{have}-venv)"
    if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        yield f"Python {have} has no headers (Python.h): install python3-dev (Debian: python{have}-dev)"
    if shutil.which(cxx.split()[0]) is None:
        yield f"{cxx} not found: a C++20 compiler is needed: install g++ (Debian: g++), or make CXX=clang++ ..."
    elif not compiles(cxx):
        yield f"{cxx} does not compile C++20 (<concepts>, <span>, std::atomic::notify_one): g++ 11 and clang 14 do"
    if shutil.which("git") is None:
        yield "git not found: install git (Debian: git)"


def compiles(cxx):
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "probe.cpp")
        with open(source, "w") as out:
            out.write(CXX20_PROGRAM)
        command = [*cxx.split(), "-std=c++20", "-o", os.path.join(folder, "probe"), source]
        return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def main(venv, cxx="g++"):
    missing = list(lacking(cxx))
    for sentence in missing:
        print("make: " + sentence, file=sys.stderr)
    if missing:
        return 1
    ours = os.path.join(venv, "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    of_another_python = os.path.isdir(venv) and not os.path.isdir(ours)
    return subprocess.call([sys.executable, "-m", "venv", *(["--clear"] if of_another_python else []), venv])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
