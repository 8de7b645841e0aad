"""magika: what kind of file do these bytes make? Google's model, Apache-2.0, out of the package `magika`.

Pre-processing as the package's own README and config describe it: white space off both ends, then the first and the
last 1,024 bytes as integers, 256 where there are fewer.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from infcore.errors import InvalidType
from infcore.models import file_samples
from infcore.models.zoo import Example, RealModel, package_file
from infcore.request import Model

__all__ = ["Magika"]

_FOLDER = "models/standard_v3_3"
_SPACE = b" \t\n\r\v\f"


class Magika(RealModel):
    """Bytes to file type, one of the package's labels ("python", "png", ...)."""

    source = "magika (Apache-2.0)"

    def __init__(self) -> None:
        self.path = package_file("magika", "magika", f"{_FOLDER}/model.onnx")
        config = json.loads(package_file("magika", "magika", f"{_FOLDER}/config.min.json").read_text("utf-8"))
        self.labels: tuple[str, ...] = tuple(config["target_labels_space"])
        self._n_first, self._n_last = int(config["beg_size"]), int(config["end_size"])
        self._block, self._padding = int(config["block_size"]), int(config["padding_token"])
        self.model = Model(
            "magika",
            inputs={"bytes": ("int32", (self._n_first + self._n_last,))},
            outputs={"target_label": ("float32", (len(self.labels),))},
            max_batch_size=32,
        )

    def features(self, data: bytes) -> npt.NDArray[np.int32]:
        """A file's bytes as the model wants them: (2048,) int32. Reads at most a block of 4,096 at each end."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise InvalidType(f"data is {type(data).__name__}; allowed: bytes")
        whole = memoryview(data).cast("B")
        first = bytes(whole[: self._block]).lstrip(_SPACE)[: self._n_first]
        last = bytes(whole[-self._block :]).rstrip(_SPACE)[-self._n_last :]
        features = np.full(self._n_first + self._n_last, self._padding, np.int32)
        features[: len(first)] = np.frombuffer(first, np.uint8)
        if last:
            features[-len(last) :] = np.frombuffer(last, np.uint8)
        return features

    def examples(self, seed: int, n: int) -> list[Example]:
        """Files of infcore's own and files written here, of many types; expected is the label."""
        samples = file_samples.samples(seed, n)
        return [Example("magika", {"bytes": self.features(s.data)}, s.label, s.about) for s in samples]

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]]) -> str:
        return self.labels[int(np.argmax(outputs["target_label"]))]

    def describe(self, outputs: Mapping[str, npt.NDArray[Any]]) -> str:
        return f"{self.answer(outputs)} ({float(outputs['target_label'].max()):.2f})"
