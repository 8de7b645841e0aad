"""Rows of the trace formats: each reader turns numbered lines into arrivals, or says which field is wrong."""

import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from infcore._toml_table import shown
from infcore._trace_files import wrong
from infcore.errors import InvalidArgument

Lines = Iterable[tuple[int, str]]

# Tokens and seconds beyond these are a broken file, not a load; they keep every sum exact in a float.
TOKENS_MAX = 10**12
SECONDS_MAX = 1e10
TIER_MAX = 7
MODELS_MAX = 1024
NAN = float("nan")


class Arrival(NamedTuple):
    """One row. time_s counts from anywhere, the same for a whole trace; model -1: not named; nan: not known.

    work, output_work  also the tokens of a prompt and of its answer
    names              of the prompt's blocks of 512 tokens: equal names, equal prompts up to there
    """

    line: int
    time_s: float
    work: float
    output_work: float = 0.0
    model: int = -1
    tier: int = 0
    deadline_s: float = NAN
    session: int = 0
    names: tuple[int, ...] = ()


# ---- CSV: TIMESTAMP,ContextTokens,GeneratedTokens ----

_AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:\+00:00)?", re.ASCII)
_WHOLE = re.compile(r"\d{1,13}", re.ASCII)


def is_azure(first: str) -> bool:
    """Whether a first line is the header of such a file."""
    return {name.strip() for name in first.split(",")} >= set(_AZURE_COLUMNS)


def azure_rows(lines: Lines, where: str) -> Iterator[Arrival]:
    """Work is the context's tokens; times are exact to the last digit written (100 ns)."""
    columns: list[int] = []
    n_columns = 0
    start: datetime | None = None
    since: dict[str, float] = {}  # the last second's text, and its distance from the first: rows of one second are many
    for line, text in lines:
        cells = text.split(",")
        if not columns:
            cells = [cell.strip() for cell in cells]
            n_columns = len(cells)
            columns = [cells.index(name) for name in _AZURE_COLUMNS]
            continue
        if len(cells) != n_columns:
            raise wrong(where, line, "the row", f"{n_columns} values, as the header", text)
        stamp, context, generated = (cells[i].strip() for i in columns)
        found = _TIME.fullmatch(stamp)
        second = found.group(1) if found is not None else stamp
        if second not in since:
            at = _second(found, where, line, stamp)
            start = start or at
            since = {second: (at - start).days * 86400.0 + (at - start).seconds}
        rest = found.group(2) if found is not None else None
        yield Arrival(
            line,
            since[second] + (float(f"0.{rest}") if rest else 0.0),
            _whole(context, where, line, "ContextTokens"),
            _whole(generated, where, line, "GeneratedTokens"),
        )


def _second(found: re.Match[str] | None, where: str, line: int, stamp: str) -> datetime:
    """The full second that a time stamp begins with."""
    try:
        if found is not None:
            return datetime.fromisoformat(found.group(1))
    except ValueError:
        pass  # no such day or hour
    raise wrong(where, line, "TIMESTAMP", "a time as 2023-11-16 18:17:03.9799600", stamp)


def _whole(text: str, where: str, line: int, field: str) -> float:
    if not _WHOLE.fullmatch(text) or int(text) > TOKENS_MAX:
        raise wrong(where, line, field, f"a whole number from 0 to {TOKENS_MAX:g}", text)
    return float(text)


# ---- JSON lines ----


def is_mooncake(first: str) -> bool:
    """Whether a first line is a row of a Mooncake trace."""
    return _looks_like(first, "timestamp", "input_length")


def is_requests(first: str) -> bool:
    """Whether a first line is a row of what `infcore simulate --log` writes."""
    return _looks_like(first, "arrival_s", "model")


def _looks_like(first: str, *keys: str) -> bool:
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and row.keys() >= set(keys)


def mooncake_rows(lines: Lines, where: str) -> Iterator[Arrival]:
    """Work is input_length; timestamps are milliseconds; hash_ids, where they are there, name blocks of 512 tokens."""
    for line, text in lines:
        row = _row(text, where, line)
        time_ms = _number(row, "timestamp", where, line, SECONDS_MAX * 1e3)
        work = _number(row, "input_length", where, line, TOKENS_MAX)
        output = _number(row, "output_length", where, line, TOKENS_MAX, missing=0.0)
        yield Arrival(line, time_ms / 1e3, work, output, names=_names(row, where, line))


def _names(row: dict[str, Any], where: str, line: int) -> tuple[int, ...]:
    ids = row.get("hash_ids")
    if ids is None:
        return ()
    if not isinstance(ids, list) or not all(type(each) is int and 0 <= each < 2**64 for each in ids):
        raise wrong(where, line, "hash_ids", "an array of integers from 0 to 2^64 - 1", ids)
    return tuple(ids)


def request_rows(lines: Lines, where: str, models: list[str], policy: str | None) -> Iterator[Arrival]:
    """Arrivals of one policy, the first that stands there unless one is named; `models` gets the names as they come.

    Work that the log does not carry is nan: then the workload says what a request is.
    """
    ids: dict[str, int] = {}
    for line, text in lines:
        row = _row(text, where, line)
        of_policy = row.get("policy", "")
        if not isinstance(of_policy, str):
            raise wrong(where, line, "policy", "a text", of_policy)
        policy = of_policy if policy is None else policy
        if of_policy != policy:
            continue
        name = row.get("model")
        if not isinstance(name, str) or not name:
            raise wrong(where, line, "model", "a name", name)
        if name not in ids:
            if len(ids) >= MODELS_MAX:
                raise wrong(where, line, "model", f"one of at most {MODELS_MAX} names", name)
            ids[name] = len(ids)
            models.append(name)
        of_tokens = "prompt_tokens" in row
        deadline_s = _number(row, "deadline_s", where, line, SECONDS_MAX, missing=NAN)
        if deadline_s == 0.0:
            raise wrong(where, line, "deadline_s", "a number > 0 or null", 0)
        yield Arrival(
            line,
            _number(row, "arrival_s", where, line, SECONDS_MAX),
            _number(row, "prompt_tokens" if of_tokens else "work", where, line, TOKENS_MAX, missing=NAN),
            _number(row, "output_tokens" if of_tokens else "output_work", where, line, TOKENS_MAX, missing=0.0),
            ids[name],
            _integer(row, "tier", where, line, TIER_MAX),
            deadline_s,
            _integer(row, "session", where, line, 2**64 - 1),
        )


def _row(text: str, where: str, line: int) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also an integer of thousands of digits
        raise InvalidArgument(f"{where}:{line}: the row must be a JSON object, got {shown(text)}: {error}") from error
    if not isinstance(row, dict):
        raise wrong(where, line, "the row", "a JSON object", row)
    return row


def _number(
    row: dict[str, Any], key: str, where: str, line: int, high: float, *, missing: float | None = None
) -> float:
    """A number in [0, high]; `missing` stands for null or no such key."""
    value = row.get(key)
    if value is None and missing is not None:
        return missing
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= high:
        raise wrong(where, line, key, f"a number from 0 to {high:g}", value)
    return float(value)


def _integer(row: dict[str, Any], key: str, where: str, line: int, high: int) -> int:
    value = row.get(key)
    value = 0 if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
        raise wrong(where, line, key, f"an integer from 0 to {high}", value)
    return value
