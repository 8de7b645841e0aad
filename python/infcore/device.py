"""Devices: what runs a batch. The base class, a plain callable, and an emulated device with a latency curve."""

from __future__ import annotations

import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from infcore import _checks
from infcore._core.device import Timer
from infcore.errors import InvalidArgument, InvalidType, UnknownName
from infcore.request import Array, Model

if TYPE_CHECKING:  # numpy.typing takes milliseconds to import
    from numpy.typing import NDArray

    from infcore._core.arena import Region
    from infcore.kernels.staging import StagedRows

__all__ = ["Arrays", "CallableDevice", "Curve", "DenseInput", "Device", "EmulatedDevice", "StagedBatch"]

Arrays = dict[str, Array]
Outputs = Mapping[str, "Array | list[Array]"]


class Curve(NamedTuple):
    """Seconds that a batch of n requests with works w takes, as four numbers >= 0.

    base_s + per_request_s * n + per_work_s * sum(w) + per_padded_work_s * n * max(w)
    """

    base_s: float = 0.0
    per_request_s: float = 0.0
    per_work_s: float = 0.0
    per_padded_work_s: float = 0.0

    def seconds(self, n_requests: int, work_sum: float, work_max: float) -> float:
        """What the curve says of a batch, in seconds."""
        padded = self.per_padded_work_s * n_requests * work_max
        return self.base_s + self.per_request_s * n_requests + self.per_work_s * work_sum + padded


class DenseInput(NamedTuple):
    """Where one input of a StagedBatch lies that is no ragged row: C-contiguous from byte `at` of its memory."""

    at: int
    shape: tuple[int, ...]
    dtype: str


class StagedBatch(NamedTuple):
    """A batch as it lies in its device's staging memory: one block of bytes that one copy takes to the device.

    memory  (bytes,) uint8, from a multiple of 64 on: nobody else's until its last view is gone
    inputs  {name: StagedRows of infcore.kernels.staging} where only the first axis is ragged: the rows end to end with
            their tables, for infcore.kernels.pack. DenseInput for the others: the batch axis where batch_axis says,
            padded to the longest where ragged
    works   (n,) float64: how much work each request is, in the unit of the latency curves
    """

    memory: NDArray[np.uint8]
    inputs: dict[str, StagedRows | DenseInput]
    works: NDArray[np.float64]

    @property
    def n_requests(self) -> int:
        """How many requests the batch has."""
        return len(self.works)


