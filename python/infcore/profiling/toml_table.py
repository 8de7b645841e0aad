"""Reading TOML tables key by key, with errors that name the key, the value and what is allowed."""

import math
import sys
from collections.abc import Sequence
from typing import Any

from infcore.errors import InvalidArgument


class Table:
    """A TOML table read key by key: what is wrong or not known is refused with key, value and what is allowed."""

    def __init__(self, where: str, values: Any) -> None:
        if not isinstance(values, dict):
            raise InvalidArgument(f"{where} must be a table, got {values!r}")
        self._where = where
        self._values = dict(values)
        self._known: list[str] = []

    def path(self, key: str) -> str:
        """How messages name a key."""
        return f"{self._where}.{key}" if not self._where.endswith(": ") else f"{self._where}{key}"

    def take(self, key: str, default: Any = None, *, required: bool = False) -> Any:
        """The key's value as it is, or the default."""
        self._known.append(key)
        if required and key not in self._values:
            raise InvalidArgument(f"{self.path(key)} is missing")
        return self._values.pop(key, default)

    def number(
        self, key: str, default: float | None = None, *, low: float = 0.0, high: float = math.inf, above: bool = False
    ) -> float:
        """A finite number in [low, high], or in (low, high] with `above`."""
        value = self.take(key, default, required=default is None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            good = False
        else:
            good = abs(value) <= sys.float_info.max  # false for nan, inf and integers that no float can hold
        if not good or value < low or value > high or (above and value == low):
            limit = f" and <= {high:g}" if high < math.inf else ""
            raise InvalidArgument(
                f"{self.path(key)} must be a number {'>' if above else '>='} {low:g}{limit}, got {value!r}"
            )
        return float(value)

    def optional(self, key: str) -> float | None:
        """A finite number > 0, or None without the key."""
        return self.number(key, above=True) if key in self._values else self.take(key)

    def integer(self, key: str, default: int, *, low: int, high: int) -> int:
        """An integer in [low, high]; true and false are none."""
        value = self.take(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidArgument(f"{self.path(key)} must be an integer from {low} to {high}, got {value!r}")
        return value

    def text(self, key: str, default: str | None = None, *, allowed: Sequence[str] = ()) -> str:
        """A text, one of `allowed` if that is given."""
        value = self.take(key, default, required=default is None)
        if not isinstance(value, str) or (default is None and not value) or (allowed and value not in allowed):
            raise InvalidArgument(
                f"{self.path(key)} must be {'one of ' + ', '.join(allowed) if allowed else 'a text'}, got {value!r}"
            )
        return value

    def rows(self, key: str) -> list[Any]:
        """An array of tables, empty without the key."""
        value = self.take(key, [])
        if not isinstance(value, list):
            raise InvalidArgument(f"{self.path(key)} must be an array of tables ([[{key}]]), got {value!r}")
        return value

    def done(self) -> None:
        """Refuse the first key that nothing asked for."""
        for key in self._values:
            raise InvalidArgument(f"{self.path(key)} is not known; allowed: {', '.join(self._known)}")
