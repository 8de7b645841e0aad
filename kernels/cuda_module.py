"""CUDA sources of the operations: how a launch is described, and how CuPy compiles and runs it.

A launch is plain data, so that the host build of the same source (tests/gpu/shim) runs exactly what a GPU would.
"""

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


def program_text(source: str) -> str:
    """The translation unit of one operation; includes are relative to kernels/."""
    return f'#include "{source}"\n'


@cache
def _function(source: str, kernel: str, device: int) -> Any:
    """A kernel of CuPy's for the current device; CuPy keeps the compiled code on disk."""
    import cupy

    module = cupy.RawModule(
        code=program_text(source),
        options=(*COMPILE_OPTIONS, f"-I{SOURCES}"),
        name_expressions=(kernel,),
    )
    return module.get_function(kernel)


def run(launch: CudaLaunch, *, device: int, stream: Any = None) -> None:
    """Launch on the current device, which is `device`, on a CuPy stream; None is CuPy's current stream."""
    function = _function(launch.source, launch.kernel, device)
    function(launch.grid, launch.block, launch.arguments, stream=stream)
