"""Reading TOML tables key by key, with errors that name file, line, key, the value and what is allowed."""

import math
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from infcore import _checks
from infcore._toml_lines import Path, lines_of
from infcore.errors import InvalidArgument, InvalidType

# Far above any hand-written or generated file; bounds what a wrong path (a trace, a device) can make us read.
FILE_BYTES_MAX = 64 << 20
_SHOWN_MAX = 80
_DIGITS = re.compile(r"[0-9_]{1000}")


def shown(value: object) -> str:
    """A value as messages show it: one line of bounded length, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, arrays in arrays in arrays
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."


def read_text(path: str, *, what: str) -> str:
    """The text of a TOML file. Raises InvalidArgument: not there, too large, not UTF-8 (with the line)."""
    try:
        with FilePath(path).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise InvalidArgument(f"{what} must be a readable TOML file, got {shown(path)}: {error}") from error
    if len(content) > FILE_BYTES_MAX:
        raise InvalidArgument(f"{what} must be a TOML file of at most {FILE_BYTES_MAX} bytes, got {shown(path)}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidArgument(
            f"{path}:{line}: {what} must be a readable TOML file in UTF-8, got byte {content[error.start]:#04x}"
        ) from error


@dataclass(frozen=True)
class Source:
    """A TOML text: the name that messages give it, and where its values stand."""

    where: str
    lines: dict[Path, int] = field(default_factory=dict)

    def at(self, path: Path) -> str:
        """ "FILE:LINE: node[2].price_per_hour": the line of the value, else of the nearest table around it."""
        near = path
        while near and near not in self.lines:
            near = near[:-1]
        line = self.lines.get(near, 1)
        named = ""
        for part in path:
            named += f"[{part}]" if isinstance(part, int) else f".{part}" if named else str(part)
        return f"{self.where}:{line}: {named or 'the file'}"


class Table:
    """A TOML table read key by key: what is wrong or not known is refused with key, value and what is allowed."""

    def __init__(self, source: Source, path: Path, values: Any) -> None:
        if not isinstance(values, dict):
            raise InvalidArgument(f"{source.at(path)} must be a table, got {shown(values)}")
        self.source = source
        self.path = path
        self._values = dict(values)
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        """Whether the key is there and was not yet taken."""
        return key in self._values

    def at(self, key: str) -> str:
        """How messages name a key: file, line and path."""
        return self.source.at((*self.path, key))

    def peek(self, key: str) -> Any:
        """The key's value, not taken; None without the key."""
        return self._values.get(key)

    def take(self, key: str, default: Any = None, *, required: bool = False) -> Any:
        """The key's value as it is, or the default."""
        self._known.append(key)
        if required and key not in self._values:
            raise InvalidArgument(f"{self.at(key)} is missing")
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
                f"{self.at(key)} must be a number {'>' if above else '>='} {low:g}{limit}, got {shown(value)}"
            )
        return float(value)

    def optional(self, key: str, *, high: float = math.inf) -> float | None:
        """A finite number > 0, or None without the key."""
        return self.number(key, above=True, high=high) if key in self._values else self.take(key)

    def integer(self, key: str, default: int, *, low: int, high: int) -> int:
        """An integer in [low, high]; true and false are none."""
        value = self.take(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidArgument(f"{self.at(key)} must be an integer from {low} to {high}, got {shown(value)}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise InvalidArgument(f"{self.at(key)} must be true or false, got {shown(value)}")
        return value

    def text(self, key: str, default: str | None = None, *, allowed: Sequence[str] = ()) -> str:
        """A text, one of `allowed` if that is given."""
        value = self.take(key, default, required=default is None)
        if not isinstance(value, str) or (default is None and not value) or (allowed and value not in allowed):
            raise InvalidArgument(
                f"{self.at(key)} must be {'one of ' + ', '.join(allowed) if allowed else 'a text'}, got {shown(value)}"
            )
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """An array of texts, none empty, none twice; empty without the key."""
        value = self.take(key, [])
        if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
            raise InvalidArgument(f"{self.at(key)} must be an array of names, got {shown(value)}")
        if len(set(value)) < len(value):
            raise InvalidArgument(f"{self.at(key)} must have each name once, got {shown(value)}")
        return tuple(value)

    def ascending(self, key: str, *, low: float = 0.0, high: float = math.inf) -> tuple[float, ...]:
        """Numbers in ascending order; none where there is no such key."""
        value = self.take(key, [])
        try:
            return _checks.ascending(self.at(key), value, low, high)
        except InvalidType as error:
            raise InvalidArgument(str(error)) from None

    def mapping(self, key: str) -> dict[str, str]:
        """A table of texts, empty without the key."""
        value = self.take(key, {})
        if not isinstance(value, dict) or not all(isinstance(text, str) and text for text in value.values()):
            raise InvalidArgument(f"{self.at(key)} must be a table of texts, got {shown(value)}")
        return dict(value)

    def table(self, key: str) -> "Table":
        """The table of that key, which must be there."""
        value = self.take(key, required=True)
        return Table(self.source, (*self.path, key), value)

    def rows(self, key: str) -> list["Table"]:
        """An array of tables, empty without the key."""
        value = self.take(key, [])
        if not isinstance(value, list):
            raise InvalidArgument(f"{self.at(key)} must be an array of tables ([[{key}]]), got {shown(value)}")
        return [Table(self.source, (*self.path, key, i), row) for i, row in enumerate(value)]

    def only(self, known: Sequence[str]) -> None:
        """Refuse the first key that is not among the known."""
        for key in self._values:
            if key not in known:
                raise InvalidArgument(f"{self.at(key)} is not known; allowed: {', '.join(known)}")

    def done(self) -> None:
        """Refuse the first key that nothing asked for."""
        for key in self._values:
            raise InvalidArgument(f"{self.at(key)} is not known; allowed: {', '.join(self._known)}")


def parse_toml(text: str, *, where: str) -> Table:
    """The top table of a TOML text; `where` names the text. Raises InvalidArgument with the line of a syntax error."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # "... (at line 3, column 5)" or "... (at end of document)": the line belongs in front, as everywhere.
        _, _, place = str(error).rpartition("(at line ")
        line = place.partition(",")[0] if place[:1].isdigit() else str(text.count("\n") + 1)
        raise InvalidArgument(f"{where}:{line}: not valid TOML: {error}") from error
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits; brackets without end
        digits = _DIGITS.search(text)
        line = str(text.count("\n", 0, digits.start()) + 1 if digits else 1)
        raise InvalidArgument(f"{where}:{line}: not valid TOML: {error}") from error
    return Table(Source(where, lines_of(text)), (), values)
