"""Arrivals of recorded traces, in columns and in chunks of bounded memory, whatever the file's length."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infcore._toml_table import shown
from infcore._trace_files import numbered_lines, opened
from infcore.errors import InvalidArgument
from infcore.sim.trace_rows import (
    Arrival,
    azure_rows,
    is_azure,
    is_mooncake,
    is_requests,
    mooncake_rows,
    request_rows,
)

FORMATS = ("azure_llm_2023", "mooncake", "infcore_requests")
CHUNK_ROWS = 1 << 16
# A row may stand this many rows from its place. Azure's and Mooncake's files are in order (measured: none of 28,185 and
# 12,031 rows stands wrong); a log of requests is in order of their ends, so at most what was in flight lies between.
WINDOW_ROWS = 1 << 17


@dataclass(frozen=True)
class TraceChunk:
    """Up to 65,536 arrivals, in order of time; columns of one length, owned by the caller.

    at_s         (n,) float64, seconds since the trace's earliest row
    model        (n,) int32, index into Trace.models, or -1: the workload's model
    work         (n,) float64, the unit of the model's latency (context tokens); nan: not known
    output_work  (n,) float64, tokens generated; 0: not known
    tier         (n,) int32
    deadline_s   (n,) float64, after arrival; nan: none
    session      (n,) uint64; 0: none
    names        (n,) tuples of integers: names of a prompt's blocks of 512 tokens; None: the format has none
    tenant       (n,) uint32, a number; 0: the workload's; None: all are
    """

    at_s: NDArray[np.float64]
    model: NDArray[np.int32]
    work: NDArray[np.float64]
    output_work: NDArray[np.float64]
    tier: NDArray[np.int32]
    deadline_s: NDArray[np.float64]
    session: NDArray[np.uint64]
    names: NDArray[np.object_] | None = None
    tenant: NDArray[np.uint32] | None = None

    def __len__(self) -> int:
        return len(self.at_s)


class Trace:
    """A trace file, read anew by each iteration, chunk by chunk. Made by open_trace.

    format  one of infcore_requests, azure_llm_2023, mooncake
    models  names of the models so far, where the trace names them: complete once it was read to its end
    """

    def __init__(self, path: str, format: str, policy: str | None) -> None:
        self.path = path
        self.format = format
        self.models: tuple[str, ...] = ()
        self._policy = policy

    def __repr__(self) -> str:
        return f"Trace({self.path!r}, format={self.format!r})"

    def __iter__(self) -> Iterator[TraceChunk]:
        """Raises InvalidArgument naming file, line, field and value; so does a file that ends in the middle."""
        names: list[str] = []
        with opened(self.path) as file:
            lines = numbered_lines(file, self.path)
            if self.format == "azure_llm_2023":
                rows = azure_rows(lines, self.path)
            elif self.format == "mooncake":
                rows = mooncake_rows(lines, self.path)
            else:
                rows = request_rows(lines, self.path, names, self._policy)
            n_rows = 0
            for chunk in _in_order(rows, self.path):
                self.models = tuple(names)
                n_rows += len(chunk)
                yield chunk
        if n_rows == 0:
            of_policy = f" of policy {self._policy!r}" if self._policy is not None else ""
            raise InvalidArgument(f"{self.path}:1: the trace must have at least one row{of_policy}, got none")


def open_trace(path: str | Path, *, format: str | None = None, policy: str | None = None) -> Trace:
    """A trace's arrivals, the format told by the content; .gz and .xz are unpacked on the way, told by content, too.

    format    "azure_llm_2023": CSV with TIMESTAMP, ContextTokens, GeneratedTokens
              "mooncake": JSON lines with timestamp (ms), input_length, output_length, hash_ids
              "infcore_requests": JSON lines as `infcore simulate --log` writes them; None: whichever fits
    policy    of a log, whose arrivals; None: of the first that stands there
    Returns   an iterable of TraceChunk, memory bounded by its window of reordering: 131,072 rows
    Raises    InvalidArgument naming file, line, field and value; while iterating, too
    """
    path = str(path)
    if format is not None and format not in FORMATS:
        raise InvalidArgument(f"format must be one of {', '.join(FORMATS)} or None, got {shown(format)}")
    fits = {"azure_llm_2023": is_azure, "mooncake": is_mooncake, "infcore_requests": is_requests}
    with opened(path) as file:
        line, first = next(numbered_lines(file, path), (1, ""))
    found = next((name for name in FORMATS if fits[name](first)), None)
    if found is None or (format is not None and found != format):
        raise InvalidArgument(
            f"{path}:{line}: the first line must be that of {format or ', '.join(FORMATS)}, got {shown(first)}"
        )
    if policy is not None and found != "infcore_requests":
        raise InvalidArgument(f"policy must be None for a trace of format {found}, got {shown(policy)}")
    return Trace(path, found, policy)


_Columns = dict[str, NDArray[Any]]
_DTYPES = {
    "line": np.int64, "time_s": np.float64, "work": np.float64, "output_work": np.float64,
    "model": np.int32, "tier": np.int32, "deadline_s": np.float64, "session": np.uint64, "names": object,
}  # fmt: skip


def _columns(rows: list[Arrival]) -> _Columns:
    values = zip(*rows, strict=True)
    # fromiter: tuples of one length are objects, too, not rows of a table.
    return {
        name: np.fromiter(column, dtype, len(rows))
        for (name, dtype), column in zip(_DTYPES.items(), values, strict=True)
    }


def _sorted(held: _Columns, added: _Columns) -> _Columns:
    """Both together, in order of time, rows of one time in the file's order."""
    both = {name: np.concatenate([held[name], added[name]]) for name in held} if held else added
    order = np.argsort(both["time_s"], kind="stable")
    return {name: column[order] for name, column in both.items()}


def _in_order(rows: Iterator[Arrival], where: str) -> Iterator[TraceChunk]:
    """Chunks in order of time: rows within WINDOW_ROWS of their place are sorted, others refused."""
    held: _Columns = {}
    start_s: float | None = None
    last_s = -np.inf
    while True:
        new = list(islice(rows, CHUNK_ROWS))
        if new:
            held = _sorted(held, _columns(new))
            if len(held["line"]) <= WINDOW_ROWS:
                continue
        if not held or not len(held["line"]):
            return
        ready = {name: column[:CHUNK_ROWS] for name, column in held.items()}
        held = {name: column[CHUNK_ROWS:] for name, column in held.items()}
        time_s, line = ready.pop("time_s"), ready.pop("line")
        if time_s[0] < last_s:
            raise InvalidArgument(
                f"{where}:{line[0]}: the time must be in order within {WINDOW_ROWS} rows, got one "
                f"{last_s - time_s[0]:g} s before an earlier row's"
            )
        last_s = float(time_s[-1])
        start_s = float(time_s[0]) if start_s is None else start_s
        yield TraceChunk(at_s=time_s - start_s, **ready)
