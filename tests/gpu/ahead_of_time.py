"""What the compilers make of a kernel for a GPU that is not there: registers, spills, and the widths of its accesses.

`cuda_code` compiles with NVRTC in this process. `triton_code` compiles with Triton in a process of its own, since this
one may interpret kernels: that process runs this file. Both read the machine code with the tools that come with Triton.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

CAPABILITIES = (80, 90, 100)  # A100, H100, B200
TIMEOUT_S = 300


class Code(NamedTuple):
    """One kernel's machine code for one GPU."""

    registers: int
    stack_bytes: int
    local_bytes: int
    shared_bytes: int
    ptx_accesses: dict[str, int]  # PTX instructions on global memory: {"ld.global.v4.b32": 8, ...}
    accesses: dict[str, int]  # memory instructions of the machine code: {"LDG.E.128": 8, ...}; empty unless asked for

    def ptx_widths(self, kind: str) -> dict[int, int]:
        """How many global loads ("ld") or stores ("st") the compiler asked ptxas for, of each width in bits."""
        found: Counter[int] = Counter()
        for name, count in self.ptx_accesses.items():
            if name.startswith(kind):
                vector, bits = re.fullmatch(r".*?(?:\.v([24]))?\.[bfsu](\d+)", name).groups()
                found[int(vector or 1) * int(bits)] += count
        return dict(found)

    def widths(self, kind: str) -> dict[int, int]:
        """How many global loads ("LDG") or stores ("STG") the machine code has of each width in bits."""
        found: Counter[int] = Counter()
        for name, count in self.accesses.items():
            if name.startswith(kind):
                width = re.search(r"\.[US]?(8|16|64|128)\b", name)
                found[int(width.group(1)) if width else 32] += count
        return dict(found)

    @property
    def spills(self) -> int:
        """Accesses to local memory in the machine code."""
        return sum(count for name, count in self.accesses.items() if name.startswith(("LDL", "STL")))


class TritonKernel(NamedTuple):
    """A specialisation of a jitted function. A type among the constants is written "tl.fp32", as `constant` does."""

    module: str
    function: str
    signature: dict[str, str]  # argument -> "*i32", "i64", ...; constants are not named
    constants: dict[str, Any]
    options: dict[str, Any]
    aligned: tuple[str, ...]  # arguments that are multiples of 16
    sass: bool = False  # whether the machine code is to be read, too: half a second each


def constant(value: Any) -> Any:
    """A constexpr's value as JSON has it."""
    return f"tl.{value}" if hasattr(value, "primitive_bitwidth") else value


def unavailable() -> str:
    """Why nothing can be compiled here, or nothing."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return "triton is not installed, and with it the tools that read machine code"
    return ""


def cuda_unavailable() -> str:
    """Why NVRTC cannot be used here, or nothing."""
    if unavailable():
        return unavailable()
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except (ImportError, RuntimeError) as e:
        return f"NVRTC is not there: {e}"
    return ""


def code_of(cubin: bytes, ptx: str, sass: bool) -> Code:
    """Reads a cubin of one kernel and the PTX that it was made from."""
    from triton.backends import nvidia

    tools = Path(nvidia.__file__).parent / "bin"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(cubin)
        usage = _printed([tools / "cuobjdump", "--dump-resource-usage", file])
        listing = _printed([tools / "nvdisasm", "--no-dataflow", file]) if sass else ""
    (found,) = re.findall(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    registers, stack, shared, local = map(int, found)
    accesses = Counter(re.findall(r"\b((?:LDG|STG|LDL|STL|LDS|STS|LD|ST)(?:\.\w+)*)\s", listing))
    ptx_accesses = Counter(re.findall(r"\b((?:ld|st)\.global[.\w:]*)\s", ptx))
    return Code(registers, stack, local, shared, dict(ptx_accesses), dict(accesses))


def _printed(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@cache
def cuda_code(source: str, kernel: str, capability: int, sass: bool = False) -> Code:
    """NVRTC's code of one instantiation, with the options that CuPy is given. Nothing is launched."""
    from cupy.cuda import nvrtc

    from infcore.kernels import cuda_module

    program = nvrtc.createProgram(cuda_module.program_text(source), "kernel.cu", (), ())
    try:
        nvrtc.addNameExpression(program, kernel)
        options = (
            *cuda_module.COMPILE_OPTIONS,
            f"-I{cuda_module.SOURCES}",
            f"-arch=sm_{capability}",
            "-Werror=all-warnings",
        )
        try:
            nvrtc.compileProgram(program, options)
        except nvrtc.NVRTCError as e:
            raise AssertionError(nvrtc.getProgramLog(program)) from e
        # CuPy 14.2 leaves the last byte of the ELF file out, a zero.
        return code_of(nvrtc.getCUBIN(program) + b"\0", nvrtc.getPTX(program).decode(), sass)
    finally:
        nvrtc.destroyProgram(program)


def triton_code(kernels: Sequence[TritonKernel], capabilities: Sequence[int] = CAPABILITIES) -> list[list[Code]]:
    """Triton's code of each kernel for each capability; one process compiles them all."""
    request = json.dumps({"kernels": [kernel._asdict() for kernel in kernels], "capabilities": list(capabilities)})
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, __file__],
        input=request,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    return [[Code(**code) for code in codes] for codes in answer]


def _compiled(kernel: TritonKernel, capability: int) -> Code:
    import importlib

    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = getattr(importlib.import_module(kernel.module), kernel.function)
    types = {f"tl.{each}": each for each in vars(tl).values() if isinstance(each, tl.dtype)}
    constants = {
        name: types.get(value, value) if isinstance(value, str) else value for name, value in kernel.constants.items()
    }
    signature = {name: kernel.signature.get(name, "constexpr") for name in function.arg_names}
    attributes = {(function.arg_names.index(name),): [["tt.divisibility", 16]] for name in kernel.aligned}
    made = triton.compile(
        ASTSource(function, signature, constants, attributes),
        target=GPUTarget("cuda", capability, 32),
        options=kernel.options,
    )
    # Shared memory is given at launch, so that the cubin does not tell it.
    return code_of(made.asm["cubin"], made.asm["ptx"], kernel.sass)._replace(shared_bytes=made.metadata.shared)


def readme_row(name: str, backend: str, codes: Sequence[Code]) -> str:
    """What kernels/README.md must say of a kernel's code for CAPABILITIES."""
    registers = " / ".join(str(code.registers) for code in codes)
    middle = codes[1]
    wide = f"{middle.ptx_widths('ld').get(128, 0)}, {middle.ptx_widths('st').get(128, 0)}"
    return f"| {name} | {backend} | {registers} | {middle.shared_bytes} | {wide} |"


def _main() -> None:
    request = json.load(sys.stdin)
    kernels = [TritonKernel(**kernel) for kernel in request["kernels"]]
    codes = [[_compiled(kernel, capability)._asdict() for capability in request["capabilities"]] for kernel in kernels]
    print(json.dumps(codes))


if __name__ == "__main__":
    _main()
