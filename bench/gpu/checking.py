"""Correctness: cases of every operation, run in one place after another and held against NumPy's answer."""

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from infcore.kernels import dtypes

N_WRONG_TOLD = 20


class Place(Protocol):
    """What a case needs of a place; see places.py."""

    backend: str
    where: str
    device: str

    def array(self, values: NDArray[Any], misaligned_by: int = 0) -> Any: ...

    def poisoned(self, shape: Any, dtype: str, misaligned_by: int = 0) -> Any: ...

    def numpy(self, array: Any, dtype: str) -> NDArray[Any]: ...

    def case(self) -> Any: ...


class Output(NamedTuple):
    """One array of an answer."""

    name: str
    got: NDArray[Any]
    expected: NDArray[Any]
    ulps: int = 0  # of the target type that it may be off; 0: the same bits


class Case(NamedTuple):
    """Inputs drawn already; run launches them in a place and reads the answer back."""

    op: str
    says: str
    run: Callable[[Place], list[Output]]


def is_float(values: NDArray[Any]) -> bool:
    """Whether the dtype is one of the floats; ml_dtypes' kind is not NumPy's."""
    return str(values.dtype) in dtypes.FLOATS


def ulps_apart(got: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.int64]:
    """How many representable numbers lie between; a NaN is 0 from a NaN, and far from all else."""
    bits = 8 * got.dtype.itemsize
    ordered = []
    for values in (got, expected):
        whole = values.view(f"int{bits}").astype(np.int64)
        ordered.append(np.where(whole < 0, -(1 << (bits - 1)) - whole, whole))
    apart = np.abs(ordered[0] - ordered[1])
    nan_got, nan_expected = np.isnan(got), np.isnan(expected)
    return np.where(nan_got & nan_expected, 0, np.where(nan_got ^ nan_expected, 1 << bits, apart))


def wrong_of(output: Output) -> str:
    """What is wrong with an answer, or nothing."""
    name, got, expected, ulps = output
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return f"{name} is {got.dtype} {got.shape}, expected {expected.dtype} {expected.shape}"
    if ulps and is_float(expected):
        bad = ulps_apart(got, expected) > ulps
    else:
        item = f"u{expected.dtype.itemsize}"
        bad = got.view(item) != expected.view(item)
    if not bad.any():
        return ""
    first = tuple(int(k) for k in np.argwhere(bad)[0])
    return f"{name}: {int(bad.sum())} of {bad.size} differ, first at {first}: {got[first]}, expected {expected[first]}"


class Result(NamedTuple):
    """Of one operation in one place."""

    op: str
    backend: str
    where: str
    n_cases: int
    ulps_max: int  # the worst of the outputs that need not be the same bits
    wrong: list[str]

    def row(self) -> dict[str, Any]:
        """For the JSON document."""
        return {"kind": "correctness", **self._asdict(), "wrong": self.wrong[:N_WRONG_TOLD], "n_wrong": len(self.wrong)}


def run(op: str, cases: Iterable[Case], place: Place) -> Result:
    """Every case; what is wrong is collected. A case that raises is wrong, too."""
    wrong: list[str] = []
    n_cases = ulps_max = 0
    for case in cases:
        n_cases += 1
        try:
            # NumPy warns where a cast overflows to infinity, in the oracle as in the interpreter; a GPU does not.
            with np.errstate(all="ignore"), place.case() as beside:
                outputs = case.run(place)
        except Exception as e:
            wrong.append(f"{case.says}: {type(e).__name__}: {e}")
            continue
        wrong += [f"{case.says}: {what}" for what in [*map(wrong_of, outputs), *beside] if what]
        for output in outputs:
            if output.ulps and is_float(output.expected) and output.got.shape == output.expected.shape:
                ulps_max = max(ulps_max, int(ulps_apart(output.got, output.expected).max(initial=0)))
    return Result(op, place.backend, place.where, n_cases, ulps_max, wrong)


def known_dtypes() -> list[str]:
    """Those that NumPy has here: bfloat16 only with the package ml_dtypes."""
    names = list(dtypes.ITEM_BYTES)
    if importlib.util.find_spec("ml_dtypes") is None:
        names.remove("bfloat16")
    return names


SPECIAL = (0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan"), 6e-8, 65504.0, 65520.0, 3.38e38, -1e-40)


def drawn(rng: np.random.Generator, shape: Any, dtype: str, target: str | None = None) -> NDArray[Any]:
    """Random values of a dtype: any bits of an integer; of a float what the target can hold, the odd ones among it.

    Out of an integer's range a cast is unspecified, so that what is to become one stays inside.
    """
    item = dtypes.numpy_dtype(dtype)
    target = target or dtype
    if dtype not in dtypes.FLOATS:
        limits = np.iinfo(item)
        return rng.integers(limits.min, limits.max, shape, item, endpoint=True)
    if target not in dtypes.FLOATS:
        low, high = (0, 255) if target == "uint8" else (-120, 127)
        return rng.uniform(low, high, shape).astype(item)
    values = rng.standard_normal(shape, np.float32) * np.float32(10.0) ** rng.integers(-8, 5, shape).astype(np.float32)
    odd = rng.random(shape) < 0.05
    with np.errstate(over="ignore"):
        return np.where(odd, rng.choice(np.array(SPECIAL, np.float32), shape), values).astype(item)


def lengths_drawn(rng: np.random.Generator, *, smoke: bool) -> Iterator[tuple[str, list[int]]]:
    """Ragged shapes by name; at smoke size a program of the interpreter takes milliseconds, so there are few rows."""
    long, many = (300, 12) if smoke else (100_000, 3000)
    yield "one row", [int(rng.integers(1, long // 3))]
    yield "one step", [1]
    yield "nothing but empty rows", [0] * 3
    yield "empty rows among others", [0, int(rng.integers(1, 40)), 0, 0, int(rng.integers(1, 90)), 0]
    yield "many short rows", rng.integers(0, 9, many).tolist()
    yield "one long row among short ones", [3, long, 1, 0, 7]
    yield "rows of all lengths", rng.integers(0, 120 if smoke else 700, 6 if smoke else 60).tolist()
