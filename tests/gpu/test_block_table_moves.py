"""How many bytes block_table moves: at most 1.05 of what there is to move, at decode steps as in prefills."""

from typing import NamedTuple

import numpy as np
import pytest
from gpu import block_rig

FLOOR_FACTOR_MAX = 1.05
BLOCK_SIZE = 16


class Requests(NamedTuple):
    """Blocks and new tokens of a request, from and to."""

    blocks: tuple[int, int]
    new_tokens: tuple[int, int]


SHAPES = {
    "decode": Requests((16, 512), (1, 1)),
    # The new tokens are a request's last, and so begin anywhere in a block: a warp's 32 are of two or three.
    "prefill": Requests((256, 512), (256, 4096)),
}
# A program of the interpreter takes milliseconds: fewer requests.
BACKENDS = {"triton": (block_rig.by_triton, 6), "cuda": (block_rig.by_cuda, 64)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_bytes_are_moved_once(backend, shape):
    make, n = BACKENDS[backend]
    random = np.random.default_rng(5)
    n_blocks = random.integers(*SHAPES[shape].blocks, n, endpoint=True)
    new = random.integers(*SHAPES[shape].new_tokens, n, endpoint=True).clip(max=n_blocks * BLOCK_SIZE)
    blocks = [random.integers(0, 1 << 20, count).astype(np.int32) for count in n_blocks]
    options = {"computed": n_blocks * BLOCK_SIZE - new, "query_lens": new, "block_size": BLOCK_SIZE}
    made, moved = make(blocks, options)
    in_bytes = 4 * int(n_blocks.sum()) + 12 * n + 2 * 4 * (n + 1)  # ids; offsets and computed; cu_blocks and starts
    out_bytes = sum(array.nbytes for array in made)
    assert (moved.written_bytes, moved.overwritten_bytes) == (out_bytes, 0)
    assert in_bytes <= moved.read_bytes <= FLOOR_FACTOR_MAX * (in_bytes + out_bytes) - out_bytes
