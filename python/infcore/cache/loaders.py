"""Traces of caches as columns for replay: every reader names file, line or byte, value and what is allowed."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from infcore import _checks
from infcore._trace_files import numbered_lines, opened, whole_records, wrong
from infcore.errors import InvalidArgument, InvalidType
from infcore.sim.trace_rows import azure_rows, is_azure

BYTES_MAX = 2**48
COST_US_MAX = 1e15  # thirty years
TOKENS_MAX = 2**40
KEY_MAX = 2**63 - 1
BLOCKS_MAX = 1 << 20  # of one prompt
_RECORDS_A_CHUNK = 1 << 16
_TIME_MAX = 2**53

Curve = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class CacheTrace:
    """Accesses of a trace, in columns of one length for replay(**trace.columns(), capacity=...); None: the format has
    none.

    keys      (n,) int64 or uint64
    sizes     (n,) int64, bytes
    costs     (n,) float64, microseconds to make the answer anew
    times_s   (n,) float64, ascending
    requests  (n,) int64, equal for the blocks of one prompt
    admit     (n,) bool, False: not to be stored
    """

    keys: NDArray[Any]
    sizes: NDArray[np.int64] | None = None
    costs: NDArray[np.float64] | None = None
    times_s: NDArray[np.float64] | None = None
    requests: NDArray[np.int64] | None = None
    admit: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def columns(self) -> dict[str, Any]:
        """Arguments of replay; capacity and policy are left to be said."""
        names = ("keys", "sizes", "costs", "times_s", "requests", "admit")
        return {name: getattr(self, name) for name in names}

    def working_set_bytes(self) -> int:
        """Bytes of all different keys together, each as large as it was first."""
        _, first = np.unique(self.keys, return_index=True)
        return len(first) if self.sizes is None else int(np.maximum(self.sizes[first], 1).sum())


def prefill_us(tokens: NDArray[Any]) -> NDArray[Any]:
    """Cost of computing a prompt of so many tokens: 1 us a token, and attention, which costs as much again at a depth
    of 30,518 tokens (a 7-billion-parameter model's ratio of both; only ratios matter to a miss ratio)."""
    costs: NDArray[Any] = tokens + tokens * tokens / 61036.0
    return costs


def mooncake(
    path: str | Path,
    *,
    block_tokens: int = 512,
    block_bytes: int = 1,
    cost_us: Curve = prefill_us,
    partial: Literal["never", "as_others"] = "never",
) -> CacheTrace:
    """Blocks of prompts: JSON lines of timestamp (ms), input_length (tokens) and hash_ids, a prompt's blocks in order.

    block_tokens  of a full block; block_bytes: what each block takes
    cost_us       microseconds to compute a prompt of so many tokens, of an array of token counts; a block costs what it
                  adds behind those before it
    partial       "never": a prompt's last block is not to be stored where it is not full; "as_others": like the rest
    Raises        InvalidArgument naming file, line, field and value
    """
    _checks.integer("block_tokens", block_tokens, 1, 1 << 20)
    _checks.integer("block_bytes", block_bytes, 1, BYTES_MAX)
    if partial not in ("never", "as_others"):
        raise InvalidArgument(f"partial is {partial!r}; allowed: 'never', 'as_others'")
    keys, lengths, times, n_tokens = _mooncake_rows(str(path), block_tokens)
    n_blocks = np.array(lengths, np.int64)
    n = len(keys)
    requests = np.repeat(np.arange(len(n_blocks)), n_blocks)
    depth = np.arange(n) - np.repeat(np.cumsum(n_blocks) - n_blocks, n_blocks)
    ends = np.minimum((depth + 1.0) * block_tokens, np.repeat(np.array(n_tokens, np.float64), n_blocks))
    admit = ends == (depth + 1.0) * block_tokens if partial == "never" else None
    costs = _curve(cost_us, ends) - _curve(cost_us, depth * float(block_tokens))
    if not (costs >= 0.0).all():
        raise InvalidArgument("cost_us falls with the number of tokens; allowed: a curve that does not")
    times_s = np.repeat(np.array(times, np.float64) / 1e3, n_blocks)
    return CacheTrace(np.array(keys, np.int64), np.full(n, block_bytes, np.int64), costs, times_s, requests, admit)


def _mooncake_rows(path: str, block_tokens: int) -> tuple[list[int], list[int], list[float], list[int]]:
    """Ids of all blocks; of each prompt how many, when, how many tokens."""
    keys: list[int] = []
    lengths: list[int] = []
    times: list[float] = []
    n_tokens: list[int] = []
    with opened(path) as file:
        for line, text in numbered_lines(file, path):
            try:
                row = json.loads(text)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise wrong(path, line, "the row", "a JSON object", text)
            at: Any
            at, tokens, ids = row.get("timestamp"), row.get("input_length"), row.get("hash_ids")
            if not _is_number(at) or not 0 <= at <= _TIME_MAX:
                raise wrong(path, line, "timestamp", f"milliseconds, 0 to {_TIME_MAX}", at)
            if times and at < times[-1]:
                raise wrong(path, line, "timestamp", f"not below {times[-1]}, the row before", at)
            if type(tokens) is not int or not 0 <= tokens <= TOKENS_MAX:
                raise wrong(path, line, "input_length", f"an integer from 0 to {TOKENS_MAX}", tokens)
            if not isinstance(ids, list) or not all(type(each) is int and 0 <= each <= KEY_MAX for each in ids):
                raise wrong(path, line, "hash_ids", "an array of integers from 0 to 2^63 - 1", ids)
            n_blocks = -(-tokens // block_tokens)
            if len(ids) != n_blocks or n_blocks > BLOCKS_MAX:
                allowed = f"{n_blocks} ids, a block of {block_tokens} tokens each, at most {BLOCKS_MAX}"
                raise wrong(path, line, "hash_ids", allowed, len(ids))
            keys += ids
            lengths.append(len(ids))
            times.append(float(at))
            n_tokens.append(tokens)
    _some(path, keys)
    return keys, lengths, times, n_tokens


def _curve(cost_us: Curve, tokens: NDArray[Any]) -> NDArray[Any]:
    costs: NDArray[Any] = np.asarray(cost_us(tokens), np.float64)
    if costs.shape != tokens.shape or not (np.isfinite(costs) & (costs >= 0.0) & (costs <= COST_US_MAX)).all():
        raise InvalidArgument(f"cost_us gives {costs.shape}; allowed: {tokens.shape} of 0 to {COST_US_MAX:g}")
    return costs


def scarab(path: str | Path) -> CacheTrace:
    """Keys alone: big-endian int64, one after the other."""
    chunks = [np.frombuffer(chunk, ">i8").astype(np.int64) for chunk in _records(path, 8)]
    return CacheTrace(np.concatenate(chunks))


_ORACLE = np.dtype([("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next_use", "<i8")])


def oracle_general(path: str | Path) -> CacheTrace:
    """The binary records of libCacheSim's public traces, packed, little-endian, 24 bytes each: uint32 time (s), uint64
    object, uint32 size, int64 next access (not used: a replay knows its own)."""
    chunks = []
    last = n_before = 0
    for chunk in _records(path, _ORACLE.itemsize):
        rows = np.frombuffer(chunk, _ORACLE)
        times = rows["time"].astype(np.int64)
        before = np.concatenate([[last], times[:-1]])
        if (times < before).any():
            at = int(np.argmax(times < before))
            raise InvalidArgument(
                f"{path}: time must not be below {before[at]}, the record before, got {times[at]} at byte "
                f"{(n_before + at) * _ORACLE.itemsize}"
            )
        last, n_before = int(times[-1]), n_before + len(rows)
        chunks.append(rows)
    rows = np.concatenate(chunks)
    return CacheTrace(
        rows["key"].astype(np.uint64), rows["size"].astype(np.int64), times_s=rows["time"].astype(np.float64)
    )


def _records(path: str | Path, record_bytes: int) -> Iterator[bytes]:
    where, n = str(path), 0
    with opened(where) as file:
        for chunk in whole_records(file, where, record_bytes, _RECORDS_A_CHUNK):
            n += 1
            yield chunk
    _some(where, n)


def adaptsize(path: str | Path) -> CacheTrace:
    """Lines of three integers: time, object, size in bytes."""
    times, keys, sizes = [], [], []
    for line, (time, key, size) in _cells(str(path), 3, "time id size"):
        times.append(_whole(time, str(path), line, "time", _TIME_MAX))
        keys.append(_whole(key, str(path), line, "id", KEY_MAX))
        sizes.append(_whole(size, str(path), line, "size", BYTES_MAX))
        if len(times) > 1 and times[-1] < times[-2]:
            raise wrong(str(path), line, "time", f"not below {times[-2]}, the line before", times[-1])
    return CacheTrace(np.array(keys, np.int64), np.array(sizes, np.int64), times_s=np.array(times, np.float64))


def penalties(path: str | Path) -> CacheTrace:
    """Lines of five words, as Caffeine's simulator has them: l or s, a hexadecimal address, a number that is not used,
    the penalty of a hit and of a miss. The cost is the miss's penalty."""
    keys, costs = [], []
    where = str(path)
    for line, (kind, address, _, hit, miss) in _cells(where, 5, "kind address number hit_penalty miss_penalty"):
        if kind not in ("l", "s"):
            raise wrong(where, line, "kind", "l or s", kind)
        keys.append(_hexadecimal(address, where, line))
        _real(hit, where, line, "hit_penalty", COST_US_MAX)
        costs.append(_real(miss, where, line, "miss_penalty", COST_US_MAX))
    return CacheTrace(np.array(keys, np.int64), costs=np.array(costs, np.float64))


def listed(path: str | Path) -> CacheTrace:
    """Lines of key, size and cost, parted by spaces, tabs or commas; or CSV whose first line names its columns, of
    which key, size, cost_us (or cost), time_s (or time) and request are read; a first line with the word key and no
    whole number is taken for that. Keys are any words: they are numbered as they come first. Sizes in bytes, costs in
    microseconds."""
    where = str(path)
    found: dict[str, list[Any]] = {}
    numbers: dict[str, int] = {}
    columns: dict[str, int] = {}
    n_columns = 0
    with opened(where) as file:
        for line, text in numbered_lines(file, where):
            cells = [cell.strip() for cell in text.split(",")] if "," in text else text.split()
            if not columns:
                columns, n_columns, is_header = _columns_of(cells, where, line)
                found = {name: [] for name in columns}
                if is_header:
                    continue
            if len(cells) != n_columns:
                raise wrong(where, line, "the row", f"{n_columns} values, as the first", text)
            for name, at in columns.items():
                found[name].append(_cell(name, cells[at], where, line, numbers))
            times = found.get("time_s", [])
            if len(times) > 1 and times[-1] < times[-2]:
                raise wrong(where, line, "time_s", f"not below {times[-2]}, the row before", times[-1])
    _some(where, found.get("key", []))
    kinds = {"key": np.int64, "size": np.int64, "request": np.int64, "cost_us": np.float64, "time_s": np.float64}
    arrays: dict[str, NDArray[Any]] = {name: np.array(values, kinds[name]) for name, values in found.items()}
    return CacheTrace(
        arrays["key"], arrays.get("size"), arrays.get("cost_us"), arrays.get("time_s"), arrays.get("request")
    )


_NAMES = {"key": "key", "size": "size", "cost_us": "cost_us", "cost": "cost_us", "time_s": "time_s", "time": "time_s",
          "request": "request"}  # fmt: skip


def _columns_of(cells: list[str], where: str, line: int) -> tuple[dict[str, int], int, bool]:
    """Where each column stands, how many there are, and whether this line names them."""
    names = [cell.lower() for cell in cells]
    if "key" in names and not any(map(str.isdigit, cells)):  # a row whose key is that word has a size
        columns: dict[str, int] = {}
        for at, name in enumerate(names):
            if _NAMES.get(name, "") in columns:
                raise wrong(where, line, "the header", "each of its names once", ",".join(cells))
            if name in _NAMES:
                columns[_NAMES[name]] = at
        return columns, len(cells), True
    if not 1 <= len(cells) <= 3:
        raise wrong(where, line, "the row", "key, key size, or key size cost", " ".join(cells))
    return {name: at for at, name in enumerate(("key", "size", "cost_us")[: len(cells)])}, len(cells), False


def _cell(name: str, text: str, where: str, line: int, numbers: dict[str, int]) -> float:
    if name == "key":
        return numbers.setdefault(text, len(numbers))
    if name == "size":
        return _whole(text, where, line, name, BYTES_MAX)
    if name == "request":
        return _whole(text, where, line, name, KEY_MAX)
    return _real(text, where, line, name, COST_US_MAX)


@dataclass(frozen=True)
class Tokens:
    """Rows of a service that answers prompts: when, and tokens of prompt and answer; (n,) float64 each."""

    at_s: NDArray[np.float64]
    context: NDArray[np.float64]
    generated: NDArray[np.float64]


def azure_tokens(path: str | Path) -> Tokens:
    """CSV with TIMESTAMP, ContextTokens and GeneratedTokens: they name no content, so they give sizes and costs."""
    where = str(path)
    with opened(where) as file:
        line, first = next(numbered_lines(file, where), (1, ""))
    if not is_azure(first):
        raise wrong(where, line, "the header", "TIMESTAMP,ContextTokens,GeneratedTokens", first)
    with opened(where) as file:
        rows = [(row.time_s, row.work, row.output_work) for row in azure_rows(numbered_lines(file, where), where)]
    _some(where, rows)
    table = np.array(rows, np.float64).reshape(-1, 3)
    return Tokens(table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy())


def token_costs(
    keys: NDArray[Any], tokens: Tokens, spread: float = 1.0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Sizes and costs for keys that come without: each key gets a row of a token trace, by its number alone, so that
    all its accesses agree.

    keys     (n,) integers
    spread   >= 1: costs per byte differ so much, in 17 equal steps of their logarithm; 1: they are all equal
    Returns  (n,) bytes: tokens of prompt and answer; (n,) microseconds: as many, times the key's factor, 1 to spread
    """
    _checks.finite("spread", spread, 1.0)
    if keys.dtype.kind not in "iu" or keys.ndim != 1:
        raise InvalidType(f"keys is an array of {keys.ndim} dimensions of {keys.dtype}; allowed: one, integers")
    stirred = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    stirred = (stirred ^ (stirred >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    stirred ^= stirred >> np.uint64(32)
    in_all = np.maximum(tokens.context + tokens.generated, 1.0)
    sizes = in_all[(stirred % np.uint64(len(in_all))).astype(np.int64)]
    step = np.float64(spread) ** (np.arange(17) / 16.0)
    factor = step[((stirred >> np.uint64(40)) % np.uint64(17)).astype(np.int64)]
    return sizes.astype(np.int64), sizes * factor


FORMATS: dict[str, Callable[..., CacheTrace]] = {
    "mooncake": mooncake, "scarab": scarab, "adaptsize": adaptsize, "penalties": penalties,
    "oracle_general": oracle_general, "listed": listed,
}  # fmt: skip


def load(path: str | Path, format: str, **options: Any) -> CacheTrace:
    """A trace of one of FORMATS; packed files (gzip, xz, zstd where a module for it is there) are unpacked on the way.
    `options` are those of the format's own function."""
    if format not in FORMATS:
        raise InvalidArgument(f"format is {format!r}; allowed: {', '.join(FORMATS)}")
    return FORMATS[format](path, **options)


def _some(where: str, rows: Any) -> None:
    if not rows:
        raise InvalidArgument(f"{where}:1: the trace must have at least one access, got none")


def _cells(where: str, n: int, names: str) -> Iterator[tuple[int, list[str]]]:
    is_empty = True
    with opened(where) as file:
        for line, text in numbered_lines(file, where):
            cells = text.split()
            if len(cells) != n:
                raise wrong(where, line, "the line", f"{n} words ({names})", text)
            is_empty = False
            yield line, cells
    _some(where, not is_empty)


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _whole(text: str, where: str, line: int, field: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= most):
        raise wrong(where, line, field, f"an integer from 0 to {most}", text)
    return int(text)


def _hexadecimal(text: str, where: str, line: int) -> int:
    try:
        number = int(text, 16) if text.startswith("0x") and len(text) <= 18 and text.isalnum() else -1
    except ValueError:
        number = -1
    if not 0 <= number <= KEY_MAX:
        raise wrong(where, line, "address", f"hexadecimal from 0x0 to {KEY_MAX:#x}", text)
    return number


def _real(text: str, where: str, line: int, field: str, most: float) -> float:
    try:
        number = float(text) if "_" not in text else -1.0
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= most:
        raise wrong(where, line, field, f"a number from 0 to {most:g}", text)
    return number
