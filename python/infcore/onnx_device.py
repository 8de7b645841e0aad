"""A device that runs ONNX files with ONNX Runtime, on the execution providers it is told to use."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infcore import _checks
from infcore.device import Arrays, Device
from infcore.errors import DeviceError, InvalidArgument, InvalidType, MissingExtra, UnknownName
from infcore.request import Array, Model, TensorSpec

if TYPE_CHECKING:  # numpy.typing takes milliseconds to import
    from numpy.typing import ArrayLike

__all__ = ["OnnxDevice"]

_CPU = "CPUExecutionProvider"
_INT8_OPS = ("MatMul", "Gemm", "LSTM", "Attention")
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True, slots=True)
class _Loaded:
    """One model on the device: its session, the outputs to ask for, and the batch size of its file if that is fixed."""

    session: Any
    outputs: tuple[str, ...]
    batch_fixed: int | None
    constants: Mapping[str, Array]


class OnnxDevice(Device):
    """A device that runs ONNX files with ONNX Runtime (extra `onnx`).

    models            {model name: path of its file, or the file's bytes}
    threads           of one run; they sleep when idle instead of spinning. 1: the device's own thread does the work
    providers         execution providers by name, the first that takes an operator runs it
    provider_options  {provider: its options}
    int8              True, or the names of the models whose weights to quantise to 8 bits (quantize_dynamic): done once
                      for each, at its first load. Check the answers: it changes them
    int8_ops          operators to quantise. Conv is left out by default: on CPU its dynamic 8-bit form was slower than
                      fp32 for every convolutional model tried (bench/micro/test_onnx_models.py)
    constants         {model name: {input: array}}: inputs that the file wants and that are the same for every request
    batch_axis        {input or output name: axis of the batch in the file}, 0 where none is given
    The other arguments are those of Device.

    Arrays go to the file and come back as they are, in the file's own layout; the engine puts the batch where
    batch_axis says. Outputs of the file that the Model does not name are not computed. Where the file fixes its batch
    size to k, a batch is run k requests at a time, the last run filled up by repeating its last request.
    Raises MissingExtra without ONNX Runtime, UnknownName for a provider that this build of it lacks, and at load
    InvalidArgument where the file and the Model disagree and DeviceError where the file cannot be run.
    """

    def __init__(
        self,
        name: str,
        models: Mapping[str, str | os.PathLike[str] | bytes],
        *,
        threads: int = 1,
        providers: Sequence[str] = (_CPU,),
        provider_options: Mapping[str, Mapping[str, Any]] | None = None,
        int8: bool | Sequence[str] = False,
        int8_ops: Sequence[str] = _INT8_OPS,
        constants: Mapping[str, Mapping[str, ArrayLike]] | None = None,
        **options: Any,
    ) -> None:
        self._files = {_checks.text("models", k): _file(k, v) for k, v in _checks.mapping("models", models).items()}
        if not self._files:
            raise InvalidArgument("models is empty; allowed: at least one {name: path or bytes}")
        super().__init__(name, models=tuple(self._files), **options)
        self.threads = _checks.integer("threads", threads, 1)
        self._ort = onnx_runtime()
        self.providers = self._providers(providers)
        given = _checks.mapping("provider_options", {} if provider_options is None else provider_options)
        self._known("provider_options", given, self.providers)
        self._provider_options = [dict(given.get(provider, {})) for provider in self.providers]
        if isinstance(int8, bool):
            self.int8 = tuple(self._files) if int8 else ()
        else:
            self.int8 = _checks.names("int8", int8)
            self._known("int8", self.int8, self._files)
        self.int8_ops = _checks.names("int8_ops", int8_ops)
        fixed = _checks.mapping("constants", {} if constants is None else constants)
        self._known("constants", fixed, self._files)
        self._constants = {k: {key: np.asarray(v) for key, v in held.items()} for k, held in fixed.items()}
        self._quantised: dict[str, bytes] = {}
        self._sessions: dict[str, _Loaded] = {}

    def load(self, model: Model) -> None:
        """Open the model's file and check that it takes and gives what the Model says.

        Raises InvalidArgument naming the input or output that differs, DeviceError where the file cannot be read,
        quantised or run by the first provider.
        """
        super().load(model)
        try:
            session = self._session(model.name)
            constants = self._constants.get(model.name, {})
            wanted = {arg.name: arg for arg in session.get_inputs() if arg.name not in constants}
            there = {arg.name: arg for arg in session.get_outputs()}
            self._agree(model, "inputs", model.inputs, wanted, all_of_them=True)
            self._agree(model, "outputs", model.outputs, there, all_of_them=False)
            batch_fixed = self._batch_fixed(model, wanted | there)
        except BaseException:
            super().unload(model.name)
            raise
        names = tuple(spec.name for spec in model.outputs)
        self._sessions[model.name] = _Loaded(session, names, batch_fixed, constants)

    def unload(self, name: str) -> None:
        """Close a model's session; its quantised form, if any, is kept."""
        super().unload(name)
        self._sessions.pop(name, None)

    def run(self, model_name: str, inputs: Arrays) -> Arrays:
        """Run one batch; without the GIL while ONNX Runtime computes. See Device.run."""
        self._model(model_name)
        loaded = self._sessions[model_name]
        if loaded.batch_fixed is not None:
            return self._run_fixed(loaded, loaded.batch_fixed, inputs)
        return dict(zip(loaded.outputs, self._call(loaded, inputs), strict=True))

    def close(self) -> None:
        """Close every session."""
        super().close()
        self._sessions.clear()

    def _call(self, loaded: _Loaded, inputs: Arrays) -> list[Array]:
        outputs: list[Array] = loaded.session.run(loaded.outputs, {**inputs, **loaded.constants})
        return outputs

    def _run_fixed(self, loaded: _Loaded, batch_size: int, inputs: Arrays) -> Arrays:
        first = next(iter(inputs))
        n_requests = inputs[first].shape[self.batch_axis.get(first, 0)]
        parts = []
        for start in range(0, n_requests, batch_size):
            rows = np.minimum(np.arange(start, start + batch_size), n_requests - 1)
            chunk = {key: np.take(held, rows, axis=self.batch_axis.get(key, 0)) for key, held in inputs.items()}
            parts.append(self._call(loaded, chunk))
        joined = {}
        for i, name in enumerate(loaded.outputs):
            axis = self.batch_axis.get(name, 0)
            whole = np.concatenate([part[i] for part in parts], axis=axis)
            joined[name] = whole[(slice(None),) * axis + (slice(n_requests),)]
        return joined

    def _session(self, name: str) -> Any:
        source: str | bytes = self._files[name]
        if name in self.int8:
            if name not in self._quantised:
                self._quantised[name] = self._quantise(name, source)
            source = self._quantised[name]
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; warnings about a file's own metadata are not for our caller
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = self._ort.InferenceSession(
                source, options, providers=list(self.providers), provider_options=self._provider_options
            )
        except Exception as error:
            raise DeviceError(f"device {self.name!r} cannot open model {name!r}: {error}") from error
        running = session.get_providers()
        for provider in self.providers:  # ONNX Runtime falls back to the CPU without an error
            if provider not in running:
                raise DeviceError(
                    f"device {self.name!r}: provider {provider!r} did not start for model {name!r}; there are {running}"
                )
        return session

    def _quantise(self, name: str, source: str | bytes) -> bytes:
        from infcore._onnx_int8 import quantise

        try:
            return quantise(source, self.int8_ops)
        except MissingExtra:
            raise
        except Exception as error:
            raise DeviceError(f"device {self.name!r} cannot quantise model {name!r} to int8: {error}") from error

    def _providers(self, given: object) -> tuple[str, ...]:
        providers = _checks.names("providers", given)
        if not providers:
            raise InvalidArgument("providers is empty; allowed: at least one name")
        there = self._ort.get_available_providers()
        for provider in providers:
            if provider not in there:
                raise UnknownName(f"providers has {provider!r}; this build of ONNX Runtime has {there}")
        return providers

    def _known(self, field: str, names: Any, allowed: Any) -> None:
        for name in names:
            if name not in allowed:
                raise UnknownName(f"{field} names {name!r}; device {self.name!r} has {list(allowed)}")

    def _agree(
        self, model: Model, field: str, specs: tuple[TensorSpec, ...], args: Mapping[str, Any], all_of_them: bool
    ) -> None:
        where = f"device {self.name!r}, model {model.name!r}"
        names = [spec.name for spec in specs]
        for spec in specs:
            if spec.name not in args:
                raise InvalidArgument(f"{where}: the file has no {field[:-1]} {spec.name!r}; it has {sorted(args)}")
            arg = args[spec.name]
            if _DTYPES.get(arg.type) != spec.dtype.name:
                raise InvalidArgument(f"{where}: {spec.name!r} is {spec.dtype.name}; the file has {arg.type}")
            if arg.shape and not self._fits(spec, arg.shape):
                raise InvalidArgument(
                    f"{where}: {spec.name!r} is {spec.shape} with the batch at axis "
                    f"{self.batch_axis.get(spec.name, 0)}; the file has {arg.shape}"
                )
        missing = sorted(set(args) - set(names)) if all_of_them else []
        if missing:
            raise InvalidArgument(
                f"{where}: the file also wants the inputs {missing}; name them in the Model, or in constants= where "
                "they are the same for every request"
            )

    def _fits(self, spec: TensorSpec, file_shape: Sequence[Any]) -> bool:
        if len(file_shape) != len(spec.shape) + 1:
            return False
        own = list(file_shape)
        own.pop(self.batch_axis.get(spec.name, 0))
        return all(not isinstance(there, int) or there == length for there, length in zip(own, spec.shape, strict=True))

    def _batch_fixed(self, model: Model, args: Mapping[str, Any]) -> int | None:
        sizes = {}
        for spec in model.inputs:
            shape = args[spec.name].shape
            size = shape[self.batch_axis.get(spec.name, 0)] if shape else None
            sizes[spec.name] = size if isinstance(size, int) else None
        if len(set(sizes.values())) > 1:
            raise InvalidArgument(
                f"device {self.name!r}, model {model.name!r}: the file's batch sizes differ, {sizes}; allowed: one "
                "size, or None (any) for all, at the axes that batch_axis gives"
            )
        return next(iter(sizes.values()))


def onnx_runtime() -> Any:
    """The onnxruntime module, imported now. Raises MissingExtra without it."""
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise MissingExtra(f"this needs the package {error.name!r}: pip install 'infcore[onnx]'") from error


def _file(name: str, given: object) -> str | bytes:
    if isinstance(given, bytes):
        return given
    if not isinstance(given, (str, os.PathLike)):
        raise InvalidType(f"models[{name!r}] is {type(given).__name__}; allowed: a path, or the file's bytes")
    path = os.fspath(given)
    if not isinstance(path, str) or not os.path.isfile(path):
        raise InvalidArgument(f"models[{name!r}] is {path!r}; allowed: the path of a file that exists")
    return path
