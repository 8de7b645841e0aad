"""Packing in plain NumPy: what a batch of ragged rows is, one row at a time."""

import numpy as np


def packed(rows):
    """Rows end to end, and where each begins. A scalar is one step."""
    steps = [np.atleast_1d(row) for row in rows]
    cu_seqlens = np.concatenate([[0], np.cumsum([len(step) for step in steps])])
    return np.concatenate(steps), cu_seqlens.astype(np.int32)


def padded(rows, pad_value, batch_axis):
    """Every row in the corner of a block as large as the largest, the blocks stacked along batch_axis."""
    largest = np.max([row.shape for row in rows], axis=0).astype(int)
    blocks = []
    for row in rows:
        block = np.full(largest, pad_value, row.dtype)
        block[tuple(slice(length) for length in row.shape)] = row
        blocks.append(block)
    return np.stack(blocks, axis=batch_axis)
