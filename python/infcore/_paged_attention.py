"""Attention over keys and values that lie in blocks, in PyTorch's own operations: on the CPU and on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from infcore.token_device import TokenBatch

__all__ = ["PagedCache", "PagedStep"]


class PagedCache:
    """Keys and values of one module's sequences, block by block, on its device; host blocks for what is swapped out.

    shape  layers, key-value heads, head dimension
    """

    def __init__(
        self, torch: Any, shape: tuple[int, int, int], blocks: tuple[int, int, int], where: Any, dtype: Any
    ) -> None:
        n_layers, n_heads, dim = shape
        n_blocks, block_size, n_host_blocks = blocks
        self.torch = torch
        self.where = where
        self.block_size = block_size
        # Zeros, not whatever memory held: what a mask hides is multiplied by 0, and 0 * NaN would show.
        self.held = torch.zeros((n_layers, 2, n_blocks, block_size, n_heads, dim), dtype=dtype, device=where)
        self.host = torch.empty(
            (n_layers, 2, n_host_blocks, block_size, n_heads, dim), dtype=dtype, pin_memory=where.type == "cuda"
        )

    def move(self, step: TokenBatch) -> None:
        """What the step swaps and copies, in its order."""
        if len(step.swap_outs):
            device, host = self._pairs(step.swap_outs)
            self.host[:, :, host] = self.held[:, :, device.to(self.where)].cpu()
        if len(step.copies):
            source, to = self._pairs(step.copies)
            self.held[:, :, to.to(self.where)] = self.held[:, :, source.to(self.where)]
        if len(step.swap_ins):
            host, device = self._pairs(step.swap_ins)
            self.held[:, :, device.to(self.where)] = self.host[:, :, host].to(self.where)

    def _pairs(self, moves: Any) -> Any:
        return self.torch.from_numpy(moves.astype(np.int64)).unbind(1)


class PagedStep:
    """One step's attention: `attend(layer, q, k, v)` for (T, heads, dim) of its tokens, in their order.

    Each token's key and value go to its slot first; then it attends to all positions of its sequence up to its own.
    Rows of one token are done together, longer ones one by one.
    """

    def __init__(self, cache: PagedCache, step: TokenBatch) -> None:
        torch = cache.torch
        self._torch, self._cache = torch, cache
        bounds, lengths = step.cu_seqlens, step.context_lens
        self._slots = torch.from_numpy(step.slot_mapping).to(cache.where)
        singles = np.flatnonzero(np.diff(bounds) == 1)
        self._single_at = torch.from_numpy(bounds[singles].astype(np.int64)).to(cache.where)
        self._single_slots, self._single_mask = None, None
        if len(singles):
            places = self._slots_of(step.block_tables[singles], int(lengths[singles].max()))
            self._single_slots = torch.from_numpy(places).to(cache.where)
            seen = np.arange(places.shape[1]) < lengths[singles, None]
            self._single_mask = torch.from_numpy(seen).to(cache.where)[:, None, None, :]
        self._longer = []
        for r in np.flatnonzero(np.diff(bounds) > 1):
            begin, end, length = int(bounds[r]), int(bounds[r + 1]), int(lengths[r])
            slots = torch.from_numpy(self._slots_of(step.block_tables[r : r + 1], length)[0]).to(cache.where)
            seen = np.arange(length) <= step.positions[begin:end, None]
            self._longer.append((begin, end, slots, torch.from_numpy(seen).to(cache.where)))

    def attend(self, layer: int, q: Any, k: Any, v: Any) -> Any:
        """What each token gathers, shaped as q."""
        keys, values = self._cache.held[layer].flatten(1, 2)
        keys.index_copy_(0, self._slots, k)
        values.index_copy_(0, self._slots, v)
        gathered = self._torch.empty_like(q)
        if self._single_slots is not None:
            of, at = self._single_slots, self._single_at
            gathered[at] = self._scaled(q[at].unsqueeze(2), keys[of], values[of], self._single_mask).squeeze(2)
        for begin, end, of, seen in self._longer:
            own = q[begin:end].transpose(0, 1).unsqueeze(0)
            rows = self._scaled(own, keys[of].unsqueeze(0), values[of].unsqueeze(0), seen)
            gathered[begin:end] = rows[0].transpose(0, 1)
        return gathered

    def _scaled(self, q: Any, keys: Any, values: Any, seen: Any) -> Any:
        """(n, heads, queries, dim) of keys and values (n, length, key-value heads, dim)."""
        attention = self._torch.nn.functional.scaled_dot_product_attention
        return attention(q, keys.transpose(1, 2), values.transpose(1, 2), attn_mask=seen, enable_gqa=True)

    def _slots_of(self, tables: Any, length: int) -> Any:
        """(n, length) int64: the slot of each position, by the block table."""
        size = self._cache.block_size
        positions = np.arange(length)
        return tables[:, positions // size].astype(np.int64) * size + positions % size
