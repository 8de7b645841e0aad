"""Cases of pack and unpack: every dtype moved and cast, every layout, rows in a region or by themselves, misaligned."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from checking import Case, Output, Place, drawn, known_dtypes, lengths_drawn
from numpy.typing import NDArray

from infcore.kernels import dtypes, staging
from infcore.kernels.pack import launch, reference

LAYOUTS = (("packed", "right"), ("padded", "right"), ("padded", "left"))
# One step: by elements, too narrow for 128 bits, and wide in every dtype.
TRAILINGS = ((), (3,), (5, 1), (16,), (4, 8), (96,), (0,))


class _How(NamedTuple):
    """One call's arguments, and where things lie."""

    lengths: list[int]
    shape: str
    trailing: tuple[int, ...]
    src: str
    dst: str
    layout: str
    side: str
    pad_value: float
    staged: bool
    rows_off: int  # items that separate rows begin past a multiple of 16 bytes
    out_off: int  # the same of out

    def __str__(self) -> str:
        lie = "in a region" if self.staged else f"by themselves, {self.rows_off} items off"
        side = f" on the {self.side}, pad_value {self.pad_value}" if self.layout == "padded" else ""
        return (
            f"{self.layout}{side}: {self.src} to {self.dst}, {self.shape} of {self.lengths[:8]} x {self.trailing} {lie}"
            f", out {self.out_off} items off"
        )


def _hows(rng: np.random.Generator, *, smoke: bool) -> Iterator[_How]:
    """Each shape in each layout; then each pair of dtypes; all else is drawn."""
    names = known_dtypes()
    shapes = list(lengths_drawn(rng, smoke=smoke))

    def how(shape: tuple[str, list[int]], layout: tuple[str, str], src: str, dst: str) -> _How:
        staged = bool(rng.integers(2))
        return _How(
            lengths=shape[1],
            shape=shape[0],
            trailing=TRAILINGS[rng.integers(len(TRAILINGS))] if sum(shape[1]) < 20_000 else (),
            src=src,
            dst=dst,
            layout=layout[0],
            side=layout[1],
            pad_value=float(rng.integers(0, 100)),
            staged=staged,
            rows_off=0 if staged else int(rng.integers(4)),
            out_off=int(rng.choice([0, 0, 1, 3])),
        )

    for k, shape in enumerate(shapes):
        for layout in [LAYOUTS[k % 3]] if smoke else LAYOUTS:
            name = names[rng.integers(len(names))]
            yield how(shape, layout, name, name)
    pairs = [(src, dst) for src in names for dst in names]
    for k, at in enumerate(rng.permutation(len(pairs))[: 6 if smoke else None]):
        yield how(shapes[rng.integers(len(shapes))], LAYOUTS[k % 3], *pairs[at])


def _memory(place: Place, rows: list[NDArray[Any]], staged: bool, rows_off: int) -> tuple[Any, Any]:
    """The first two arguments of pack."""
    if not staged:
        return None, [place.array(row, rows_off * row.dtype.itemsize) for row in rows]
    at = 32  # something else may lie before the tables
    step_bytes = math.prod(rows[0].shape[1:]) * rows[0].dtype.itemsize
    region = np.full(at + staging.staged_bytes([len(row) for row in rows], step_bytes), 0xEE, np.uint8)
    placed = staging.stage(rows, region, at)
    return place.array(region), placed


def _packed(place: Place, rows: list[NDArray[Any]], how: _How, expected: reference.Packed) -> list[Output]:
    memory, given = _memory(place, rows, how.staged, how.rows_off)
    out = place.poisoned(expected.data.shape, how.dst, how.out_off * dtypes.ITEM_BYTES[how.dst])
    got = launch.pack(
        memory,
        given,
        layout=how.layout,
        side=how.side,
        dtype=how.dst,
        pad_value=how.pad_value,
        backend=place.backend,
        out=out,
    )
    outputs = [
        Output("data", place.numpy(got.data, how.dst), expected.data, ulps=int(how.src != how.dst)),
        Output("cu_seqlens", place.numpy(got.cu_seqlens, "int32"), expected.cu_seqlens),
        Output("max_seqlen", np.array(got.max_seqlen), np.array(expected.max_seqlen)),
    ]
    if expected.mask is not None:
        outputs.append(Output("mask", place.numpy(got.mask, "bool"), expected.mask))
    if expected.position_ids is not None:
        outputs.append(Output("position_ids", place.numpy(got.position_ids, "int32"), expected.position_ids))
    return outputs


def pack_cases(rng: np.random.Generator, *, smoke: bool) -> Iterator[Case]:
    """Rows to packed and padded."""
    for how in _hows(rng, smoke=smoke):
        rows = [drawn(rng, (length, *how.trailing), how.src, how.dst) for length in how.lengths]
        with np.errstate(all="ignore"):
            expected = reference.pack(rows, layout=how.layout, side=how.side, dtype=how.dst, pad_value=how.pad_value)
        yield Case("pack", str(how), lambda place, a=rows, b=how, c=expected: _packed(place, a, b, c))


def _unpacked(place: Place, data: NDArray[Any], how: _How, expected: list[NDArray[Any]]) -> list[Output]:
    whole = np.concatenate(expected)
    out = place.poisoned(whole.shape, how.dst, how.out_off * dtypes.ITEM_BYTES[how.dst])
    got = launch.unpack(
        place.array(data, how.rows_off * data.dtype.itemsize),
        how.lengths,
        layout=how.layout,
        side=how.side,
        dtype=how.dst,
        backend=place.backend,
        out=out,
    )
    rows = [place.numpy(row, how.dst) for row in got.rows]
    return [
        Output("data", place.numpy(got.data, how.dst), whole, ulps=int(how.src != how.dst)),
        Output("rows", np.concatenate(rows), whole, ulps=int(how.src != how.dst)),
        Output("lengths of rows", np.array([len(row) for row in rows]), np.array(how.lengths)),
    ]


def unpack_cases(rng: np.random.Generator, *, smoke: bool) -> Iterator[Case]:
    """Packed and padded back to rows."""
    for how in _hows(rng, smoke=smoke):
        longest = max(how.lengths) + int(rng.integers(3))  # a padded batch may be longer than its longest row
        lead = (sum(how.lengths),) if how.layout == "packed" else (len(how.lengths), longest)
        data = drawn(rng, (*lead, *how.trailing), how.src, how.dst)
        with np.errstate(all="ignore"):
            expected = reference.unpack(data, how.lengths, layout=how.layout, side=how.side, dtype=how.dst)
        yield Case("unpack", str(how), lambda place, a=data, b=how, c=expected: _unpacked(place, a, b, c))
