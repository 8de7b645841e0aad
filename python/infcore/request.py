"""What a request to a model looks like: its inputs and outputs, how it may be batched, and how much work it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from infcore import _checks
from infcore.errors import InvalidArgument, InvalidType, UnknownName

if TYPE_CHECKING:  # numpy.typing takes milliseconds to import
    from numpy.typing import DTypeLike

__all__ = ["Array", "Model", "TensorSpec"]

Array = np.ndarray[Any, np.dtype[Any]]
PolicyOption = float | str | Sequence[str]
Work = None | str | Callable[[Mapping[str, Array]], float]

_RANK_MAX = 31  # NumPy 1.26 arrays have at most 32 axes, and a batch needs one of them


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of one request, without the batch axis.

    name       as the device knows it
    dtype      numeric or bool, of fixed size and native byte order
    shape      a length >= 1 per axis; None: ragged, it differs from request to request
    pad_value  what fills a ragged axis up to the longest of its batch (inputs only)
    ragged     the ragged axes, in order
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    pad_value: float = 0.0
    ragged: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        _checks.text("name", self.name)
        object.__setattr__(self, "dtype", _dtype(self.name, self.dtype))
        object.__setattr__(self, "shape", _shape(self.name, self.shape))
        object.__setattr__(self, "ragged", tuple(i for i, length in enumerate(self.shape) if length is None))
        object.__setattr__(self, "pad_value", _pad_value(self.name, self.dtype, self.pad_value))


class Model:
    """An immutable description of what one request to a model carries and gets back.

    name, version      how requests and devices call it
    inputs, outputs    {name: (dtype, shape)} per request, without the batch axis; None in a shape: ragged.
                       Kept as tuples of TensorSpec, in the order given
    max_batch_size     most requests in one run
    max_batch_delay_s  the longest that a free device may be held back for more requests to join a batch; 0: never. The
                       dynamic rule holds it less: at most a quarter of a batch's fixed cost, and only where it pays
    length_buckets     ascending upper ends of work: a batch holds requests of one of the ranges, the last without end.
                       Where the measured curve says what padding costs, that decides instead
    preferred_batch_sizes  ascending: a batch is cut down to the largest of them that it reaches, unless a deadline
                       presses or somebody has waited long
    work               what the latency model counts. None: every request is 1.0; the name of an input: its number of
                       elements; a callable: it is given the inputs of one request, and returns a number >= 0
    idempotent         whether a request may run a second time after its device was lost
    weights_bytes      of a device's memory, while it is loaded there; load_s: seconds that a load takes, until one was
                       measured (0: not known). What an engine with residency= goes by: a load that takes its device's
                       run_limit_s longer, or ten times as long, or ten minutes where nothing is known, loses the device
    slo_s              the goal for the time from submit to result; None: no goal
    fallback           name of a model with the same inputs and outputs that answers in its place under load, where the
                       engine's admission has "cheaper"; None: there is none
    defer_s            how long its requests may be put off under load, where that has "off_peak"; 0: not at all.
                       Engine.close() waits for those, too, unless told not to
    pad_value          {input name: value} for ragged inputs; 0 where none is given

    Raises InvalidType or InvalidArgument naming the argument, the value and what is allowed.
    """

    by_token = False  # whether answers come token by token: a TokenModel

    __slots__ = (
        "defer_s",
        "fallback",
        "idempotent",
        "inputs",
        "length_buckets",
        "load_s",
        "max_batch_delay_s",
        "max_batch_size",
        "name",
        "outputs",
        "preferred_batch_sizes",
        "slo_s",
        "version",
        "weights_bytes",
        "work",
    )

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int
    max_batch_delay_s: float
    length_buckets: tuple[float, ...]
    preferred_batch_sizes: tuple[int, ...]
    work: Work
    idempotent: bool
    version: int
    slo_s: float | None
    fallback: str | None
    defer_s: float
    weights_bytes: int
    load_s: float

    def __init__(
        self,
        name: str,
        inputs: Mapping[str, tuple[DTypeLike, tuple[int | None, ...]]],
        outputs: Mapping[str, tuple[DTypeLike, tuple[int | None, ...]]],
        *,
        max_batch_size: int = 64,
        max_batch_delay_s: float = 0.002,
        length_buckets: Sequence[float] = (),
        preferred_batch_sizes: Sequence[int] = (),
        work: Work = None,
        idempotent: bool = True,
        version: int = 1,
        slo_s: float | None = None,
        pad_value: Mapping[str, float] | None = None,
        fallback: str | None = None,
        defer_s: float = 0.0,
        weights_bytes: int = 0,
        load_s: float = 0.0,
    ) -> None:
        put = object.__setattr__  # the object's own assignment refuses
        put(self, "name", _checks.text("name", name))
        pads = _checks.mapping("pad_value", {} if pad_value is None else pad_value)
        put(self, "inputs", _specs("inputs", inputs, pads))
        put(self, "outputs", _specs("outputs", outputs, {}))
        for key in pads:
            if key not in {spec.name for spec in self.inputs}:
                raise UnknownName(f"pad_value names {key!r}; allowed: the inputs {[spec.name for spec in self.inputs]}")
        put(self, "max_batch_size", _checks.integer("max_batch_size", max_batch_size, 1))
        put(self, "max_batch_delay_s", _checks.finite("max_batch_delay_s", max_batch_delay_s))
        put(self, "length_buckets", _checks.ascending("length_buckets", length_buckets))
        sizes = _checks.ascending("preferred_batch_sizes", preferred_batch_sizes, 1, self.max_batch_size)
        put(self, "preferred_batch_sizes", tuple(_checks.whole("preferred_batch_sizes", n) for n in sizes))
        put(self, "work", self._work(work))
        put(self, "idempotent", _checks.flag("idempotent", idempotent))
        put(self, "version", _checks.integer("version", version, 1))
        put(self, "slo_s", _checks.optional_finite("slo_s", slo_s, above=True))
        put(self, "fallback", None if fallback is None else _checks.text("fallback", fallback))
        if fallback == name:
            raise InvalidArgument(f"fallback is {fallback!r}, the model itself; allowed: another model's name, or None")
        put(self, "defer_s", _checks.finite("defer_s", defer_s))
        put(self, "weights_bytes", _checks.integer("weights_bytes", weights_bytes, 0, 2**62))
        put(self, "load_s", _checks.finite("load_s", load_s))
        if self.load_s > 1e6:
            raise InvalidArgument(f"load_s is {load_s!r}; allowed: at most 1e6 seconds")

    def work_of(self, inputs: Mapping[str, Array]) -> float:
        """How much work one request with these inputs is, in the unit of the latency curves.

        inputs  {name: array} of one request, without the batch axis
        Raises  InvalidArgument where the model's own callable returns something else than a number >= 0; what that
                callable raises itself is passed on.
        """
        if self.work is None:
            return 1.0
        if isinstance(self.work, str):
            return float(np.size(inputs[self.work]))
        return _checks.finite(f"work of a request to {self.name!r}", self.work(inputs))

    def replace(self, **changes: Any) -> Model:
        """The same model with some of its constructor's arguments changed; pad values go with their inputs."""
        given = self._arguments()
        kept = changes.get("inputs", given["inputs"])
        given["pad_value"] = {name: value for name, value in given["pad_value"].items() if name in kept}
        return Model(**{**given, **changes})

    def _arguments(self) -> dict[str, Any]:
        given: dict[str, Any] = {slot: getattr(self, slot) for slot in Model.__slots__}
        given["inputs"] = {spec.name: (spec.dtype, spec.shape) for spec in self.inputs}
        given["outputs"] = {spec.name: (spec.dtype, spec.shape) for spec in self.outputs}
        given["pad_value"] = {spec.name: spec.pad_value for spec in self.inputs}
        return given

    def _work(self, work: object) -> Work:
        if work is None or callable(work):
            return work
        if not isinstance(work, str):
            raise InvalidType(f"work is {type(work).__name__}; allowed: None, the name of an input, or a callable")
        allowed = [spec.name for spec in self.inputs]
        if work not in allowed:
            raise UnknownName(f"work is {work!r}; allowed: None, a callable, or one of the inputs {allowed}")
        return work

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"Model is immutable: cannot set {name!r}; use replace({name}=...)")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"Model is immutable: cannot delete {name!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return tuple(getattr(self, slot) for slot in Model.__slots__)

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Model], tuple[dict[str, Any]]]:
        return _rebuild, (self._arguments(),)

    def __repr__(self) -> str:
        arrays = f"inputs={_shown(self.inputs)}, outputs={_shown(self.outputs)}"
        return f"Model({self.name!r}, version={self.version}, {arrays})"


