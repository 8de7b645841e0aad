"""CUDA sources of the operations: how a launch is described, and how CuPy compiles and runs it.

A launch is plain data, so that the host build of the same source (tests/gpu/shim) runs exactly what a GPU would.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SOURCES = Path(__file__).parent
# As in the C++ core: no contraction, no approximate arithmetic. The device code needs no system header.
COMPILE_OPTIONS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")


class CudaLaunch(NamedTuple):
    """One kernel launch. An argument is an int where it is an address, 0 for null, else a NumPy scalar."""

    source: str  # a file below kernels/, "pack/cuda.cuh"
    kernel: str  # the instantiation, every name in full: "infcore::kernels::move_rows<float, int, true, 4096>"
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple[int | np.generic, ...]


@cache
def program_text(source: str) -> str:
    """The translation unit of one operation; includes are relative to kernels/.

    It names what the headers hold, since CuPy keeps compiled code by this text and does not look into headers.
    """
    headers = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCES.rglob("*.cuh"))))
    return f'#include "{source}"\n// {headers.hexdigest()}\n'


@cache
def _function(source: str, kernel: str, device: int) -> Any:
    """A kernel of CuPy's, for the current device."""
    import cupy

    module = cupy.RawModule(
        code=program_text(source),
        options=(*COMPILE_OPTIONS, f"-I{SOURCES}"),
        name_expressions=(kernel,),
    )
    return module.get_function(kernel)


def run(launch: CudaLaunch, *, device: int) -> None:
    """Launch on the current device, which is `device`, and CuPy's current stream."""
    function = _function(launch.source, launch.kernel, device)
    # A Python int has no size of its own; an address has 64 bits.
    arguments = tuple(each if isinstance(each, np.generic) else np.uint64(each) for each in launch.arguments)
    function(launch.grid, launch.block, arguments)
