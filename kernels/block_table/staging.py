"""Staged blocks: each request's KV cache blocks and new tokens in one region of host memory; and what is allowed.

The region holds, from byte `tokens_at` (a multiple of 16) on:

    computed         int32[n]       positions that request i has computed already: its first new token's position
    query_start_loc  int32[n + 1]   directly after them: new tokens of the requests before request i
    blocks           staged rows (../staging.py) of int32, from the next multiple of 16 on: request i's block ids
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..staging import ALIGNMENT, StagedRows, rounded_up
from ..staging import stage as stage_rows
from ..staging import staged_bytes as rows_bytes

INT32_MAX = 2**31 - 1


class StagedBlocks(NamedTuple):
    """The requests of a region. Plain data of the host."""

    tokens_at: int
    rows: StagedRows
    computed: NDArray[np.int32]
    query_lens: NDArray[np.int32]
    block_size: int

    @property
    def n_requests(self) -> int:
        """How many."""
        return len(self.computed)

    @property
    def query_start_at(self) -> int:
        """The byte where query_start_loc begins."""
        return self.tokens_at + 4 * self.n_requests

    @property
    def end(self) -> int:
        """The byte where the last request's last 16 end."""
        return self.rows.tables_at + self.rows.n_bytes

    @property
    def n_tokens(self) -> int:
        """New tokens of all requests."""
        return int(self.query_lens.sum(dtype=np.int64))


def staged_bytes(n_blocks: Iterable[int]) -> int:
    """Bytes that requests of so many blocks need from a multiple of 16 on; itself a multiple of 16."""
    lengths = np.fromiter(n_blocks, np.int64)
    return rounded_up(8 * len(lengths) + 4) + rows_bytes(lengths, 4)


