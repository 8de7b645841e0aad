"""A .cuh of kernels/ as a C++ program under ASAN and UBSAN, and one launch run in it.

The program is built once for each list of kernels and kept in build/; a launch is the very CudaLaunch that CuPy would
get. Its addresses are those that `Memory` hands out, and the program puts the buffers just there.
"""

import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cpp_build
import numpy as np
import pytest
from numpy.typing import NDArray

from infcore.kernels.cuda_module import SOURCES, CudaLaunch, program_text

BUILD = cpp_build.ROOT / "build" / "gpu_shim"
SHIM = Path(__file__).parent / "shim"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
TRACED = ["-fsanitize-coverage=trace-pc"]  # by which the shim knows what threads of a warp do together
FLAGS = [*cpp_build.BASE_FLAGS, *cpp_build.WARNINGS, "-Wno-unknown-pragmas", *SANITIZERS, *TRACED, "-g1", "-O1"]
# Where buffers lie, in the pretended device as in the program: above the address sanitizer's shadow, below programs and
# libraries, on x86-64 and aarch64. No buffer is larger than the spacing.
FIRST_ADDRESS = 0x3000_0000_0000
SPACING = 1 << 32
POISON = 0xA5


class Counted(NamedTuple):
    """What a kernel did to one buffer."""

    read_bytes: int  # distinct ones of each load of a warp
    written_bytes: int
    wide_reads: int
    wide_writes: int
    overwritten_bytes: int  # written more than once


class Memory:
    """The pretended device's memory, a buffer for each allocation, as the last launch left it, and what was counted."""

    def __init__(self) -> None:
        self._contents: list[NDArray[np.uint8]] = []
        self._begins: list[int] = []
        self.counted: list[Counted] = []

    def add(self, contents: NDArray[Any], misaligned_by: int = 0) -> int:
        """The address of a copy; misaligned_by bytes past a multiple of 16."""
        self._contents.append(np.frombuffer(np.ascontiguousarray(contents).tobytes(), np.uint8).copy())
        self._begins.append(FIRST_ADDRESS + len(self._begins) * SPACING + misaligned_by)
        self.counted.append(Counted(0, 0, 0, 0, 0))
        return self._begins[-1]

    def add_poisoned(self, n_bytes: int, misaligned_by: int = 0) -> int:
        """The address of memory to be written, filled with what nobody expects."""
        return self.add(np.full(n_bytes, POISON, np.uint8), misaligned_by)

    def at(self, address: int, n_bytes: int) -> NDArray[np.uint8]:
        """What lies there; a view."""
        number = (address - FIRST_ADDRESS) // SPACING
        offset = address - self._begins[number]
        assert 0 <= offset <= offset + n_bytes <= self._contents[number].size
        return self._contents[number][offset : offset + n_bytes]

    def counted_at(self, address: int) -> Counted:
        """What the last launch did to the buffer of that address."""
        return self.counted[(address - FIRST_ADDRESS) // SPACING]

    def written(self, launch: CudaLaunch) -> bytes:
        """The launch and the memory, as host_program.hpp reads them."""
        name = launch.kernel.encode()
        parts = [struct.pack("<I", len(name)), name, struct.pack("<6I", *launch.grid, *launch.block)]
        parts.append(struct.pack("<I", len(self._contents)))
        for begin, contents in zip(self._begins, self._contents, strict=True):
            parts += [struct.pack("<QQ", begin, len(contents)), contents.tobytes()]
        parts.append(struct.pack("<I", len(launch.arguments)))
        for argument in launch.arguments:
            value = argument if isinstance(argument, np.generic) else np.uint64(argument)
            parts += [struct.pack("<I", value.itemsize), value.tobytes().ljust(8, b"\0")]
        return b"".join(parts)

    def read(self, result: bytes) -> None:
        """Takes what the program wrote."""
        at = 0
        for k, contents in enumerate(self._contents):
            contents[:] = np.frombuffer(result, np.uint8, contents.size, at)
            at += contents.size
            self.counted[k] = Counted(*struct.unpack_from("<5Q", result, at))
            at += struct.calcsize("<5Q")
        assert at == len(result)


class HostBuild:
    """The program of some kernels of one source."""

    def __init__(self, source: str, kernels: Sequence[str]) -> None:
        if shutil.which(cpp_build.CXX) is None:
            pytest.skip(f"no {cpp_build.CXX}: CUDA sources are run on the host only where there is a C++ compiler")
        self.kernels = sorted(set(kernels))
        rows = "\n".join(f'      shim::Called<&{name}>::named("{name}"),' for name in self.kernels)
        text = f'#include "host_program.hpp"\n\n{program_text(source)}\nint main(int argc, char** argv) {{\n'
        text += f"  return shim::run(argc, argv, {{\n{rows}\n  }});\n}}\n"
        self.program = self._built(text)

    @staticmethod
    def _built(text: str) -> Path:
        """Compiled unless that has been done from the very same text, headers and flags."""
        headers = sorted([*SHIM.glob("*.hpp"), *SOURCES.rglob("*.cuh")])
        inputs = [text, *(path.read_text() for path in headers), cpp_build.CXX, *FLAGS]
        folder = BUILD / hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]
        program = folder / "program"
        if not program.exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "program.cpp").write_text(text)
            # Two builds at once may not see each other's halves.
            made = folder / f"program.{os.getpid()}"
            command = [cpp_build.CXX, *FLAGS, f"-I{SHIM}", f"-I{SOURCES}", str(folder / "program.cpp"), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
            made.rename(program)
        return program

    def run(self, launch: CudaLaunch, memory: Memory) -> None:
        """Run one launch on that memory. Fails with what a sanitizer or the shim found."""
        assert launch.kernel in self.kernels, f"{launch.kernel} is not in this build"
        with tempfile.TemporaryDirectory() as folder:
            given, result = Path(folder, "launch"), Path(folder, "result")
            given.write_bytes(memory.written(launch))
            done = subprocess.run([self.program, given, result], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{launch.kernel}: exit status {done.returncode}\n{done.stderr}"
            memory.read(result.read_bytes())
