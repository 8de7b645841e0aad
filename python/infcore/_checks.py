"""Checks of arguments that the Python modules share: each error names the argument, the value and what is allowed."""

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from infcore.errors import InvalidArgument, InvalidType

_LISTED_MAX = 64  # as ModelConfig::n_listed_max


def text(field: str, value: object) -> str:
    """A non-empty str."""
    if not isinstance(value, str):
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a non-empty str")
    if not value:
        raise InvalidArgument(f"{field} is ''; allowed: a non-empty str")
    return value


def string(field: str, value: object) -> str:
    """A str, which may be empty."""
    if not isinstance(value, str):
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a str")
    return value


def path(field: str, value: object) -> str:
    """A file's path, str or os.PathLike of str."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a path")
    return text(field, value)


def integer(field: str, value: object, at_least: int, at_most: int | None = None) -> int:
    """An integer >= at_least and, where given, <= at_most; bool does not count as one."""
    allowed = f"an integer >= {at_least}" if at_most is None else f"an integer, {at_least} to {at_most}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: {allowed}")
    number = int(value.__index__())
    if number < at_least or (at_most is not None and number > at_most):
        raise InvalidArgument(f"{field} is {number}; allowed: {allowed}")
    return number


def finite(field: str, value: object, at_least: float = 0.0, above: bool = False) -> float:
    """A finite number >= at_least, or > at_least where `above`."""
    bound = f"> {at_least:g}" if above else f">= {at_least:g}"
    if isinstance(value, (bool, str, bytes)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a finite number {bound}")
    try:
        number = float(value)  # type: ignore[arg-type]  # the line above saw __float__ or __index__
    except TypeError:
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a finite number {bound}") from None
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < at_least or (above and number == at_least):
        raise InvalidArgument(f"{field} is {value!r}; allowed: a finite number {bound}")
    return number


def optional_finite(field: str, value: object, at_least: float = 0.0, above: bool = False) -> float | None:
    """None, or a finite number."""
    return None if value is None else finite(field, value, at_least, above)


def ascending(field: str, value: object, low: float = 0.0, high: float = math.inf) -> tuple[float, ...]:
    """At most 64 finite numbers from low to high, each above the one before."""
    allowed = f"at most {_LISTED_MAX} ascending numbers, {low:g} to {high:g}"
    if not isinstance(value, (tuple, list)):
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: {allowed}")
    if len(value) > _LISTED_MAX:
        raise InvalidArgument(f"{field} has {len(value)}; allowed: {allowed}")
    numbers = tuple(finite(field, number) for number in value)
    for number, before in zip(numbers, (-math.inf, *numbers), strict=False):
        if not low <= number <= high or number <= before:
            raise InvalidArgument(f"{field} has {number:g}; allowed: {allowed}")
    return numbers


def whole(field: str, value: float) -> int:
    """A number without a fraction, as an int."""
    if value != int(value):
        raise InvalidArgument(f"{field} has {value:g}; allowed: whole numbers")
    return int(value)


def flag(field: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: True or False")
    return value


def mapping(field: str, value: object) -> Mapping[Any, Any]:
    """A mapping of any kind."""
    if not isinstance(value, Mapping):
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a mapping")
    return value


def names(field: str, value: object) -> tuple[str, ...]:
    """Non-empty strings, each once, in the order given. A lone str is refused: it would be read letter by letter."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a sequence of names")
    found = tuple(text(f"{field}[{i}]", name) for i, name in enumerate(value))
    for name in found:
        if found.count(name) > 1:
            raise InvalidArgument(f"{field} has {name!r} {found.count(name)} times; allowed: each name once")
    return found


def each(field: str, given: Any, kind: type) -> list[Any]:
    """Objects of one of our own types."""
    if not isinstance(given, Iterable):
        raise InvalidType(f"{field} is {type(given).__name__}; allowed: infcore.{kind.__name__} objects")
    items = list(given)
    for item in items:
        if not isinstance(item, kind):
            raise InvalidType(f"{field} holds {type(item).__name__}; allowed: infcore.{kind.__name__} objects")
    return items