def integer(argument: str, value: Any, at_least: int, at_most: int) -> int:
    """A whole number within bounds; bool does not count as one."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{argument} is {value!r}; allowed: an integer, {at_least} to {at_most}")
    number = int(value.__index__())
    if not at_least <= number <= at_most:
        raise ValueError(f"{argument} is {number}; allowed: an integer, {at_least} to {at_most}")
    return number


def _counts(argument: str, given: Any, n_requests: int) -> NDArray[np.int64]:
    counts = np.asarray(given)
    if counts.size and counts.dtype.kind not in "iu":
        raise TypeError(f"{argument} has dtype {counts.dtype}; allowed: integers")
    if counts.shape != (n_requests,):
        raise ValueError(f"{argument} has shape {counts.shape}; allowed: ({n_requests},), one for each of blocks")
    if counts.size and (counts.min() < 0 or counts.max() > INT32_MAX):
        i = np.flatnonzero((counts < 0) | (counts > INT32_MAX))[0]
        raise ValueError(f"{argument}[{i}] is {counts[i]}; allowed: 0 to {INT32_MAX}")
    return counts.astype(np.int64)


def checked_tokens(
    lengths: NDArray[np.int64], computed: Any, query_lens: Any, block_size: Any
) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    """(computed, query_lens, block_size) of requests that have so many blocks.

    Raises  TypeError, ValueError: not integers, negative, not one for each request; positions or sums that int32 does
            not hold; positions without a block.
    """
    size = integer("block_size", block_size, 1, INT32_MAX)
    first, new = _counts("computed", computed, len(lengths)), _counts("query_lens", query_lens, len(lengths))
    ends = first + new
    if ends.max(initial=0) > INT32_MAX:
        i = np.argmax(ends > INT32_MAX)
        raise ValueError(f"computed[{i}] + query_lens[{i}] is {first[i]} + {new[i]}; allowed: at most {INT32_MAX}")
    short = (new > 0) & (ends > lengths * size)
    if short.any():
        i = np.argmax(short)
        raise ValueError(
            f"blocks[{i}] has {lengths[i]} blocks of {size} tokens; allowed: at least {-(-ends[i] // size)}, "
            f"as computed[{i}] + query_lens[{i}] is {first[i]} + {new[i]}"
        )
    if int(new.sum()) > INT32_MAX:
        raise ValueError(
            f"query_lens sum to {int(new.sum())}; allowed: at most {INT32_MAX}, as query_start_loc is int32"
        )
    return first.astype(np.int32), new.astype(np.int32), size


def checked_blocks(blocks: Iterable[Any], n_blocks: int | None = None) -> list[NDArray[np.int32]]:
    """Each request's ids as int32.

    Raises  TypeError, ValueError: no requests; ids that are no list of int nor a C-contiguous int32 array; an id that
            is negative, beyond int32 or not below n_blocks.
    """
    if isinstance(blocks, str | bytes) or not isinstance(blocks, Iterable):
        raise TypeError(f"blocks is {type(blocks).__name__}; allowed: a sequence of lists of block ids")
    given = list(blocks)
    if not given:
        raise ValueError("blocks is empty; allowed: at least one request")
    ids_end = INT32_MAX + 1 if n_blocks is None else integer("n_blocks", n_blocks, 0, INT32_MAX + 1)
    checked = []
    for i, ids in enumerate(given):
        row = _row(i, ids)
        wrong = np.flatnonzero((row < 0) | (row >= ids_end))
        if wrong.size:
            raise ValueError(f"blocks[{i}][{wrong[0]}] is {row[wrong[0]]}; allowed: 0 to {ids_end - 1}")
        checked.append(row.astype(np.int32, copy=False))
    return checked


def _row(i: int, given: Any) -> NDArray[Any]:
    if isinstance(given, np.ndarray):
        if given.dtype != np.int32:
            raise TypeError(f"blocks[{i}] has dtype {given.dtype}; allowed: int32, or a list of int")
        if given.ndim != 1 or not given.flags.c_contiguous:
            raise ValueError(
                f"blocks[{i}] has shape {given.shape}, strides {given.strides}; allowed: one axis, C-contiguous"
            )
        return given
    try:
        row = np.asarray(given)
    except (ValueError, TypeError) as ragged:
        raise TypeError(f"blocks[{i}] is no list of ids: {ragged}") from None
    if row.shape == (0,):
        return np.empty(0, np.int32)
    if row.dtype.kind not in "iu" or row.ndim != 1:
        raise TypeError(f"blocks[{i}] has dtype {row.dtype}, shape {row.shape}; allowed: int32, or a list of int")
    return row


def checked_sizes(
    longest: int, n_tokens: int, max_blocks: int | None, n_slots: int | None, pad_block: int
) -> tuple[int, int, int]:
    """(max_blocks, n_slots, pad_block) of requests with at most `longest` blocks and n_tokens new tokens in all."""
    width = longest if max_blocks is None else integer("max_blocks", max_blocks, 0, INT32_MAX)
    if width < longest:
        raise ValueError(f"max_blocks is {width}; allowed: at least {longest}, the longest of blocks")
    slots = n_tokens if n_slots is None else integer("n_slots", n_slots, 0, INT32_MAX)
    if slots < n_tokens:
        raise ValueError(f"n_slots is {slots}; allowed: at least {n_tokens}, the sum of query_lens")
    return width, slots, integer("pad_block", pad_block, -(2**31), INT32_MAX)


def stage(
    blocks: Iterable[Any],
    memory: NDArray[np.uint8],
    at: int = 0,
    *,
    computed: Any,
    query_lens: Any,
    block_size: int,
    n_blocks: int | None = None,
) -> StagedBlocks:
    """Write each request's block ids and tokens into host memory, as above.

    blocks      lists of int or int32 arrays, each id from 0 and below n_blocks where that is given
    memory      (bytes,) uint8, C-contiguous, written from byte `at` on, a multiple of 16
    computed, query_lens   one of each a request: new token j of request i has position computed[i] + j
    Returns     where they are; it holds no reference to memory
    Raises      TypeError, ValueError: see checked_blocks and checked_tokens; memory too small or of another form
    """
    rows = checked_blocks(blocks, n_blocks)
    lengths = np.array([len(row) for row in rows], np.int64)
    first, new, size = checked_tokens(lengths, computed, query_lens, block_size)
    if memory.dtype != np.uint8 or memory.ndim != 1 or not memory.flags.c_contiguous:
        raise ValueError(f"memory is {memory.dtype} of shape {memory.shape}; allowed: uint8, (bytes,), C-contiguous")
    if at < 0 or at % ALIGNMENT:
        raise ValueError(f"at is {at}; allowed: a multiple of {ALIGNMENT}")
    if at + staged_bytes(lengths) > memory.size:
        raise ValueError(f"memory has {memory.size} bytes; allowed: at least {at + staged_bytes(lengths)}")
    starts = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(new, out=starts[1:])
    tokens = np.concatenate([first, starts]).view(np.uint8)
    memory[at : at + tokens.size] = tokens
    return StagedBlocks(at, stage_rows(rows, memory, at + rounded_up(tokens.size)), first, new, size)
