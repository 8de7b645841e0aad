"""A trace through an eviction policy: what would a cache of this size have saved?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infcore import _checks
from infcore._core import cache_replay
from infcore.cache.stats import CacheStats
from infcore.errors import InvalidArgument, InvalidType

_BYTES_MAX = 2**62  # of all accesses together: every sum of them stays exact
_COLUMN = "an array or a sequence of one dimension"


def replay(
    keys: NDArray[Any] | Sequence[Any],
    sizes: NDArray[Any] | Sequence[int] | Mapping[Any, int] | None = None,
    costs: NDArray[Any] | Sequence[float] | Mapping[Any, float] | None = None,
    capacity: int = 0,
    policy: str = "infcore",
    times_s: NDArray[Any] | Sequence[float] | None = None,
    requests: NDArray[Any] | Sequence[int] | None = None,
    *,
    admit: NDArray[Any] | Sequence[bool] | None = None,
    ttl_s: float | None = None,
) -> CacheStats:
    """Replay accesses, each of which stores what it did not find.

    keys      (n,) integers of up to 64 bits, str, bytes, or any objects that hash; read only, as all columns
    sizes     (n,) bytes of each access, integers >= 0 (0 counts as 1), or a mapping from keys; None: 1 each. An access
              whose size is not that of its key's entry misses, and replaces it
    costs     (n,) microseconds to make the answer anew, finite and >= 0, or a mapping from keys; None: 1 each
    capacity  bytes, >= 0
    policy    one of infcore.cache.policies()
    times_s   (n,) finite, none below the one before; used for ttl_s alone
    requests  (n,) integers, equal for the accesses of one prompt, in the order of its blocks: a hit counts only while
              all before it in the request hit; blocks go leaf first; what a request uses is not evicted while it runs
    admit     (n,) bool: False is looked up and never stored, as a prompt's last block that is not full; None: all
    ttl_s     seconds after which what was stored counts as gone; None: never. Not together with requests
    Returns   CacheStats
    Raises    InvalidArgument, InvalidType naming argument, place, value and what is allowed; UnknownName
    Complexity  one compiled pass without the GIL; O(1) an access besides what the policy takes
    """
    names = _keys(keys)
    n = len(names)
    ttl_s = _checks.optional_finite("ttl_s", ttl_s, above=True)
    if ttl_s is not None and (times_s is None or requests is not None):
        raise InvalidArgument(f"ttl_s is {ttl_s!r}; allowed: None without times_s, and with requests")
    counts = cache_replay.run(
        _checks.text("policy", policy),
        _checks.integer("capacity", capacity, 0, _BYTES_MAX),
        names,
        None if sizes is None else _sizes(_column("sizes", sizes, keys, n)),
        None if costs is None else _costs(_column("costs", costs, keys, n)),
        None if times_s is None else _times(_column("times_s", times_s, keys, n)),
        None if requests is None else _integers("requests", _column("requests", requests, keys, n)),
        None if admit is None else _flags(_column("admit", admit, keys, n)),
        ttl_s,
    )
    return CacheStats(**counts)


def _array(field: str, value: object) -> NDArray[Any]:
    if isinstance(value, (str, bytes)) or not (hasattr(value, "__array__") or isinstance(value, Sequence)):
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: {_COLUMN}")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:  # rows of unlike lengths, for one
        if field != "keys":
            raise InvalidType(f"{field} is no array: {error}; allowed: {_COLUMN}") from error
        array = np.empty(0)
    if field == "keys" and isinstance(value, Sequence) and array.shape != (len(value),):  # tuples are keys, not rows
        array = np.empty(len(value), object)
        array[:] = value
    if array.ndim != 1:
        raise InvalidArgument(f"{field} has {array.ndim} dimensions; allowed: {_COLUMN}")
    return array


def _keys(keys: object) -> NDArray[np.uint64]:
    """Integers as they are; other keys by the place where they came first."""
    array = _array("keys", keys)
    if array.dtype.kind in "iub":
        return np.ascontiguousarray(array.astype(np.int64 if array.dtype.kind == "i" else np.uint64)).view(np.uint64)
    if array.dtype.kind not in "USO" and len(array):
        raise InvalidType(f"keys is an array of {array.dtype}; allowed: integers, str, bytes or objects that hash")
    numbers: dict[Any, int] = {}
    out = np.empty(len(array), np.uint64)
    for i, key in enumerate(array.tolist()):
        try:
            out[i] = numbers.setdefault(key, len(numbers))
        except TypeError:
            raise InvalidType(f"keys[{i}] is {type(key).__name__}; allowed: what hashes") from None
    return out


def _column(field: str, value: object, keys: Any, n: int) -> NDArray[Any]:
    """A column as long as keys; a mapping is asked for each key."""
    if isinstance(value, Mapping):
        listed = keys.tolist() if isinstance(keys, np.ndarray) else list(keys)
        missing = next((key for key in listed if key not in value), None)
        if missing is not None:
            raise InvalidArgument(f"{field} has no key {missing!r}; allowed: a mapping from every key")
        value = [value[key] for key in listed]
    array = _array(field, value)
    if len(array) != n:
        raise InvalidArgument(f"{field} has {len(array)} entries; allowed: {n}, one for each key")
    return array


def _sizes(array: NDArray[Any]) -> NDArray[np.uint64]:
    numbers = _integers("sizes", array)
    _check("sizes", numbers, numbers >= 0, "integers >= 0")
    if numbers.sum(dtype=np.float64) > _BYTES_MAX:
        raise InvalidArgument(f"sizes has {numbers.sum(dtype=np.float64):g} bytes in all; allowed: {_BYTES_MAX:g}")
    return numbers.view(np.uint64)


def _costs(array: NDArray[Any]) -> NDArray[np.float64]:
    numbers = _floats("costs", array)
    _check("costs", numbers, numbers >= 0.0, "finite numbers >= 0")
    with np.errstate(over="ignore"):
        if not np.isfinite(numbers.sum()):
            raise InvalidArgument("costs has more than a double holds in all; allowed: a finite sum")
    return numbers


def _times(array: NDArray[Any]) -> NDArray[np.float64]:
    numbers = _floats("times_s", array)
    in_order = np.ones(len(numbers), bool)
    in_order[1:] = numbers[1:] >= numbers[:-1]
    _check("times_s", numbers, in_order, "none below the one before")
    return numbers


def _flags(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype.kind != "b" and len(array):
        raise InvalidType(f"admit is an array of {array.dtype}; allowed: bool")
    return np.ascontiguousarray(array.astype(np.uint8))


def _integers(field: str, array: NDArray[Any]) -> NDArray[np.int64]:
    if array.dtype.kind == "O" and all(isinstance(each, int) for each in array.tolist()):  # beyond 64 bits
        worst = max(array.tolist(), key=abs)
        raise InvalidArgument(f"{field} has {worst}; allowed: integers of 64 bits")
    if array.dtype.kind not in "iu" and len(array):
        raise InvalidType(f"{field} is an array of {array.dtype}; allowed: integers")
    if array.dtype.kind == "u":
        _check(field, array, array <= np.iinfo(np.int64).max, "integers below 2^63")
    return np.ascontiguousarray(array.astype(np.int64))


def _floats(field: str, array: NDArray[Any]) -> NDArray[np.float64]:
    if array.dtype.kind not in "iufO" and len(array):
        raise InvalidType(f"{field} is an array of {array.dtype}; allowed: numbers")
    try:
        numbers = np.ascontiguousarray(array.astype(np.float64))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidType(f"{field} holds what is no number: {error}; allowed: finite numbers") from None
    _check(field, numbers, np.isfinite(numbers), "finite numbers")
    return numbers


def _check(field: str, array: NDArray[Any], good: NDArray[np.bool_], allowed: str) -> None:
    if not good.all():
        at = int(np.argmin(good))
        raise InvalidArgument(f"{field}[{at}] is {array[at]}; allowed: {allowed}")
