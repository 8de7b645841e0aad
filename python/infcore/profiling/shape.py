"""Readers of values out of JSON: each takes a value and where it stands, and gives it back or refuses it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from infcore.errors import InvalidArgument

Read = Callable[[Any, str], Any]
_SHOWN_MAX = 60


def _refuse(at: str, allowed: str, value: Any) -> InvalidArgument:
    shown = repr(value)
    if len(shown) > _SHOWN_MAX:
        shown = shown[:_SHOWN_MAX] + "..."
    return InvalidArgument(f"{at} must be {allowed}, got {shown}")


def text(value: Any, at: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise _refuse(at, "a string", value)
    return value


def flag(value: Any, at: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise _refuse(at, "true or false", value)
    return value


def number(value: Any, at: str) -> float:
    """A finite number >= 0: every figure of a document is one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise _refuse(at, "a finite number >= 0", value)
    return value


def count(value: Any, at: str) -> int:
    """An integer >= 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _refuse(at, "an integer >= 0", value)
    return value


def mapping(value: Any, at: str) -> dict[str, Any]:
    """An object with whatever keys."""
    if not isinstance(value, dict):
        raise _refuse(at, "an object", value)
    return value


def maybe(read: Read, default: Callable[[], Any] = lambda: None) -> Read:
    """What `read` takes, or null, which becomes the default."""
    return lambda value, at: default() if value is None else read(value, at)


def list_of(read: Read) -> Read:
    """An array of what `read` takes."""

    def read_list(value: Any, at: str) -> list[Any]:
        if not isinstance(value, list):
            raise _refuse(at, "an array", value)
        return [read(item, f"{at}[{i}]") for i, item in enumerate(value)]

    return read_list


def map_of(read: Read) -> Read:
    """An object of what `read` takes, by names."""
    return lambda value, at: {name: read(item, f"{at}.{name}") for name, item in mapping(value, at).items()}


def fields(required: Mapping[str, Read], optional: Mapping[str, Read]) -> Read:
    """An object with these keys; an optional one that is not there reads as null. Other keys are let be."""

    def read_fields(value: Any, at: str) -> dict[str, Any]:
        given = mapping(value, at)
        for key in required:
            if key not in given:
                raise InvalidArgument(f"{at} lacks {key}")
        return {
            **given,
            **{key: read(given[key], f"{at}.{key}") for key, read in required.items()},
            **{key: read(given.get(key), f"{at}.{key}") for key, read in optional.items()},
        }

    return read_fields
