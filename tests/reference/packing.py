"""Packing in plain NumPy: what a batch of ragged rows is, one row at a time."""

import numpy as np


def taken(rows, lengths=None, dtype=None):
    """The first lengths[i] steps of each row, as dtype. (A cast warns where a number does not fit.)"""
    if lengths is not None:
        rows = [row[:length] for row, length in zip(rows, lengths, strict=True)]
    with np.errstate(all="ignore"):
        return [row if dtype is None else row.astype(dtype) for row in rows]


def packed(rows):
    """Rows end to end, where each begins, and the place of each step in its row. A scalar is one step."""
    steps = [np.atleast_1d(row) for row in rows]
    cu_seqlens = np.concatenate([[0], np.cumsum([len(step) for step in steps])])
    position_ids = np.concatenate([np.arange(len(step)) for step in steps])
    return np.concatenate(steps), cu_seqlens.astype(np.int32), position_ids.astype(np.int32)


def padded(rows, pad_value, batch_axis, side="right"):
    """Every row in the corner of a block as large as the largest, the blocks stacked along batch_axis.

    side="left" moves it to the end of the first axis.
    """
    largest = np.max([row.shape for row in rows], axis=0).astype(int)
    blocks = []
    for row in rows:
        block = np.full(largest, pad_value, row.dtype)
        corner = [slice(length) for length in row.shape]
        if side == "left" and row.ndim:
            corner[0] = slice(largest[0] - len(row), None)
        block[tuple(corner)] = row
        blocks.append(block)
    return np.stack(blocks, axis=batch_axis)


def mask(lengths, side="right"):
    """(n, longest) bool: where a padded row holds its own data."""
    out = np.zeros((len(lengths), max(lengths)), bool)
    for i, length in enumerate(lengths):
        out[i, max(lengths) - length if side == "left" else 0 :][:length] = True
    return out
