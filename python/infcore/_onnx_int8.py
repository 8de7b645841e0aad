"""Quantise an ONNX file's weights to 8 bits, activations at run time (ONNX Runtime's quantize_dynamic)."""

import importlib
import os
import tempfile
from collections.abc import Sequence
from typing import Any

from infcore.errors import MissingExtra

__all__ = ["quantise"]


def quantise(source: str | bytes, op_types: Sequence[str]) -> bytes:
    """The file's bytes with the weights of these operators as 8-bit integers.

    source   path or bytes of an ONNX file
    Raises   MissingExtra without `onnx`; ValueError if the file holds none of these operators with fixed weights
    """
    try:
        onnx = importlib.import_module("onnx")
        quantization = importlib.import_module("onnxruntime.quantization")
    except ModuleNotFoundError as error:
        raise MissingExtra(f"int8 needs the package {error.name!r}: pip install 'infcore[onnx]'") from error
    model = onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source)
    _constants_to_initializers(model.graph)
    before = _count_ops(model.graph)
    # Marks the model as prepared for quantisation, which the line above was; the library would log that it is not.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    # ConvInteger runs on unsigned weights at a third of the time it takes on signed ones; matrices do not mind.
    signed = "Conv" not in op_types
    kind = quantization.QuantType.QInt8 if signed else quantization.QuantType.QUInt8
    with tempfile.TemporaryDirectory(prefix="infcore-int8-") as folder:
        path = os.path.join(folder, "int8.onnx")
        quantization.quantize_dynamic(
            model,
            path,
            op_types_to_quantize=list(op_types),
            weight_type=kind,
            extra_options={"EnableSubgraph": True},
        )
        with open(path, "rb") as file:
            quantised = file.read()
    after = _count_ops(onnx.load_from_string(quantised).graph)
    if all(after.get(op, 0) == before.get(op, 0) for op in op_types):
        raise ValueError(f"it has nothing to quantise: no {' or '.join(op_types)} with fixed weights")
    return quantised


def _constants_to_initializers(graph: Any) -> None:
    """Weights that an exporter wrote as Constant nodes become initializers, the only weights quantize_dynamic sees."""
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            weights = graph.initializer.add()
            weights.CopyFrom(node.attribute[0].t)
            weights.name = node.output[0]
            continue
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _constants_to_initializers(attribute.g)
        kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _count_ops(graph: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
        for attribute in node.attribute:
            if attribute.HasField("g"):
                for op, n in _count_ops(attribute.g).items():
                    counts[op] = counts.get(op, 0) + n
    return counts