class Device(ABC):
    """What runs batches. Subclass it with your own `run`; load, unload, curve and close may be overridden too.

    A device that packs by itself sets takes_staged, and then an engine calls run_staged instead of run.

    name, kind, zone, location, memory_bytes, price_per_hour (US dollars), rtt_s, slots, pending_max, labels
                 what the fleet knows of it; `slots` is how many batches an engine sends it at once: its one worker
                 runs them in turn, so more than 1 only hides the hand-over. `pending_max`: requests that it has been
                 sent and has not answered at which it is sent nothing more; None: no bound
    models       names of the models that it can serve, "name:2" for one version of one; None: any
    batch_axis   {input or output name: the axis where this device wants and returns the batch}; 0 where none is given
    run_limit_s  a run longer than this marks the device lost; None: no limit
    watts        power while it runs, for energy estimates; None: unknown
    curves       {model name: the four numbers of a Curve}: what to predict before anything was measured
    emulated     True where no real computation happens; reports always show it
    check        None, or a method without arguments: a cheap look at the device, which returns soon and raises where it
                 is not well. An engine that judges health calls it on the device's thread while nothing runs there:
                 once a second while the device is ejected (good ones bring it back sooner), else when nothing was heard
                 of it for 10 s (bad ones in a row eject it). Not of emulated devices, nor of those that take tokens

    Raises InvalidType or InvalidArgument naming the argument, the value and what is allowed.
    """

    emulated: bool = False
    takes_staged: bool = False
    takes_tokens: bool = False
    check: Callable[[], object] | None = None

    def __init__(
        self,
        name: str,
        *,
        kind: str = "cpu",
        zone: str = "",
        location: str = "cloud",
        memory_bytes: int = 0,
        price_per_hour: float = 0.0,
        rtt_s: float = 0.0,
        slots: int = 1,
        pending_max: int | None = None,
        labels: Mapping[str, str] | None = None,
        models: Sequence[str] | None = None,
        batch_axis: Mapping[str, int] | None = None,
        run_limit_s: float | None = 30.0,
        watts: float | None = None,
        curves: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.name = _checks.text("name", name)
        self.kind = _checks.text("kind", kind)
        self.zone = _checks.string("zone", zone)
        self.location = _checks.string("location", location)
        self.memory_bytes = _checks.integer("memory_bytes", memory_bytes, 0)
        self.price_per_hour = _checks.finite("price_per_hour", price_per_hour)
        self.rtt_s = _checks.finite("rtt_s", rtt_s)
        self.slots = _checks.integer("slots", slots, 1)
        self.pending_max = None if pending_max is None else _checks.integer("pending_max", pending_max, 1, 2**24)
        self.labels = _labels({} if labels is None else labels)
        self.models = None if models is None else _checks.names("models", models)
        axes = _checks.mapping("batch_axis", {} if batch_axis is None else batch_axis)
        self.batch_axis: Mapping[str, int] = MappingProxyType(
            {_checks.text("batch_axis", k): _checks.integer(f"batch_axis[{k!r}]", v, 0) for k, v in axes.items()}
        )
        self.run_limit_s = _checks.optional_finite("run_limit_s", run_limit_s, above=True)
        self.watts = _checks.optional_finite("watts", watts)
        self._curves = _curves({} if curves is None else curves)
        self._loaded: dict[str, Model] = {}

    @property
    def display_name(self) -> str:
        """The name as reports show it: an emulated device says so."""
        return f"{self.name} (emulated)" if self.emulated else self.name

    @property
    def batch_limit_s(self) -> float | None:
        """How long an engine waits for a batch before it takes the device for lost."""
        return self.run_limit_s

    def would_take(self, model: Model) -> bool:
        """Whether an engine loads a model here: one that `models` lists; where it lists none, any but token models."""
        return self.models is not None or model.by_token == self.takes_tokens

    def load(self, model: Model) -> None:
        """Get ready to run a model; called on the device's own thread, or as an engine starts, before its first run.

        Raises UnknownName if `models` leaves it out, InvalidArgument if batch_axis does not fit its arrays.
        """
        if self.models is not None and model.name not in self.models:
            raise UnknownName(
                f"model {model.name!r} is not served by device {self.name!r}; it serves {list(self.models)}"
            )
        for spec in (*model.inputs, *model.outputs):
            if self.batch_axis.get(spec.name, 0) > len(spec.shape):
                raise InvalidArgument(
                    f"batch_axis[{spec.name!r}] of device {self.name!r} is {self.batch_axis[spec.name]}; model "
                    f"{model.name!r} allows 0 to {len(spec.shape)}"
                )
        self._loaded[model.name] = model

    def unload(self, name: str) -> None:
        """Forget a model; nothing happens if it is not loaded."""
        self._loaded.pop(name, None)

    @abstractmethod
    def run(self, model_name: str, inputs: Arrays) -> Arrays:
        """Run one batch, on a thread of the device's own; may release the GIL.

        inputs   {name: array} with the batch axis where batch_axis says (0 if it says nothing), C-contiguous, ragged
                 axes padded to the longest of the batch; only valid until this returns
        Returns  {name: array}: every output of the model, the batch axis likewise where batch_axis says
                 A list instead of an array: n arrays, each request's own, without the batch axis
        Raises   whatever went wrong; the engine then retries the members of the batch one by one, once
        """

    def run_staged(self, model_name: str, batch: StagedBatch) -> Outputs:
        """Run one batch that lies in staging memory; called instead of run where takes_staged is True. See run."""
        raise NotImplementedError(f"{type(self).__name__} has takes_staged, but no run_staged")

    def staging_memory(self, n_bytes: int) -> Any:
        """Memory to stage batches in: a writable buffer of at least n_bytes, pinned where that makes copies faster.

        Called on the device's own thread, and again when a batch comes that two do not fit into the last.
        """
        return np.empty(n_bytes, np.uint8)

    def curve(self, model_name: str) -> Curve | None:
        """The curve to start predicting with, until completions have been measured; None: unknown."""
        return self._curves.get(model_name)

    def staged_batch(
        self,
        model_name: str,
        region: Region,
        places: list[tuple[str, int, NDArray[np.int64] | None, tuple[int, ...]]],
        works: NDArray[np.float64],
    ) -> StagedBatch:
        """What run_staged is handed, of what an engine's staging wrote: name, place, lengths or else a dense shape."""
        from infcore.kernels.staging import StagedRows

        specs = {spec.name: spec for spec in self._model(model_name).inputs}
        inputs: dict[str, StagedRows | DenseInput] = {}
        for name, at, lengths, shape in places:
            dtype = specs[name].dtype.name
            if lengths is None:
                inputs[name] = DenseInput(at, shape, dtype)
            else:
                trailing = tuple(length or 0 for length in specs[name].shape[1:])
                inputs[name] = StagedRows(at, len(lengths), dtype, trailing, lengths)
        return StagedBatch(region.array, inputs, works)

    def close(self) -> None:
        """Give everything back; called once, after the last run."""
        self._loaded.clear()

    def _model(self, name: str) -> Model:
        try:
            return self._loaded[name]
        except KeyError:
            raise UnknownName(
                f"model {name!r} is not loaded on device {self.name!r}; loaded are {sorted(self._loaded)}"
            ) from None

    def __repr__(self) -> str:
        models = "any model" if self.models is None else f"models={list(self.models)}"
        note = ", emulated" if self.emulated else ""
        return f"{type(self).__name__}({self.name!r}{note}, kind={self.kind!r}, {models})"


class CallableDevice(Device):
    """A device whose run is a function of yours: run(model_name, inputs) -> outputs, as Device.run describes them.

    check  see Device
    The other arguments are those of Device.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[str, Arrays], Arrays],
        *,
        check: Callable[[], object] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        if check is not None and not callable(check):
            raise InvalidType(f"check is {type(check).__name__}; allowed: None, or a callable without arguments")
        self.check = check
        if not callable(run):
            raise InvalidType(f"run is {type(run).__name__}; allowed: a callable run(model_name, inputs) -> outputs")
        self._run = run

    def run(self, model_name: str, inputs: Arrays) -> Arrays:
        return self._run(model_name, inputs)


class EmulatedDevice(Device):
    """A device that computes nothing: it takes as long as a latency curve says, answers zeros and is shown as emulated.

    base_s, per_request_s, per_work_s, per_padded_work_s
            the Curve of every model that `curves` does not name; all >= 0
    cv      coefficient of variation: each time is the curve's times a lognormal factor of mean 1
    load_s  seconds that loading a model takes
    seed    with the name it gives the factors: same name, seed and calls, same times
    Outputs are of the model's shapes and dtypes, a ragged axis of length 0: an emulated device has nothing to say.
    The other arguments are those of Device.
    """

    emulated = True

    def __init__(
        self,
        name: str,
        *,
        base_s: float = 0.0,
        per_work_s: float = 0.0,
        per_request_s: float = 0.0,
        per_padded_work_s: float = 0.0,
        cv: float = 0.0,
        load_s: float = 0.0,
        seed: int = 0,
        curves: Mapping[str, Sequence[float]] | None = None,
        kind: str = "gpu",
        **options: Any,
    ) -> None:
        super().__init__(name, curves=curves, kind=kind, **options)
        self._curve = _curve("", (base_s, per_request_s, per_work_s, per_padded_work_s))
        seed = _checks.integer("seed", seed, 0, 2**32 - 1) << 32 | zlib.crc32(self.name.encode())
        self.timer = Timer(_checks.finite("cv", cv), seed)
        self._load_s = _checks.finite("load_s", load_s)

    def load(self, model: Model) -> None:
        time.sleep(self._load_s)
        super().load(model)

    def curve(self, model_name: str) -> Curve:
        """The curve this device follows for a model."""
        return self._curves.get(model_name, self._curve)

    def service_s(self, model_name: str, n_requests: int, work_sum: float, work_max: float) -> float:
        """Seconds that the next batch takes: the curve's, times the next lognormal factor."""
        return self.timer.service_s(self.curve(model_name), n_requests, work_sum, work_max)

    def outputs(self, model: Model, n_requests: int) -> Arrays:
        """Zeros for n_requests, the batch axis where batch_axis says."""
        zeros = {}
        for spec in model.outputs:
            shape = [length or 0 for length in spec.shape]
            shape.insert(self.batch_axis.get(spec.name, 0), n_requests)
            zeros[spec.name] = np.zeros(shape, spec.dtype)
        return zeros

    def run(self, model_name: str, inputs: Arrays) -> Arrays:
        """Sleep as long as the batch takes and answer zeros; the work is counted on the padded inputs.

        An engine does not call this: it waits by itself, without the GIL, on the works it knows.
        """
        model = self._model(model_name)
        first = model.inputs[0].name
        rows = {key: np.moveaxis(held, self.batch_axis.get(key, 0), 0) for key, held in inputs.items()}
        n_requests = len(rows[first])
        works = [model.work_of({key: held[i] for key, held in rows.items()}) for i in range(n_requests)]
        time.sleep(self.service_s(model_name, n_requests, sum(works), max(works, default=0.0)))
        return self.outputs(model, n_requests)


def _labels(given: object) -> dict[str, str]:
    return {
        _checks.text("a key of labels", key): _checks.string(f"labels[{key!r}]", value)
        for key, value in _checks.mapping("labels", given).items()
    }


def _curves(given: object) -> dict[str, Curve]:
    return {
        _checks.text("a key of curves", name): _curve(f"curves[{name!r}].", numbers)
        for name, numbers in _checks.mapping("curves", given).items()
    }


def _curve(where: str, numbers: object) -> Curve:
    if not isinstance(numbers, (tuple, list)) or len(numbers) != len(Curve._fields):
        raise InvalidType(f"{where[:-1]} is {numbers!r}; allowed: {Curve._fields}")
    return Curve(
        *(_checks.finite(f"{where}{field}", value) for field, value in zip(Curve._fields, numbers, strict=True))
    )
