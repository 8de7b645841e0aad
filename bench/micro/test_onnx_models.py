"""Time and accuracy of the real models on one thread: fp32, 8-bit matrices (OnnxDevice's default), 8 bits with Conv.

    pytest bench/micro/test_onnx_models.py
Each row runs batches of real inputs and reports the share of right answers beside the time; the rows that a device uses
by default must have every answer right.
"""

import numpy as np
import pytest

import infcore
from infcore.device import Arrays
from infcore.models import Example, RealModel, available, names, onnx_arguments

pytest.importorskip("onnxruntime", reason="the extra infcore[models] is not installed")

REAL, LEFT_OUT = available()
PRECISIONS = {
    "fp32": {},
    "int8": {"int8": True},
    "int8_conv": {"int8": True, "int8_ops": ("MatMul", "Gemm", "Conv")},
}
N_CHECKED = 64


def packed(real: RealModel, examples: list[Example]) -> Arrays:
    inputs = {}
    for spec in real.model.inputs:
        rows = [example.inputs[spec.name] for example in examples]
        held = np.full((len(rows), *np.max([row.shape for row in rows], axis=0)), spec.pad_value, spec.dtype)
        for i, row in enumerate(rows):
            held[(i, *map(slice, row.shape))] = row
        inputs[spec.name] = np.ascontiguousarray(np.moveaxis(held, 0, real.batch_axis.get(spec.name, 0)))
    return inputs


def right(device: infcore.OnnxDevice, real: RealModel, examples: list[Example]) -> int:
    outputs = device.run(real.name, packed(real, examples))
    rows = {name: np.moveaxis(held, real.batch_axis.get(name, 0), 0) for name, held in outputs.items()}
    return sum(real.check(e, {name: held[i] for name, held in rows.items()}) for i, e in enumerate(examples))


@pytest.mark.parametrize("batch_size", [1, 8, 32])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", names())
def test_run(benchmark, name, precision, batch_size):
    if name in LEFT_OUT:
        pytest.skip(LEFT_OUT[name])
    if benchmark.disabled and batch_size != 8:
        pytest.skip("without times to compare, one batch size shows that the row works")
    real = REAL[name]
    if precision != "fp32" and not real.int8:
        pytest.skip(f"{name} has no weights that quantize_dynamic can see")
    device = infcore.OnnxDevice("cpu0", **{**onnx_arguments([real]), **PRECISIONS[precision]})
    device.load(real.model)
    examples = sorted(real.examples(seed=1, n=N_CHECKED), key=lambda e: next(iter(e.inputs.values())).size)
    middle = (N_CHECKED - batch_size) // 2
    inputs = packed(real, examples[middle : middle + batch_size])
    benchmark.pedantic(
        device.run, args=(name, inputs), rounds=7, iterations=1 if name != "silero_vad" else 20, warmup_rounds=1
    )
    correct = sum(right(device, real, examples[i : i + batch_size]) for i in range(0, N_CHECKED, batch_size))
    benchmark.extra_info["right"] = correct / N_CHECKED
    benchmark.extra_info["input_shapes"] = {key: held.shape for key, held in inputs.items()}
    if precision != "int8_conv":
        assert correct == N_CHECKED
