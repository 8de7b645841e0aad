"""A .cuh of kernels/ as a C++ program under ASAN and UBSAN, and one launch run in it.

The program is built once for each list of kernels and kept in build/; a launch is the very CudaLaunch that CuPy would
get. Addresses in it are pretended ones: `Buffers` hands them out and knows them again.
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
FLAGS = [*cpp_build.BASE_FLAGS, *cpp_build.WARNINGS, "-Wno-unknown-pragmas", *SANITIZERS, "-g1", "-O1"]
SPACING = 1 << 40  # bytes between pretended buffers: none is that large
POISON = 0xA5


class Counted(NamedTuple):
    """What a kernel did to one buffer."""

    read_bytes: int
    written_bytes: int
    wide_reads: int
    wide_writes: int
    overwritten_bytes: int  # written more than once


class Buffers:
    """The memory of the pretended device: bytes in, an address out; after `run` the bytes and counts of each."""

    def __init__(self) -> None:
        self._contents: list[bytes] = []
        self._misaligned_by: list[int] = []
        self.counted: list[Counted] = []
        self.after: list[NDArray[np.uint8]] = []

    def add(self, contents: NDArray[Any], misaligned_by: int = 0) -> int:
        """The address of a copy; misaligned_by bytes (0 to 15) past a multiple of 16."""
        self._contents.append(np.ascontiguousarray(contents).tobytes())
        self._misaligned_by.append(misaligned_by)
        return len(self._contents) * SPACING + misaligned_by

    def add_poisoned(self, n_bytes: int, misaligned_by: int = 0) -> int:
        """The address of memory to be written, filled with what nobody expects."""
        return self.add(np.full(n_bytes, POISON, np.uint8), misaligned_by)

    def _place(self, address: int) -> tuple[int, int]:
        """Number of the buffer, offset in it; null is offset 0 of no buffer."""
        number = address // SPACING - 1
        return (number, address % SPACING - self._misaligned_by[number]) if address else (-1, 0)

    def result(self, address: int, dtype: Any, shape: Sequence[int]) -> NDArray[Any]:
        """What lies there after the run."""
        number, offset = self._place(address)
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.after[number][offset : offset + n_bytes].view(dtype).reshape(shape)

    def counted_at(self, address: int) -> Counted:
        """What was done to the buffer of that address."""
        return self.counted[self._place(address)[0]]

    def write(self, launch: CudaLaunch) -> bytes:
        """The launch and the memory, as host_program.hpp reads them."""
        name = launch.kernel.encode()
        parts = [struct.pack("<I", len(name)), name, struct.pack("<6I", *launch.grid, *launch.block)]
        parts.append(struct.pack("<I", len(self._contents)))
        for contents, misaligned_by in zip(self._contents, self._misaligned_by, strict=True):
            parts += [struct.pack("<QI", len(contents), misaligned_by), contents]
        parts.append(struct.pack("<I", len(launch.arguments)))
        for argument in launch.arguments:
            if isinstance(argument, np.generic):
                parts += [struct.pack("<iI", -1, argument.itemsize), argument.tobytes().ljust(8, b"\0")]
            else:
                number, offset = self._place(argument)
                parts.append(struct.pack("<iIQ", number, 8, offset))
        return b"".join(parts)

    def read(self, written: bytes) -> None:
        """Takes what the program wrote."""
        at = 0
        self.after, self.counted = [], []
        for contents in self._contents:
            self.after.append(np.frombuffer(written, np.uint8, len(contents), at).copy())
            at += len(contents)
            self.counted.append(Counted(*struct.unpack_from("<5Q", written, at)))
            at += struct.calcsize("<5Q")
        assert at == len(written)


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

    def run(self, launch: CudaLaunch, buffers: Buffers) -> None:
        """Run one launch; the buffers then hold what came of it. Fails with what a sanitizer or the shim found."""
        assert launch.kernel in self.kernels, f"{launch.kernel} is not in this build"
        with tempfile.TemporaryDirectory() as folder:
            given, result = Path(folder, "launch"), Path(folder, "result")
            given.write_bytes(buffers.write(launch))
            done = subprocess.run([self.program, given, result], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{launch.kernel}: exit status {done.returncode}\n{done.stderr}"
            buffers.read(result.read_bytes())
