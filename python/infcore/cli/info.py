"""`infcore info`: what is installed, and what this machine has."""

import argparse
import importlib.util
import shutil
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from infcore.cli.common import Parser, add_json, check_writable, write_json

if TYPE_CHECKING:
    from argparse import _SubParsersAction

# Looked for, never imported: importing PyTorch takes seconds and may start a CUDA context.
GPU_PACKAGES = ("torch", "triton", "cupy", "pynvml")
SMI_FIELDS = ("name", "memory.total", "driver_version", "compute_cap")


def add_parser(commands: "_SubParsersAction[Parser]") -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "info",
        help="versions, processor, extras and GPUs found",
        description="Show what infcore finds on this machine.",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def gpus() -> list[dict[str, str]]:
    """The NVIDIA GPUs that nvidia-smi lists; empty without it, or where it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        listed = subprocess.run(
            [program, f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in listed.stdout.splitlines() if line.strip()]
    return [dict(zip(SMI_FIELDS, row, strict=True)) for row in rows if len(row) == len(SMI_FIELDS)]


def onnx_providers() -> list[str]:
    """ONNX Runtime's execution providers; empty if it is not installed or does not load."""
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    try:
        import onnxruntime
    except ImportError:
        return []
    return [str(name) for name in onnxruntime.get_available_providers()]


def collect() -> dict[str, Any]:
    """Everything that is shown, JSON-ready."""
    from infcore.profiling.env import environment
    from infcore.profiling.suite import shipped

    return {
        "schema_version": 1,
        "command": "info",
        "env": environment(),
        "onnx_providers": onnx_providers(),
        "gpu_packages": {name: importlib.util.find_spec(name) is not None for name in GPU_PACKAGES},
        "gpus": gpus(),
        "suites": shipped(),
    }


def text(found: Mapping[str, Any]) -> str:
    """The result as lines of name and value."""
    env = found["env"]
    memory = "unknown" if env["memory_bytes"] is None else f"{env['memory_bytes'] / 2**30:.1f} GiB"
    present = [f"{name} {version}" for name, version in env["packages"].items() if version]
    missing = [name for name, version in env["packages"].items() if not version]
    gpu_packages = [name for name, there in found["gpu_packages"].items() if there]
    rows = [
        ("infcore", env["infcore"] + (f" ({env['commit']})" if env["commit"] else "")),
        ("python", f"{env['implementation']} {env['python']}, {env['platform']}"),
        ("cpu", f"{env['cpu']}, {env['cores']} cores, {env['machine']}"),
        ("cpu features", " ".join(env["cpu_features"]) or "none of those looked for"),
        ("memory", memory),
        ("packages", ", ".join(present)),
        ("not installed", ", ".join(missing) or "-"),
        ("ONNX Runtime", ", ".join(found["onnx_providers"]) or "not installed: pip install 'infcore[onnx]'"),
        ("GPU packages", ", ".join(gpu_packages) or "none"),
        ("suites", ", ".join(found["suites"]) or "none"),
    ]
    rows += [("GPU", ", ".join(gpu.values())) for gpu in found["gpus"]] or [("GPU", "no GPU found")]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def run(arguments: argparse.Namespace) -> int:
    """Collect, show, write."""
    check_writable("--json", arguments.json)
    found = collect()
    if str(arguments.json) != "-":
        print(text(found))
    write_json(arguments.json, found)
    return 0
