"""Two models of PaddleOCR, Apache-2.0, out of the package `rapidocr-onnxruntime`: what does this line of text say, and
is it upside down? Pictures are scaled to 48 pixels high and to -1..1, as the package's own configuration says.
"""

import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from infcore.models.rendered_text import draw, line
from infcore.models.zoo import Example, RealModel, package_file
from infcore.onnx_device import onnx_runtime
from infcore.request import Model

__all__ = ["TextDirection", "TextRecognition"]

_PACKAGE = "rapidocr_onnxruntime"
_HEIGHT = 48
_DIRECTION_WIDTH = 192


class TextRecognition(RealModel):
    """A line of text as a picture to its characters. The picture's width is ragged; work is its width in pixels.

    A batch is padded with 0, mid grey, on the right, as in training: the model reads nothing there.
    """

    source = "rapidocr-onnxruntime (Apache-2.0)"
    _output = "softmax_11.tmp_0"

    def __init__(self) -> None:
        self.path = package_file("rapidocr_rec", _PACKAGE, "models/ch_PP-OCRv4_rec_infer.onnx")
        # Class 0 says that there is no new character here; the last class is the blank between words.
        self.characters = ("", *_metadata(self.path, "character").splitlines(), " ")
        self.model = Model(
            "rapidocr_rec",
            inputs={"x": ("float32", (3, _HEIGHT, None))},
            outputs={self._output: ("float32", (None, len(self.characters)))},
            max_batch_size=8,
            work=_width,
            pad_value={"x": 0.0},
        )

    def pixels(self, picture: Image.Image) -> npt.NDArray[np.float32]:
        """A picture as the model wants it: (3, 48, width) float32 in -1..1."""
        return _pixels(picture, max(1, math.ceil(_HEIGHT * picture.width / picture.height)))

    def examples(self, seed: int, n: int) -> list[Example]:
        """Lines drawn with Pillow, of many widths; expected is the text."""
        chosen = []
        for i in range(n):
            text, picture = _picture(random.Random(f"rec {seed} {i}"))
            chosen.append(Example("rapidocr_rec", {"x": self.pixels(picture)}, text, "drawn line"))
        return chosen

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]]) -> str:
        best = np.argmax(outputs[self._output], axis=1)
        before = np.concatenate([[0], best[:-1]])
        return "".join(self.characters[i] for i in best[(best != 0) & (best != before)])

    def check(self, example: Example, outputs: Mapping[str, npt.NDArray[Any]]) -> bool:
        """Whether the text was read. Blanks do not count: the model adds and drops them, and PaddleOCR's metric too."""
        return self.answer(outputs).replace(" ", "") == str(example.expected).replace(" ", "")

    def describe(self, outputs: Mapping[str, npt.NDArray[Any]]) -> str:
        return repr(self.answer(outputs))


class TextDirection(RealModel):
    """A line of text as a picture to whether it is upside down: 0 or 180 degrees."""

    source = "rapidocr-onnxruntime (Apache-2.0)"
    _output = "save_infer_model/scale_0.tmp_1"

    def __init__(self) -> None:
        self.path = package_file("rapidocr_cls", _PACKAGE, "models/ch_ppocr_mobile_v2.0_cls_infer.onnx")
        self.model = Model(
            "rapidocr_cls",
            inputs={"x": ("float32", (3, _HEIGHT, _DIRECTION_WIDTH))},
            outputs={self._output: ("float32", (2,))},
            max_batch_size=32,
        )

    def pixels(self, picture: Image.Image) -> npt.NDArray[np.float32]:
        """A picture as the model wants it: (3, 48, 192) float32 in -1..1, a long one squeezed, a short one padded."""
        width = min(_DIRECTION_WIDTH, max(1, math.ceil(_HEIGHT * picture.width / picture.height)))
        held = np.zeros((3, _HEIGHT, _DIRECTION_WIDTH), np.float32)
        held[:, :, :width] = _pixels(picture, width)
        return held

    def examples(self, seed: int, n: int) -> list[Example]:
        """Lines drawn with Pillow, every second one turned upside down; expected is 0 or 180."""
        chosen = []
        for i in range(n):
            text, picture = _picture(random.Random(f"cls {seed} {i}"))
            degrees = 180 * (i % 2)
            inputs = {"x": self.pixels(picture.rotate(degrees))}
            chosen.append(Example("rapidocr_cls", inputs, degrees, f"drawn {text!r}"))
        return chosen

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]]) -> int:
        return 180 * int(np.argmax(outputs[self._output]))

    def describe(self, outputs: Mapping[str, npt.NDArray[Any]]) -> str:
        return f"{self.answer(outputs)} degrees ({float(outputs[self._output].max()):.2f})"


def _width(inputs: Mapping[str, npt.NDArray[Any]]) -> float:
    return float(inputs["x"].shape[2])


def _picture(rng: random.Random) -> tuple[str, Image.Image]:
    text = line(rng)
    return text, draw(text, size=rng.randint(30, 48), ink=rng.randint(0, 60), paper=rng.randint(200, 255))


def _pixels(picture: Image.Image, width: int) -> npt.NDArray[np.float32]:
    scaled = picture.convert("RGB").resize((width, _HEIGHT), Image.Resampling.BILINEAR)
    colours_last = np.asarray(scaled, np.float32)[:, :, ::-1] / 127.5 - 1.0  # blue first, as in training
    return np.ascontiguousarray(colours_last.transpose(2, 0, 1))


def _metadata(path: object, key: str) -> str:
    """One entry of an ONNX file's metadata, without optimising the model first."""
    ort = onnx_runtime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    value: str = session.get_modelmeta().custom_metadata_map[key]
    return value