def _rebuild(arguments: dict[str, Any]) -> Model:
    return Model(**arguments)


def _shown(specs: tuple[TensorSpec, ...]) -> str:
    return "{" + ", ".join(f"{spec.name!r}: ({spec.dtype.name!r}, {spec.shape})" for spec in specs) + "}"


def _specs(field_name: str, given: object, pads: Mapping[str, float]) -> tuple[TensorSpec, ...]:
    table = _checks.mapping(field_name, given)
    if not table:
        raise InvalidArgument(f"{field_name} is empty; allowed: at least one {{name: (dtype, shape)}}")
    specs = []
    for name, kind in table.items():
        _checks.text(f"a name in {field_name}", name)
        if not isinstance(kind, (tuple, list)) or len(kind) != 2:
            raise InvalidType(f"{field_name}[{name!r}] is {kind!r}; allowed: (dtype, shape)")
        specs.append(TensorSpec(name, kind[0], kind[1], pads.get(name, 0.0)))
    return tuple(specs)


def _dtype(name: str, given: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(given)
    except TypeError:
        raise InvalidType(f"dtype of {name!r} is {given!r}; allowed: a numeric or bool NumPy dtype") from None
    if given is None or dtype.kind not in "biufc":
        raise InvalidType(f"dtype of {name!r} is {given!r}; allowed: a numeric or bool NumPy dtype")
    if not dtype.isnative:
        raise InvalidArgument(f"dtype of {name!r} is {given!r}; allowed: this machine's byte order")
    return dtype


def _shape(name: str, given: Any) -> tuple[int | None, ...]:
    if not isinstance(given, (tuple, list)):
        raise InvalidType(f"shape of {name!r} is {given!r}; allowed: a tuple of integers >= 1, None where ragged")
    if len(given) > _RANK_MAX:
        raise InvalidArgument(f"shape of {name!r} has {len(given)} axes; allowed: at most {_RANK_MAX}")
    return tuple(
        None if length is None else _checks.integer(f"shape of {name!r}, axis {axis}", length, 1)
        for axis, length in enumerate(given)
    )


def _pad_value(name: str, dtype: np.dtype[Any], given: object) -> float:
    allowed = f"allowed: a number that {dtype.name} holds"
    if not isinstance(given, (bool, int, float, np.bool_, np.integer, np.floating)):
        raise InvalidType(f"pad_value of {name!r} is {type(given).__name__}; {allowed}")
    if dtype.kind in "fc":
        return float(given)
    try:
        with np.errstate(all="ignore"):
            fits = bool(np.array(given).astype(dtype) == given)
    except (ValueError, OverflowError):
        fits = False
    if not fits:
        raise InvalidArgument(f"pad_value of {name!r} is {given!r}; {allowed}")
    return int(given)
