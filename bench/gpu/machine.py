"""What this machine is: GPU, driver, clocks, libraries, commit; and if there is no GPU, what is missing."""

import ctypes
import importlib.metadata
import importlib.util
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "triton", "cupy-cuda12x", "cupy-cuda13x", "numpy", "ml_dtypes")
# Names of nvidia-smi's fields (nvidia-smi --help-query-gpu), and ours.
SMI_FIELDS = {
    "driver_version": "driver",
    "clocks.current.sm": "sm_mhz",
    "clocks.max.sm": "sm_mhz_max",
    "clocks.current.memory": "memory_mhz",
    "clocks.max.memory": "memory_mhz_max",
    "temperature.gpu": "celsius",
    "power.draw": "watts",
    "enforced.power.limit": "watts_max",
    "mig.mode.current": "mig",
}


def _printed(command: list[str]) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def commit() -> str | None:
    """The checkout's commit, with "+" if it was changed since; None outside a checkout."""
    described = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    return _printed(described) or None


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def no_driver() -> str:
    """Why no GPU can be reached by any library, or nothing."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver was found: libcuda.so.1 cannot be loaded"
    return ""


def no_torch_gpu() -> str:
    """Why Triton cannot launch here, or nothing."""
    for package in ("torch", "triton"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    import torch

    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is built without CUDA" + (f", and {no_driver()}" if no_driver() else "")
    if torch.cuda.is_available():
        return ""
    return no_driver() or "PyTorch finds no GPU that it can use"


def no_cupy_gpu() -> str:
    """Why CuPy cannot launch here, or nothing."""
    if importlib.util.find_spec("cupy") is None:
        return "cupy is not installed"
    if no_driver():
        return no_driver()
    import cupy

    try:
        return "" if cupy.cuda.runtime.getDeviceCount() else "CuPy finds no GPU"
    except cupy.cuda.runtime.CUDARuntimeError as e:
        return f"CuPy finds no GPU: {e}"


NO_GPU = {"triton": no_torch_gpu, "cupy": no_cupy_gpu}


def clocks(gpu_id: str) -> dict[str, Any]:
    """What nvidia-smi says of one GPU at this moment; a field that it does not know, or all of them, is None."""
    asked = ["nvidia-smi", f"--id={gpu_id}", f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader,nounits"]
    parts = (_printed(asked) or "").split(", ")
    if len(parts) != len(SMI_FIELDS):
        return dict.fromkeys(SMI_FIELDS.values())
    return {name: _number(part) for name, part in zip(SMI_FIELDS.values(), parts, strict=True)}


def _number(text: str) -> Any:
    if text.startswith("[") or text == "N/A":
        return None
    try:
        return float(text)
    except ValueError:
        return text


def environment(gpu: dict[str, Any] | None, missing: dict[str, str]) -> dict[str, Any]:
    """One JSON-ready mapping. gpu: its facts, None without one; missing: for each back-end why it cannot launch."""
    from infcore import kernels

    return {
        "gpu": gpu,
        "driver": clocks(gpu["id"]) if gpu else None,
        "backends": {name: why or "launches on the GPU" for name, why in missing.items()},
        "left_out": "" if "ml_dtypes" in versions() else "bfloat16: ml_dtypes is not installed",
        "commit": commit(),
        "kernels": str(Path(str(kernels.__file__)).parent),
        "packages": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
