"""Launches without Triton's dispatch hand the driver what Triton's dispatch would, and compile what it would.

Triton looks at TRITON_INTERPRET once: a process of its own runs this file, with a driver that writes down its launches.
"""

import json
import os
import subprocess
import sys
from typing import Any

import dispatch
import pytest

OPS = ["pack", "unpack", "image_pack", "block_table"]


class Launches(dispatch.NoDriver):
    """Writes down the arguments of each launch; what compiled code is launched is told by its constants and options."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        which = (source.name, str(source.signature), str(source.constants), str(source.attrs), str(metadata.maxnreg))

        def launched(*arguments: Any) -> None:
            grid, arguments = arguments[:3], arguments[9:]
            # Tensors that the operation makes lie elsewhere in each call.
            told = [(str(a.dtype), tuple(a.shape)) if hasattr(a, "data_ptr") else str(a) for a in arguments]
            self.made.append((*which, grid, told))

        return launched


def of_operation(op: str, launches: Launches) -> dict[str, Any]:
    """Launches of calls by Triton's dispatch, and of the same calls by ours, the first of which is Triton's."""
    import numpy as np
    from operations import OPERATIONS
    from places import TorchDevice

    from infcore.kernels import triton_launch

    sides: dict[str, list[Any]] = {"triton": [], "ours": []}
    # Several shapes and sizes, so that numbers are 0, 1, multiples of 16 and none.
    for size_bytes in (1 << 10, 1 << 12, 3000):
        for workload in OPERATIONS[op].workloads(np.random.default_rng(0), size_bytes):
            call = workload.build(TorchDevice("cpu")).call
            for side in sides:
                for _ in range(2):
                    if side == "triton":
                        triton_launch._compiled.clear()
                    launches.made.clear()
                    call()
                sides[side].append(launches.made[-1])
    return {**sides, "n_compiled": len(triton_launch._compiled)}


def alignments(launches: Launches) -> list[Any]:
    """The same launch with `out` aligned and not: whether it is launched as aligned."""
    import torch

    from infcore.kernels.pack import triton_kernel
    from infcore.kernels.pack.plan import plan

    made = plan(
        rows_from="packed", rows_to="packed", src="float32", dst="float16", n_rows=2, max_seqlen=0, longest=4,
        step_elements=3, alignment=2,
    )  # fmt: skip
    memory, cu_seqlens = torch.zeros(64), torch.zeros(3, dtype=torch.int32)
    targets = torch.zeros(64, dtype=torch.float16)
    launches.made.clear()
    for begin in (0, 1, 0, 1):
        triton_kernel.launch(made, memory, cu_seqlens, 0, targets[begin:], None, None)
    return [launch[3] for launch in launches.made]


def told_by_another_process() -> dict[str, Any]:
    from unittest import mock

    from triton.runtime import driver

    launches = Launches()
    driver.set_active(launches)
    from infcore.kernels import backends

    with mock.patch.object(backends, "interpreted", lambda: True):  # tensors of the CPU are let through
        return {op: of_operation(op, launches) for op in OPS} | {"alignments": alignments(launches)}


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    pytest.importorskip("torch", reason="PyTorch is not installed: no tensors")
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(dispatch.__file__), *sys.path])
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("op", OPS)
def test_the_driver_is_handed_the_same(told: dict[str, Any], op: str) -> None:
    assert len(told[op]["ours"]) >= 6
    for ours, triton in zip(told[op]["ours"], told[op]["triton"], strict=True):
        assert ours == triton


@pytest.mark.parametrize("op", OPS)
def test_sizes_compile_nothing_anew(told: dict[str, Any], op: str) -> None:
    codes = {tuple(map(str, launch[:5])) for launch in told[op]["triton"]}
    assert told[op]["n_compiled"] >= 1
    assert len(codes) <= len(told[op]["triton"]) / 2


def test_what_is_not_aligned_is_not_launched_as_if_it_were(told: dict[str, Any]) -> None:
    aligned, misaligned, *again = told["alignments"]
    assert aligned != misaligned
    assert again == [aligned, misaligned]


if __name__ == "__main__":
    print(json.dumps(told_by_another_process()))
