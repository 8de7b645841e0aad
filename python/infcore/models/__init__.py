"""Real models, with inputs made here whose right answers are known (extra `models`): see infcore.models.zoo."""

from infcore.models.zoo import Example, RealModel, available, load, names, onnx_arguments

__all__ = ["Example", "RealModel", "available", "load", "names", "onnx_arguments"]
