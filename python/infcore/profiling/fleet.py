"""A suite's models and devices made real: inputs with known answers, devices, an engine per policy."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import infcore
from infcore.errors import MissingExtra
from infcore.profiling import energy
from infcore.profiling.arrivals import stream
from infcore.profiling.contract import Engine, Inputs, Outputs
from infcore.profiling.suite import DeviceSpec, ModelLoad, Suite

# Requests of a model cycle through this many inputs with known answers, made before the run.
EXAMPLES_EACH = 16
_STREAM_SYNTHETIC = 4


def known_policies() -> list[str]:
    """Names of the routing policies that an engine takes."""
    return list(infcore.Router.policies())


class Served(ABC):
    """What the harness needs of one model: its infcore.Model, inputs, and the check of an answer."""

    model: infcore.Model
    inputs: Sequence[Inputs]

    @abstractmethod
    def check(self, example: int, outputs: Outputs) -> bool:
        """Whether these are the right outputs for that example."""


class SyntheticModel(Served):
    """y = 2 x + 1 on a vector: needs NumPy alone, and every answer can be checked exactly."""

    def __init__(self, load: ModelLoad, seed: int, index: int) -> None:
        shape = (load.features,)
        self.model = infcore.Model(
            load.name,
            inputs={"x": ("float32", shape)},
            outputs={"y": ("float32", shape)},
            max_batch_size=load.max_batch_size or 64,
            slo_s=load.slo_s,
        )
        rng = stream(seed, _STREAM_SYNTHETIC, index)
        self.inputs = [{"x": rng.random(shape, dtype=np.float32)} for _ in range(EXAMPLES_EACH)]

    def check(self, example: int, outputs: Outputs) -> bool:
        """Exact equality: the device computes the same expression."""
        return bool(np.array_equal(outputs["y"], _synthetic(self.inputs[example]["x"])))


class PackagedModel(Served):
    """A real model out of an installed package, with the inputs and checks that infcore.models makes for it."""

    def __init__(self, load: ModelLoad, seed: int) -> None:
        from infcore import models

        self.real = models.load(load.name)
        self.model = self.real.model.replace(
            max_batch_size=load.max_batch_size or self.real.model.max_batch_size, slo_s=load.slo_s
        )
        self._examples = self.real.examples(seed, EXAMPLES_EACH)
        self.inputs = [example.inputs for example in self._examples]

    def check(self, example: int, outputs: Outputs) -> bool:
        """What the model itself says of the answer."""
        return self.real.check(self._examples[example], outputs)


def _synthetic(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x * np.float32(2.0) + np.float32(1.0)


def _run_synthetic(model_name: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {"y": _synthetic(inputs["x"])}


@dataclass
class OpenFleet:
    """A suite that is ready to serve. Engines come one after another; each gets devices of its own."""

    models: tuple[ModelLoad, ...]
    devices: tuple[DeviceSpec, ...]
    notes: list[str]
    seed: int
    served: dict[str, Served]

    def examples(self, model: str) -> Sequence[Inputs]:
        """The model's inputs, each {name: array} without the batch axis."""
        return self.served[model].inputs

    def check(self, model: str, example: int, outputs: Outputs) -> bool:
        """Whether these are the right outputs for that input."""
        return self.served[model].check(example, outputs)

    @contextmanager
    def engine(self, policy: str) -> Iterator[Engine]:
        """A fresh engine under that policy; what is still open at the end of the `with` is not waited for."""
        engine = infcore.Engine(
            devices=[self._device(spec) for spec in self.devices],
            models=[self.served[model.name].model for model in self.models],
            policy=policy,
            seed=self.seed,
        )
        try:
            yield engine.start()
        finally:
            engine.close(drain=False)

    def _device(self, spec: DeviceSpec) -> infcore.Device:
        options: dict[str, Any] = {"price_per_hour": spec.price_per_hour, "rtt_s": spec.rtt_s, "watts": spec.busy_w}
        if spec.kind == "emulated":
            curves = {c.model: (c.base_s, c.per_request_s, c.per_work_s, c.per_padded_work_s) for c in spec.curves}
            return infcore.EmulatedDevice(spec.name, curves=curves, cv=spec.cv, seed=self.seed, **options)
        if spec.kind == "callable":
            return infcore.CallableDevice(spec.name, _run_synthetic, **options)
        from infcore import models

        real = [served.real for served in self.served.values() if isinstance(served, PackagedModel)]
        return infcore.OnnxDevice(
            spec.name,
            **models.onnx_arguments(real, int8=spec.precision == "int8"),
            threads=spec.threads,
            **options,
        )


def _kept(suite: Suite, served: Mapping[str, Served]) -> tuple[ModelLoad, ...]:
    """The models that can be served, their shares stretched to add up to 1."""
    kept = [load for load in suite.models if load.name in served]
    total = sum(load.share for load in kept)
    return tuple(replace(load, share=load.share / total) for load in kept)


@contextmanager
def open_fleet(suite: Suite, *, seed: int) -> Iterator[OpenFleet]:
    """Load the suite's models and make their examples.

    A model whose package is not there is left out with a note. Raises MissingExtra if that leaves none, or if a device
    needs ONNX Runtime and it is not there; UnknownName for a packaged model that infcore does not know.
    """
    if any(device.kind == "onnx" for device in suite.devices) and importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtra(f"suite {suite.name!r} needs the package 'onnxruntime': pip install 'infcore[bench]'")
    served: dict[str, Served] = {}
    notes = []
    for index, load in enumerate(suite.models):
        try:
            served[load.name] = (
                SyntheticModel(load, seed, index) if load.kind == "synthetic" else PackagedModel(load, seed)
            )
        except MissingExtra as error:
            notes.append(f"Left out: {error}.")
    if not served:
        raise MissingExtra(f"suite {suite.name!r} has no model that can be served here. {' '.join(notes)}")
    kept = _kept(suite, served)
    devices = tuple(
        replace(device, curves=tuple(curve for curve in device.curves if curve.model in served))
        for device in suite.devices
    )
    notes += energy.notes(devices)
    yield OpenFleet(kept, devices, notes, seed, served)
