"""The real models by name, and what each offers: its Model, its file, examples, and a check of the answers."""

import importlib
import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from infcore.device import Arrays
from infcore.errors import MissingExtra, UnknownName
from infcore.request import Model

__all__ = ["Example", "RealModel", "available", "load", "names", "onnx_arguments", "package_file"]

_MODULES = {
    "magika": ("infcore.models.magika", "Magika"),
    "silero_vad": ("infcore.models.silero_vad", "SileroVad"),
    "rapidocr_rec": ("infcore.models.rapidocr", "TextRecognition"),
    "rapidocr_cls": ("infcore.models.rapidocr", "TextDirection"),
}


@dataclass(frozen=True, slots=True)
class Example:
    """One request whose right answer is known.

    inputs    {name: array}, without the batch axis, ready for the model
    expected  the right answer, in the model's own terms (a label, a text, True for speech, degrees)
    about     what the input was made from, for reports
    session   which stream this is a part of, and where in it; None for models without sessions
    """

    model: str
    inputs: Arrays
    expected: Any
    about: str
    session: tuple[int, ...] | None = None


class RealModel(ABC):
    """A model file out of an installed package, its pre-processing, and inputs with known answers.

    model       the infcore.Model; change its limits with model.replace(...)
    path        of the ONNX file
    batch_axis  for OnnxDevice: {input or output: axis of the batch}
    constants   for OnnxDevice: {input: array} that the file wants with every run
    int8        whether OnnxDevice(int8=...) finds weights to quantise in the file
    source      package and licence
    """

    model: Model
    path: Path
    batch_axis: Mapping[str, int] = {}
    constants: Mapping[str, npt.NDArray[Any]] = {}
    int8: bool = True
    source: str

    @property
    def name(self) -> str:
        """The name that requests use."""
        return self.model.name

    @abstractmethod
    def examples(self, seed: int, n: int) -> list[Example]:
        """n requests with known answers; the same for the same seed and package versions."""

    @abstractmethod
    def answer(self, outputs: Mapping[str, npt.NDArray[Any]]) -> Any:
        """The outputs of one request, without the batch axis, in the terms of Example.expected."""

    @abstractmethod
    def describe(self, outputs: Mapping[str, npt.NDArray[Any]]) -> str:
        """The outputs of one request in words."""

    def check(self, example: Example, outputs: Mapping[str, npt.NDArray[Any]]) -> bool:
        """Whether the outputs are the example's right answer."""
        return bool(self.answer(outputs) == example.expected)

    def follow(self, example: Example, outputs: Mapping[str, npt.NDArray[Any]]) -> Example | None:
        """The next request of the example's session, given the answer to it; None at its end or without sessions."""
        return None


def names() -> tuple[str, ...]:
    """All real models, installed or not."""
    return tuple(_MODULES)


def load(name: str) -> RealModel:
    """A real model by name.

    Raises UnknownName for a name that is not in names(), MissingExtra where its package is not installed.
    """
    if name not in _MODULES:
        raise UnknownName(f"no real model {name!r}; there are {list(_MODULES)}")
    module, class_name = _MODULES[name]
    try:
        made = getattr(importlib.import_module(module), class_name)()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "infcore":
            raise
        raise MissingExtra(f"{name} needs the package {error.name!r}: pip install 'infcore[models]'") from error
    assert isinstance(made, RealModel)
    return made


def available() -> tuple[dict[str, RealModel], dict[str, str]]:
    """Every real model that can be used here, by name, and for each other one the reason why not."""
    usable, left_out = {}, {}
    for name in _MODULES:
        try:
            usable[name] = load(name)
        except MissingExtra as error:
            left_out[name] = str(error)
    return usable, left_out


def onnx_arguments(models: Iterable[RealModel], *, int8: bool = False) -> dict[str, Any]:
    """What OnnxDevice needs to serve these models: OnnxDevice("cpu0", **onnx_arguments(models), threads=1).

    int8  True: the models that can be are quantised to 8 bits, the others stay as they are
    """
    chosen = list(models)
    return {
        "models": {real.name: real.path for real in chosen},
        "batch_axis": {key: axis for real in chosen for key, axis in real.batch_axis.items()},
        "constants": {real.name: dict(real.constants) for real in chosen if real.constants},
        "int8": tuple(real.name for real in chosen if int8 and real.int8),
    }


def package_file(name: str, package: str, part: str) -> Path:
    """The path of a file inside an installed package, which is not imported: its own needs may not be there.

    Raises MissingExtra where the package, or the file in it, is not installed.
    """
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root, *part.split("/"))
        if path.is_file():
            return path
    if spec is not None:
        raise MissingExtra(f"{name} needs {part} in the package {package!r}, and this version has none")
    if package == "rapidocr_onnxruntime" and sys.version_info >= (3, 13):
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise MissingExtra(f"{name} is left out: rapidocr-onnxruntime wants Python < 3.13, and this is {here}")
    raise MissingExtra(f"{name} needs the package {package!r}: pip install 'infcore[models]'")
