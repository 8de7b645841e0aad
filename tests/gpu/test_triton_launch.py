"""Launches without Triton's dispatch hand the driver what Triton's dispatch would, and compile what it would.

Triton looks at TRITON_INTERPRET once: a process of its own runs this file, with a driver that writes down its launches.
"""

import json
import os
import subprocess
import sys
from typing import Any
from unittest import mock

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

    sides: dict[str, Any] = {"triton": [], "ours": []}
    # Several shapes and sizes, so that numbers are 0, 1, multiples of 16 and none.
    for size_bytes in (1 << 10, 3000):
        for workload in OPERATIONS[op].workloads(np.random.default_rng(0), size_bytes):
            call = workload.build(TorchDevice("cpu")).call
            launches.made.clear()
            with mock.patch.dict(triton_launch._compiled, clear=True):
                call()
            sides["triton"].append(launches.made[-1])
            for _ in range(2):
                call()
            sides["ours"].append(launches.made[-1])
    return sides


def specialised_numbers() -> list[str]:
    """Numbers of the kernels whose values Triton would compile for: those that are not annotated, and integers that are
    not named in do_not_specialize."""
    from infcore.kernels.block_table.triton_kernel import fill_tables
    from infcore.kernels.image_pack.triton_kernel import pack_images
    from infcore.kernels.pack.triton_kernel import move_rows

    found = []
    for function, n_tensors in ((move_rows, 5), (pack_images, 2), (fill_tables, 4)):
        for parameter in function.params[n_tensors:]:
            is_float = parameter.annotation_type.startswith("fp")
            if not (parameter.is_constexpr or is_float or (parameter.annotation_type and parameter.do_not_specialize)):
                found.append(f"{function.__name__}: {parameter.name}")
    return found


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
    from triton.runtime import driver

    launches = Launches()
    driver.set_active(launches)
    from infcore.kernels import backends

    with mock.patch.object(backends, "interpreted", lambda: True):  # tensors of the CPU are let through
        return {op: of_operation(op, launches) for op in OPS} | {
            "alignments": alignments(launches),
            "specialised_numbers": specialised_numbers(),
        }


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
    assert len(told[op]["ours"]) >= 4
    for ours, triton in zip(told[op]["ours"], told[op]["triton"], strict=True):
        assert ours == triton


def test_numbers_compile_nothing_anew(told: dict[str, Any]) -> None:
    assert told["specialised_numbers"] == []


def test_what_is_not_aligned_is_not_launched_as_if_it_were(told: dict[str, Any]) -> None:
    aligned, misaligned, *again = told["alignments"]
    assert aligned != misaligned
    assert again == [aligned, misaligned]


if __name__ == "__main__":
    print(json.dumps(told_by_another_process()))
