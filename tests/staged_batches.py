"""Batches as an engine stages them, for devices that are called without one."""

import numpy as np

from infcore.device import DenseInput, StagedBatch
from infcore.kernels.staging import stage, staged_bytes


def staged(rows, works=None, *, name="x", **dense):
    """What an engine hands to run_staged: one ragged input, and dense ones.

    works  what the rows weigh; None: their lengths
    """
    lengths = [len(row) for row in rows]
    at = -(-staged_bytes(lengths, rows[0].itemsize) // 64) * 64
    memory = np.empty(at + sum(-(-held.nbytes // 64) * 64 for held in dense.values()), np.uint8)
    inputs = {name: stage(rows, memory)}
    for key, held in dense.items():
        memory[at : at + held.nbytes] = held.reshape(-1).view(np.uint8)
        inputs[key] = DenseInput(at, held.shape, held.dtype.name)
        at += -(-held.nbytes // 64) * 64
    return StagedBatch(memory, inputs, np.array(lengths if works is None else works, np.float64))
