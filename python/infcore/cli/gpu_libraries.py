"""Which back-ends of the GPU kernels are installed, found without importing them: PyTorch takes seconds to load."""

import importlib.metadata
import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Distributions that bring a module, most recent first; a back-end needs one of each row.
MODULES = {
    "torch": ("torch",),
    "triton": ("triton", "triton-windows", "pytorch-triton"),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy"),
}


def kernels(*, has_gpu: bool) -> dict[str, Any]:
    """JSON-ready: version of each library, the installed back-ends, what device="cuda" takes, and why it can't."""
    from infcore.kernels import backends

    versions = {name: version(name, distributions) for name, distributions in MODULES.items()}
    cuda = torch_cuda() if versions["torch"] else None
    found = list(backends.available())
    choice = found[0] if found else None
    return {
        "libraries": versions,
        "torch_cuda": cuda,
        "backends": found,
        "device_cuda": choice,
        "device_cuda_missing": missing(choice, cuda, has_gpu=has_gpu),
    }


def version(module: str, distributions: Iterable[str]) -> str | None:
    """Of an installed module; None where it is not there."""
    if importlib.util.find_spec(module) is None:
        return None
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "of unknown version"


def torch_cuda() -> str | None:
    """The CUDA version that PyTorch was built for, from its version.py; None: built without."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"""^cuda\b[^=]*=\s*['"]([\d.]+)['"]""", text, re.MULTILINE)
    return found.group(1) if found else None


def missing(choice: str | None, cuda: str | None, *, has_gpu: bool) -> list[str]:
    """What stands in the way of device="cuda" here, one reason each; empty: nothing."""
    reasons = []
    if not has_gpu:
        reasons.append("a GPU")
    if choice is None:
        reasons.append("PyTorch with Triton, or CuPy: pip install 'infcore[gpu]'")
    elif choice == "triton" and cuda is None:
        reasons.append("a PyTorch that is built with CUDA")
    return reasons


def described(found: Mapping[str, Any]) -> list[str]:
    """Each library as one text."""
    shown = []
    for name, is_version in found["libraries"].items():
        text = f"{name} {is_version}" if is_version else f"no {name}"
        if name == "torch" and is_version:
            text += f" (CUDA {found['torch_cuda']})" if found["torch_cuda"] else " (built without CUDA)"
        shown.append(text)
    return shown
